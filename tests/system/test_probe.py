"""`probe` finds the limits of a virtual meter that has them, over a real socket."""

import json
import subprocess
import sys
from pathlib import Path

from ipss_headend import _core


def test_limits_of_a_virtual_meter_with_quirks_are_found_and_written_as_a_profile(tmp_path: Path) -> None:
    fleet = _core.VirtualFleet(
        count=1,
        first_address="127.61.5.1",
        port=0,
        authentication="none",
        protection="none",
        max_pdu=200,
        quirks=[("with_list_allowed", False)],
    )
    try:
        url = f"dlms+tcp://127.61.5.1:{fleet.port}"
        command = [sys.executable, "-m", "ipss_headend.cli", "probe", url, "--client", "1", "--json", "--timeout", "40"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    finally:
        fleet.stop()

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["max_pdu"] == 200
    assert found["with_list_limit"] == 1
    assert found["quirks"]["with_list_allowed"] is False
