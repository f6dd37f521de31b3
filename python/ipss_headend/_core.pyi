"""The native core: reactor, batches, virtual meters, codecs. Everything per octet, per frame and per meter is here.

Times are microseconds of UTC since 1970 (`_us`) or seconds (`_s`). Logical names are six octets.
"""

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, final

__version__: str

Priority = Literal["backfill", "scheduled", "on-demand", "critical"]
Authentication = Literal["none", "low", "hls2", "hls-md5", "hls-sha1", "hls-gmac", "hls-sha256", "hls-ecdsa"]
Protection = Literal["none", "auth", "enc", "auth+enc"]
Ciphering = Literal["service", "general"]
Framing = Literal["wrapper", "datagram", "hdlc", "optical"]
Descriptor = tuple[int, bytes, int]
"""Class id, logical name, attribute or method."""

OUTCOMES: tuple[str, ...]
"""The names of the outcomes, by the number that `Batch.ends` gives."""

EVENT_KINDS: dict[int, str]
"""The names of the kinds of event, by the number that `Batch.events` gives."""

@final
class Profile:
    """How one model of meter is spoken to, pinned: weaker or different is refused. Shared by all its meters."""

    def __new__(
        cls,
        *,
        client: int = 16,
        server: int = 1,
        authentication: Authentication = "none",
        suite: int = 0,
        protection: Protection = "none",
        ciphering: Ciphering = "service",
        dedicated: bool = False,
        shortest_challenge: int = 16,
        client_title: bytes = ...,
        max_pdu: int = 65535,
        with_list: int = 16,
        range_deviation_min: int = 0,
        range_send_deviation: bool = True,
        range_date_time_type: bool = False,
        heartbeat_s: float = 480.0,
        associate_s: float = 60.0,
        answer_s: float = 30.0,
        frame_s: float = 30.0,
        referencing: Literal["ln", "sn"] = "ln",
        quirks: Sequence[tuple[str, bool | int | str]] = ...,
        shared: bool = False,
    ) -> Profile:
        """Pin it; `shared`: what comes from other meters' addresses over the same connection is passed over.

        `referencing` is by logical or by short names. `quirks` are names and values of what the model does in its own
        way.

        `shortest_challenge` is in octets, 8 to 64: below 16 only for a model that was signed off; hls-ecdsa has 32
        whatever stands here. Raises ValueError naming what does not fit together.
        """

@final
class Link:
    """What carries a meter's APDUs. Meters may share it."""

    def __new__(
        cls,
        framing: Framing = "wrapper",
        *,
        physical: int | None = None,
        address_size: int = 0,
        information: int = 1024,
        window: int = 1,
        answer_s: float = 5.0,
        retries: int = 3,
        inter_octet_s: float = 1.5,
        inactivity_s: float = 120.0,
        disconnect_first: bool = False,
        gateway: tuple[int, bytes] | None = None,
    ) -> Link:
        """The wrapper over a stream or over datagrams, or HDLC over a stream; `optical` signs on by mode E first.

        `optical` is HDLC behind the sign-on of IEC 62056-21 mode E. For HDLC: `physical` is the meter's physical
        device, `address_size` the octets of its address (0: as few as hold it), `information` the octets of information
        in a frame and `window` the frames before an acknowledgement that are proposed, `answer_s` the wait before one
        of `retries` repetitions; `disconnect_first` clears the data link that an earlier client left. `gateway` is the
        network id and the device address behind a gateway. Raises ValueError naming what is out of range.
        """

@final
class Tls:
    """Whom a head-end trusts that dials over TLS, and who it is itself."""

    def __new__(
        cls,
        authorities: str | PathLike[str],
        *,
        certificate: str | PathLike[str] | None = None,
        key: str | PathLike[str] | None = None,
        name: str | None = None,
    ) -> Tls:
        """Files in PEM: the trusted authorities, our certificate and its key.

        `name` is what the device's certificate has to name; without it the address. Raises ValueError naming the file
        that cannot be used.
        """
    @property
    def role(self) -> str | None:
        """The role that our certificate names (MODBUS/TCP Security: extension 1.3.6.1.4.1.50316.802.1)."""

@final
class TlsServer:
    """How a listener speaks TLS."""

    def __new__(
        cls,
        certificate: str | PathLike[str],
        key: str | PathLike[str],
        *,
        authorities: str | PathLike[str] | None = None,
        roles: Sequence[str] = ...,
    ) -> TlsServer:
        """Files in PEM. With `authorities` a peer has to show a certificate of theirs.

        With `roles` that has to name one of them. Raises ValueError naming the file that cannot be used.
        """

