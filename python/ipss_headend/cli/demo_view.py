"""How the demo shows itself: live on a terminal, in plain lines elsewhere, and its summary."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from ipss_headend.cli import demo_der
from ipss_headend.cli.demo_result import ANSWERED, Goal, Result
from ipss_headend.cli.output import Output, say
from ipss_headend.cli.plot import plot

if TYPE_CHECKING:
    from ipss_headend.server import HeadEnd

PLAIN_EVERY_S = 2.0

SHORTEST_S = 0.1
"""Rates over a shorter time say nothing."""


@dataclass(frozen=True, slots=True)
class Now:
    """The figures of one moment."""

    elapsed_s: float
    connections: int
    associations: int
    requests: int
    succeeded: int
    exchanges: int
    lines: int
    values: int
    missing: int
    p50_ms: float | None
    p99_ms: float | None
    cpu_s: float

    @classmethod
    def of(cls, head_end: HeadEnd, goal: Goal, elapsed_s: float) -> Now:
        """What a head-end's figures are now."""
        figures, stats = head_end.figures, head_end.reactor.stats()
        p50_s, p99_s = (figures.request_durations.quantile_s(share) for share in (0.5, 0.99))
        return cls(
            elapsed_s=elapsed_s,
            connections=stats["connections"],
            associations=stats["associated"],
            requests=figures.ends.total(),
            succeeded=sum(figures.ends[outcome] for outcome in ANSWERED),
            exchanges=figures.exchanges,
            lines=figures.lines,
            values=figures.values,
            missing=max(0, goal.lines - figures.lines),
            p50_ms=None if p50_s is None else p50_s * 1000,
            p99_ms=None if p99_s is None else p99_s * 1000,
            cpu_s=time.process_time(),
        )

    @property
    def success_percent(self) -> float:
        """Requests that their meter answered."""
        return 100 * self.succeeded / self.requests if self.requests else 100.0


class View:
    """Shows the figures as they change."""

    def __init__(
        self,
        output: Output,
        goal: Goal,
        devices: Sequence[demo_der.Device] = (),
        console: Console | None = None,
    ) -> None:
        """`devices` are shown as they are at each moment, on `console` if it is a terminal (standard output)."""
        self._goal = goal
        self._devices = devices
        self._before = Now(0.0, 0, 0, 0, 0, 0, 0, 0, goal.lines, None, None, time.process_time())
        self._shown: tuple[Now, float, float, float] | None = None
        self._told_s = 0.0
        console = console or (Console() if output.is_terminal else None)
        self._live = None if console is None else Live(console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, now: Now, *, last: bool = False) -> None:
        """Show one moment: on a terminal in place, else as lines every few seconds and at the `last`."""
        before = self._before
        step_s = max(now.elapsed_s - before.elapsed_s, SHORTEST_S)
        reads = (now.exchanges - before.exchanges) / step_s
        stored = (now.values - before.values) / step_s
        cpu = 100 * (now.cpu_s - before.cpu_s) / step_s
        if self._live is not None:
            self._shown, self._before = (now, reads, stored, cpu), now
            self._live.update(self._table(*self._shown))
        elif last or now.elapsed_s - self._told_s >= PLAIN_EVERY_S:
            self._told_s, self._before = now.elapsed_s, now
            say(
                f"{now.elapsed_s:5.1f} s  {now.connections} connections  {now.associations} associations  "
                f"{reads:.0f} reads/s  {stored:.0f} values/s  {now.success_percent:.2f} % good  "
                f"{now.missing} lines to come  p50 {_ms(now.p50_ms)} p99 {_ms(now.p99_ms)}  CPU {cpu:.0f} %"
            )
            for device in self._devices:
                name, power, limit, whose, back, state = demo_der.words(device)
                say(f"         {name}  power {power}  limit {limit}  set by {whose}  goes back in {back}  {state}")

    def redraw(self) -> None:
        """Show on a terminal what a device does now, without waiting for the next moment."""
        if self._live is not None and self._shown is not None:
            self._live.update(self._table(*self._shown), refresh=True)

    def _table(self, now: Now, reads: float, stored: float, cpu: float) -> Table:
        table = Table.grid(padding=(0, 3))
        table.add_column(justify="left", style="dim")
        table.add_column(justify="right", style="bold")
        table.add_column(justify="left", style="dim")
        table.add_column(justify="right", style="bold")
        rows = [
            ("connections", f"{now.connections:,}", "associations", f"{now.associations:,}"),
            ("reads/s", f"{reads:,.0f}", "values stored/s", f"{stored:,.0f}"),
            ("answered", f"{now.success_percent:.2f} %", "lines to come", f"{now.missing:,}"),
            ("request p50", _ms(now.p50_ms), "request p99", _ms(now.p99_ms)),
            ("head-end's CPU", f"{cpu:.0f} %", "elapsed", f"{now.elapsed_s:.1f} s"),
        ]
        for row in rows:
            table.add_row(*row)
        whole = Table.grid()
        whole.add_row(f"[bold]{self._goal.meters:,} meters[/], {self._goal.days} days of load profile each")
        whole.add_row(table)
        whole.add_row(ProgressBar(total=self._goal.lines, completed=min(now.lines, self._goal.lines), width=64))
        if self._devices:
            whole.add_row("")
            whole.add_row(self._device_table())
        return whole

    def _device_table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for heading in demo_der.HEADINGS:
            table.add_column(heading, justify="right" if heading in {"power", "limit", "goes back in"} else "left")
        for device in self._devices:
            held = device.limit_percent is not None
            table.add_row(*demo_der.words(device), style="bold" if held else "")
        return table


