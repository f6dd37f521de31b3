"""The contract kit: every hook of a plugin is asked with ordinary, empty, huge and odd input, in its own process.

A hook keeps its contract when it answers each with the type that it promises, within its limit, and the same input
twice with the same answer.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import trio

from ipss_headend.errors import PluginError
from ipss_headend.metrics import Figures
from ipss_headend.plugins.columns import Buffer
from ipss_headend.plugins.manager import Manager
from ipss_headend.plugins.process import PluginProcess
from ipss_headend.plugins.specs import HOOKS, Hook, MethodOffer

CASES = ("ordinary", "empty", "huge", "odd")
CALL = "rpc_call"
TURNS = 3
"""The quickest of so many counts: a busy machine is no fault of the plugin's."""
WAIT = 20.0
"""How many times its limit a hook may take before it is given up."""

_ORDINARY: dict[str, Any] = {
    "account": "a-1",
    "actor": "ada",
    "action": "disconnect",
    "targets": ["meter-1", "meter-2"],
    "command": {"id": "c1", "meter": "meter-1", "action": "disconnect"},
    "device_state": {"connected": True},
    "batch": {"actor": "ada", "action": "disconnect", "count": 2, "targets": ["meter-1", "meter-2"]},
    "feeder_view": [{"kind": "feeder", "name": "F-1", "targets": 2, "meters": 40}],
    "reason": "unpaid",
    "weather": {"temperature_c": 4},
    "calendar": {"holiday": True},
    "outcome": "verified",
    "readback": {"output": False},
    "device": "meter-1",
    "code": 7,
    "payload": b"\x01\x02",
    "classes": [],
    "incident": {"id": "i1", "meters": ["meter-1"]},
    "signals": [{"meter": "meter-1", "kind": "meter-gone", "at_us": 1}],
    "before": [10, 12, 11, 13],
    "missing": 4,
    "after": [12, 14],
    "like_days": [[11, 12, 13, 12], [10, 11, 12, 11]],
    "total": 48,
    "topic": "events",
    "sequence": 1,
    "rows": [{"topic": "events", "meter": "meter-1", "kind": "meter-gone", "at_us": 1}],
    "accounts": {"meter-1": {"feeder": "north"}},
    "run": "",
    "kept": {},
    "more": False,
}
_HOUR_US = 3_600_000_000
_ODD_TEXT = "\u202e'; DROP \x00 \U0001f4a1"


@dataclass(frozen=True, slots=True)
class Finding:
    """How one hook did with one case."""

    hook: str
    case: str
    duration_s: float
    limit_s: float
    fault: str | None

    @property
    def well(self) -> bool:
        """The contract was kept."""
        return self.fault is None


async def selftest(name: str, *, patience: float = 1.0, source: str | None = None) -> list[Finding]:
    """Ask the plugin's hooks. `source`: where its code is, if it is not what is installed; see `source.py`.

    Raises:
        PluginError: it cannot be loaded.
    """
    findings: list[Finding] = []
    sources = {} if source is None else {name: source}
    manager = Manager([name], Figures(), patience=WAIT * patience, sources=sources)
    async with trio.open_nursery() as nursery:
        await nursery.start(manager.run)
        (plugin,) = manager.plugins
        if plugin.hooks is None:
            nursery.cancel_scope.cancel()
        else:
            for hook in (HOOKS[one] for one in HOOKS if one in plugin.hooks):
                if hook.name == CALL:
                    findings += await _methods(manager, plugin, patience)
                    continue
                findings += [
                    await _case(manager, plugin, hook, case, patience, given(hook, case), hook.limit_s)
                    for case in CASES
                ]
            nursery.cancel_scope.cancel()
    if not findings:
        raise PluginError(f'plugin "{name}" cannot be loaded; {plugin.fault or "it does not say why"}')
    return findings


async def _methods(manager: Manager, plugin: PluginProcess, patience: float) -> list[Finding]:
    """The plugin's RPC methods, each with its own example: nobody else knows what they take."""
    hook, findings = HOOKS[CALL], []
    try:
        offers: list[MethodOffer] = await manager.ask_one(plugin, HOOKS["rpc_methods"], {})
    except PluginError as error:
        return [Finding(CALL, "rpc_methods", 0.0, hook.limit_s, str(error))]
    for offer in offers:
        if offer.example is None:
            findings.append(Finding(CALL, offer.name, 0.0, hook.limit_s, None))
            continue
        asked = {"method": offer.name, "params": offer.example, "actor": "ada"}
        limit_s = offer.limit_ms / 1000
        findings.append(await _case(manager, plugin, hook, offer.name, patience, asked, limit_s))
    return findings


def given(hook: Hook, case: str) -> dict[str, Any]:
    """The arguments of a case; none for a batch, which has columns."""
    return {} if hook.mode == "batch" else arguments(hook, case)