@final
class Meter:
    """A meter as the reactor is given it."""

    def __new__(
        cls,
        meter: int,
        address: str | None,
        profile: Profile,
        *,
        system_title: bytes = ...,
        encryption_key: bytes = ...,
        authentication_key: bytes = ...,
        password: bytes = ...,
        private_key: bytes = ...,
        peer_public_key: bytes = ...,
        counters: tuple[int, int] = ...,
        peer_counter: int | None = None,
        hold_open: bool = True,
        idle_s: float = 30.0,
        identities: Sequence[bytes] = ...,
        tls: Tls | None = None,
        shared: bool = False,
        gap_s: float = 0.0,
        trace: bool = False,
        link: Link | None = None,
    ) -> Meter:
        """`address` is "host:port" with a numeric host, or None for a meter that dials in.

        With another transport in front: "udp://host:port", "tls://host:port" (with `tls`), or a serial line,
        "serial:///dev/ttyUSB0?baud=9600&data_bits=8&parity=none&stop_bits=1".

        `shared` meters of one address take turns on one connection, `gap_s` of silence between them; those on a serial
        line always do.

        `password` is the secret of every mechanism that has one. `private_key` (its number, PKCS #8 or SEC 1 in DER)
        is ours, `peer_public_key` (x and y) the meter's, for hls-ecdsa. `counters` is a durably reserved block of
        invocation counters, first and behind the last. `peer_counter` is the highest invocation counter believed of
        the meter. `identities` is what it may call itself when it dials in: logical device name, system title. `trace`
        reports every octet as events of the kind "traced" (number 0 received, 1 sent; detail in hexadecimal):
        passwords of LLS are among them. `link` is what carries APDUs, the wrapper over a stream if there is none.
        Raises ValueError naming what does not fit.
        """

    @staticmethod
    def modbus(
        meter: int,
        address: str,
        profile: ModbusProfile,
        unit: int,
        *,
        hold_open: bool = True,
        idle_s: float = 30.0,
        tls: Tls | None = None,
        shared: bool = False,
        gap_s: float = 0.0,
        identity: bytes = ...,
        trace: bool = False,
    ) -> Meter:
        """A Modbus unit. `shared` units of one address take turns on the connection to their gateway.

        `identity` stands for the device in orders, as a system title does for a meter.
        """
    @staticmethod
    def readout(
        meter: int,
        address: str,
        *,
        device: str = "",
        first_baud: int = 300,
        most_baud: int = 115_200,
        idle_s: float = 30.0,
        answer_s: float = 30.0,
        trace: bool = False,
    ) -> Meter:
        """A meter that is read out as text (IEC 62056-21 mode C) over a serial line.

        Any plan is answered by the whole data block: an answer for each data set, with the address, the value, the unit
        and the logical name (None where the address is none) as octets.
        """

@final
class ModbusProfile:
    """How a Modbus device is to be treated. Shared by all devices of its kind."""

    def __new__(
        cls,
        framing: Literal["tcp", "udp", "rtu", "rtu-over-tcp", "ascii"] = "tcp",
        *,
        baud: int = 9600,
        answer_s: float | None = None,
        retries: int | None = None,
        gap_s: float | None = None,
        interval_s: float = 0.0,
        max_registers: int = 125,
        max_bits: int = 2000,
        max_gap: int = 8,
        in_flight: int = 1,
    ) -> ModbusProfile:
        """Treat it so.

        `baud` times a serial line; `answer_s` is the wait for an answer and `retries` how often a read without one
        is asked again; `gap_s` the least silence between answer and next question, `interval_s` the least time between
        questions; at most `max_registers` (`max_bits`) in one question, with up to `max_gap` unwanted ones among them;
        up to `in_flight` (16) requests on the wire at once where answers name theirs, else one.
        """

@final
class ModbusItem:
    """One question of a Modbus plan; its place in the plan is the `item` of its answers."""

    @staticmethod
    def read(layout: int, points: Sequence[tuple[str, int, int, str]]) -> ModbusItem:
        """Points that make one line, a cell each.

        A point is a table ("coils", "discrete", "holding", "input"), its address on the wire, how many, and "raw" (two
        octets a register, one a coil), "unsigned" or "signed".

        `layout` 0 makes the line an answer (`Batch.answers`) instead of a row. Neighbours are read together.
        """
    @staticmethod
    def ask(pdu: bytes) -> ModbusItem:
        """Any other request, by its PDU.

        A write that was done answers with a line without cells, anything else with one cell: the response behind its
        function code. Raises ValueError for a PDU that the specification forbids.
        """

@final
class ModbusPlan:
    """Questions to a Modbus unit, for `Reactor.submit`."""

    def __new__(cls, items: Iterable[ModbusItem]) -> ModbusPlan: ...
    def __len__(self) -> int: ...
    @property
    def only_reads(self) -> bool:
        """Whether asking it again can do no harm."""

def modbus_exception(code: int) -> str | None:
    """The name of an exception code, None for one that the specification does not know."""

