"""gurux-dlms' client reads our meter over HDLC on TCP.

The other way round is missing: its Python server answers SNRM with an information frame.
"""

from __future__ import annotations

import pytest
from tests.interop.peers import gurux_client
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
