"""The head-end as a process: what runs, in which order it starts, and in which order it stops.

Read `run` from top to bottom for the start and from bottom to top for the stop. The first SIGTERM or SIGINT drains:
plans stop, requests in work are finished, associations are released, and the pump ends when the last batch is durable.
The second stops at once; what is not durable is asked again after the next start. SIGUSR1 is the stop switch for
critical commands: it ends nothing else.
"""

from __future__ import annotations

import gc
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from ipss_headend import _core, housekeeping, metrics
from ipss_headend.config import Config, KeystoreConfig
from ipss_headend.endpoint import Endpoint
from ipss_headend.errors import ConfigError, HeadEndError, StoreError, UnknownLogicalName, words
from ipss_headend.field.campaign import Campaign
from ipss_headend.field.clock import ClockCheck
from ipss_headend.field.connect import Connector, make_reactor
from ipss_headend.field.context import Field
from ipss_headend.field.control import clones
from ipss_headend.field.control.firmware import Firmware
from ipss_headend.field.control.readback import ReadBack
from ipss_headend.field.control.task import Control
from ipss_headend.field.counters import Counters
from ipss_headend.field.delivery import Delivery, Newest
from ipss_headend.field.der.commands import DeviceCommands
from ipss_headend.field.der.desk import SetPoints
from ipss_headend.field.devices import Devices, load_maps
from ipss_headend.field.enrolment import Enrolment
from ipss_headend.field.fleet import FleetMeter, load_fleet
from ipss_headend.field.layouts import LayoutBook
from ipss_headend.field.pump import pump
from ipss_headend.field.pushes import Pushes, load_profiles
from ipss_headend.field.quarantine import Quarantine
from ipss_headend.field.reactor import EventKind, Outcome
from ipss_headend.field.rekeying import Rekeying
from ipss_headend.field.requests import Requests
from ipss_headend.field.schedules import Schedules
from ipss_headend.field.topology import Topology
from ipss_headend.field.watch import Watch
from ipss_headend.log import Logger, logger
from ipss_headend.metrics import Figures
from ipss_headend.plugins.accounts import Accounts
from ipss_headend.plugins.feed import Feed, store_effects, store_kept
from ipss_headend.plugins.incidents import Incidents
from ipss_headend.plugins.judge import Judge
from ipss_headend.plugins.manager import Manager
from ipss_headend.plugins.vee import Validation
from ipss_headend.rpc.call import Services
from ipss_headend.rpc.idempotency import Keys
from ipss_headend.rpc.jobs import Jobs
from ipss_headend.rpc.logins import Logins
from ipss_headend.rpc.methods.read import Asking, Layouts
from ipss_headend.rpc.methods.stream import rows_of
from ipss_headend.rpc.offers import Offers
from ipss_headend.rpc.server import Server, local_principal, open_tcp, open_unix
from ipss_headend.rpc.tls import Door
from ipss_headend.security import rotation
from ipss_headend.security.audit import AuditBroken
from ipss_headend.security.keystore import Keystore, forbid_core_dumps
from ipss_headend.store import Database, Store
from ipss_headend.store.latest import Latest
from ipss_headend.store.log import Entry
from ipss_headend.store.plugins import states
from ipss_headend.store.scrubber import Scrubber

if TYPE_CHECKING:
    from ipss_headend._core import Gate, Reactor

LAG_STEP_S = 0.5
LAG_LIMIT_S = 5.0
"""A trio loop that is later than this cannot answer anybody in time."""

HEALTH_S = 5.0
"""How long the store may take to show that it can be written to."""

ASKED_PATIENCE_S = 5.0
"""How long a caller waits for a database that does not answer."""

STOP_S = 5.0
"""How much longer than asked the reactor may take to drain before it is stopped, and to stop before it is left."""


class Stop:
    """The wish to end: `drain` first, `now` when asked again."""

    def __init__(self) -> None:
        self.drain = trio.Event()
        self.now = trio.Event()
        self.commands = trio.Event()
        """Nothing critical is to leave from now on (R17)."""

    def ask(self) -> None:
        """Drain; the second time, stop."""
        (self.now if self.drain.is_set() else self.drain).set()