@final
class Item:
    """One question of a plan; its place in the plan is the `item` of its answers."""

    @staticmethod
    def attributes(layout: int, attributes: Sequence[Descriptor], *, capture_time: int | None = None) -> Item:
        """Attributes that make one line, a cell each.

        `capture_time` is the place of the attribute that is the others' capture time; it is no cell. `layout` 0
        makes the line an answer (`Batch.answers`) instead of a row.
        """

    @staticmethod
    def buffer(
        layout: int,
        logical_name: bytes,
        columns: int,
        *,
        clock_column: int | None = ...,
        status_column: int | None = None,
        capture_period_s: int = 0,
        select: Literal["range", "all", "entries"] = "range",
        entries: tuple[int, int, int, int] = ...,
        restricting: tuple[int, bytes, int, int] | None = None,
        selected: Sequence[tuple[int, bytes, int, int]] = ...,
    ) -> Item:
        """A profile's buffer, a line an entry.

        "range" takes the times of `Reactor.submit` and compares them with `restricting`, the clock's time as a rule;
        "entries" takes first and last entry and first and last column, from 1, 0 for the last. `selected` are the
        columns wanted (class id, logical name, attribute, data index), none for all.
        """

    @staticmethod
    def set(descriptor: Descriptor, value: bytes) -> Item:
        """Write an attribute. `value` is A-XDR. Answered by an empty line."""

    @staticmethod
    def set_list(values: Sequence[tuple[Descriptor, bytes]]) -> Item:
        """Write several attributes at once. Answered by an empty line, or by the result of each if one is refused."""

    @staticmethod
    def action(descriptor: Descriptor, parameters: bytes | None = None) -> Item:
        """Invoke a method. Answered by a line with the return parameters, if any."""

    @staticmethod
    def actions(methods: Sequence[tuple[Descriptor, bytes | None]]) -> Item:
        """Invoke several methods, at once where the meter has that.

        Answered by an empty line, or by one with what each returned; a refusal for each that was refused.
        """

    @staticmethod
    def access(
        parts: Sequence[tuple[Literal["get", "set", "action"], Descriptor, bytes | None]],
        *,
        break_on_error: bool = False,
        self_descriptive: bool = False,
    ) -> Item:
        """Read, write and invoke in one ACCESS, in this order.

        Answered by a line with a cell each, null where there is no value; a refusal for each that was refused. With
        `break_on_error` the first refusal ends the list; with `self_descriptive` the meter repeats what was asked, and
        must agree.
        """

    @staticmethod
    def unconfirmed(item: Item) -> Item:
        """What `set`, `set_list` or `action` made, sent without asking for an answer."""

@final
class Plan:
    """Questions in order, made once and given to many meters."""

    def __new__(cls, items: Iterable[Item]) -> Plan: ...
    def __len__(self) -> int: ...

@final
class Layouts:
    """What stands in which place of the lines, for `Batch.readings`."""

    def __new__(cls) -> Layouts: ...
    def add(self, layout: int, columns: Sequence[tuple[str, int | None, str]]) -> None:
        """Reading type, scaler and unit of each place."""
    def __len__(self) -> int: ...

@final
class Columns:
    """A table in columns, by the Arrow PyCapsule interface."""

    def __len__(self) -> int: ...
    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]: ...
    def __arrow_c_schema__(self) -> object: ...

@final
class Batch:
    """What sessions said, many meters at a time. By the Arrow PyCapsule interface it is its lines."""

    def __len__(self) -> int: ...
    @property
    def lines(self) -> int: ...
    @property
    def values(self) -> int: ...
    def rows(self, received_us: int) -> list[tuple[int, int, int, int, int, int, int, int, bytes, int]]:
        """The lines with a layout, as rows of the store (`store/records.py`)."""
    def answers(self) -> list[tuple[int, int, int, int | None, int, int, list[int | bytes | None]]]:
        """The lines without one: meter, request, item, capture_time_us, deviation_min, clock_status, cells.

        A cell is the value's A-XDR octets with its type (`decode_data`), or None; in a line of a buffer an exact
        integer, octets of what is no integer, or None. Request 0 is a notification.
        """
    def events(self) -> list[tuple[int, int, int, int, str]]:
        """Meter, at_us, kind, number, detail."""
    def event_meters(self, kind: int) -> bytes:
        """The meters of the events of one kind, u32 each, native order."""
    def ends(self) -> list[tuple[int, int, int, int, int, str]]:
        """Request, meter, outcome, exchanges, duration_us, detail."""
    def ended_requests(self) -> bytes:
        """The requests that are over, u64 each, native order."""
    def done_meters(self) -> bytes:
        """The meters of the requests that are over and done, u32 each, native order."""
    def refusals(self) -> list[tuple[int, int, int, int]]:
        """Meter, request, item, code (a data-access-result or action-result)."""
    def peer_counters(self) -> list[tuple[int, int]]:
        """Meter and the highest invocation counter believed of it: to be stored with the batch's readings."""
    def readings(self, layouts: Layouts) -> Columns:
        """One row a value: meter, layout, place, reading_type, capture_time, mantissa, scaler, unit, raw, ..."""
    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]: ...
    def __arrow_c_schema__(self) -> object: ...