async def _case(
    manager: Manager,
    plugin: PluginProcess,
    hook: Hook,
    case: str,
    patience: float,
    asked: dict[str, Any],
    least_s: float,
) -> Finding:
    limit_s, quickest = least_s * patience, float("inf")
    answers: list[object] = []
    fault = None
    for _ in range(TURNS):
        began = trio.current_time()
        try:
            with trio.fail_after(60):
                while not (plugin.figures.up and plugin.restored):  # noqa: ASYNC110 - it may have been killed in the case before
                    await trio.sleep(0.05)
            began = trio.current_time()
            if hook.mode == "batch":
                columns, rows = batch(case)
                limit_s = hook.limit_s * patience * max(1.0, rows / 100_000)
                answers.append((await manager.ask_batch(plugin, hook, columns, rows)).tolist())
            else:
                answers.append(repr(await manager.ask_one(plugin, hook, asked)))
        except (PluginError, trio.TooSlowError) as error:
            fault = str(error)
        quickest = min(quickest, trio.current_time() - began)
        if fault is not None:
            break
    if fault is None and any(answer != answers[0] for answer in answers):
        fault = "the same input had different answers"
    if fault is None and quickest > limit_s:
        fault = f"took {quickest * 1000:.1f} ms, its limit is {limit_s * 1000:g} ms"
    return Finding(hook.name, case, quickest, limit_s, fault)


def arguments(hook: Hook, case: str) -> dict[str, Any]:
    """The arguments of a case, of the types that the hook promises."""
    hints = get_type_hints(hook.function)
    return {name: _value(name, str(hints[name]), case) for name in hook.arguments}


def _value(name: str, kind: str, case: str) -> Any:
    if name == "days":
        count = {"ordinary": 1, "empty": 0, "huge": 200, "odd": 3}[case]
        return [_day(f"meter-{place}", odd=case == "odd") for place in range(count)]
    if case == "ordinary":
        return {"name": "shop", "tariff": "day"} if kind == "dict[str, str]" else _ORDINARY[name]
    size = {"empty": 0, "huge": 2000, "odd": 3}[case]
    if kind == "<class 'bool'>":
        return False
    if name == "accounts":
        label = _ODD_TEXT if case == "odd" else "value"
        return {f"meter-{place}": {"feeder": label} for place in range(size)}
    if kind == "<class 'str'>":
        return {"empty": "", "huge": "x" * 20_000, "odd": _ODD_TEXT}[case]
    if kind == "<class 'int'>" or kind.startswith("int |"):
        return {"empty": 0, "huge": size if name == "missing" else 2**62, "odd": 3 if name == "missing" else -(2**62)}[
            case
        ]
    if kind == "<class 'bytes'>":
        return bytes(size) if case != "odd" else b"\xff\x00\xfe"
    if kind == "list[list[int]]":
        return [[place] * size for place in range(3 if size else 0)]
    if kind == "list[int]":
        return [(-1) ** place * 2**40 for place in range(size)] if case == "odd" else [5] * size
    if kind == "list[str]":
        return [_ODD_TEXT if case == "odd" else f"meter-{place}" for place in range(size)]
    if kind.startswith("dict"):
        return {f"key {place}": _ODD_TEXT if case == "odd" else "value" for place in range(size)}
    if name == "classes":
        return [{"name": f"class-{place}", "probability": 0.5, "severity": 1} for place in range(min(size, 14))]
    return [
        {"meter": _ODD_TEXT if case == "odd" else f"meter-{place}", "kind": "", "at_us": 0} for place in range(size)
    ]


def _day(account: str, *, odd: bool) -> dict[str, Any]:
    """Quarter hours of a day, as `billing_intervals` gets them."""
    values: list[int | None] = [-(2**62), None, 2**62, 0] if odd else [place % 7 for place in range(96)]
    one = {
        "source": "1.0.99.1.0.255", "item": "1.0.1.8.0.255", "scaler": -30 if odd else 0, "step_us": _HOUR_US // 4,
        "first_us": 0, "values": values, "flags": [2**31] * len(values),
    }  # fmt: skip
    hours = [[hour * _HOUR_US, hour] for hour in range(24)]
    return {
        "account": account, "day": "1970-01-01", "start_us": 0, "end_us": 24 * _HOUR_US, "hours": hours,
        "series": [] if odd and account.endswith("0") else [one, one],
    }  # fmt: skip


def batch(case: str) -> tuple[Mapping[str, Buffer], int]:
    """Columns of a case, with their number of intervals."""
    generator = random.Random(7)  # noqa: S311 - the same data every time
    lengths = {"ordinary": [96] * 10, "empty": [], "huge": [1000] * 100, "odd": [0, 1, 2, 96]}[case]
    rows, series = sum(lengths), len(lengths)
    extreme = case == "odd"
    first = array("q", [0])
    for length in lengths:
        first.append(first[-1] + length)
    numbers = [generator.randrange(-(2**40), 2**40) if extreme else generator.randrange(500) for _ in range(rows)]
    columns = {
        "series": array("q", range(series)),
        "first": first,
        "start_us": array("q", bytes(8 * series)),
        "step_us": array("q", [900_000_000] * series),
        "register_first": array("q", [-1] * series),
        "register_last": array("q", [-1] * series),
        "modulus": array("q", [10**6 if extreme else 0] * series),
        "parent": array("q", [-1] * series),
        "clock_s": array("q", [10**9 if extreme else 0] * series),
        "limit": array("q", bytes(8 * series)),
        "values": array("q", numbers),
        "known": array("B", [0 if extreme and place % 2 else 1 for place in range(rows)]),
    }
    return columns, rows
