"""The hooks: what each is asked, in which mode, within which time, and what its failure means.

This table is data: the manager obeys it, the host registers it with pluggy, and docs/plugins.md shows it (a test
compares them). A hook's function below gives its arguments and its documentation; an implementation may take fewer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_type_hints

import msgspec
import pluggy

PROJECT = "ipss_headend"
GROUP = "ipss_headend.plugins"
"""The entry points that name plugins."""

Mode = Literal["all", "first", "veto", "pipe", "batch"]

MODES: dict[Mode, str] = {
    "all": "every plugin is asked, and every answer is kept",
    "first": "the first answer that is not None",
    "veto": "any refusal refuses; every reason is kept",
    "pipe": "each plugin gets what the one before it gave, as the first argument",
    "batch": "columns in shared memory; every plugin's flags are added",
}

hook = pluggy.HookimplMarker(PROJECT)
"""Marks a plugin's implementation of a hook; takes `tryfirst` and `trylast`."""

_spec = pluggy.HookspecMarker(PROJECT)

F = TypeVar("F", bound=Callable[..., Any])


class Refusal(msgspec.Struct, frozen=True):
    """Why something may not be done."""

    reason: str
    code: str = ""


class Estimate(msgspec.Struct, frozen=True):
    """Values for a gap, one an interval, as integers of the series' own unit."""

    values: list[int]
    method: str


class Classified(msgspec.Struct, frozen=True):
    """What a maker's own event code means."""

    name: str
    severity: int
    """0 for information to 4 for danger."""


class IncidentClass(msgspec.Struct, frozen=True):
    """What an incident is, and how sure that is."""

    name: str
    probability: float
    severity: int = 0
    """0 for information to 4 for danger."""
    evidence: list[str] = []