@final
class Gate:
    """What decides about critical commands right before their octets are sealed (`rust/src/control`).

    It starts stopped. Principals are name, Ed25519 public key, may request, may approve.
    """

    def __new__(
        cls, *, stop_file: str | Path, principals: Sequence[tuple[str, bytes, bool, bool]], bulk: int = 25
    ) -> Gate:
        """While `stop_file` is there, or cannot be looked for, nothing critical leaves; looked for ten times a second.

        Orders for more than `bulk` meters (25 at most) need two approvers.
        """
    @staticmethod
    def simulated(
        *, stop_file: str | Path, principals: Sequence[tuple[str, bytes, bool, bool]], bulk: int = 25
    ) -> Gate:
        """For tests: a gate by the clock of this thread's `Simulation`, that looks for its stop file when told to."""
    def look(self) -> bool:
        """Look for the stop file now, stop if it is there, and say so. A thread does it where nothing is simulated."""
    def limit(self, per_day: int, reconnects_per_day: int, changes_per_day: int = 0) -> None:
        """How many commands may leave in 24 hours; none until this is said."""
    def protect(self, meters: Sequence[tuple[int, bytes]]) -> None:
        """Never cut or limit these: number and system title (empty for none)."""
    def unprotect(self, meters: Sequence[tuple[int, bytes]]) -> None: ...
    @property
    def protected(self) -> int: ...
    def hold(self, meters: Sequence[tuple[int, str]]) -> None:
        """Nothing critical goes to these meters, each with why; a reactor does the same for clones that it finds."""
    def clear(self, meters: Sequence[int]) -> None:
        """It goes to these again."""
    def holds(self, meter: int) -> bool: ...
    def awake_s(self) -> float:
        """Seconds since the machine started, those included that it slept through."""
    def lease(self, since_s: float, term_s: float, wall_us: int) -> None:
        """The store confirmed that this process owns it, asked at `since_s` of `awake_s`; `wall_us` is now.

        It holds for `term_s` from then by either clock; without it, nothing critical leaves.
        """
    def spend(self, commands: Sequence[bytes]) -> None:
        """Commands of an earlier life of the process, 16 octets each: never released again."""
    def stop(self) -> None:
        """Nothing critical leaves from now on."""
    def resume(self, generation: int) -> bool:
        """Open, unless the stop file is there. Approvals of generations other than this one are void."""
    @property
    def stopped(self) -> bool: ...
    @property
    def generation(self) -> int: ...

def order_of(octets: bytes) -> dict[str, Any]:
    """What the canonical octets of an order say (docs/commands.md). Raises ValueError for what is not one."""

def key_transfer(suite: int, master_key: bytes, encryption_key: bytes, authentication_key: bytes) -> bytes:
    """A key_transfer's parameters: both keys wrapped under the meter's master key (RFC 3394), A-XDR.

    Raises ValueError if a key is not the suite's.
    """

def master_key_transfer(suite: int, master_key: bytes, new_master_key: bytes) -> bytes:
    """The parameters of two key_transfers, one behind the other: the new key under the one in use, and under itself.

    A meter takes the second one only if it has the new key: that is the proof. Raises ValueError as `key_transfer`.
    """

def signed_octets(purpose: str, generation: int, principal: str, octets: bytes) -> bytes:
    """What a principal signs to "propose" or "approve" the order with these canonical octets."""

