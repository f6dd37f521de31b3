"""Makes the table of hooks in docs/plugins.md: `python -m ipss_headend.plugins.document docs/plugins.md`."""

from __future__ import annotations

import sys
from pathlib import Path

from ipss_headend.plugins.specs import HOOKS

BEGIN, END = "<!-- hooks -->\n", "<!-- end of hooks -->\n"


def table() -> str:
    """Every hook, with what the code says of it."""
    lines = ["| hook | mode | when | arguments behind `ctx` | limit | failure |", "|---|---|---|---|---|---|"]
    for hook in HOOKS.values():
        arguments = ", ".join(f"`{name}`" for name in hook.arguments)
        limit = f"{hook.limit_s * 1000:g} ms" + (" for 100,000 rows" if hook.mode == "batch" else "")
        failure = "refuses" if hook.closed else "goes on"
        lines.append(
            f"| `{hook.name}`: {hook.summary} | {hook.mode} | {hook.when} | {arguments} | {limit} | {failure} |"
        )
    return "\n".join(lines) + "\n"


def renewed(text: str) -> str:
    """The document with the table as it is now."""
    head, _, rest = text.partition(BEGIN)
    return head + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    document = Path(sys.argv[1])
    document.write_text(renewed(document.read_text(encoding="utf-8")), encoding="utf-8")
