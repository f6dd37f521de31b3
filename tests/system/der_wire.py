"""A line to one Modbus device that is watched, and that loses what it is told to lose."""

import io
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from tests.system.fleet import opened
from tests.system.people import Office, People

from ipss_headend import _core, config
from ipss_headend.field.control.desk import transact
from ipss_headend.field.control.orders import Order, RegisterWrite, order
from ipss_headend.field.der.critical import Meaning
from ipss_headend.field.fleet import import_meters
from ipss_headend.security.keystore import Keystore, create_key_file
from ipss_headend.store import registry
from ipss_headend.store.database import now_us

FAST = '[control]\nread_back = "2s"\nreconnect_window = "1s"\nfleet_per_day_least = 1000\n'


class Wire:
    """Passes frames between a head-end and one device, and counts the writes that reach the device."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("modbus+tcp://").removesuffix("/1").partition(":")
        self._device = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"modbus+tcp://127.0.0.1:{self._listener.getsockname()[1]}/1"
        self.writes: Counter[bytes] = Counter()
        """The PDU of each write, and how often the device got it."""
        self.lose: Literal["", "answer", "request"] = ""
        """What becomes of writes: their answer is lost, or they are."""
        self.held = threading.Event()
        """While cleared, nothing is passed."""
        self.held.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """No more."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                head_end, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass, args=(head_end,), daemon=True).start()

    def _pass(self, head_end: socket.socket) -> None:
        with head_end:
            try:
                with socket.create_connection(self._device, timeout=20) as device:
                    while (request := frame(head_end)) is not None:
                        self.held.wait()
                        writes = request[7] in (5, 6, 15, 16)
                        if writes and self.lose == "request":
                            continue
                        if writes:
                            self.writes[request[7:]] += 1
                        device.sendall(request)
                        answer = frame(device)
                        if answer is None:
                            return
                        if writes:
                            time.sleep(0.05)  # as a line takes: a head-end may die meanwhile
                        if not (writes and self.lose == "answer"):
                            head_end.sendall(answer)
            except OSError:
                return


def frame(stream: socket.socket) -> bytes | None:
    """The next frame; None: the connection has ended."""
    head = exactly(stream, 6)
    body = None if head is None else exactly(stream, int.from_bytes(head[4:6]))
    return None if head is None or body is None else head + body


def exactly(stream: socket.socket, count: int) -> bytes | None:
    """So many octets; None: the connection has ended."""
    octets = b""
    while len(octets) < count:
        part = stream.recv(count - len(octets))
        if not part:
            return None
        octets += part
    return octets


@contextmanager
def world(directory: Path, address: str, control: str = FAST) -> Iterator[tuple[Wire, Office, Path]]:
    """One virtual inverter `der-1` behind a wire, people, and a head-end's configuration."""
    devices = _core.VirtualDevices(inverters=1, first_address=address, port=0)
    wire = Wire(devices.devices()[0][0])
    office, path = prepared(directory, f"der-1,{wire.url},sunspec\n", control)
    try:
        yield wire, office, path
    finally:
        wire.close()
        devices.stop()


def prepared(directory: Path, devices: str, control: str = FAST) -> tuple[Office, Path]:
    """A head-end's configuration with people, and these devices (name, address, model) in its registry."""
    people = People(directory)
    create_key_file(directory / "key_encryption.key")
    path = directory / "head_end.toml"
    path.write_text(
        f'[keystore]\nkey_file = "key_encryption.key"\n[metrics]\nport = 0\n{control}'
        '[modbus]\nfast = "1h"\nslow = "1h"\n' + people.config(),
        encoding="utf-8",
    )
    loaded = config.load(path)
    with opened(loaded) as database, database.writing() as connection:
        keystore = Keystore.open(connection, loaded.keystore)
        text = io.StringIO("name,address,model\n" + devices)
        assert import_meters(connection, keystore, text, "der.csv", strict=True).mistakes == ()
    return Office(path, people), path


class Layout:
    """Where the inverter has its controls, asked of it once over a line of the test's own."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("modbus+tcp://").removesuffix("/1").partition(":")
        self.device = _core.SunSpecDevice()
        with socket.create_connection((host, int(port)), timeout=10) as self._stream:
            while (asked := self.device.ask()) is not None:
                self.device.answered(self._read(*asked))
            self._first, _ = self.device.place(704, "WMaxLimPctEna")
            last, count = self.device.place(704, "WMaxLimPctRvrtTms")
            octets = self._read(self._first, last + count - self._first)
        assert octets is not None
        self._octets = octets

    def _read(self, address: int, count: int) -> bytes | None:
        request = b"\0\1\0\0\0\6\1\3" + address.to_bytes(2) + count.to_bytes(2)
        self._stream.sendall(request)
        answer = frame(self._stream)
        assert answer is not None
        return answer[9:] if answer[7] == 3 else None

    def limit(self, meaning: Meaning) -> RegisterWrite:
        """The one write of a limit, made independently of the head-end."""
        octets = bytearray(self._octets)
        values = {"WMaxLimPctEna": "1", "WMaxLimPct": f"{meaning.value}", "WMaxLimPctRvrtTms": str(meaning.revert_s)}
        for point, value in values.items():
            address, written = self.device.write(704, point, value)
            place = 2 * (address - self._first)
            octets[place : place + len(written)] = written
        return RegisterWrite(1, self._first, 16, bytes(octets))


def ask(
    office: Office,
    meaning: Meaning,
    write: RegisterWrite,
    *,
    life_s: float = 900,
    approve: bool = True,
    kind: str | None = None,
) -> Order:
    """Ada asks for this write, Bob approves."""
    with office.open() as database:
        with database.reading() as connection:
            meter = registry.meter_named(connection, "der-1")
        made = order(
            kind or meaning.kind,
            write,
            meaning.text(),
            [(meter.meter_id, meter.identity)],
            reason="test",
            requester="ada",
            created_us=now_us(),
            life_s=life_s,
        )
        signature = office.people.signer("ada").sign("propose", 0, made.octets())
        transact(database, lambda connection: office.desk.propose(connection, made.octets(), signature))
    if approve:
        assert office.approve(made.order_id)
    return made


def pdu(write: RegisterWrite) -> bytes:
    """The PDU that this write has to be on the wire."""
    count = len(write.values) // 2
    return b"\x10" + write.address.to_bytes(2) + count.to_bytes(2) + bytes((2 * count,)) + write.values