@final
class Reactor:
    """Keeps the connections, in threads of its own. Only this object's methods talk to them."""

    def __new__(
        cls,
        *,
        threads: int | None = None,
        batch_rows: int = 1000,
        batch_delay_s: float = 0.01,
        batches: int = 64,
        connects_per_second: int = 500,
        connect_burst: int = 1000,
        connections: int | None = None,
        queue: int = 16,
        connect_timeout_s: float = 10.0,
        associate_timeout_s: float = 60.0,
        identify_timeout_s: float = 30.0,
        frame_timeout_s: float = 30.0,
        release_timeout_s: float = 5.0,
        backoff_base_s: float = 1.0,
        backoff_cap_s: float = 300.0,
        authentication_pause_s: float = 450.0,
        breaker: int = 5,
        gate: Gate | None = None,
    ) -> Reactor:
        """Requests that touch critical objects end as impossible, unless `release` made them. No gate: all do."""
    def fileno(self) -> int:
        """The descriptor that is readable while there is a batch to take, or when the reactor has stopped."""
    def add(self, meters: Sequence[Meter]) -> None:
        """Know these meters from now on; those held open are connected at once, as admission allows."""
    def remove(self, meters: Sequence[int]) -> None: ...
    def grant(self, grants: Sequence[tuple[int, int, int]]) -> None:
        """Meter, first and behind the last of a durably reserved block of invocation counters."""
    def confirm(self, pushes: Sequence[tuple[int, int]]) -> None:
        """Tell meters that their confirmed pushes are durable: (meter, the number of the event `notified`)."""
    def hear(self, pushes: Sequence[tuple[int, int, bytes]]) -> None:
        """Have meters' sessions open pushes that came over other connections: (meter, a number of yours, one WPDU).

        What is in them comes as any push; how each ended is an event `push-heard` with your number, in the same batch.
        """

    def submit(
        self,
        plan: Plan | ModbusPlan,
        meters: Sequence[int] | bytes | bytearray | memoryview,
        *,
        timeout_s: float,
        priority: Priority = "scheduled",
        attempts: int = 3,
        from_us: int = 0,
        to_us: int = 0,
    ) -> int:
        """Ask all of these meters (numbers, or u32 each in native order) this plan.

        Returns the first request's number; the others follow in the meters' order. Each ends exactly once in a
        batch's `ends`. Raises RuntimeError when the reactor has stopped or too much is on its way already.
        """
    def admit(self, order: bytes, signatures: Sequence[tuple[str, str, int, bytes]]) -> None:
        """Check an order's canonical octets and signatures: purpose, principal, generation, octets each.

        Raises PermissionError, with the reason, for whatever may not go.
        """
    def release(self, order: bytes, command: bytes, timeout_s: float, made: bytes = ...) -> int:
        """Send one command of an admitted order, both named by 16 octets; the request's number.

        `made` is what a key transfer's keys were made into for this meter (`key_transfer`); empty for everything else.

        Checked again in the step that seals its octets. Raises PermissionError if it may not go, RuntimeError if the
        reactor takes nothing.
        """
    def open_registers(self, meter: int, parts: Sequence[tuple[int, int, int]]) -> None:
        """Holding registers of a Modbus device that may be written without an order.

        First and last of each part, and the least value that each of them may get. For set points that the device
        ends by itself. Any other write of a Modbus device needs a released command.
        """
    def settle(self, request: int) -> bool:
        """Whether the octets of a released command may have left. If not, they never will."""
    def believe(self, wall_us: int) -> None:
        """The wall clock was at least here once. Nothing is admitted before this is said, or while it is behind."""
    def count(self, ages_s: Sequence[float], pool: str) -> None:
        """Commands that left so long ago, oldest first, count against the ceiling of their pool in 24 hours.

        `pool`: cut, reconnect or change.
        """
    def cancel(self, requests: Sequence[tuple[int, int]]) -> None:
        """Withdraw requests, (meter, request) each.

        Those that have not ended yet end as cancelled, or as unknown if a write was sent.
        """
    def listen(
        self, address: str, *, transport: Literal["tcp", "udp", "tls", "mbus"] = "tcp", tls: TlsServer | None = None
    ) -> str:
        """Take connections of meters that dial in at "host:port" (port 0: any); returns the address bound.

        Over UDP each address that datagrams come from is a connection. `mbus` listens on a serial line
        (`serial:///dev/ttyUSB0?baud=2400&parity=even`) for pushes, which come as events `push-unclaimed`.
        """
    def take(self) -> Batch | None:
        """The oldest batch, or None. Never waits."""
    def finished(self) -> bool:
        """Whether the reactor has stopped and every batch was taken."""
    def stats(self) -> dict[str, int]: ...
    def drain(self, timeout_s: float) -> None:
        """Take no more requests, finish those in work, release the associations, stop. Returns at once."""
    def stop(self) -> None:
        """Stop now. What is queued ends as cancelled."""

