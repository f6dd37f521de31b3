"""New keys for meters over the line: which keys a meter has is found out by trying, and never by guessing (R22).

`security/rotation.py` has the states and what is durable before what; here are the transfer's parameters, and the
tries. From the moment that a transfer may have left, the engine lets go of the meter: nothing but a try here talks to
it, so that wrong keys are tried at most twice in 15 minutes. A try is a new association and one read.

    prepare -> (the command path sends the transfer) -> doubt -> NEW, else the keys in use, else later again
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Protocol

import trio

from ipss_headend.errors import HeadEndError, KeyTampered, RequestError, StaleOwner, StoreDamaged, StoreFailed
from ipss_headend.field.connect import needs_counters
from ipss_headend.field.counters import Counters
from ipss_headend.field.enrolment import Enrolment
from ipss_headend.field.fleet import FleetMeter
from ipss_headend.field.questions import Attributes
from ipss_headend.field.requests import Requests
from ipss_headend.field.watch import Watch
from ipss_headend.log import Logger, logger
from ipss_headend.metrics import Figures
from ipss_headend.security import rotation
from ipss_headend.security.keystore import Keystore
from ipss_headend.security.rotation import Candidate
from ipss_headend.store import CounterBlock, Store, counters
from ipss_headend.store.database import now_us

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

DEVICE_NAME = (1, bytes((0, 0, 42, 0, 0, 255)), 2)
"""COSEM logical device name: every meter has it (Blue Book, "COSEM logical device")."""

TRY_S = 60.0
"""How long one try may take, from the connection to the answer."""

AGAIN_S = 5.0
"""A meter that cannot be reached at all is tried again after this, at last after `SLOWEST_S`: it counts no tries."""
SLOWEST_S = 300.0

PAUSE_S = 1.0
"""Between a connection's end and the next one: a meter that takes one at a time is to see the end first."""

BLOCK = 64
"""Counters for one try: an association and a read take six."""

AT_ONCE = 32
"""Meters that are tried at a time."""


PROOF = 1
"""The place of the second of the two transfers of a new master key: under itself."""
TRANSFERS = 2
TEMPORARY = 2
"""action-result `temporary-failure`: says nothing of which key it has."""


class Has(Enum):
    """Which keys a meter has, as the store knows it."""

    NEW = "new"
    OLD = "old"
    EITHER = "either"


class Native(Protocol):
    """The part of the native module that is used here."""

    def key_transfer(self, suite: int, master_key: bytes, encryption_key: bytes, authentication_key: bytes, /) -> bytes:
        """A key_transfer's parameters."""

    def master_key_transfer(self, suite: int, master_key: bytes, new_master_key: bytes, /) -> bytes:
        """The parameters of both transfers of a new master key."""