@dataclass(frozen=True, slots=True)
class HeadEnd:
    """A head-end that runs, for whoever started it in this process."""

    config: Config
    store: Store
    meters: Mapping[int, FleetMeter]
    reactor: Reactor
    requests: Requests
    layouts: LayoutBook
    figures: Figures
    listening: tuple[str, ...]
    """Where meters may dial in."""
    metrics_address: str | None
    """`host:port` of `/metrics` and `/healthz`."""
    stop: Stop
    plugins: Manager
    set_points: SetPoints
    devices: Devices


async def serve(config: Config, *, task_status: trio.TaskStatus[HeadEnd] = trio.TASK_STATUS_IGNORED) -> None:
    """Be the head-end of this configuration until a signal ends it. For the main thread, which gets the signals.

    Raises:
        HeadEndError: what kept it from starting or from going on.
    """
    stop = Stop()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGUSR1) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hear_signals, signals, stop)
            await run(config, stop, task_status=task_status)
            nursery.cancel_scope.cancel()


async def run(config: Config, stop: Stop, *, task_status: trio.TaskStatus[HeadEnd] = trio.TASK_STATUS_IGNORED) -> None:
    """As `serve`, ended by `stop`.

    Raises:
        HeadEndError: as `serve`.
    """
    try:
        forbid_core_dumps()
        database = Database(config.database.address, own=True, reserve_bytes=config.database.reserve_mib << 20)
        async with Store(database) as store:
            await _run(config, stop, store, task_status)
    except BaseExceptionGroup as group:
        ours = _first_of_ours(group)
        if ours is None:
            raise
        raise ours from group


