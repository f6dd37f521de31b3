"""pysunspec2 as the asking side, a JSON document on standard output.

.venv-sunspec/bin/python -m tests.interop.sunspec_client read HOST:PORT
.venv-sunspec/bin/python -m tests.interop.sunspec_client points HOST:PORT
.venv-sunspec/bin/python -m tests.interop.sunspec_client limit HOST:PORT PERCENT SECONDS
.venv-sunspec/bin/python -m tests.interop.sunspec_client limit-too-high HOST:PORT
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP
from sunspec2.modbus.modbus import ModbusClientError
from tests.interop.sunspec_peer import decoded

MARGIN_S = 0.5


def opened(address: str) -> Any:
    host, _, port = address.partition(":")
    device = SunSpecModbusClientDeviceTCP(slave_id=1, ipaddr=host, ipport=int(port), timeout=5)
    device.scan()
    errors = [model.error_info for model in device.model_list if model.error_info]
    assert not errors, errors
    device.connect()
    return device


def read(address: str) -> dict[str, Any]:
    device = opened(address)
    return {str(model.model_id): model.get_dict() for model in device.model_list}


def points(address: str) -> list[dict[str, Any]]:
    """Each model as it is on the wire now, and what its points say."""
    device = opened(address)
    # A model's registers begin behind its number and its length.
    return [decoded(device.read(model.model_addr, model.model_len + 2)) for model in device.model_list]


def limit(address: str, percent: int, seconds: int) -> dict[str, Any]:
    device = opened(address)
    control = device.models[704][0]
    for name, value in (("WMaxLimPctRvrtTms", seconds), ("WMaxLimPct", percent * 10), ("WMaxLimPctEna", 1)):
        point = getattr(control, name)
        point.value = value
        point.write()
    control.read()
    measured = device.models[701][0]
    measured.read()
    said = {
        "enabled": control.WMaxLimPctEna.value,
        "limit": control.WMaxLimPct.value,
        "remaining": control.WMaxLimPctRvrtRem.value,
        "power": measured.W.value,
        "rating": device.models[120][0].WRtg.value,
    }
    # Nobody speaks to the device while its timer runs out.
    device.disconnect()
    time.sleep(seconds + MARGIN_S)
    device.connect()
    control.read()
    return {**said, "enabled_after": control.WMaxLimPctEna.value}


def limit_too_high(address: str) -> dict[str, Any]:
    point = opened(address).models[704][0].WMaxLimPct
    point.value = 1001
    try:
        point.write()
    except ModbusClientError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"error": ""}


def main(arguments: list[str]) -> int:
    said: Any
    match arguments:
        case ["read", address]:
            said = read(address)
        case ["points", address]:
            said = points(address)
        case ["limit", address, percent, seconds]:
            said = limit(address, int(percent), int(seconds))
        case _:
            said = limit_too_high(arguments[1])
    print(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
