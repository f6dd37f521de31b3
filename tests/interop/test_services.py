"""Services beyond GET and ACTION one by one: short names, general block transfer, lists, writing, notifications."""

from __future__ import annotations

from tests.interop.head_end import name
from tests.interop.peers import gurux_client
from tests.interop.test_peers_read_our_meter import virtual_meter


def test_gurux_reads_our_meter_by_short_names() -> None:
    """The virtual meter's clock is its first object, from 0x0100 on; the association is at 0xFA00 in every meter."""
    objects = ["12/64000:1", "12/64000:2", "8/256:1", "8/256:2"]
    with virtual_meter(authentication="none", protection="none") as row:
        answer = gurux_client(
            int(row["port"]),
            objects,
            options=("--host", row["host"], "--auth", "none", "--protection", "none", "--short-names"),
        )

    assert answer.get("error") is None, answer
    items = {item["object"]: item for item in answer["items"]}
    assert items["12/64000:1"]["hex"].endswith("0000280000ff")
    listed = items["12/64000:2"]["value"]
    assert int(listed[0][0]) & 0xFFFF == 0x0100
    assert bytes.fromhex(items["8/256:1"]["hex"])[-6:] == name("0.0.1.0.0.255")
    assert len(bytes.fromhex(items["8/256:2"]["hex"])) >= 12
