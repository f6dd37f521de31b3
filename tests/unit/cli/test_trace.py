import json
from collections.abc import Iterator
from typing import Any

from ipss_headend.cli.targets import Target
from ipss_headend.cli.trace import documents, joined
from ipss_headend.security.keystore import MeterKeys


def target(auth: str, password: bytes) -> Target:
    return Target(
        name="m",
        host="h",
        port=4059,
        client=2,
        server=1,
        auth=auth,
        suite=0,
        protection="none",
        dedicated=False,
        client_title=b"",
        server_title=b"",
        keys=MeterKeys(password=password),
        reserve=lambda: (1, 2),
        peer_counter=None,
        keep_peer_counter=lambda _: None,
    )


def test_octets_that_tcp_cut_are_one_transmission() -> None:
    found = joined([(1, "00"), (0, "01"), (0, "02"), (1, "03"), (1, "04")])

    assert [(one.sender, one.octets) for one in found] == [
        ("head-end", "00"),
        ("meter", "0102"),
        ("head-end", "0304"),
    ]


def test_password_is_in_no_trace(native: Any) -> None:
    asked: list[dict[str, Any]] = []

    def decode(request: str) -> Iterator[str]:
        asked.append(json.loads(request))
        yield json.dumps({"id": None, "outcome": "decoded"})

    native.set("decode", decode)

    [part] = documents(target("low", b"secret99"), [(1, (b"\x00" + b"secret99" + b"\x01").hex())])

    assert bytes.fromhex(part["hex"]) == b"\x00********\x01"
    assert b"secret99".hex() not in json.dumps([part, asked])