@final
class Simulation:
    """For tests: virtual meters that live on, a head-end's reactor that may be killed, and the network between them.

    Everything follows from the seed and from what is called, in the one thread that may call it; nothing happens by
    itself. Meters are numbered from 0. Times are microseconds since the beginning, or of the wall clock. Never part of
    a head-end that serves: its meters' keys follow from a seed too.
    """

    def __new__(
        cls,
        *,
        seed: int,
        wall_us: int,
        meters: int = 4,
        history_s: int = 21_600,
        capture_period_s: int = 900,
        max_pdu: int = 400,
    ) -> Simulation:
        """The world at `wall_us`, whose meters have measured for `history_s` and send blocks above `max_pdu` octets."""
    def csv(self) -> str:
        """The meters' fleet file. They and their keys are the same whatever the seed."""
    @property
    def wall_us(self) -> int: ...
    @property
    def trace(self) -> int:
        """A number that depends on all that the network did: equal for equal runs."""
    def start(
        self,
        gate: Gate,
        *,
        batch_rows: int = 1000,
        batches: int = 64,
        queue: int = 16,
        connect_timeout_s: float = 10.0,
        associate_timeout_s: float = 60.0,
        frame_timeout_s: float = 30.0,
        backoff_cap_s: float = 300.0,
        authentication_pause_s: float = 450.0,
    ) -> SimulatedReactor:
        """A head-end's reactor, in place of any other."""
    def kill(self, reset: bool) -> None:
        """The head-end's reactor is no more; the meters are told (`reset`) or not."""
    def cut(self, meter: int, reset: bool, down: bool) -> None:
        """A meter's connections are no more, and it takes no others while it is `down`. It forgets nothing."""
    def set_faults(
        self,
        *,
        delay_ms: int = 0,
        jitter_ms: int = 0,
        split: int = 0,
        reset: int = 0,
        refused: int = 0,
        unanswered: int = 0,
        silence: int = 0,
        partial_write: int = 0,
        loss: int = 0,
        duplication: int = 0,
        reordering: int = 0,
        corruption: int = 0,
    ) -> None:
        """How the network is from now on, per mille where it is no time."""
    def advance(self, now_us: int) -> None:
        """Move both clocks; nobody has a turn."""
    def turn(self, now_us: int) -> int | None:
        """Move both clocks and let everybody take turns until nothing is left to do. Returns when there is more.

        Raises AssertionError if it does not come to rest.
        """
    def seen(self) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]], list[tuple[int, int]]]:
        """What happened since the last call, in order.

        What the gate let out (meter's number at the reactor, request, wall clock), what meters were told to switch
        (meter, method of the disconnect control, wall clock), and every invocation counter that left twice under a
        meter's key (meter, counter), whether or not the frames arrived.
        """
    def import_at(self, meter: int, wall_us: int) -> int | None:
        """What the meter's active import register showed; None: there is no such meter."""

@final
class SimulatedReactor:
    """For tests: a head-end's reactor in a `Simulation`, which gives it its turns. Its methods are `Reactor`'s."""

    def fileno(self) -> int: ...
    def add(self, meters: Sequence[Meter]) -> None: ...
    def remove(self, meters: Sequence[int]) -> None: ...
    def grant(self, grants: Sequence[tuple[int, int, int]]) -> None: ...
    def confirm(self, pushes: Sequence[tuple[int, int]]) -> None: ...
    def hear(self, pushes: Sequence[tuple[int, int, bytes]]) -> None: ...
    def submit(
        self,
        plan: Plan | ModbusPlan,
        meters: Sequence[int] | bytes | bytearray | memoryview,
        *,
        timeout_s: float,
        priority: Priority = "scheduled",
        attempts: int = 3,
        from_us: int = 0,
        to_us: int = 0,
    ) -> int: ...
    def admit(self, order: bytes, signatures: Sequence[tuple[str, str, int, bytes]]) -> None: ...
    def release(self, order: bytes, command: bytes, timeout_s: float, made: bytes = ...) -> int: ...
    def open_registers(self, meter: int, parts: Sequence[tuple[int, int, int]]) -> None: ...
    def settle(self, request: int) -> bool: ...
    def believe(self, wall_us: int) -> None: ...
    def count(self, ages_s: Sequence[float], pool: str) -> None: ...
    def cancel(self, requests: Sequence[tuple[int, int]]) -> None: ...
    def take(self) -> Batch | None: ...
    def finished(self) -> bool: ...
    def stats(self) -> dict[str, int]: ...
    def drain(self, timeout_s: float) -> None: ...
    def stop(self) -> None: ...

@final
class VirtualFleet:
    """Virtual meters: DLMS meter role in a reactor of their own, each at its own loopback address."""

    def __new__(
        cls,
        *,
        count: int,
        seed: int = 1,
        first_address: str = "127.1.0.1",
        port: int = 4059,
        faults: str = "",
        authentication: Authentication = "hls-gmac",
        suite: int = 0,
        protection: Protection = "auth+enc",
        dedicated: bool = False,
        max_pdu: int = 1024,
        capture_period_s: int = 900,
        history_days: int = 90,
        log_nonces: bool = False,
        transport: Literal["tcp", "udp", "tls"] = "tcp",
        tls: TlsServer | None = None,
        threads: int = 1,
        link: Link | None = None,
        behind: int = 1,
        quirks: Sequence[tuple[str, bool | int | str]] = ...,
    ) -> VirtualFleet:
        """Start them, with `history_days` of load profile behind them. Over UDP each takes a descriptor.

        `behind` of them answer at each address, as logical devices 16 and on of one concentrator. `quirks` are what all
        of them do in their own way.

        The meters' rows can be taken with `log_nonces` (what arrived at them); without it they are dropped.
        Clients 1 and 2 associate by `authentication` under `protection`, client 16 is the public client. Raises
        ValueError for what cannot be, OSError when the port cannot be bound.
        """
    @property
    def port(self) -> int: ...
    def csv(self, *, dials_in: bool = False) -> str:
        """The file that `ipss-headend meters import` takes, secrets included. Meters that dial in have no address."""
    def dial(self, address: str) -> None:
        """Have every meter connect to a head-end that listens at "host:port", again after each loss."""
    def fileno(self) -> int: ...
    def take(self) -> Batch | None: ...
    def stats(self) -> dict[str, int]: ...
    def stop(self) -> None: ...

