"""gurux-dlms' and dlms-cosem's clients read our meter over HDLC on TCP.

The other way round is missing: its Python server answers SNRM with an information frame.
"""

from __future__ import annotations

import pytest
from tests.interop.peers import dlms_cosem, gurux_client
from tests.interop.test_peers_read_our_meter import OBJECTS, gurux_options, virtual_meter

from ipss_headend import _core


@pytest.mark.parametrize(("information", "window"), [(128, 1), (62, 1), (248, 1)])
@pytest.mark.parametrize("protection", ["none", "auth+enc"])
def test_gurux_client_reads_our_meter_over_hdlc(protection: str, information: int, window: int) -> None:
    auth = "low" if protection == "none" else "hls-gmac"
    link = _core.Link("hdlc")
    with virtual_meter(authentication=auth, protection=protection, link=link) as row:
        options = gurux_options(row, protection=protection)
        sizes = ("--hdlc", "--information", str(information), "--window", str(window))
        answer = gurux_client(int(row["port"]), OBJECTS, options=(*options, *sizes))

    assert answer.get("error") is None, answer
    assert [item["ok"] for item in answer["items"]] == [True] * len(OBJECTS)
    assert answer["released"]


def test_dlms_cosem_client_reads_our_meter_over_hdlc() -> None:
    # It takes octets one by one, and the time of each grows with the frame: short answers only, and no ciphering, since
    # it never returns from some frames with a flag's octet inside (`differences.md`).
    asked = ["1/0.0.42.0.0.255:2", "3/1.0.1.8.0.255:3", "70/0.0.96.3.10.255:2"]
    link = _core.Link("hdlc")
    with virtual_meter(authentication="low", protection="none", link=link) as row, dlms_cosem() as peer:
        answer = peer.ask(
            "read",
            hdlc=True,
            host=row["host"],
            port=int(row["port"]),
            mechanism="low",
            password=row["password"],
            max_pdu=400,
            objects=asked,
        )

    assert [item["ok"] for item in answer["items"]] == [True] * len(asked), answer
