"""Whether a peer can make sense of APDUs: run in its environment, hexadecimal lines in, a verdict a line out.

    .venv-gurux/bin/python -m tests.interop.decode_peer gurux

The verdict is `accepts`, the name of the exception that the peer raised, or `hangs`.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

# A frame of some hundred octets takes either peer a few milliseconds.
FRAME_TIMEOUT_S = 1.0
MEMORY = 2**30


class Hangs(BaseException):
    """No `except Exception` of a peer's catches it."""


def gurux() -> Callable[[bytes], Any]:
    from gurux_dlms import GXDLMSTranslator
    from gurux_dlms.enums import TranslatorOutputType

    translator = GXDLMSTranslator(TranslatorOutputType.SIMPLE_XML)
    return lambda octets: translator.pduToXml(bytearray(octets))


def dlms_cosem() -> Callable[[bytes], Any]:
    from dlms_cosem.connection import XDlmsApduFactory
    from dlms_cosem.utils import parse_as_dlms_data

    def decode(octets: bytes) -> None:
        apdu = XDlmsApduFactory.apdu_from_bytes(bytearray(octets))
        # It leaves the value of a response as it came: read it as well.
        data = getattr(apdu, "data", None)
        if type(apdu).__name__ == "GetResponseNormal" and data:
            parse_as_dlms_data(data)

    return decode


def out_of_time(*_: object) -> None:
    raise Hangs


def verdict(decode: Callable[[bytes], Any], octets: bytes) -> str:
    signal.setitimer(signal.ITIMER_REAL, FRAME_TIMEOUT_S)
    try:
        decode(octets)
    except Hangs:
        return "hangs"
    except Exception as error:  # noqa: BLE001 - whatever it raises is its verdict
        return type(error).__name__
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "accepts"


def main() -> int:
    output = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, out_of_time)
    decode = {"gurux": gurux, "dlms-cosem": dlms_cosem}[sys.argv[1]]()
    for line in sys.stdin:
        output.write(verdict(decode, bytes.fromhex(line)) + "\n")
        output.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