@final
class VirtualDevices:
    """Virtual inverters, storage and sub-meters: Modbus TCP device role, SunSpec, each at its own loopback address."""

    def __new__(
        cls,
        *,
        inverters: int = 0,
        storage: int = 0,
        submeters: int = 0,
        seed: int = 1,
        first_address: str = "127.2.0.1",
        port: int = 5020,
        history_days: int = 90,
        latitude_deg: int = 50,
        longitude_deg: int = 0,
        connections: int = 4,
    ) -> VirtualDevices:
        """Start them, as if installed `history_days` ago. Each answers as unit 1, registers from 40000 on.

        The sun is highest at 12:00 UTC less four minutes a degree of `longitude_deg`, east positive; north is positive
        too. Each device takes so many `connections` at once, 1 to 64; it closes one more at once.

        Raises ValueError for what cannot be, OSError when the port cannot be bound.
        """
    @property
    def port(self) -> int: ...
    def devices(self) -> list[tuple[str, str]]:
        """Each device's URL, "modbus+tcp://127.2.0.1:5020/1", and kind: "inverter", "storage" or "sub-meter"."""
    def stats(self) -> dict[str, int]: ...
    def stop(self) -> None: ...

@final
class SunSpecDevice:
    """One SunSpec device: its models as they are found, then its points by name. Reads nothing itself."""

    def __new__(cls, most: int = 125) -> SunSpecDevice:
        """`most` registers are asked for at once."""
    def ask(self) -> tuple[int, int] | None:
        """Address and number of the holding registers to read next, or None when all models are known, or none are."""
    def answered(self, octets: bytes | None, /) -> None:
        """What the read gave, two octets a register; None if the device refused it."""
    def models(self) -> list[tuple[int, int, int]]:
        """Number, address and length of each model, in order; nothing for a device that is none of SunSpec."""
    def place(self, model: int, point: str) -> tuple[int, int]:
        """Address and number of registers of a point, "W" or "Crv[1].Pt[3].V". Raises ValueError if there is none."""
    def update(self, address: int, octets: bytes, /) -> bool:
        """Registers as they were read; False if they are no part of one model."""
    def value(self, model: int, point: str) -> str | None:
        """What a point said last, scaled; None if it is not implemented. Raises ValueError if there is none."""
    def write(self, model: int, point: str, value: str) -> tuple[int, bytes]:
        """Address and registers that set a point to a decimal number. Raises ValueError if it cannot say it."""

def modbus_identification(pdu: bytes, /) -> list[tuple[int, str]]:
    """Objects of a device identification (function 43/14): 0 vendor, 1 product code, 2 revision. Empty if none."""

@final
class RegisterMap:
    """One register map, of those that come with the head-end or of `files` (name and text of each).

    Raises ValueError: what is wrong with the files, or no map has this name.
    """

    def __new__(cls, name: str, files: list[tuple[str, str]] = ...) -> RegisterMap: ...
    @property
    def treatment(self) -> tuple[int, int, int]:
        """Registers that one read may ask for, milliseconds between requests, requests taken before an answer."""
    def points(self) -> list[tuple[str, str, int, int, str, str | None, str, str | None, int, bool]]:
        """The points that may be read.

        Name, table, address, registers, unit, logical name of the reading, poll class ("fast", "slow", "once",
        "never"), the point that holds a further power of ten, the map's power of ten, whether the value is a number.
        """
    def control(
        self, act: Literal["connect", "disconnect", "limit", "release"], percent: str | None = None
    ) -> tuple[str, int, bytes] | None:
        """The one write that does this to a device: table, first address, octets (a coil: FF00 or 0000).

        None if the map does not know how. Raises ValueError for a percent that the device cannot take exactly.
        """
    def critical(self) -> list[tuple[str, str, int, int, Literal["switch", "limit"]]]:
        """The points whose write switches or limits supply: name, table, address, registers, what it does."""
    def read(self, point: str, octets: bytes, factor: int | None = None) -> str | None:
        """A point's exact value; None if the device does not have it, or its scale is not known."""

def register_maps() -> list[tuple[str, str, str, str, int]]:
    """The register maps that come with the head-end: name, manufacturer, title, source, number of points."""

def register_map_of(vendor: str, product: str) -> str | None:
    """The map for a device that names itself so (function 43/14, or the SunSpec common model)."""

