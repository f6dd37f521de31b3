"""A plugin that was down catches up from its own cursor, and each of its effects is there once."""

from __future__ import annotations

from pathlib import Path

import trio
from tests.system.fleet import fleet, head_end
from tests.system.test_serve import BILLING, until
from tests.unit.plugins.installed import installed

from ipss_headend import config
from ipss_headend.server import HeadEnd, Stop, run
from ipss_headend.store import Database, log, plugins

COUNTS = """
import os
from ipss_headend.plugins import hook

@hook
def consume(ctx, topic, sequence, rows):
    for row in rows:
        if topic == "readings":
            ctx.emit(f'{{row["point"]}}-{{row["layout"]}}-{{row["capture_ms"]}}-{{row["key"]}}', "seen", row["values"])
    {then}
"""


def serve(path: Path, over: str, times: int) -> HeadEnd:
    async def main() -> HeadEnd:
        async with trio.open_nursery() as nursery:
            stop = Stop()
            started: HeadEnd = await nursery.start(run, config.load(path), stop)
            with trio.fail_after(60):
                await until(lambda: started.figures.plans["billing"].turns >= 1)
                done = ("consume", over)
                await until(lambda: started.figures.plugins["counts"].calls[done] >= times)
            stop.ask()
        return started

    return trio.run(main)


def test_a_plugin_that_crashed_catches_up_without_loss_or_double(tmp_path: Path) -> None:
    place = tmp_path / "plugins"
    place.mkdir()
    with installed(place, counts=COUNTS.format(then="os._exit(1)")), fleet(3, "127.94.0.1") as running:
        path = head_end(tmp_path, BILLING + '[plugins]\nenabled = ["counts"]\n', running)
        store = config.load(path).database.address

        serve(path, "error", 2)
        with Database(store) as database, database.reading() as connection:
            assert plugins.cursor(connection, "counts") is None, "it was never done with anything"
            assert list(plugins.effects(connection, "counts")) == []
        (place / "plugin_counts.py").write_text(COUNTS.format(then=""))
        serve(path, "done", 1)

    with Database(store) as database, database.reading() as connection:
        cursor = plugins.cursor(connection, "counts")
        assert cursor is not None
        entries = [entry for entry in log.after(connection, 0, [log.READINGS]) if entry.sequence <= cursor]
        lines = sum(len(entry.rows) for entry in entries)
        assert lines >= 3
        assert len(list(plugins.effects(connection, "counts"))) == lines