class Rekeying:
    """Changes keys, and settles what is in doubt."""

    def __init__(
        self,
        *,
        store: Store,
        keystore: Keystore,
        native: Native,
        enrolment: Enrolment,
        requests: Requests,
        counters: Counters,
        watch: Watch,
        meters: Mapping[int, FleetMeter],
        figures: Figures,
        wall_us: Callable[[], int] = now_us,
        try_s: float = TRY_S,
    ) -> None:
        """`try_s`: how long a try may take."""
        self._store = store
        self._keystore = keystore
        self._native = native
        self._enrolment = enrolment
        self._requests = requests
        self._counters = counters
        self._watch = watch
        self._meters = meters
        self._figures = figures
        self._wall_us = wall_us
        self._try_s = try_s
        self._log: Logger = logger("keys")
        self._told, self._doubts = trio.open_memory_channel[tuple[int, bool]](1_000_000)
        self._settling: set[int] = set()
        self._room = trio.CapacityLimiter(AT_ONCE)

    async def prepare(self, meter_id: int, who: str) -> bytes:
        """Make new keys durable and return what is sent; those of an earlier change that did not arrive are the same.

        Raises:
            RequestError: the meter's keys cannot be changed, or are in doubt.
        """
        meter = self._meters.get(meter_id)
        if meter is None or not needs_counters(meter):
            raise RequestError("the meter uses no keys that could be changed")
        title = meter.system_title

        def begin(connection: Connection) -> tuple[bytes, CounterBlock | None]:
            found = rotation.pending(connection, meter_id)
            if found is None:
                rotation.begin(connection, self._keystore, meter_id, title, who, self._wall_us())
            elif found.state == rotation.SENT:
                raise RequestError("its keys are in doubt from an earlier change; `keys rotation status` tells")
            elif found.state == rotation.MASTER_SENT:
                raise RequestError("its master key is in doubt: `keys rotate --master` sends the same again and tells")
            elif found.state == rotation.MASTER_STORED:
                rotation.begin(connection, self._keystore, meter_id, title, who, self._wall_us())
            new = rotation.new_keys(connection, self._keystore, meter_id, title)
            used = counters.granted_until(connection, [meter_id]).get(meter_id, counters.FIRST)
            last = rotation.block(connection, meter_id, BLOCK, new=False) if used >= counters.FORCED else None
            made = self._native.key_transfer(
                meter.protocol.suite,
                new.master_key or b"",
                new.encryption_key or b"",
                new.authentication_key or b"",
            )
            return made, last

        try:
            made, last = await self._store.change(begin, spend_reserve=True)
        except (ValueError, KeyTampered) as error:
            raise RequestError(f"its keys cannot be changed: {error}") from error
        if last is not None:
            # Ordinary exchanges have ended: the transfer goes with the last counters, which are kept for it (R10).
            peer = await self._peer_counter(meter_id)
            await self._let_go(meter_id)
            self._enrolment.with_keys(meter, last, peer)
            self._enrolment.settled(meter)
        return made

    async def prepare_master(self, meter_id: int, who: str) -> bytes:
        """As `prepare`, of a new master key: what is sent, its proof with it.

        Raises:
            RequestError: the meter's master key cannot be changed.
        """
        meter = self._meters.get(meter_id)
        if meter is None or not needs_counters(meter):
            raise RequestError("the meter uses no keys that could be changed")
        title = meter.system_title

        def begin(connection: Connection) -> bytes:
            old, new = rotation.begin_master(connection, self._keystore, meter_id, title, who, self._wall_us())
            return self._native.master_key_transfer(meter.protocol.suite, old, new)

        try:
            return await self._store.change(begin, spend_reserve=True)
        except (ValueError, KeyTampered) as error:
            raise RequestError(f"its master key cannot be changed: {error}") from error

    async def master_answered(self, meter_id: int, refused: Mapping[int, int]) -> Has:
        """The meter answered to both transfers; `refused`: the result of each that it did not take, by its place."""
        meter = self._meters.get(meter_id)
        if PROOF not in refused and meter is not None:
            await self._store.change(
                lambda connection: rotation.proven_master(connection, self._keystore, meter_id, meter.system_title),
                spend_reserve=True,
            )
            with_new = await self._store.read(
                lambda connection: rotation.candidates(connection, self._keystore, meter_id, meter.system_title)
            )
            self._enrolment.settled(replace(meter, keys=with_new[0].keys))
            self._figures.key_changes += 1
            return Has.NEW
        if len(refused) == TRANSFERS:
            known = rotation.withdrawn_master if TEMPORARY in refused.values() else rotation.refused_master
            await self._store.change(lambda connection: known(connection, meter_id), spend_reserve=True)
        return await self.has(meter_id)

    def doubt(self, meter_id: int, *, old_first: bool = False) -> None:
        """A transfer may have left. `old_first`: the meter said that it did not take it."""
        self._told.send_nowait((meter_id, old_first))

    async def has(self, meter_id: int) -> Has:
        """Which keys the meter has, of a change that was sent."""
        found = await self._store.read(lambda connection: rotation.pending(connection, meter_id))
        if found is None:
            return Has.NEW
        return Has.EITHER if found.state in (rotation.SENT, rotation.MASTER_SENT) else Has.OLD

    async def run(self) -> None:
        """Settle doubts, those of an earlier life first, until cancelled."""
        async with trio.open_nursery() as nursery:
            for meter_id in await self._store.read(rotation.in_doubt):
                self.doubt(meter_id)
            async for meter_id, old_first in self._doubts:
                if meter_id not in self._settling:
                    self._settling.add(meter_id)
                    self._figures.keys_in_doubt = len(self._settling)
                    nursery.start_soon(self._settle, meter_id, old_first)

    async def _settle(self, meter_id: int, old_first: bool) -> None:
        pause_s = AGAIN_S
        try:
            while (meter := self._meters.get(meter_id)) is not None:
                done = False
                async with self._room:
                    try:
                        done = await self._try_all(meter, old_first=old_first)
                    except (StoreFailed, StaleOwner, StoreDamaged):
                        raise
                    except Exception:  # noqa: BLE001 - round a subject's task: tampered keys of one meter stop no other
                        self._log.exception("which keys a meter has cannot be tried", meter=meter.name)
                if done:
                    break
                old_first = False
                await trio.sleep(pause_s)
                pause_s = min(pause_s * 2, SLOWEST_S)
        finally:
            self._settling.discard(meter_id)
            self._figures.keys_in_doubt = len(self._settling)

    async def _try_all(self, meter: FleetMeter, *, old_first: bool) -> bool:
        """Try what it may have; whether that is settled. Cancelled, it leaves the doubt as durable as it was."""
        meter_id, title = meter.meter_id, meter.system_title
        self._counters.hold(meter_id)
        tried = await self._store.read(
            lambda connection: rotation.candidates(connection, self._keystore, meter_id, title)
        )
        if len(tried) == 1:  # settled already
            self._in_use(meter, tried[0])
            return True
        for candidate in reversed(tried) if old_first else tried:
            block = await self._store.change(
                lambda connection, new=candidate.new: self._take(connection, meter_id, new=new),  # type: ignore[misc]
                spend_reserve=True,
            )
            if block is None:
                self._enrolment.hold(meter_id)
                return False
            reached, proves = await self._proves(meter, candidate, block)
            if proves:
                await self._store.change(
                    lambda connection, new=candidate.new: rotation.proven(  # type: ignore[misc]
                        connection, self._keystore, meter_id, title, new=new
                    ),
                    spend_reserve=True,
                )
                self._in_use(meter, candidate)
                self._figures.key_changes += int(candidate.new)
                self._log.info("keys changed" if candidate.new else "keys not changed", meter=meter.name)
                return True
            self._enrolment.hold(meter_id)
            if not reached:
                await self._store.change(lambda connection: rotation.untried(connection, meter_id), spend_reserve=True)
                return False
        self._log.warning("the meter answers to neither its new keys nor its old ones", meter=meter.name)
        return False

    def _take(self, connection: Connection, meter_id: int, *, new: bool) -> CounterBlock | None:
        """One of the tries, with counters for it; None: two were made within 15 minutes."""
        if not rotation.may_try(connection, meter_id, self._wall_us()):
            return None
        return rotation.block(connection, meter_id, BLOCK, new=new)

    async def _proves(self, meter: FleetMeter, candidate: Candidate, block: CounterBlock) -> tuple[bool, bool]:
        """Associate anew with these keys and read: whether the meter was reached, and whether it answered."""
        peer = None if candidate.new else await self._peer_counter(meter.meter_id)
        await self._let_go(meter.meter_id)
        if not self._enrolment.with_keys(replace(meter, keys=candidate.keys), block, peer):
            return False, False
        self._watch.follow(meter.meter_id)
        try:
            await self._requests.ask(
                (Attributes(0, (DEVICE_NAME,)),),
                meter.meter_id,
                timeout_s=self._try_s,
                priority="critical",
                name=meter.name,
            )
        except HeadEndError as error:
            # A meter may close the connection on a wrong key: reached is who was connected, whatever came then.
            reached = self._watch.reached(meter.meter_id)
            self._log.info("keys tried", meter=meter.name, new=candidate.new, reached=reached, why=str(error))
            return reached, False
        return self._watch.reached(meter.meter_id), True

    async def _let_go(self, meter_id: int) -> None:
        """Nothing talks to the meter, and it had the time to notice."""
        self._enrolment.hold(meter_id)
        await trio.sleep(PAUSE_S)

    def _in_use(self, meter: FleetMeter, candidate: Candidate) -> None:
        self._enrolment.settled(replace(meter, keys=candidate.keys))
        self._counters.let_go(meter.meter_id)
        # What is left of the try's block is little.
        self._counters.low(meter.meter_id)

    async def _peer_counter(self, meter_id: int) -> int | None:
        found = await self._store.read(lambda connection: counters.peer_high_water(connection, [meter_id]))
        return found.get(meter_id)
