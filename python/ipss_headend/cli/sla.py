"""`ipss-headend sla`: what was read in time, from the store alone."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any

import typer
from sqlalchemy import Connection

from ipss_headend.cli import places
from ipss_headend.cli.app import JSON, app, command
from ipss_headend.cli.output import Output, say
from ipss_headend.cli.plot import plot
from ipss_headend.cli.values import parse_moment
from ipss_headend.config import Config, PlanConfig, parse_plan
from ipss_headend.errors import DONE, PARTLY_DONE, ConfigError, RequestError
from ipss_headend.field.control.machine import FINAL
from ipss_headend.schedule import SECOND_US, duration_s
from ipss_headend.store import registry, retention, schedules, timeliness
from ipss_headend.store.database import Database, now_us
from ipss_headend.store.export import time_text
from ipss_headend.store.timeliness import DAY_US, Outcome, Series, Span, Tally

WITHIN = ("1h", "6h", "24h")
CLOCK = "0.0.1.0.0.255"
OWN_TIME = {4: "its lines have the moment of its own last capture", 5: "its lines have its own period's end"}
"""Classes whose lines do not say at which turn they were read: Extended register, Demand register."""

GAPS_SHOWN = 5


@dataclass(slots=True)
class _Judged:
    """One series with what came of it."""

    series: Series
    meters: dict[int, Tally]
    whole: Tally = field(default_factory=Tally)


@command(app, "sla")
def sla(
    *,
    from_: Annotated[str, typer.Option("--from", metavar="T", help="First moment that something was due.")] = "30d",
    to: Annotated[
        str | None, typer.Option("--to", metavar="T", help="Due before this one; without: before today (UTC).")
    ] = None,
    plan: Annotated[list[str] | None, typer.Option(help="Only this plan; may be given more than once.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="Only this group; may be given more than once.")] = None,
    meter: Annotated[list[str] | None, typer.Option(help="Only this meter; may be given more than once.")] = None,
    within: Annotated[
        list[str] | None, typer.Option(help="In time is at most so much late, such as 8h; more than once: each.")
    ] = None,
    at_least: Annotated[
        float | None,
        typer.Option("--at-least", min=0, max=100, metavar="PERCENT", help="Of each plan; else it ends with 8."),
    ] = None,
    worst: Annotated[int, typer.Option(min=0, metavar="N", help="So many meters, the worst first.")] = 10,
    by_day: Annotated[bool, typer.Option("--by-day", help="Completeness of each day, as a curve.")] = False,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> int:
    r"""Tell what was read in time: by plan, by group, and the worst meters with their gaps; and how commands ended.

    An interval of a profile is due at its capture time, a register at its plan's turn. It is in time if its line was
    received within 1, 6 and 24 hours, or what --within says. It is judged by a limit once that has passed, and a meter
    from when it was registered. --at-least is about the longest limit. It reads the store alone, also beside a running
    head-end.

    \b
    Examples:
      ipss-headend sla
      ipss-headend sla --from 2026-01-01 --to 2026-02-01 --within 8h --at-least 99.5 --json
      ipss-headend sla --plan "load profile" --group household --by-day --worst 50
    """
    loaded = places.load_config(config)
    span = _span(from_, to, within or WITHIN)
    names = sorted(within or WITHIN, key=duration_s)
    with places.open_store(loaded) as database:
        with database.reading() as connection:
            retired = retention.retired_until(connection)
            if retired is not None and retired > span.from_us:
                say(f"what was captured before {time_text(retired)} was retired; it is not judged")
                span = span._replace(from_us=retired)
            people = _chosen(connection, group, meter)
            series, passed_over = _series(connection, loaded, plan, span)
        for one in passed_over:
            say(one)
        judged = list(_judged(database, loaded, series, people, span))
        days = _days(database, judged, people, span) if by_day else []
        with database.reading() as connection:
            shown: dict[str, Any] = {
                "from": time_text(span.from_us),
                "until": time_text(span.until_us),
                "within": names,
                "plans": [_plan_document(one, people, names) for one in judged],
                "worst": _worst(connection, judged, people, span, names, worst),
                "commands": _commands(timeliness.outcomes(connection, span)),
                "not_judged": passed_over,
            }
    if by_day:
        shown["days"] = [{"day": time_text(day)[:10], "expected": due, "found": found} for day, due, found in days]
    missed = _missed(judged, at_least)
    if at_least is not None:
        shown |= {"at_least": at_least, "held": not missed}
    output = Output(json_output=json_output)
    if json_output:
        output.document(shown)
    else:
        _print(output, shown, names)
    for line in missed:
        say(line)
    return PARTLY_DONE if missed else DONE


def _span(from_: str, to: str | None, within: Sequence[str]) -> Span:
    moment = now_us()
    try:
        horizons = sorted(duration_s(text) * SECOND_US for text in within)
    except ValueError as error:
        raise RequestError(f"--within: {error}") from error
    until_us = moment - moment % DAY_US if to is None else min(parse_moment(to, moment), moment)
    from_us = parse_moment(from_, moment)
    if to is None and from_[-1:] == "d" and from_[:-1].isdigit():
        from_us = until_us - int(from_[:-1]) * DAY_US  # whole days, as the end is
    if from_us >= until_us:
        raise RequestError(
            f"--from {time_text(from_us)} is not before {time_text(until_us)}; nothing is due in between"
        )
    return Span(from_us, until_us, moment, tuple(horizons))


def _chosen(
    connection: Connection, groups: list[str] | None, named: list[str] | None
) -> dict[int, tuple[str, str, int]]:
    found = timeliness.registered(connection)
    if named:
        wanted = {registry.meter_named(connection, name).meter_id for name in named}
        found = {number: one for number, one in found.items() if number in wanted}
    if groups:
        found = {number: one for number, one in found.items() if one[1] in groups}
        if not found:
            raise RequestError(f"--group: no meter is in {' or '.join(groups)}")
    return found


def _series(
    connection: Connection, config: Config, chosen: list[str] | None, span: Span
) -> tuple[list[tuple[PlanConfig, Series]], list[str]]:
    """What the plans read, and why what is not judged is not."""
    plans = {plan.name: plan for plan in config.plans}
    passed_over = []
    for name, values in schedules.all_schedules(connection).items():
        try:
            plans.setdefault(name, parse_plan(values))
        except ConfigError as error:
            passed_over.append(f"plan {name}: {error}")
    unknown = [name for name in chosen or () if name not in plans]
    if unknown:
        raise RequestError(f'--plan: no plan is called "{unknown[0]}"; there are {", ".join(plans) or "none"}')
    layouts = registry.all_layouts(connection)
    found = []
    for plan in plans.values():
        if chosen and plan.name not in chosen:
            continue
        if plan.profile is not None:
            wanted = {column.logical_name for column in plan.columns} - {CLOCK}
            numbers = [
                number
                for number, layout in layouts.items()
                if layout.logical_name == plan.profile
                and layout.class_id == 7
                and (not wanted or {column.logical_name for column in layout.columns} - {CLOCK} == wanted)
            ]
            found.append((plan, Series(plan.name, plan.profile, tuple(numbers), plan.period_s * SECOND_US)))
        turns = _turns(config, plan, span)
        for wanted_object in plan.objects:
            of_it = {
                number: layout
                for number, layout in layouts.items()
                if layout.logical_name == wanted_object.logical_name
                and wanted_object.class_id in (None, layout.class_id)
                and wanted_object.attribute in (None, layout.attribute)
            }
            own = next((OWN_TIME[layout.class_id] for layout in of_it.values() if layout.class_id in OWN_TIME), None)
            if own is not None:
                passed_over.append(f"plan {plan.name}: {wanted_object.logical_name} is not judged: {own}")
                continue
            period_us = plan.every.period_s * SECOND_US
            series = Series(plan.name, wanted_object.logical_name, tuple(of_it), period_us, by_turn=True, turns=turns)
            if plan.every.at_s is None or turns:
                found.append((plan, series))
    return found, passed_over


def _turns(config: Config, plan: PlanConfig, span: Span) -> tuple[int, ...]:
    if plan.every.at_s is None:
        return ()
    turns, moment = [], plan.every.next_after(span.from_us - 1, config.time_zone)
    while moment < span.until_us:
        turns.append(moment)
        moment = plan.every.next_after(moment, config.time_zone)
    return tuple(turns)


def _judged(
    database: Database,
    config: Config,
    series: Sequence[tuple[PlanConfig, Series]],
    people: dict[int, tuple[str, str, int]],
    span: Span,
) -> Iterator[_Judged]:
    for plan, one in series:
        added = {number: since for number, (_, group, since) in people.items() if plan.selects(group)}
        judged = _Judged(one, timeliness.tallies(database, one, added, span))
        for tally in judged.meters.values():
            judged.whole.add(tally)
        yield judged


def _days(
    database: Database, judged: Sequence[_Judged], people: dict[int, tuple[str, str, int]], span: Span
) -> list[tuple[int, int, int]]:
    whole: dict[int, list[int]] = {}
    for one in judged:
        added = {number: people[number][2] for number in one.meters}
        for day, expected, found in timeliness.days(database, one.series, added, span):
            sums = whole.setdefault(day, [0, 0])
            sums[0] += expected
            sums[1] += found
    return [(day, expected, found) for day, (expected, found) in sorted(whole.items())]


def _plan_document(one: _Judged, people: dict[int, tuple[str, str, int]], names: Sequence[str]) -> dict[str, Any]:
    groups: dict[str, Tally] = {}
    sizes: Counter[str] = Counter()
    for number, tally in one.meters.items():
        groups.setdefault(people[number][1], Tally()).add(tally)
        sizes[people[number][1]] += 1
    return {
        "plan": one.series.plan,
        "object": one.series.what,
        "meters": len(one.meters),
        **_shares(one.whole, names),
        "groups": [
            {"group": name, "meters": sizes[name], **_shares(tally, names)} for name, tally in sorted(groups.items())
        ],
    }


def _shares(tally: Tally, names: Sequence[str]) -> dict[str, Any]:
    due, within = tally.due or [0] * len(names), tally.within or [0] * len(names)
    return {
        "expected": tally.expected,
        "found": tally.found,
        "completeness_percent": percent(tally.found, tally.expected),
        "in_time": {
            name: {"due": all_, "in_time": some, "percent": percent(some, all_)}
            for name, all_, some in zip(names, due, within, strict=True)
        },
    }


def percent(some: int, of_all: int) -> float | None:
    """A share with three digits, never more than it is: 99.9999 % is no 100 %. None: nothing was due."""
    return some * 100_000 // of_all / 1000 if of_all else None


def _worst(
    connection: Connection,
    judged: Sequence[_Judged],
    people: dict[int, tuple[str, str, int]],
    span: Span,
    names: Sequence[str],
    count: int,
) -> list[dict[str, Any]]:
    def badness(found: tuple[_Judged, int, Tally]) -> tuple[float, float, int]:
        _, number, tally = found
        return tally.within[-1] / (tally.due[-1] or 1), tally.found / tally.expected, number

    lacking = [
        (one, number, tally)
        for one in judged
        for number, tally in one.meters.items()
        if tally.expected and (tally.found < tally.expected or tally.within[-1] < tally.due[-1])
    ]
    shown = []
    for one, number, tally in sorted(lacking, key=badness)[:count]:
        name, group, since = people[number]
        missing = timeliness.gaps(connection, one.series, number, span, since)
        shown.append(
            {
                "meter": name,
                "group": group,
                "plan": one.series.plan,
                "object": one.series.what,
                **_shares(tally, names),
                "gap_count": len(missing),
                "longest_gap_s": max((gap.until_us - gap.from_us for gap in missing), default=0) // SECOND_US,
                "gaps": [
                    {"from": time_text(gap.from_us), "to": time_text(gap.until_us)} for gap in missing[:GAPS_SHOWN]
                ],
            }
        )
    return shown


def _commands(found: Sequence[Outcome]) -> list[dict[str, Any]]:
    kinds: dict[tuple[str, str], list[float]] = {}
    for one in found:
        kinds.setdefault((one.kind, one.state), []).append(one.seconds)
    shown = []
    for (kind, state), took in sorted(kinds.items()):
        took.sort()
        over = state in FINAL
        shown.append(
            {
                "kind": kind,
                "state": state,
                "count": len(took),
                "p50_s": took[(len(took) - 1) // 2] if over else None,
                "p95_s": took[-(-95 * len(took) // 100) - 1] if over else None,
                "longest_s": took[-1] if over else None,
            }
        )
    return shown


def _missed(judged: Sequence[_Judged], at_least: float | None) -> list[str]:
    if at_least is None:
        return []
    due = [one for one in judged if one.whole.due and one.whole.due[-1]]
    if not due:
        return [f"--at-least {at_least:g}: nothing was due, so nothing shows that it held"]
    return [
        f"--at-least {at_least:g}: plan {one.series.plan}, {one.series.what}: "
        f"{percent(one.whole.within[-1], one.whole.due[-1])} % were in time"
        for one in due
        if one.whole.within[-1] * 100 < Decimal(str(at_least)) * one.whole.due[-1]
    ]


def _print(output: Output, shown: dict[str, Any], names: Sequence[str]) -> None:
    def cells(one: dict[str, Any]) -> list[str]:
        return [
            str(one["expected"]),
            str(one["expected"] - one["found"]),
            *(
                _text(share)
                for share in (one["completeness_percent"], *(one["in_time"][name]["percent"] for name in names))
            ),
        ]

    headings = ("due", "missing", "complete %", *(f"within {name} %" for name in names))
    rows = []
    for plan in shown["plans"]:
        rows.append((plan["plan"], plan["object"], "", plan["meters"], *cells(plan)))
        if len(plan["groups"]) > 1:
            rows += [("", "", one["group"] or "-", one["meters"], *cells(one)) for one in plan["groups"]]
    title = f"due from {shown['from']} to {shown['until']}"
    output.table(("plan", "object", "group", "meters", *headings), rows, title=title, right=("meters", *headings))
    if shown["worst"]:
        output.table(
            ("worst meters", "plan", "object", *headings, "gaps", "longest"),
            [
                (one["meter"], one["plan"], one["object"], *cells(one), one["gap_count"], _long(one["longest_gap_s"]))
                for one in shown["worst"]
            ],
            right=(*headings, "gaps", "longest"),
        )
    if shown["commands"]:
        times = ("count", "median s", "95 % within s", "longest s")
        output.table(
            ("command", "ended", *times),
            [
                (one["kind"], one["state"], one["count"], *(_text(one[key]) for key in ("p50_s", "p95_s", "longest_s")))
                for one in shown["commands"]
            ],
            right=times,
        )
    if "days" in shown:
        if sys.stdout.isatty():
            curve = [100 * one["found"] / one["expected"] if one["expected"] else 0.0 for one in shown["days"]]
            for line in plot(curve, unit="%"):
                output.line(line)
        output.table(
            ("day", "due", "complete %"),
            [(one["day"], one["expected"], _text(percent(one["found"], one["expected"]))) for one in shown["days"]],
            right=("due", "complete %"),
        )


def _text(number: float | None) -> str:
    return "-" if number is None else f"{number:.3f}".rstrip("0").rstrip(".")


def _long(seconds: int) -> str:
    return str(timedelta(seconds=seconds))
