"""`ipss-headend network`: the distribution network that meters stand in."""

import io
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ipss_headend.cli import places
from ipss_headend.cli.app import JSON, app, command
from ipss_headend.cli.output import Node as Line
from ipss_headend.cli.output import Output, say
from ipss_headend.errors import DONE, ConfigError, RequestError, words
from ipss_headend.field.network_file import export_network, import_network
from ipss_headend.network import Network, unknown_node
from ipss_headend.store import network as rows

network = typer.Typer(
    name="network", help="The network that meters stand in.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(network)


@command(network, "import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV with the columns name, kind, parent; a node a line, in any order.")],
    *,
    replace: Annotated[
        bool, typer.Option("--replace", help="The file is the whole network; nodes that it does not have go.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Take no line unless all are good.")] = False,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> int:
    r"""Put the nodes of a CSV file into the network, or change them: what each is and what feeds it.

    Each line is taken or refused in words, with its number: kinds and parents that are not known, nodes that hang below
    themselves. Kinds: region, substation, busbar, feeder, section, switch, transformer, cabinet, connection. A running
    head-end knows it within seconds. `meters place` says where meters stand.

    \b
    Examples:
      ipss-headend network import network.csv
      ipss-headend network import network.csv --replace --json
    """
    loaded = places.load_config(config)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {words(error)}; expected a CSV file") from error
    with places.open_store(loaded, create=True) as database, database.writing() as connection:
        report = import_network(connection, io.StringIO(text), file.name, replace=replace, strict=strict)
    for mistake in report.mistakes:
        say(mistake)
    output = Output(json_output=json_output)
    if json_output:
        output.document(
            {
                "version": report.version,
                "taken": report.taken,
                "removed": report.removed,
                "refused": len(report.mistakes),
                "mistakes": report.mistakes,
            }
        )
    else:
        gone = f", {report.removed} removed" if report.removed else ""
        output.line(f"{report.taken} nodes taken{gone}, {len(report.mistakes)} mistakes; version {report.version}")
    return report.exit_status


@command(network, "show")
def show(
    node: Annotated[str, typer.Argument(help="A node, to see what feeds it and what it feeds; all if left out.")] = "",
    *,
    depth: Annotated[int, typer.Option("--depth", min=0, help="So many levels below it.")] = 4,
    meters: Annotated[bool, typer.Option("--meters", help="Their meters too.")] = False,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Show the network as a tree, with how many meters each node feeds.

    \b
    Examples:
      ipss-headend network show
      ipss-headend network show F-12 --depth 2 --meters --json
    """
    known = _loaded(config)
    if node and node not in known.nodes:
        raise RequestError(unknown_node(node, known.nodes))
    output = Output(json_output=json_output)
    roots = [node] if node else known.children.get("", [])
    if json_output:
        trees = [_document(known, root, depth, meters=meters) for root in roots]
        output.document({"version": known.version, "path": known.path(node)[1:], "nodes": trees})
        return
    if node:
        output.line(" < ".join([node, *known.path(node)[1:]]))
    for root in roots:
        output.tree(_line(known, root, depth, meters=meters))
    standing = sum(len(there) for at, there in known.meters.items() if at)
    say(f"{len(known.nodes)} nodes, {standing} meters, version {known.version}")


@command(network, "export")
def export(
    file: Annotated[Path | None, typer.Argument(help="Where to write; standard output if left out.")] = None,
    *,
    config: places.CONFIG = places.DEFAULT_CONFIG,
) -> int:
    r"""Write the network as CSV, as `network import` takes it.

    \b
    Example:
      ipss-headend network export network.csv
    """
    text = io.StringIO(newline="")
    count = export_network(_loaded(config), text)
    if file is None:
        sys.stdout.write(text.getvalue())
        sys.stdout.flush()
    else:
        file.write_text(text.getvalue(), encoding="utf-8")
    say(f"{count} nodes" + ("" if file is None else f" written to {file}"))
    return DONE


def _loaded(config: Path) -> Network:
    with places.open_store(places.load_config(config)) as database, database.reading() as connection:
        return rows.load(connection)


def _document(known: Network, name: str, depth: int, *, meters: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "kind": known.nodes[name].kind, "meters_below": known.all_below[name]}
    if meters:
        found["meters"] = [{"name": one, "phases": known.place(one).phases} for one in known.meters.get(name, ())]
    if depth:
        found["below"] = [_document(known, one, depth - 1, meters=meters) for one in known.children.get(name, ())]
    return found


def _line(known: Network, name: str, depth: int, *, meters: bool) -> Line:
    line = Line(f"{name}  {known.nodes[name].kind}, {known.all_below[name]} meters")
    if meters:
        for one in known.meters.get(name, ()):
            line.add(f"{one} {known.place(one).phases}".rstrip(), "dim")
    if depth:
        line.children += [_line(known, one, depth - 1, meters=meters) for one in known.children.get(name, ())]
    return line
