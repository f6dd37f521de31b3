"""Sales as they happen: energy and money by tariff, feeder, hour and what other plugins say of accounts.

Each day of an account that is read, flagged, estimated or edited comes whole and stands in the place of the one before,
so that readings which come late, twice or corrected are counted once and exactly. Prices are data (`tariffs.py`), sums
are whole numbers (`ledger.py`). What it has is kept with its cursor: it goes on where it stopped.

An hour is closed when it ends `lateness_hours` before the newest: what changes it then is late, and counted all the
same. An account is expected in each hour from its first on, until it has been silent for `silent_days`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from ipss_headend.plugins import Context, MethodOffer, hook
from ipss_headend.plugins.billing.ledger import HOUR_US, Ledger, encoded, hours_of, labels_in
from ipss_headend.plugins.billing.tariffs import Tariffs

LATENESS_HOURS, SILENT_DAYS, KEEP_DAYS = 6, 35, 70
MOST_ROWS = 2000
DIMENSIONS = ("tariff", "feeder", "hour")
_KNOWN = frozenset(
    {"currency", "default_tariff", "accounts", "feeders", "tariffs", "lateness_hours", "silent_days", "keep_days"}
)


class Sales:
    """The ledger of this process, and how it is set."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.wrong = ""
        """What is wrong with the settings; energy is counted all the same."""
        self.keep_days = KEEP_DAYS
        self.forgotten = ""
        """Days before this one were dropped."""
        hours, silent, tariffs = LATENESS_HOURS, SILENT_DAYS, Tariffs()
        try:
            _check_names(settings)
            hours = _number(settings, "lateness_hours", hours)
            silent = _number(settings, "silent_days", silent)
            self.keep_days = _number(settings, "keep_days", self.keep_days)
            tariffs = Tariffs.of(settings)
        except ValueError as error:
            self.wrong = str(error)
        self.ledger = Ledger(tariffs, lateness_us=hours * HOUR_US, silent_us=silent * 24 * HOUR_US)

    def oldest_day(self, now_us: int) -> str:
        """Days before this one are not kept."""
        now = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now_us)
        return (now - timedelta(days=min(self.keep_days, now.toordinal() - 1))).date().isoformat()


_sales: list[Sales] = []


def _ours(ctx: Context) -> Sales:
    if not _sales:
        _sales.append(Sales(ctx.settings))
    return _sales[0]


@hook
def restore(ctx: Context, kept: dict[str, Any]) -> None:
    """Take back accounts and days."""
    ledger = _ours(ctx).ledger
    for key, content in kept.items():
        kind, _, rest = key.partition("/")
        if kind == "account" and isinstance(content, dict):
            ledger.label(rest, content)
        elif kind == "day" and isinstance(content, str):
            day, _, account = rest.partition("/")
            ledger.put(account, day, content)
    ledger.late = 0


@hook
def billing_intervals(
    ctx: Context, accounts: dict[str, dict[str, str]], days: list[dict[str, Any]], run: str
) -> dict[str, Any]:
    """Put days in the place of those before."""
    ours = _ours(ctx)
    oldest = ours.oldest_day(ctx.now_us)
    if run:
        return {"differs": _differs(ours, days, oldest)}
    ledger = ours.ledger
    for name, labels in accounts.items():
        if ledger.label(name, labels):
            ctx.keep(f"account/{name}", labels)
    for day in days:
        account, date_ = day["account"], day["day"]
        if date_ >= oldest:
            text = encoded(hours_of(day))
            if ledger.put(account, date_, text):
                ctx.keep(f"day/{date_}/{account}", text)
    if ours.forgotten != oldest:
        ours.forgotten = oldest
        for account, date_ in list(ledger.forget(oldest)):
            ctx.keep(f"day/{date_}/{account}", None)
    return {}


def _differs(ours: Sales, days: list[dict[str, Any]], oldest: str) -> list[str]:
    """Days that are not as they were put; without days, sums that are not those of their days."""
    if not days:
        return ours.ledger.wrong_cells()[:100]
    found = []
    for day in days:
        account = ours.ledger.accounts.get(day["account"])
        had = None if account is None else account.days.get(day["day"])
        if day["day"] >= oldest and had != encoded(hours_of(day)):
            found.append(f"{day['account']} {day['day']}")
    return found


@hook
def rpc_methods() -> list[MethodOffer]:
    """Say what can be asked."""
    return [
        MethodOffer(
            "query", "view", "Energy and money of the hours that begin from `from_ms` to before `to_ms`.",
            {"from_ms": "integer", "to_ms": "integer", "by": "list?", "only": "map?", "limit": "integer?",
             "cursor": "integer?"},
            {"rows": "list", "currency": "text", "watermark_ms": "integer?", "cursor": "integer?"},
            limit_ms=10_000,
            example={"from_ms": 0, "to_ms": 4102444800000, "by": ["tariff", "feeder", "hour"]},
        ),
        MethodOffer(
            "status", "view", "How much is counted, until when it is closed, and what came late.", {},
            {"accounts": "integer", "days": "integer", "watermark_ms": "integer?", "late": "integer",
             "labels": "list", "wrong": "text"},
            limit_ms=10_000,
            example={},
        ),
    ]  # fmt: skip


@hook
def rpc_call(ctx: Context, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Answer `query` or `status`."""
    ours = _ours(ctx)
    ledger = ours.ledger
    watermark = ledger.watermark_us()
    closed = {} if watermark is None else {"watermark_ms": watermark // 1000}
    labels = sorted(labels_in(ledger.accounts.values()) | {"tariff", "feeder"})
    if method == "status":
        days = sum(len(account.days) for account in ledger.accounts.values())
        billed = sum(bool(account.days) for account in ledger.accounts.values())
        return {
            "accounts": billed, "days": days, "late": ledger.late, "labels": labels, "wrong": ours.wrong, **closed
        }  # fmt: skip
    by, only = params.get("by", list(DIMENSIONS)), params.get("only", {})
    for name in [*by, *only]:
        if name not in {*labels, "hour", "day"} or (name in {"hour", "day"} and name in only):
            raise ValueError(f'"{name}" is no label; there are {", ".join(labels)}, and hour and day for by')
    rows = ledger.rows(params["from_ms"] * 1000, params["to_ms"] * 1000, by, only)
    first, count = max(0, params.get("cursor", 0)), min(max(params.get("limit", MOST_ROWS), 1), MOST_ROWS)
    more = {"cursor": first + count} if len(rows) > first + count else {}
    return {"rows": rows[first : first + count], "currency": ledger.tariffs.currency, **closed, **more}


@hook
def plugin_health(ctx: Context) -> dict[str, str]:
    """Tell what is wrong with the settings."""
    wrong = _ours(ctx).wrong
    return {"settings": wrong} if wrong else {}


def _check_names(settings: Mapping[str, Any]) -> None:
    for name in settings:
        if name not in _KNOWN:
            raise ValueError(f"{name}: there is no such setting; there are {', '.join(sorted(_KNOWN))}")


def _number(settings: Mapping[str, Any], name: str, usual: int) -> int:
    value = settings.get(name, usual)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 100_000:
        raise ValueError(f"{name}: {value!r} is no whole number from 1")
    return value