async def _run(config: Config, stop: Stop, store: Store, task_status: trio.TaskStatus[HeadEnd]) -> None:
    log: Logger = logger("server")
    tell_of_software_key(config.keystore, log)
    keystore = await store.change(lambda connection: Keystore.open(connection, config.keystore), spend_reserve=True)
    fleet = await store.read(lambda connection: load_fleet(connection, keystore))
    figures = Figures()
    gate = make_gate(config)
    reactor = make_reactor(config.reactor, gate)
    try:
        names: dict[int, str] = {}
        meters: dict[int, FleetMeter] = {}
        models: dict[int, str] = {}
        latest = Latest()
        requests = Requests(reactor, _core)
        counters = Counters(store, reactor, figures, config.reactor.counter_block)
        newest = Newest()
        watch = Watch(names, counters, figures)
        load_profiles(_core, config.data_directory / "profiles")
        maps = load_maps(config.data_directory / "maps")
        pushes = Pushes(store=store, native=_core, models=models, figures=figures)
        held = await store.read(lambda connection: clones.held(connection, config.principals))
        gate.hold([(hold.meter_id, hold.why) for hold in held.values()])
        quarantine = Quarantine(store=store, reactor=reactor, native=_core, figures=figures, held=gate.holds)
        field = _field(config, store, requests, newest, figures, meters, names)
        enrolment = Enrolment(
            store=store,
            reactor=reactor,
            connector=Connector(config.reactor, config.client_system_title, config.modbus, maps),
            counters=counters,
            figures=figures,
            meters=meters,
            names=names,
            models=models,
            quarantine=quarantine,
        )
        await enrolment.add(fleet, held=await store.read(rotation.in_doubt))
        rekeying = Rekeying(
            store=store,
            keystore=keystore,
            native=_core,
            enrolment=enrolment,
            requests=requests,
            counters=counters,
            watch=watch,
            meters=meters,
            figures=figures,
            try_s=config.control.answer_s,
        )
        campaigns = _campaigns(config, field)
        schedules = Schedules(store, field, config.plans)
        await schedules.load()
        set_points = SetPoints(
            store=store,
            requests=requests,
            native=_core.SunSpecDevice,
            open_registers=reactor.open_registers,
            meters=meters,
            load_map=lambda name: _core.RegisterMap(name, maps),
            critical_percent=config.control.der_critical_percent,
        )
        registry = metrics.registry(figures, reactor.stats, exported())

        async def health() -> dict[str, str]:
            return await _health(store, reactor, figures, stop)

        endpoint = Endpoint(registry, health)
        plugins = await _plugins(config, store, figures)
        topology = Topology(store)
        await topology.refresh()
        judge = Judge(
            plugins,
            zone=config.time_zone,
            meters=meters,
            network=topology,
            store=store,
            holidays=config.plugins.holidays,
            regional=config.plugins.regional_holidays,
        )
        # Whoever calls is told soon that the database does not answer; what goes on by itself waits for it.
        asked = store.within(ASKED_PATIENCE_S)
        services = Services(
            config=config,
            store=asked,
            field=field,
            reactor=reactor,
            figures=figures,
            stop=stop,
            jobs=Jobs(),
            enrolment=enrolment,
            quarantine=quarantine,
            keys=Keys(asked),
            logins=Logins(asked),
            latest=latest,
            layouts=Layouts(),
            asking=Asking(),
            health=health,
            registry=registry,
            names={meter.name: meter for meter in fleet},
            set_points=set_points,
            plugins=plugins,
            judge=judge,
            schedules=schedules,
            topology=topology,
        )
        control = services.control = await _control(
            config, field, reactor, gate, rekeying, set_points, services.written, judge, watch.doubted
        )
        await services.layouts.refresh(store)
        rpc = Server(services, rate=config.rpc.calls_per_second)
        delivery = Delivery(
            store=store,
            requests=requests,
            reactor=reactor,
            pushes=pushes,
            quarantine=quarantine,
            watch=watch,
            newest=newest,
            figures=figures,
            latest=latest,
            written=services.written,
        )
        devices = Devices(
            store=store,
            requests=requests,
            native=_core,
            set_points=set_points,
            meters=meters,
            figures=figures,
            rules=config.modbus,
            files=maps,
            latest=latest,
            written=services.written,
        )

        async def told(entry: Entry) -> list[dict[str, Any]]:
            return await rows_of(services, entry)

        validation = services.validation = Validation(plugins, store, figures)
        accounts = services.accounts = Accounts(plugins, store, meters, config.time_zone, topology)
        feed = Feed(plugins, store, told, lambda: services.happened, validation, accounts)
        offers = services.offers = Offers(plugins, services.methods)
        incidents = Incidents(plugins, store, meters, figures, lambda: services.happened, topology)
        pages = await _open_pages(config)

        async with trio.open_nursery() as tasks:
            services.nursery = tasks
            tasks.start_soon(counters.run)
            tasks.start_soon(_watch_lag, figures)
            await tasks.start(plugins.run)
            await offers.refresh()
            tasks.start_soon(offers.run)
            tasks.start_soon(feed.run)
            tasks.start_soon(incidents.run)
            tasks.start_soon(validation.estimate, config.plugins.estimate_after_s)
            tasks.start_soon(_stop_now, stop, reactor, tasks.cancel_scope)
            tasks.start_soon(enrolment.look_up)
            tasks.start_soon(topology.run)
            tasks.start_soon(housekeeping.forget_log, store, config.rpc.log_days)
            tasks.start_soon(housekeeping.keep, store, config, figures)
            tasks.start_soon(Scrubber(store, figures, config.database, services.written).run)
            if pages:
                tasks.start_soon(endpoint.serve, pages)

            async with trio.open_nursery() as pumps:
                pumps.start_soon(pump, reactor, delivery)

                async with trio.open_nursery() as plans:
                    plans.start_soon(rekeying.run)
                    if control is not None:
                        plans.start_soon(control.run)
                        plans.start_soon(_stop_commands, stop, control)
                    for campaign in campaigns:
                        plans.start_soon(campaign.run)
                    plans.start_soon(schedules.run)
                    plans.start_soon(services.jobs.run)
                    plans.start_soon(set_points.run)
                    plans.start_soon(devices.run)
                    if config.rpc.socket is not None:
                        tasks.start_soon(rpc.serve, [open_unix(config.rpc.socket)], local_principal)
                    if config.rpc.port:
                        tasks.start_soon(rpc.serve_tls, await open_tcp(config.rpc), Door(config.rpc))
                    head_end = HeadEnd(
                        config=config,
                        store=store,
                        meters=field.meters,
                        reactor=reactor,
                        requests=requests,
                        layouts=field.layouts,
                        figures=figures,
                        listening=_listen(config, reactor),
                        metrics_address=_address_of(pages),
                        stop=stop,
                        plugins=plugins,
                        set_points=set_points,
                        devices=devices,
                    )
                    gc.collect()
                    gc.freeze()  # the fleet stays as long as the process: the collector need not walk it
                    log.info(
                        "started", meters=len(fleet), plans=len(campaigns), listening=list(head_end.listening),
                        metrics=head_end.metrics_address,
                    )  # fmt: skip
                    task_status.started(head_end)
                    await stop.drain.wait()
                    log.info("draining", within_s=config.reactor.drain_s)
                    requests.drain()
                    plans.cancel_scope.cancel()

                reactor.drain(config.reactor.drain_s)
                tasks.start_soon(_limit_drain, config.reactor.drain_s, reactor, tasks.cancel_scope)
            services.nursery = None
            tasks.cancel_scope.cancel()
        log.info("stopped", lines=figures.lines)
    finally:
        gc.unfreeze()
        reactor.stop()


