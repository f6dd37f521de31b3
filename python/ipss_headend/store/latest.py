"""The newest line of each meter and layout that somebody asked for, kept in memory and true.

What is asked for once is kept and follows every write; what nobody asks for costs nothing.
"""

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection

from ipss_headend.store.readings import Line, latest, line_of
from ipss_headend.store.records import ReadingRow

KEPT = 500_000
"""Lines in memory, some 300 octets each; more begin anew."""


class Latest:
    """A cache over `readings.latest` of one process that does all the writing."""

    def __init__(self) -> None:
        self._lines: dict[tuple[int, int], Line | None] = {}

    def get(self, meter_id: int, layout_ids: Iterable[int]) -> list[Line] | None:
        """The newest lines of a meter in these layouts; None: some have to be loaded first."""
        found = []
        for layout_id in layout_ids:
            try:
                line = self._lines[meter_id, layout_id]
            except KeyError:
                return None
            if line is not None:
                found.append(line)
        return found

    def load(self, connection: Connection, wanted: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Line | None]:
        """Read lines from the store, for `keep`. Runs in any thread.

        Raises:
            StoreDamaged: a line is not what was written.
        """
        return {key: next(latest(connection, [key[0]], [key[1]]), None) for key in wanted}

    def keep(self, loaded: dict[tuple[int, int], Line | None]) -> None:
        """Take what was loaded, unless something newer was noted since."""
        if len(self._lines) + len(loaded) > KEPT:
            self._lines.clear()
        for key, line in loaded.items():
            known = self._lines.get(key)
            if known is None or (line is not None and line.capture_time_us >= known.capture_time_us):
                self._lines[key] = line

    def note(self, rows: Iterable[ReadingRow]) -> None:
        """These lines are durable."""
        lines = self._lines
        if not lines:
            return
        for row in rows:
            key = (row[0], row[1])
            if key in lines:
                known = lines[key]
                if known is None or row[2] >= known.capture_time_us:
                    lines[key] = line_of(row)
