"""Services beyond GET and ACTION one by one: short names, lists, writing."""

from __future__ import annotations

import datetime as dt

import pytest
from tests.interop.head_end import name
from tests.interop.peers import gurux_client
from tests.interop.test_peers_read_our_meter import OBJECTS, gurux_options, virtual_meter


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


@pytest.mark.parametrize(("suite", "max_pdu"), [(0, 1024), (2, 1024), (1, 200)])
def test_gurux_reads_a_list_of_our_meter(suite: int, max_pdu: int) -> None:
    """One by one and in one GET with list, which with small APDUs comes in blocks."""
    asked = OBJECTS[:5]
    with virtual_meter(suite=suite) as row:
        answer = gurux_client(
            int(row["port"]),
            [*asked, "list:" + ",".join(asked)],
            options=(*gurux_options(row), "--suite", str(suite), "--max-pdu", str(max_pdu)),
        )

    assert answer.get("error") is None, answer
    *single, together = answer["items"]
    assert together["value"] == [item["value"] for item in single]


def test_gurux_sets_our_meters_clock() -> None:
    moment = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).replace(microsecond=0)
    with virtual_meter(authentication="hls-sha256", suite=1) as row:
        answer = gurux_client(
            int(row["port"]),
            [f"clock:0.0.1.0.0.255={moment.isoformat()}", "8/0.0.1.0.0.255:2"],
            options=(*gurux_options(row), "--suite", "1"),
        )

    assert answer.get("error") is None, answer
    assert [item["ok"] for item in answer["items"]] == [True, True], answer
    octets = bytes.fromhex(answer["items"][1]["hex"])[-12:]
    deviation = int.from_bytes(octets[9:11], "big", signed=True)
    month, day, _, hour, minute, second = octets[2:8]
    local = dt.datetime(int.from_bytes(octets[:2], "big"), month, day, hour, minute, second, tzinfo=dt.UTC)
    assert abs(local + dt.timedelta(minutes=deviation) - moment) < dt.timedelta(seconds=20)