def tell_of_software_key(keystore: KeystoreConfig, log: Logger) -> None:
    """A warning at each start while the key-encryption key is in software and nobody has accepted that (R21)."""
    if keystore.pkcs11 is None and not keystore.software_accepted:
        log.warning(
            "the key-encryption key is in software, as safe as this machine",
            remedy="use pkcs11_module in [keystore], or accept it with software_accepted = true",
        )


def make_gate(config: Config) -> Gate:
    """The gate that critical commands pass last, with the people whom the configuration names. It starts stopped."""
    people = [(one.name, one.public_key, one.may_request, one.may_approve) for one in config.principals]
    return _core.Gate(stop_file=config.control.stop_file, principals=people, bulk=config.control.bulk)


async def _plugins(config: Config, store: Store, figures: Figures) -> Manager:
    """The plugins as they are configured, and as was said since by the RPC."""
    said = await store.read(states)
    enabled = [name for name in config.plugins.enabled if name not in said or said[name].enabled is not False]
    enabled += [name for name, state in said.items() if state.enabled and name not in enabled]
    settings = {**config.plugins.settings}
    settings |= {name: state.settings for name, state in said.items() if state.settings is not None}
    return Manager(
        enabled,
        figures,
        memory_mib=config.plugins.memory_mib,
        cpu_s=max(1, int(config.plugins.cpu_s)),
        patience=config.plugins.patience,
        keep=store_effects(store),
        kept=store_kept(store),
        settings=settings,
        shadows=config.plugins.shadows,
    )


async def _control(
    config: Config,
    field: Field,
    reactor: Reactor,
    gate: Gate,
    rekeying: Rekeying,
    set_points: SetPoints,
    written: Callable[[], None],
    judge: Judge,
    doubted: dict[int, str],
) -> Control | None:
    """Critical commands; None where the audit trail forbids them. Readings go on without."""
    devices = DeviceCommands(field.store, set_points, field.meters)
    read_back = ReadBack(field.requests, _core, field.meters, rekeying, devices)
    directory = config.data_directory / "firmware"
    read_back.firmware = Firmware(field.store, field.requests, _core, field.meters, directory)
    await devices.take_over()
    control = Control(
        config=config,
        store=field.store,
        reactor=reactor,
        gate=gate,
        requests=field.requests,
        read_back=read_back,
        meters=field.meters,
        figures=field.figures,
        rekeying=rekeying,
        written=written,
        rules=judge,
        doubted=doubted,
    )
    try:
        await control.prepare()
    except AuditBroken as error:
        logger("control").error("no critical command leaves", why=str(error))
        return None
    return control


async def _stop_commands(stop: Stop, control: Control) -> None:
    while True:
        await stop.commands.wait()
        stop.commands = trio.Event()
        control.ask_stop("signal")


async def _hear_signals(signals: AsyncIterator[int], stop: Stop) -> None:
    async for number in signals:
        if number == signal.SIGUSR1:
            stop.commands.set()
        else:
            stop.ask()


async def _stop_now(stop: Stop, reactor: Reactor, tasks: trio.CancelScope) -> None:
    await stop.now.wait()
    logger("server").warning("stopping at once")
    await _stop_reactor(reactor, tasks)


