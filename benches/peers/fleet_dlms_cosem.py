"""dlms-cosem's client in the fleet bench. Runs in `.venv-dlms-cosem`: one blocking connection after the other."""

from __future__ import annotations

import logging
import sys

import structlog
from benches.peers import asking
from dlms_cosem import cosem, enumerations, security, utils
from dlms_cosem.client import DlmsClient
from dlms_cosem.io import BlockingTcpIO, TcpTransport

structlog.configure(
    wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), cache_logger_on_first_use=True
)

REGISTER = cosem.CosemAttribute(enumerations.CosemInterface.REGISTER, cosem.Obis(1, 0, 1, 8, 0), 2)


def connect(number: int, port: int) -> DlmsClient:
    client = DlmsClient(
        transport=TcpTransport(1, 1, BlockingTcpIO(asking.address(number), port)),
        authentication=security.HighLevelSecurityGmacAuthentication(challenge_length=16),
        encryption_key=asking.key(asking.KEYS[0], number),
        authentication_key=asking.key(asking.KEYS[1], number),
        client_system_title=asking.CLIENT_TITLE,
        client_initial_invocation_counter=asking.counter(),
        max_pdu_size=8192,
    )
    client.connect()
    client.associate()
    return client


class Works:
    @staticmethod
    def ask(client: DlmsClient) -> int:
        value: int = utils.parse_as_dlms_data(client.get(REGISTER))
        return value

    @staticmethod
    def close(client: DlmsClient) -> None:
        client.release_association()
        client.disconnect()


def main() -> int:
    given = asking.options()
    return asking.run_blocking("dlms-cosem", given, lambda number: connect(number, given.port), Works)


if __name__ == "__main__":
    sys.exit(main())
