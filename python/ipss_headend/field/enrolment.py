"""Meters that come and go while the head-end runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, MutableMapping
from typing import TYPE_CHECKING

import trio

from ipss_headend.field.connect import Addresses, Connector, Knowledge, needs_counters, numeric, place
from ipss_headend.field.counters import Counters
from ipss_headend.field.fleet import FleetMeter
from ipss_headend.field.quarantine import Quarantine
from ipss_headend.metrics import Figures
from ipss_headend.store import CounterBlock, Store
from ipss_headend.store.counters import peer_high_water

if TYPE_CHECKING:
    from ipss_headend._core import Reactor


class Enrolment:
    """Puts meters of the registry into the engine, at the start and later. Plans take them up at their next turn."""

    def __init__(
        self,
        *,
        store: Store,
        reactor: Reactor,
        connector: Connector,
        counters: Counters,
        figures: Figures,
        meters: MutableMapping[int, FleetMeter],
        names: MutableMapping[int, str],
        models: MutableMapping[int, str],
        quarantine: Quarantine,
    ) -> None:
        """What is known of meters is kept in the three mappings, which others look into."""
        self._store = store
        self._reactor = reactor
        self._connector = connector
        self._counters = counters
        self._figures = figures
        self._meters = meters
        self._names = names
        self._models = models
        self._quarantine = quarantine
        self._unknown: list[FleetMeter] = []
        self._held: set[int] = set()
        self._addresses: dict[int, str] = {}
        self._places: dict[tuple[str, str, int], set[int]] = {}
        self._wanted = trio.Event()

    async def add(self, meters: Iterable[FleetMeter], held: Collection[int] = ()) -> None:
        """From now on the engine knows these: those with a numeric address at once, the others when it is looked up.

        Those in `held` are known here, and to the engine when somebody has found out which keys they have.
        """
        new = [meter for meter in meters if meter.meter_id not in self._meters]
        self._held.update(meter.meter_id for meter in new if meter.meter_id in held)
        if not new:
            return
        chosen = [*self._crowded(new), *new]
        ids = [meter.meter_id for meter in chosen]
        knowledge = Knowledge(
            await self._counters.first_blocks(
                meter.meter_id for meter in chosen if needs_counters(meter) and meter.meter_id not in self._held
            ),
            await self._store.read(lambda connection: peer_high_water(connection, ids)),
        )
        known, reached, waiting = [], [], []
        for meter in chosen:
            address = numeric(meter)
            if address is None and meter.host is not None:
                waiting.append(meter)
            elif meter.meter_id not in self._held:
                reached.append(meter)
                known.append(self._connector.meter(meter, address, knowledge, shared=self._shares(meter)))
        self._reactor.add(known)
        self._knowledge = knowledge
        self._meters.update({meter.meter_id: meter for meter in new})
        self._names.update({meter.meter_id: meter.name for meter in new})
        self._models.update({meter.meter_id: meter.model for meter in new})
        await self._quarantine.enrolled(reached, waiting=waiting)
        self._unknown += waiting
        if waiting:
            self._wanted.set()

    def hold(self, meter_id: int) -> None:
        """The engine lets go of a meter whose keys are in doubt, so that nothing is tried with the wrong ones."""
        self._held.add(meter_id)
        self._reactor.remove([meter_id])

    def with_keys(self, meter: FleetMeter, block: CounterBlock, peer_counter: int | None) -> bool:
        """The engine has the meter with these keys and counters, in place of any others; false: its host is not found.

        The connection is a new one, and so is the association.
        """
        address = numeric(meter) or self._addresses.get(meter.meter_id)
        if address is None and meter.host is not None:
            return False
        peers = {} if peer_counter is None else {meter.meter_id: peer_counter}
        self._reactor.remove([meter.meter_id])
        knowledge = Knowledge({meter.meter_id: block}, peers)
        self._reactor.add([self._connector.meter(meter, address, knowledge, shared=self._shares(meter))])
        return True

    def settled(self, meter: FleetMeter) -> None:
        """These are the meter's keys from now on."""
        self._held.discard(meter.meter_id)
        if meter.meter_id in self._meters:
            self._meters[meter.meter_id] = meter

    def _crowded(self, new: Iterable[FleetMeter]) -> list[FleetMeter]:
        """Note where these are; the meters that were alone at their address until now and have to share it."""
        moved = []
        for meter in new:
            where = place(meter)
            if where is not None:
                there = self._places.setdefault(where, set())
                moved += [self._meters[one] for one in there if len(there) == 1 and one in self._meters]
                there.add(meter.meter_id)
        return moved

    def _shares(self, meter: FleetMeter) -> bool:
        where = place(meter)
        return where is not None and len(self._places.get(where, ())) > 1

    def retire(self, meter: FleetMeter) -> None:
        """The engine lets go of a meter: its association is released and its requests end. Its name stays for logs."""
        self._meters.pop(meter.meter_id, None)
        self._reactor.remove([meter.meter_id])
        if (where := place(meter)) is not None:
            self._places.get(where, set()).discard(meter.meter_id)
        self._quarantine.retired(meter)

    async def look_up(self) -> None:
        """Look up host names until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                unknown, self._unknown = self._unknown, []
                if unknown:
                    knowledge = self._knowledge
                    addresses = Addresses(
                        unknown,
                        lambda meter, address, knowledge=knowledge: self._found(meter, address, knowledge),  # type: ignore[misc]
                        self._figures,
                    )
                    nursery.start_soon(addresses.run)
                self._wanted = trio.Event()
                await self._wanted.wait()

    def _found(self, meter: FleetMeter, address: str, knowledge: Knowledge) -> None:
        self._addresses[meter.meter_id] = address
        known = self._meters.get(meter.meter_id)
        # Its keys may have changed since it was looked for.
        if known is not None and meter.meter_id not in self._held:
            shared = self._shares(known)
            self._reactor.add([self._connector.meter(known, address, knowledge, shared=shared)])
        if known is not None:
            self._quarantine.found(meter.meter_id)
