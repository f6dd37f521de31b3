#!/usr/bin/env python3
"""Write protocols/modbus/data/sunspec/models.tsv from the JSON models of the SunSpec Alliance.

    scripts/sunspec_models.py DIRECTORY > protocols/modbus/data/sunspec/models.tsv

DIRECTORY holds model_*.json as published in github.com/sunspec/models (Apache-2.0) and as shipped inside pysunspec2.
Descriptions are left out; names, labels, types, sizes, scale factors, units, access and symbols are kept.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def text(value: object) -> str:
    """A field: no tabs or line ends, `-` for nothing."""
    return " ".join(str(value).split()) if value not in (None, "") else "-"


def group_lines(group: dict[str, Any], depth: int) -> Iterator[str]:
    """A group, its points with their symbols, and the groups in it."""
    fields = [depth, group["name"], group["type"], group.get("count"), group.get("label")]
    yield "\t".join(["G", *map(text, fields)])
    for point in group.get("points", []):
        flags = "".join(
            letter
            for letter, key, value in (("w", "access", "RW"), ("m", "mandatory", "M"), ("s", "static", "S"))
            if point.get(key) == value
        )
        fields = [point["name"], point["type"], point["size"], point.get("sf"), point.get("units"), flags]
        yield "\t".join(["P", *map(text, [*fields, point.get("label")])])
        for symbol in point.get("symbols", []):
            yield "\t".join(["S", text(symbol["name"]), text(symbol["value"])])
    for inner in group.get("groups", []):
        yield from group_lines(inner, depth + 1)


def lines(directory: Path) -> Iterator[str]:
    """The whole table."""
    files = sorted(directory.glob("model_*.json"), key=lambda path: int(path.stem.removeprefix("model_")))
    models = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    yield "# Models of the SunSpec Alliance (github.com/sunspec/models, Apache-2.0, see NOTICE.md beside this file)."
    yield "# Written by scripts/sunspec_models.py. Tab separated; a line's first field says what it is:"
    yield "# M id | G depth name type count label | P name type size scale-factor units flags label | S name value"
    yield "# Flags: w writable, m mandatory, s static. Count: a number (0: as many as there is room for) or a point."
    for model in models:
        yield f"M\t{model['id']}"
        yield from group_lines(model["group"], 0)


def main(arguments: list[str]) -> int:
    """Write the table; the exit status."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        sys.stderr.write(__doc__ or "")
        return 2
    sys.stdout.write("".join(line + "\n" for line in lines(Path(arguments[0]))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
