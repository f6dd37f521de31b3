"""What meters say unasked becomes lines like those that are read: named by the meter's profile, stored once.

A push that says what stands where needs no profile; a bare list needs the layout of the meter's model. One that
nothing explains is kept whole as an event, so that it can be read when its layout is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ipss_headend.errors import ConfigError
from ipss_headend.field.reactor import AnswerRow, EventKind
from ipss_headend.log import Logger, logger
from ipss_headend.metrics import Figures
from ipss_headend.store import Layout, LayoutColumn, Store, reading_row
from ipss_headend.store.records import UNKNOWN_TIME, ReadingRow
from ipss_headend.store.registry import intern_layouts

if TYPE_CHECKING:
    from ipss_headend.field.reactor import Native, PushColumn
    from ipss_headend.store.journal import EventRow

GENERIC = "generic"
"""The profile of a meter whose model has none: what the octets say themselves."""

LAYOUTS_PER_METER = 64
"""Layouts that one meter's pushes may add while the head-end runs; a meter that sends another list each time fills
no table. What is beyond is kept as events."""

_Key = tuple[tuple[int, str, int], tuple["PushColumn", ...]]


@dataclass(slots=True)
class Kept:
    """What a delivery's notifications come to."""

    rows: list[ReadingRow] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)


def load_profiles(native: Native, directory: Path) -> list[str]:
    """Take a utility's own companion profiles, `NAME.toml` each; they may inherit from each other. Returns their names.

    Raises:
        ConfigError: what is wrong with one of them.
    """
    waiting = {path.stem: path for path in sorted(directory.glob("*.toml"))}
    names = list(waiting)
    while waiting:
        wrong: dict[str, str] = {}
        for name, path in waiting.items():
            try:
                native.add_profile(name, path.read_text("utf-8"))
            except (OSError, ValueError) as error:
                wrong[name] = f"{path}: {error}"
        if len(wrong) == len(waiting):
            raise ConfigError("\n".join(wrong.values()))
        # What could not be read may inherit from what was read behind it.
        waiting = {name: waiting[name] for name in wrong}
    return names


class Pushes:
    """Makes rows of notifications."""

    def __init__(self, *, store: Store, native: Native, models: Mapping[int, str], figures: Figures) -> None:
        self._store = store
        self._native = native
        self._figures = figures
        self._log: Logger = logger("pushes")
        self._known = frozenset(native.profile_names())
        self._models = models
        self._layouts: dict[_Key, int] = {}
        self._added: dict[int, int] = {}
        self._said: set[int] = set()

    def _profile(self, meter: int) -> str:
        model = self._models.get(meter)
        return model if model in self._known else GENERIC

    async def take(self, answers: Iterable[AnswerRow], received_us: int) -> Kept:
        """The rows and events of these notifications. Their layouts are durable when this returns.

        Raises:
            StoreError: the layouts could not be stored.
        """
        kept = Kept()
        read = []
        missing: dict[_Key, None] = {}
        for answer in answers:
            meter, cells = answer[0], answer[6]
            apdu = cells[0] if cells else None
            if not isinstance(apdu, bytes):
                continue
            self._figures.notifications += 1
            try:
                push = self._native.read_push(apdu, self._profile(meter))
            except ValueError as error:
                self._keep(kept, answer, apdu, str(error), received_us)
                continue
            key = (push[3], push[4])
            if not push[4]:
                self._keep(kept, answer, apdu, "no layout fits", received_us)
            elif key not in self._layouts and not self._may_add(meter, key, missing):
                self._keep(kept, answer, apdu, "too many different lists", received_us)
            else:
                read.append((answer, push, key))
        if missing:
            await self._intern(list(missing))
        for answer, push, key in read:
            time_us, deviation, status, _, _, cells = push
            time_us = answer[3] if time_us is None else time_us
            kept.rows.append(
                reading_row(
                    answer[0],
                    self._layouts[key],
                    UNKNOWN_TIME if time_us is None else time_us,
                    cells,
                    received_us=received_us,
                    deviation_min=deviation,
                    clock_status=status,
                )
            )
            self._figures.values += len(cells)
        return kept

    def _may_add(self, meter: int, key: _Key, missing: dict[_Key, None]) -> bool:
        if key in missing:
            return True
        added = self._added.get(meter, 0)
        if added >= LAYOUTS_PER_METER:
            return False
        self._added[meter] = added + 1
        missing[key] = None
        return True

    async def _intern(self, keys: Sequence[_Key]) -> None:
        layouts = [Layout(*source, tuple(LayoutColumn(*column) for column in columns)) for source, columns in keys]
        numbers = await self._store.change(lambda connection: intern_layouts(connection, layouts))
        self._layouts.update(zip(keys, numbers, strict=True))
        self._figures.layouts_learnt += len(layouts)

    def _keep(self, kept: Kept, answer: AnswerRow, apdu: bytes, why: str, received_us: int) -> None:
        self._figures.notifications_kept += 1
        meter = answer[0]
        if meter not in self._said:
            self._said.add(meter)
            self._log.warning("push not understood, kept as an event", meter=meter, why=why, octets=len(apdu))
        kept.events.append((meter, received_us, EventKind.PUSH_KEPT, len(apdu), apdu.hex()))