async def _limit_drain(drain_s: float, reactor: Reactor, tasks: trio.CancelScope) -> None:
    await trio.sleep(drain_s + STOP_S)
    logger("server").warning("not drained in time", waited_s=drain_s + STOP_S)
    await _stop_reactor(reactor, tasks)


async def _stop_reactor(reactor: Reactor, tasks: trio.CancelScope) -> None:
    # The pump ends by itself once the last batch is taken; a store that takes nothing would hold it for ever.
    reactor.stop()
    await trio.sleep(STOP_S)
    tasks.cancel()


def _field(
    config: Config,
    store: Store,
    requests: Requests,
    newest: Newest,
    figures: Figures,
    meters: Mapping[int, FleetMeter],
    names: Mapping[int, str],
) -> Field:
    layouts = LayoutBook(
        store=store,
        requests=requests,
        native=_core,
        meters=meters,
        figures=figures,
        timeout_s=config.reactor.request_s,
    )
    return Field(
        store=store,
        requests=requests,
        layouts=layouts,
        newest=newest,
        clocks=ClockCheck(names, figures),
        figures=figures,
        meters=meters,
        zone=config.time_zone,
        limits=config.reactor,
    )


def _campaigns(config: Config, field: Field) -> list[Campaign]:
    try:
        return [Campaign(plan, field) for plan in config.plans]
    except UnknownLogicalName as error:
        raise ConfigError(f"plans: {error}") from error


def _listen(config: Config, reactor: Reactor) -> tuple[str, ...]:
    found = []
    for listener in config.listeners:
        if listener.transport == "mbus":
            try:
                found.append(reactor.listen(f"serial://{listener.line}", transport="mbus"))
            except ValueError as error:
                raise ConfigError(f"listeners: {listener.line}: {error}") from error
            continue
        host = f"[{listener.host}]" if ":" in listener.host else listener.host
        try:
            found.append(reactor.listen(f"{host}:{listener.port}", transport=listener.transport))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"listeners: {host}:{listener.port}: {words(error)}; choose another address or port"
            ) from error
    return tuple(found)


async def _open_pages(config: Config) -> list[trio.SocketListener]:
    where = config.metrics
    if where.port == 0:
        return []
    try:
        return await trio.open_tcp_listeners(where.port, host=where.host)
    except OSError as error:
        raise ConfigError(
            f"metrics: {where.host}:{where.port}: {words(error)}; choose another address or port"
        ) from error


def _address_of(pages: list[trio.SocketListener]) -> str | None:
    if not pages:
        return None
    host, port = pages[0].socket.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _health(store: Store, reactor: Reactor, figures: Figures, stop: Stop) -> dict[str, str]:
    """What is wrong: by trying, not by remembering."""
    wrong = {}
    if figures.store_trouble is not None:
        wrong["store"] = f"takes no readings: {figures.store_trouble}"
    else:
        with trio.move_on_after(HEALTH_S) as scope:
            try:
                # Begins and ends a transaction: refused without room on the disk, the ownership, or a sound store.
                await store.change(lambda _: None)
            except StoreError as error:
                wrong["store"] = str(error)
        if scope.cancelled_caught:
            wrong["store"] = f"no transaction within {HEALTH_S:g} s"
    if reactor.finished():
        wrong["reactor"] = "stopped"
    if figures.loop_lag_s > LAG_LIMIT_S:
        wrong["loop"] = f"{figures.loop_lag_s:.1f} s late"
    if stop.drain.is_set():
        wrong["head-end"] = "draining"
    return wrong


async def _watch_lag(figures: Figures) -> None:
    while True:
        due = trio.current_time() + LAG_STEP_S
        await trio.sleep_until(due)
        figures.loop_lag_s = trio.current_time() - due


def exported() -> tuple[metrics.Shown, ...]:
    """The metrics, with the field's names for the reactor's numbers."""
    return metrics.metrics(lambda number: Outcome(number).label, lambda number: EventKind(number).label)


def _first_of_ours(group: BaseExceptionGroup[BaseException]) -> HeadEndError | None:
    found = group.subgroup(HeadEndError)
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]  # type: ignore[assignment]
    return found