def register_map_signs() -> list[tuple[str, Literal["holding", "input"], int, list[int]]]:
    """Maps whose devices are known by a register: map, table, address, and the values that it may have."""

def check_maps(files: list[tuple[str, str]], /) -> list[str]:
    """What is wrong with these map files (name and text of each), a line a mistake.

    They may inherit from each other and from the maps that come with the head-end.
    """

@final
class Decipher:
    """Opens and decodes get-responses under one key, without an association: for recorded frames and comparisons.

    Replays are not noticed here: each call starts from the counter that it finds.
    """

    def __new__(
        cls, system_title: bytes, encryption_key: bytes, authentication_key: bytes, protection: Protection = "auth+enc"
    ) -> Decipher: ...
    def value(self, apdu: bytes) -> int | bytes | None:
        """The value of a ciphered get-response: an exact integer, A-XDR octets, or None. Raises ValueError."""
    def buffer(self, apdu: bytes, columns: int, clock_column: int | None = ..., capture_period_s: int = 900) -> Batch:
        """The lines of a profile's buffer in a ciphered get-response. Raises ValueError."""

def decode_data(octets: bytes) -> list[Any]:
    """One A-XDR value as [type, value] (CLI.md's form). Raises ValueError."""

def encode_data(value: Sequence[Any]) -> bytes:
    """The inverse of `decode_data`. Raises ValueError."""

def decode(request: str) -> Iterator[str]:
    """Explain octets: one JSON request as `ipss-headend decode --jsonl` takes, the answer in pieces of JSON text."""

def unit_symbol(unit: int) -> str:
    """The Blue Book's symbol of a unit, empty for none."""

def catalogue(logical_name: bytes) -> dict[str, Any] | None:
    """What the catalogue knows of a logical name: class_id, name, unit, direction, reading_type (IEC 61968-9)."""

def attribute_names(class_id: int) -> list[str]:
    """The names of an interface class's attributes, from attribute 1; empty for a class that is not known."""

def named_value(class_id: int, attribute: int, octets: bytes) -> str:
    """The value of an attribute (A-XDR) as JSON, with the names that its class gives its parts. Raises ValueError."""

def add_profile(name: str, text: str) -> None:
    """Take a utility's own companion profile (TOML, as `protocols/dlms/src/push/companion.rs` describes).

    It stands in front of one of the same name that comes with the program. Raises ValueError: what is wrong with it.
    """

def profile_names() -> list[str]:
    """The names of all companion profiles, sorted."""

def profile(name: str) -> dict[str, Any]:
    """A companion profile: name, about, layouts (their names) and quirks. Raises ValueError for an unknown name."""

def read_push(
    apdu: bytes, profile: str
) -> tuple[
    int | None,
    int,
    int,
    tuple[int, str, int],
    tuple[tuple[int, str, int, int, int | None, str, str], ...],
    list[int | bytes | None],
]:
    """A plain notification taken apart under a companion profile.

    Returns capture_time_us (None if the meter gave none), deviation_min, clock_status, the attribute that it is of,
    for each value (class_id, logical_name, attribute, data_index, scaler, unit, name), and the values. Without
    values no layout fits. Raises ValueError for what is no notification and for an unknown profile.
    """

def unopened_pushes(octets: bytes) -> list[tuple[bytes, int, int, bytes]]:
    """The protected pushes that stand one behind the other in front of `octets`: whole WPDUs that name their sender.

    Returns the system title, the sender's and our service access point, and the WPDU. Nothing is verified.
    """

def learn_push(name: str, octets: bytes, labels: Sequence[tuple[str, str]] | None = None) -> str:
    """The layout of a push as a profile has it (TOML).

    Without labels `octets` are a push setup's object list (class 40, attribute 2), one A-XDR value. With them they are
    the body of a sample, and each label is a column (`3/1.0.1.7.0.255 0 W`) with the value that people see there.
    Raises ValueError.
    """

@final
class RpcScanner:
    """Finds and checks the messages in what an RPC client sends, before anything is built from them (docs/rpc.md)."""

    def __new__(cls, *, octets: int = 1_048_576, depth: int = 16, values: int = 131_072) -> RpcScanner:
        """At most `octets` a message, `depth` arrays and maps within each other, `values` values."""

    def allow(self, *, octets: int, depth: int = 16, values: int = 131_072) -> None:
        """From now on this is the most."""

    def feed(self, octets: bytes) -> tuple[list[tuple[int, int, str, bytes]], tuple[int | None, str] | None]:
        """Take what has arrived; give the messages that are whole now: kind, id, method, params.

        Kind 0 is a request, 1 a response (without method and params), 2 a notification (id 0). Params are msgpack, one
        array, well-formed. Behind them: the request's number and the words of a fault, which ends the connection.
        """