def summary(output: Output, result: Result, commands: list[str]) -> None:
    """What came of it, for people."""
    output.table(
        ("what", "figure"),
        [
            ("meters", f"{result.meters:,}"),
            ("associations (HLS-GMAC, ciphered)", f"{result.associated:,}"),
            ("meters read in full", f"{result.meters_read:,}"),
            ("requests answered", f"{result.succeeded:,} of {result.requests:,} ({result.success_percent:.2f} %)"),
            ("lines stored", f"{result.lines:,}"),
            ("values stored", f"{result.values:,}"),
            ("values stored a second", f"{result.values_per_second:,.0f}"),
            ("gaps", f"{result.gaps:,}"),
            ("request p50, p99", f"{_ms(result.p50_ms)}, {_ms(result.p99_ms)}"),
            ("time, connecting included", f"{result.duration_s:.1f} s"),
            ("head-end's CPU time", f"{result.cpu_s:.1f} s"),
        ],
        title="every meter read" if result.exit_status == 0 else "not every meter could be read",
        right=("figure",),
    )
    if result.outcomes.keys() - {"done"}:
        output.line("requests by outcome: " + ", ".join(f"{name} {count}" for name, count in result.outcomes.items()))
    output.line()
    output.table(
        ("meter", "object", "name", "value", "unit", "captured (UTC)"),
        [(*list(sample.values())[:-1], f"{sample['capture_time'][:19]}Z") for sample in result.samples],
        title="sample readings",
        right=("value",),
    )
    if result.curve:
        output.line()
        output.line(f"{result.curve_of}: active power, average of each quarter-hour, last 24 hours")
        width = min(96, max(40, shutil.get_terminal_size().columns - 14))
        for line in plot(result.curve, width=width, unit="W"):
            output.line(line)
    if result.ders:
        output.line()
        names = ("device", "power_w", "limit_percent", "set_by", "power_limited_w", "reverted_after_s")
        output.table(
            ("device", "power W", "limited to %", "by", "power then W", "went back by itself after s"),
            [tuple("-" if one[name] is None else str(one[name]) for name in names) for one in result.ders],
            title="inverters and storage, limited and let go",
        )
    output.line()
    output.line(f"database: {result.database} ({result.database_octets / 1e6:.1f} MB)")
    if commands:
        output.line("try next:")
        for command in commands:
            output.line(f"  {command}")


def _ms(duration_ms: float | None) -> str:
    return "-" if duration_ms is None else f"{duration_ms:.1f} ms" if duration_ms < 100 else f"{duration_ms:.0f} ms"
