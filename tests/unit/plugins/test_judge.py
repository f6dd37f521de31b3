"""What plugins are asked about commands, by where their meters stand; and the labels of accounts."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any, cast
from zoneinfo import ZoneInfo

import trio
from tests.unit.networks import network

from ipss_headend.errors import StoreUnavailable
from ipss_headend.network import EMPTY, Network
from ipss_headend.plugins import Refusal
from ipss_headend.plugins.accounts import Accounts
from ipss_headend.plugins.judge import Judge
from ipss_headend.store.registry import Meter

KNOWN = network()
METERS = {
    number: Meter(number, name, None, None, 1, None, None, "E450", "north" if number % 2 else "south", {})
    for number, name in enumerate(sorted(name for there in KNOWN.meters.values() for name in there), 1)
}
NAMES = [meter.name for meter in METERS.values()]


class Manager:
    """Has every hook, remembers what it was asked, and refuses what some hooks are asked."""

    def __init__(self, *refuses: str) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.changed = trio.Event()
        self._refuses = refuses

    def asked(self, hook: str) -> list[object]:
        return [SimpleNamespace()]

    async def veto(self, hook: str, **arguments: Any) -> list[Refusal]:
        self.said.append((hook, arguments))
        return [Refusal("too many")] if hook in self._refuses else []

    async def all(self, hook: str, **arguments: Any) -> list[tuple[str, dict[str, str]]]:
        self.said.append((hook, arguments))
        return [("a", {"class": "home"})]


def judge(manager: Manager, known: Network = KNOWN, **more: Any) -> Judge:
    return Judge(cast("Any", manager), zone=ZoneInfo("UTC"), meters=METERS, network=lambda: known, **more)


def test_order_that_cuts_many_is_told_by_feeder() -> None:
    manager = Manager("control_mass_guard")
    targets = [name for name in NAMES if name.startswith("S0F0T1")] + NAMES[-2:]

    why = trio.run(judge(manager).asked, "ada", "disconnect", targets)

    assert why == "refused by a rule: too many"
    assert [hook for hook, _ in manager.said] == ["control_authorize", "control_mass_guard"]
    asked = manager.said[1][1]
    assert asked["batch"] == {"actor": "ada", "action": "disconnect", "count": 12, "targets": targets}
    assert asked["feeder_view"] == [
        {"kind": "feeder", "name": "S0F0", "targets": 10, "meters": 40},
        {"kind": "feeder", "name": "S0F1", "targets": 2, "meters": 40},
    ]


def test_mass_guard_is_asked_of_nothing_else() -> None:
    manager = Manager("control_mass_guard")

    async def use() -> None:
        assert await judge(manager).asked("ada", "disconnect", NAMES[:1]) is None
        assert await judge(manager).asked("ada", "reconnect", NAMES) is None
        assert await judge(manager, EMPTY).asked("ada", "limit", NAMES[:3]) is not None

    trio.run(use)
    assert manager.said[-1][1]["feeder_view"] == [
        {"kind": "group", "name": "north", "targets": 2, "meters": 40},
        {"kind": "group", "name": "south", "targets": 1, "meters": 40},
    ]


def test_command_has_its_path() -> None:
    manager = Manager()

    async def use() -> None:
        await judge(manager).leaves({"point": "S0F1T2M9"}, {}, "unpaid", cuts=False)
        await judge(manager, EMPTY).leaves({"point": None}, {}, "unpaid", cuts=False)

    trio.run(use)
    known, unknown = (arguments["command"] for _, arguments in manager.said)
    assert (known["feeder"], known["path"]) == ("S0F1", KNOWN.path_of("S0F1T2M9"))
    assert (unknown["feeder"], unknown["path"]) == ("", [])


def test_feeder_of_an_account_is_the_networks_or_its_group() -> None:
    manager = Manager()
    now = [KNOWN]
    accounts = Accounts(cast("Any", manager), cast("Any", None), cast("Any", METERS), ZoneInfo("UTC"), lambda: now[0])
    meter = next(meter for meter in METERS.values() if meter.name == "S0F1T2M9")

    async def use() -> None:
        assert await accounts._labels_of(cast("Any", meter)) == {"feeder": "S0F1", "class": "home"}
        now[0] = EMPTY
        assert await accounts._labels_of(cast("Any", meter)) == {"feeder": meter.group, "class": "home"}

    trio.run(use)
    [known, unknown] = [arguments["account"] for _, arguments in manager.said]
    assert known == {
        "name": "S0F1T2M9", "group": meter.group, "model": "E450", "node": "S0F1T2/c", "transformer": "S0F1T2",
        "feeder": "S0F1",
    }  # fmt: skip
    assert (unknown["node"], unknown["transformer"], unknown["feeder"]) == ("", "", "")


def test_holidays_are_those_of_the_meters_region() -> None:
    rules = judge(
        Manager(),
        holidays=frozenset({"01-01"}),
        regional={"north": frozenset({"2025-12-30"}), "S0F1": frozenset({"12-31"})},
        wall_us=lambda: 1_767_139_200_000_000,  # 2025-12-31
    )

    def told(meter: str, group: str) -> tuple[bool, bool]:
        found = rules.calendar(meter, group)
        assert (found["date"], found["weekday"], found["minute"]) == ("2025-12-31", 3, 0)
        return found["holiday"], found["holiday_tomorrow"]

    assert told("S0F1T2M9", "north") == (True, True)
    assert told("S0F0T2M9", "north") == (False, True), "that of the group was yesterday"


def test_supply_is_not_cut_while_the_weather_cannot_be_read() -> None:
    class Down:
        async def read(self, _: object) -> object:
            raise StoreUnavailable("no answer within 5 s")

    manager = Manager()

    why = trio.run(partial(judge(manager, store=cast("Any", Down())).leaves, {"point": "a"}, {}, "unpaid", cuts=True))

    assert why == "the weather is not known: no answer within 5 s"
    assert [hook for hook, _ in manager.said] == ["control_before_command"]
