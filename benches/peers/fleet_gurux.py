"""gurux-dlms' client in the fleet bench. Runs in `.venv-gurux`: one blocking connection after the other."""

from __future__ import annotations

import argparse
import sys

from benches.peers import asking
from gurux_dlms.objects import GXDLMSRegister
from tests.interop.gurux_client import Line, arguments, associate, make_client

REGISTER = GXDLMSRegister("1.0.1.8.0.255")
DEFAULTS = vars(arguments().parse_args(["--port", "0"]))
"""Taken once: what a connection costs is measured."""


def connect(number: int, port: int) -> Line:
    client = make_client(
        argparse.Namespace(
            **DEFAULTS
            | {
                "client_title": asking.CLIENT_TITLE.hex(),
                "encryption_key": asking.key(asking.KEYS[0], number).hex(),
                "authentication_key": asking.key(asking.KEYS[1], number).hex(),
                "invocation_counter": asking.counter(),
                "max_pdu": 8192,
            }
        )
    )
    line = Line(client, asking.address(number), port, 10)
    associate(line)
    return line


class Works:
    @staticmethod
    def ask(line: Line) -> int:
        value: int = line.ask(line.client.read(REGISTER, 2)).value
        return value

    @staticmethod
    def close(line: Line) -> None:
        line.ask(line.client.releaseRequest())
        line.socket.close()


def main() -> int:
    given = asking.options()
    return asking.run_blocking("gurux-dlms", given, lambda number: connect(number, given.port), Works)


if __name__ == "__main__":
    sys.exit(main())
