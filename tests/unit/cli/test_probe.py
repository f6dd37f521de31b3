"""A meter's limits are found out, and the profile that says so is one that the program takes."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from ipss_headend import _core
from ipss_headend.cli import probe
from ipss_headend.cli.conversation import Line, Reply
from ipss_headend.cli.probe import Found, Prober
from ipss_headend.errors import MeterTimeout
from ipss_headend.names import ObjectName

NAME = b"\x09\x04TST1"
COLUMNS = b"\x01\x01\x02\x04\x12\x00\x08\x09\x06\x00\x00\x01\x00\x00\xff\x0f\x02\x12\x00\x00"
SERVICES = ("multiple-references", "selective-access", "get", "general-block-transfer")


@dataclass
class Limited:
    """A meter with limits, as a conversation shows it."""

    services: Sequence[str] = SERVICES
    lists: int = 32
    """The longest list that is answered as one; behind that it is asked one by one."""
    selects: Callable[[str, dict[str, Any]], bool | None] = lambda select, quirks: True
    """Whether a selection is served; None: the line breaks."""
    quirks: dict[str, Any] = field(default_factory=dict)
    traced: list[tuple[int, str]] = field(default_factory=lambda: [(0, "")])
    core: Any = None

    def __post_init__(self) -> None:
        self.core = self
        self.Item = self

    def attributes(self, layout: int, attributes: list[Any]) -> Any:
        return ("attributes", attributes)

    def buffer(self, layout: int, name: bytes, columns: int, *, select: str, entries: Any) -> Any:
        return ("buffer", select)

    def decode_data(self, octets: bytes) -> Any:
        return _core.decode_data(octets)

    async def ask(self, items: Sequence[Any], *, from_us: int = 0, to_us: int = 0) -> Reply:
        kind, what = items[0]
        if kind == "buffer":
            served = self.selects(what, self.quirks)
            if served is None:
                raise MeterTimeout("m: no answer in time")
            return Reply((), {} if served else {0: 3}, 1)
        count = len(what)
        cell = COLUMNS if what[0][0] == 7 else NAME
        return Reply((Line(0, None, 0, 0, [cell] * count),), {}, 1 if count <= self.lists else count)

    @asynccontextmanager
    async def converse(self, target: Any, **options: Any) -> AsyncIterator["Limited"]:
        self.quirks = dict(options.get("quirks", ()))
        yield self


def probed(meter: Limited, monkeypatch: pytest.MonkeyPatch) -> Found:
    said = {"apdu": "aare", "user_information": {
        "apdu": "initiate-response", "max_receive_pdu_size": 180, "conformance": list(meter.services)
    }}  # fmt: skip
    monkeypatch.setattr(probe, "converse", meter.converse)
    monkeypatch.setattr(probe, "documents", lambda target, traced: [{"frames": [{"apdus": [said]}]}])
    target: Any = None
    return trio.run(Prober(target, ObjectName.parse("1.0.99.1.0.255"), 1.0).run)


@pytest.mark.parametrize(
    ("meter", "quirks"),
    [
        (Limited(), {}),
        (Limited(lists=8), {"with_list_limit": 8}),
        (Limited(lists=1), {"with_list_allowed": False}),
        (
            Limited(services=("get",)),
            {"with_list_allowed": False, "selective_access": "none", "general_block_transfer": False},
        ),
        (Limited(selects=lambda select, _: select == "range"), {"selective_access": "range"}),
        (Limited(selects=lambda select, _: select == "entries"), {"selective_access": "entry"}),
        (Limited(selects=lambda select, _: False), {"selective_access": "none"}),
        (
            Limited(selects=lambda _, quirks: quirks.get("deviation_in_ranges") != "set"),
            {"deviation_in_ranges": "unset"},
        ),
        (
            Limited(selects=lambda _, quirks: quirks.get("deviation_in_ranges") != "unset"),
            {"deviation_in_ranges": "set"},
        ),
    ],
)
def test_limits_are_found_and_make_a_profile(
    meter: Limited, quirks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = probed(meter, monkeypatch)

    assert found.quirks() == quirks
    assert found.max_pdu == 180
    assert found.notes == []
    _core.add_profile("probed", found.profile("dlms+tcp://meter", "2026-01-01"))
    assert _core.profile("probed")["quirks"] == quirks


def test_a_line_that_breaks_is_said_and_never_taken_for_a_limit_that_was_proven(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = probed(Limited(selects=lambda select, _: None if select == "entries" else True), monkeypatch)

    assert found.selective_access is None
    assert "selective_access" not in found.quirks()
    assert any("no answer in time" in note for note in found.notes)
    _core.add_profile("probed", found.profile('a "meter"\nof two lines', "2026-01-01"))