class MethodOffer(msgspec.Struct, frozen=True):
    """An RPC method that a plugin offers, as `x.PLUGIN.NAME`; the hook `rpc_call` answers it.

    Fields are `text`, `integer`, `boolean`, `list`, `map`, `meter` or `meters`, with `?` behind it if they may be left
    out. The caller's right is checked for each meter that params name; where none does, for all meters.
    """

    name: str
    right: str
    """What the caller needs: `view`, `read`, `propose`, ...: see docs/rpc.md."""
    summary: str
    """A sentence."""
    params: dict[str, str] = {}
    result: dict[str, str] = {}
    """What is not declared here is left out of the answer."""
    changes: bool = False
    """It takes an idempotency key: a repeat is not asked again."""
    limit_ms: int = 1000
    """An answer that takes longer is not heard; at most 30000."""
    example: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Hook:
    """One hook."""

    name: str
    mode: Mode
    limit_s: float
    """The answer comes within this time, or the hook has failed."""
    closed: bool
    """Failure refuses the action; otherwise it goes on without the plugin."""
    when: str
    function: Callable[..., Any]

    @property
    def arguments(self) -> tuple[str, ...]:
        """What it is asked with, behind `ctx`."""
        return tuple(inspect.signature(self.function).parameters)[1:]

    @property
    def result(self) -> Any:
        """The type of an answer."""
        return get_type_hints(self.function)["return"]

    @property
    def summary(self) -> str:
        """What it is, in one line."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]


HOOKS: dict[str, Hook] = {}
"""Every hook by its name."""


def _hook(mode: Mode, limit_s: float, *, closed: bool, when: str) -> Callable[[F], F]:
    def register(function: F) -> F:
        HOOKS[function.__name__] = Hook(function.__name__, mode, limit_s, closed, when, function)
        _spec(function)
        return function

    return register


@_hook("batch", 0.05, closed=False, when="readings of load profiles were stored, from the plugin's own cursor")
def billing_validate_batch(ctx: Any, batch: Any) -> None:
    """Add flags to intervals: write into `batch.flags`, one 32-bit word an interval.

    Columns of 64-bit integers, a row a series: `series` (its number), `first` (its first interval; one row more tells
    the end), `start_us`, `step_us`, `register_first` and `register_last` (-1: not read), `modulus` (of the register;
    0: unknown), `parent` (row of the series that it is a part of; -1: none), `clock_s` (how far the meter's clock is
    off), `limit` (the most that an interval can be; 0: unknown). A row an interval: `values` (64-bit counts), `known`
    (octets; 0: no value came).
    """


@_hook("first", 0.1, closed=False, when="intervals are missing for longer than `[plugins] estimate_after`")
def billing_estimate(
    ctx: Any, before: list[int], missing: int, after: list[int], like_days: list[list[int]], total: int | None
) -> Estimate | None:
    """Values for `missing` intervals between those before and after; `like_days` are the same intervals of like days.

    `total` is what the register says that they sum to, where it says it.
    """


@_hook("all", 0.005, closed=False, when="the sales stream starts, and when an account changes")
def billing_sales_dimension(ctx: Any, account: dict[str, str]) -> dict[str, str]:
    """Labels of an account beside tariff and feeder; few values a label.

    `account` has `name`, `group` and `model` of its meter, and `node`, `transformer` and `feeder` of the network, empty
    where they are not known. `tariff` and `feeder` may be said, too, and go before what is usual: the network's feeder,
    or else the group. Where two plugins say the same label, the first one's stands.
    """
    return {}


@_hook(
    "all", 10.0, closed=False, when="intervals were read, flagged, estimated or edited, from the plugin's own cursor"
)
def billing_intervals(
    ctx: Any, accounts: dict[str, dict[str, str]], days: list[dict[str, Any]], run: str
) -> dict[str, Any]:
    """Take intervals of accounts' days in the place of those that were given of these days before.

    `accounts`: labels of the accounts, of these days or changed: `feeder` and what `billing_sales_dimension` said. A
    day has `account`, `day`, `start_us`, `end_us`, `hours` (start and hour of the clock of each), `series` of active
    energy import: `source`, `item`, `scaler` (of Wh), `step_us`, `first_us` (start of the first interval), `values`
    (None: not known; edited before read before estimated, roll-overs corrected), `flags`. `run` is empty; with
    `compare` nothing is to be kept, and the answer's `differs` names what is not as it was given.
    """
    return {}


@_hook(
    "veto",
    0.005,
    closed=True,
    when="a command, set point or parameter is asked for, and again before an order's release",
)
def control_authorize(ctx: Any, actor: str, action: str, targets: list[str]) -> Refusal | None:
    """Say whether this may be asked for.

    `action`: the kind of an order, such as `disconnect`, or `set-point`, or `parameters`. `targets` are meters, 1000 at
    most: an order with more is asked about in parts.
    """


@_hook(
    "veto",
    0.1,
    closed=True,
    when="an order that may cut several supplies is asked for, and again before its release",
)
def control_mass_guard(ctx: Any, batch: dict[str, Any], feeder_view: list[dict[str, Any]]) -> Refusal | None:
    """Say whether so many supplies may be cut at once, by what they are of each feeder.

    `batch` has `actor`, `action`, `count` and `targets`, the first 1000 meters. `feeder_view` has for each feeder that
    is hit, or group of meters where no network is known, `kind`, `name`, `targets` (how many of the order) and `meters`
    (how many are there).
    """


@_hook("veto", 0.02, closed=True, when="a command is armed and not yet sent")
def control_before_command(
    ctx: Any, command: dict[str, Any], device_state: dict[str, Any], reason: str
) -> Refusal | None:
    """Say whether this command may leave now.

    `command` has `id`, `order`, `point`, `group`, `kind`, `requester`, `feeder` and `path`, the nodes of the network
    from the meter's up; `device_state` what the meter said just now of
    its supply, `output`, `control_state` and `control_mode`, and nothing where it said nothing or is not switched.
    """


@_hook("veto", 0.02, closed=True, when="supply would be cut")
def control_disconnect_veto(
    ctx: Any, account: str, reason: str, weather: dict[str, Any], calendar: dict[str, Any]
) -> Refusal | None:
    """Say whether this supply may be cut now.

    `account` is the meter's name. `calendar` has `date`, `weekday` (Monday: 1), `minute` of the day in the head-end's
    time zone, `holiday` and `holiday_tomorrow`, by `[plugins] holidays` and `regional_holidays`. `weather` is what
    `weather.put` said of the nearest area of the last three hours: `temperature_c`, `wind_m_s`, `warning`, ..., with
    `at_us`, `area` and `area_kind`; `forecast` is a list of the same with their `at_us`. Empty: nothing is known.
    """


@_hook("all", 1.0, closed=False, when="a command was verified, failed, or is unknown")
def control_after_command(ctx: Any, command: dict[str, Any], outcome: str, readback: dict[str, Any]) -> None:
    """Take note of a command's end; comes again after a crash, with the same key.

    `outcome`: `verified`, `failed` or `unknown`; an unknown one is told again when it is found out. `command` is that
    of `control_before_command`, with `reason`; `readback` has `expected`, `as_expected`, `detail`, `at_ms`.
    """


@_hook("first", 0.002, closed=False, when="a meter reports a code of its maker's own")
def control_event_decode(ctx: Any, device: str, code: int, payload: bytes) -> Classified | None:
    """What a maker's event or alarm code means.

    Asked for the codes of event logs, `payload` being the line's cells as msgpack, and for notifications that nothing
    explains, `payload` being the APDU and `code` its length.
    """


@_hook("pipe", 0.02, closed=False, when="events are grouped into an incident")
def dispatch_classify(
    ctx: Any, classes: list[IncidentClass], incident: dict[str, Any], signals: list[dict[str, Any]]
) -> list[IncidentClass]:
    """What an incident is; gets the classes that earlier plugins found.

    `incident` has `id`, `opened_us`, `area`, `area_kind`, `parents` (what each meter hangs below: its transformer, or
    its group where no network is known), `sizes` (how many hang there), `dropped` (signals that are not kept). In a
    network also, of each of these transformers, `above` (it and what feeds it) and `feeders`; `fed`, how many of them
    each node feeds; `lines`, what each meter shares with others on its way here, and `line_sizes`. A signal has
    `meter`, `kind`, `at_us`, `detail` and `path`, the nodes from the meter's up. `silences` of `ipss_headend.plugins`
    says who fell silent together. An incident that grows is asked about again.
    """
    return classes


@_hook("all", 30.0, closed=False, when="the plugin's process starts, before all but `rpc_methods` and health")
def restore(ctx: Any, kept: dict[str, Any], more: bool) -> None:
    """Get back what was kept with `ctx.keep`, by key, in parts: `more` says that this is not the last."""


@_hook("all", 1.0, closed=False, when="every ten seconds, and for `plugin.health`")
def plugin_health(ctx: Any) -> dict[str, str]:
    """What is wrong, as name and words; nothing when all is well."""
    return {}


@_hook("all", 1.0, closed=False, when="the plugin starts")
def rpc_methods(ctx: Any) -> list[MethodOffer]:
    """The RPC methods that the plugin offers."""
    return []


@_hook("first", 1.0, closed=False, when="somebody calls a method of the plugin's own")
def rpc_call(ctx: Any, method: str, params: dict[str, Any], actor: str) -> dict[str, Any] | None:
    """Answer a call of a method that `rpc_methods` offered; asked of that plugin alone, within the method's own limit.

    What is raised is the call's error, `E_PLUGIN` with its words.
    """


@_hook("all", 30.0, closed=False, when="the log of readings and events goes on")
def consume(ctx: Any, topic: str, sequence: int, rows: list[dict[str, Any]]) -> None:
    """Deal with one entry of the log. The cursor moves when this has returned; after a crash an entry comes again.

    A plugin that has this hook is fed from its own cursor. Effects go through `ctx.emit`, which keeps a key once.
    """
