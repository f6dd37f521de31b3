"""Make the README's tables and the plot from the results that are kept.

    python -m benches.report [--check]

Writes between `<!-- benches:begin -->` and `<!-- benches:end -->` in `benches/README.md`, and in the root's `README.md`
if it has the markers; draws `results/fleet.svg`. With `--check` nothing is written, and the exit status says
whether the texts are as the results would make them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from benches.harness import BENCHES, RESULTS, ROOT

BEGIN, END = "<!-- benches:begin -->", "<!-- benches:end -->"
NAMES = {
    "c-epoll": "C epoll, bare",
    "ours": "ipss-headend",
    "uvloop": "uvloop Protocol + C codec",
    "dlms-cosem": "dlms-cosem",
    "gurux-dlms": "gurux-dlms",
    "pymodbus": "pymodbus, asyncio",
}
LOADS = {
    "saturated 1000": "GET, 1,000 meters, saturated",
    "saturated 10000": "GET, 10,000 meters, saturated",
    "paced 10000": "GET, 10,000 slow meters, 10,000/s offered",
    "cycle": "connect, HLS-GMAC association, GET, release",
    "saturated 1": "read of 10 registers, 1 device, saturated",
    "saturated 100": "read of 10 registers, 100 devices, saturated",
    "saturated 5000": "read of 10 registers, 5,000 devices, saturated",
}


def loaded(name: str) -> dict[str, Any] | None:
    """A bench's kept result, if there is one."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def number(value: float) -> str:
    """Three significant digits, thousands with commas."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"


def spread(figures: dict[str, float]) -> str:
    """The median, and half the distance between the lowest and the highest run in percent of it."""
    return f"{number(figures['median'])} ±{figures['spread_percent'] / 2:.0f}%"


def codec_table(result: dict[str, Any]) -> list[str]:
    peers = list(result["versions"])
    lines = ["", "CPU microseconds a call, one core; how many times longer than ours.", ""]
    lines.append("| work | ours | " + " | ".join(f"{peer} {result['versions'][peer]}" for peer in peers) + " |")
    lines.append("|---|---|" + "---|" * len(peers))
    for row in result["rows"]:
        cells = [row["work"], spread(row["ours_us"])]
        for peer in peers:
            other = row["peers"].get(peer)
            cells.append(f"{number(other['us']['median'])} ({number(other['times_faster'])} x)" if other else "-")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def modbus_table(result: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "CPU microseconds to decode an answer of 125 registers, one core.",
        "",
        "| work | ours | pymodbus | times longer |",
        "|---|---|---|---|",
    ]
    for row in result["decode"]:
        figures = [spread(row["ours_us"]), spread(row["pymodbus_us"]), f"{number(row['times_faster'])} x"]
        lines.append(f"| {row['work']} | {' | '.join(figures)} |")
    return [*lines, *loads_table(result, {"paced 10000": "read of 10 registers, 10,000 devices, each once a second"})]


def fleet_table(result: dict[str, Any]) -> list[str]:
    return [*loads_table(result), "", "![CPU an exchange](results/fleet.svg)"]


def loads_table(result: dict[str, Any], named: dict[str, str] | None = None) -> list[str]:
    """The loads of `loads.py`; `named` are those with names of their own."""
    runs = f"median of {result['rounds']} runs of {result['seconds']:g} s"
    lines = [
        "",
        f"CPU microseconds of the asking process an exchange, {runs}; exchanges a second; p99 of the answer; lost.",
        "",
        "| load | client | CPU us | to bare C | to ours | a second | p99 ms | lost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for load, clients in result["loads"].items():
        for client, figures in clients.items():
            cells = [
                (LOADS | (named or {}))[load],
                NAMES[client],
                spread(figures["cpu_us"]),
                f"{number(figures['times_c-epoll'])} x" if "times_c-epoll" in figures else "-",
                f"{number(figures['times_ours'])} x" if "times_ours" in figures else "-",
                number(figures["per_second"]["median"]),
                number(figures["p99_us"] / 1000) if figures["p99_us"] else "-",
                str(figures["lost"]),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def held_table(result: dict[str, Any]) -> list[str]:
    lines = ["", "Resident memory of the process per idle associated session, KiB.", ""]
    sizes = sorted({row["held"] for row in result["rows"]})
    lines.append("| client | " + " | ".join(f"{size:,} held" for size in sizes) + " |")
    lines.append("|---|" + "---|" * len(sizes))
    for client in dict.fromkeys(row["client"] for row in result["rows"]):
        by_size = {row["held"]: row["kib_a_session"] for row in result["rows"] if row["client"] == client}
        lines.append(f"| {NAMES[client]} | " + " | ".join(f"{by_size.get(size, 0):.2f}" for size in sizes) + " |")
    return lines


def store_table(result: dict[str, Any]) -> list[str]:
    lines = [
        "",
        f"Lines of {result['values_a_line']} values made durable in SQLite, 10,000 lines a synced transaction.",
        "",
        "| | lines a second | values a second |",
        "|---|---|---|",
    ]
    for name, label in [("bare", "bare executemany, the same rows and table"), ("ours", "the store")]:
        figures = result["lines_per_second"][name]
        lines.append(f"| {label} | {spread(figures)} | {number(figures['median'] * result['values_a_line'])} |")
    lines.append(f"| ratio | {result['ratio']} | |")
    if "ratio_postgresql" in result:  # results from before PostgreSQL have none
        for name, label in [
            ("bare COPY", "PostgreSQL: bare binary COPY, the same rows and partitions"),
            ("bare COPY, both tables", "PostgreSQL: two of them, the same rows also into the log"),
            ("ours in PostgreSQL", "PostgreSQL: the store"),
        ]:
            if figures := result["lines_per_second"].get(name):  # older results have one bare side
                lines.append(f"| {label} | {spread(figures)} | {number(figures['median'] * result['values_a_line'])} |")
        lines.append(f"| PostgreSQL: ratio to the rows alone | {result['ratio_postgresql']} | |")
        if "ratio_postgresql_both" in result:
            lines.append(f"| PostgreSQL: ratio to both tables | {result['ratio_postgresql_both']} | |")
    return lines


def end_to_end_table(result: dict[str, Any]) -> list[str]:
    what = f"{result['meters']:,} virtual meters read in full by `ipss-headend demo`, {result['values']:,} values"
    figures = [spread(result[name]) for name in ("values_per_second", "duration_s", "cpu_us_a_value")]
    return [
        "",
        f"{what}; meters and head-end on one machine, lost {result['lost']}.",
        "",
        "| values durable a second | seconds in all | head-end's CPU us a value |",
        "|---|---|---|",
        f"| {' | '.join(figures)} |",
    ]


def plugins_table(result: dict[str, Any]) -> list[str]:
    labels = {
        "shared": "laid into shared memory",
        "handed over": "handed to a plugin's process that reads every column, and back",
        "handed over, validated": "handed to `validate` and back",
        "validated": "validated, of CPU time on one core",
        "counted as sales": "counted by `sales` in the place of others, of CPU time on one core",
    }
    lines = [
        "",
        f"Batches of {result['rows']:,} intervals in shared memory, million a second; lost {result['lost']}.",
        "",
        "| work | million a second | asked for |",
        "|---|---|---|",
    ]
    for name, label in labels.items():
        figures = result["per_second"].get(name)
        if figures is None:
            continue  # a result of before it was measured
        scaled = {"median": figures["median"] / 1e6, "spread_percent": figures["spread_percent"]}
        target = result["targets"].get(name)
        lines.append(f"| {label} | {spread(scaled)} | {'-' if target is None else number(target / 1e6)} |")
    return lines


def rpc_table(result: dict[str, Any]) -> list[str]:
    labels = {
        "pipelined": "`rpc.ping`, 8 connections with 64 calls on their way each",
        "one at a time": "`rpc.ping`, 200 connections with one call on its way each",
        "read.last": "`read.last`, 20,000/s offered over 200 connections",
        "100 callers": "`read.last`, 100 callers with 50/s each",
        "100 callers, one of them 100 times": "the same beside one caller with 5,000/s",
        "200 callers": "`read.last`, 5,000/s over 200 connections",
        "200 callers, logins tried": "the same while 1,000 logins a second are tried, with wrong passwords over TLS",
    }
    runs = f"median of {result['rounds']} runs of {result['seconds']:g} s"
    lines = [
        "",
        f"CPU microseconds of the server a call, {runs}; calls answered a second; how long the callers",
        "of the first kind waited from when a call was due; calls lost.",
        "",
        "| load | server | CPU us | to ours | a second | p50 ms | p99 ms | to alone | lost |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for load, sides in result["loads"].items():
        for side, figures in sides.items():
            p99 = figures["p99_us"]
            cells = [
                labels[load],
                f"{side} {result['versions'].get(side, '')}".strip(),
                spread(figures["cpu_us"]),
                f"{number(figures['times_ours'])} x",
                number(figures["per_second"]["median"]),
                "-" if figures["lost"] else number(figures["p50_us"]["median"] / 1000),
                "-" if figures["lost"] else spread({**p99, "median": p99["median"] / 1000}),
                f"{number(figures['p99_times_alone'])} x" if "p99_times_alone" in figures else "-",
                str(figures["lost"]),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def safety_table(result: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "What it costs to lose nothing and to let nobody act alone, on SQLite; a second.",
        "",
        "| work | with | without | ratio |",
        "|---|---|---|---|",
    ]
    return lines + [
        f"| {row['work']} | {spread(row['with'])} | {spread(row['without'])} | {row['ratio']} |"
        for row in result["rows"]
    ]


def recovery_table(result: dict[str, Any]) -> list[str]:
    lines = [
        "",
        f"From the start to ready after kill -9, with {result['records']:,} records that only the database's log has;",
        f"with PostgreSQL its own start is counted, too. At most {result['goal_s']:.0f} s are asked for; lost 0.",
        "",
        "| store | log, MiB | seconds after kill -9 | seconds after an end in order |",
        "|---|---|---|---|",
    ]
    return lines + [
        f"| {row['store']} | {row['log_mib']} | {spread(row['killed_s'])} | {spread(row['ordered_s'])} |"
        for row in result["rows"]
    ]


TABLES = {
    "codec": codec_table,
    "fleet": fleet_table,
    "modbus": modbus_table,
    "held": held_table,
    "store": store_table,
    "end_to_end": end_to_end_table,
    "plugins": plugins_table,
    "rpc": rpc_table,
    "safety": safety_table,
    "recovery": recovery_table,
}


def text() -> str:
    """All tables there are results for."""
    lines = []
    for name, table in TABLES.items():
        result = loaded(name)
        if result is None:
            continue
        machine = result["machine"]
        lines.append(
            f"**{name}**: {machine['processor']}, {machine['cores']} cores, {machine['system']}, "
            f"Python {machine['python']}, load before {machine['load_before']}, {machine['measured']}"
        )
        lines += [*table(result), ""]
    return "\n".join(lines).strip() + "\n"


def plot(result: dict[str, Any]) -> str:
    """The fleet's figures as bars on a logarithmic axis, in SVG."""
    colours = {
        "c-epoll": "#8a8f98",
        "ours": "#1f6feb",
        "uvloop": "#2da44e",
        "dlms-cosem": "#bf8700",
        "gurux-dlms": "#cf222e",
    }
    bars: list[tuple[str, str, float] | None] = []
    for load, clients in result["loads"].items():
        bars += [(LOADS[load], client, figures["cpu_us"]["median"]) for client, figures in clients.items()]
        bars.append(None)
    left, right, height, top = 250, 860, 20, 40
    highest = max(bar[2] for bar in bars if bar)
    decades = math.ceil(math.log10(highest))
    scale = (right - left - 90) / decades
    out, y, before = [], top, ""
    for bar in bars:
        if bar is None:
            y += height // 2
            continue
        load, client, value = bar
        if load != before:
            out.append(f'<text x="4" y="{y + 14}" font-weight="bold">{escape(load)}</text>')
            y += height
            before = load
        width = max(2.0, math.log10(max(value, 1)) * scale)
        out.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(NAMES[client])}</text>')
        out.append(f'<rect x="{left}" y="{y + 3}" width="{width:.1f}" height="{height - 6}" fill="{colours[client]}"/>')
        out.append(f'<text x="{left + width + 6:.1f}" y="{y + 14}">{number(value)}</text>')
        y += height
    ticks = [f"{left + scale * decade:.1f}" for decade in range(decades + 1)]
    axis = "".join(f'<line x1="{x}" x2="{x}" y1="{top}" y2="{y}" stroke="#d0d7de"/>' for x in ticks)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{right}" height="{y + 10}" '
        'font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/><text x="4" y="20" font-size="14">'
        f"CPU microseconds an exchange, one core, logarithmic: less is better</text>{axis}{''.join(out)}</svg>\n"
    )


def rendered(path: Path, table: str) -> str | None:
    """The file's text with the table between its markers, or None if it has none."""
    if not path.exists():
        return None
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        return None
    # From the root the plot stands elsewhere.
    shown = table if path.parent == BENCHES else table.replace("(results/", "(benches/results/")
    return f"{before}{BEGIN}\n{shown}{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    table, stale = text(), []
    wanted: dict[Path, str] = {}
    for path in (BENCHES / "README.md", ROOT / "README.md"):
        if (made := rendered(path, table)) is not None:
            wanted[path] = made
    fleet = loaded("fleet")
    if fleet is not None:
        wanted[RESULTS / "fleet.svg"] = plot(fleet)
    for path, made in wanted.items():
        if not path.exists() or path.read_text() != made:
            stale.append(path)
            if not given.check:
                path.write_text(made)
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'stale' if given.check else 'written'}")
    return 1 if given.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
