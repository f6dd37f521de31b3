"""Pushes of senders that are in no registry: kept, shown, adopted, and then opened; over TCP and UDP."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tests.system.fleet import opened
from tests.system.test_serve import free_port, serving, until

from ipss_headend import config
from ipss_headend.client import AsyncClient, CallFailed
from ipss_headend.field.fleet import import_meters
from ipss_headend.field.reactor import EventKind
from ipss_headend.security.keystore import Keystore, create_key_file
from ipss_headend.server import HeadEnd
from ipss_headend.store import quarantine

TITLE = bytes.fromhex("4d4d4d0000bc614e")
ENCRYPTION = bytes.fromhex("5b1e0c9a7d3f48266c81e2b4f90a3d57")
AUTHENTICATION = bytes.fromhex("c4a80f6e21d9475b93be507a1c6fd238")
VALUE = 4_711


def wpdu(counter: int, value: int = VALUE, *, title: bytes = TITLE, key: bytes = ENCRYPTION, client: int = 1) -> bytes:
    """A data-notification of one register, named, ciphered and authenticated under the general form."""
    named = bytes.fromhex("0202 0906 0100010800ff 06".replace(" ", "")) + value.to_bytes(4, "big")
    plain = bytes.fromhex("0f 00000001 00 01 01".replace(" ", "")) + named
    head = b"\x30" + counter.to_bytes(4, "big")
    sealed = AESGCM(key).encrypt(title + head[1:], plain, b"\x30" + AUTHENTICATION)
    body = head + sealed[:-4]  # the tag has 12 octets
    apdu = b"\xdb\x08" + title + bytes([len(body)]) + body
    return bytes.fromhex("00010001") + client.to_bytes(2, "big") + len(apdu).to_bytes(2, "big") + apdu


def push(port: int, octets: bytes, transport: str = "tcp") -> None:
    if transport == "udp":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(octets, ("127.0.0.1", port))
        return
    with socket.create_connection(("127.0.0.1", port), 5) as sender:
        sender.sendall(octets)
        sender.settimeout(5)
        while sender.recv(1000):  # the greeting, and the end
            pass


def configured(directory: Path) -> tuple[Path, int, int]:
    create_key_file(directory / "key_encryption.key")
    ports = free_port(), free_port()
    path = directory / "head_end.toml"
    path.write_text(
        '[keystore]\nkey_file = "key_encryption.key"\n[reactor]\nthreads = 1\n[metrics]\nport = 0\n'
        f'[[listeners]]\nhost = "127.0.0.1"\nport = {ports[0]}\n'
        f'[[listeners]]\nhost = "127.0.0.1"\nport = {ports[1]}\ntransport = "udp"\n',
        encoding="utf-8",
    )
    (directory / "keys.toml").write_text(
        f'[{TITLE.hex()}]\nencryption_key = "{ENCRYPTION.hex()}"\nauthentication_key = "{AUTHENTICATION.hex()}"\n'
    )
    (directory / "keys.toml").chmod(0o600)
    return path, *ports


def run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ipss_headend.cli", *arguments, "--config", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def titles(path: Path) -> frozenset[bytes]:
    with opened(config.load(path)) as database, database.reading() as connection:
        return quarantine.titles(connection)


def test_unknown_pushes_are_kept_and_stored_once_their_sender_is_adopted(tmp_path: Path) -> None:
    path, tcp, udp = configured(tmp_path)
    said: dict[str, subprocess.CompletedProcess[str]] = {}

    async def use(head_end: HeadEnd) -> None:
        await trio.to_thread.run_sync(push, tcp, wpdu(1))
        await trio.to_thread.run_sync(push, udp, wpdu(2, VALUE + 1), "udp")
        await until(lambda: head_end.figures.pushes_quarantined == 2)  # which of two sockets is heard first is nobody's
        await trio.to_thread.run_sync(push, tcp, wpdu(3, VALUE + 2, key=bytes(16)))
        await trio.to_thread.run_sync(push, tcp, wpdu(9, title=b"somebody"))
        await until(lambda: head_end.figures.pushes_quarantined == 4)
        assert head_end.figures.lines == 0
        said["list"] = await trio.to_thread.run_sync(run, path, "meters", "quarantine", "--json")
        said["adopt"] = await trio.to_thread.run_sync(
            run, path, "meters", "adopt", TITLE.hex(), "--name", "m7", "--keys", str(tmp_path / "keys.toml"), "--json"
        )
        assert head_end.figures.lines == 2
        # From now on it is a meter like any other; what was opened once is not taken again.
        await trio.to_thread.run_sync(push, udp, wpdu(4, VALUE + 3), "udp")
        await until(lambda: head_end.figures.lines == 3)
        assert head_end.figures.events[EventKind.TAG_INVALID] == 1

    serving(path, use)

    senders = {sender["system_title"]: sender for sender in json.loads(said["list"].stdout)["senders"]}
    assert senders.keys() == {TITLE.hex(), b"somebody".hex()}
    assert senders[TITLE.hex()]["kept"] == [
        wpdu(1).hex(),
        wpdu(2, VALUE + 1).hex(),
        wpdu(3, VALUE + 2, key=bytes(16)).hex(),
    ]
    assert senders[TITLE.hex()]["address"].startswith("127.0.0.1:")
    adopted = json.loads(said["adopt"].stdout)
    assert (said["adopt"].returncode, adopted["stored"]) == (8, 2), said["adopt"].stderr
    assert [why.partition(":")[0] for why in adopted["refused"]] == ["tag-invalid"]
    with opened(config.load(path)) as database, database.reading() as connection:
        assert {push.wpdu for push in quarantine.pushes_of(connection, [TITLE])} == {wpdu(3, VALUE + 2, key=bytes(16))}
        events = connection.exec_driver_sql("SELECT detail FROM events WHERE kind = 23 ORDER BY event_id").all()
    assert [event[0].partition(" ")[0] for event in events] == [TITLE.hex(), b"somebody".hex()]


def test_without_a_running_head_end_the_pushes_are_opened_when_it_starts(tmp_path: Path) -> None:
    path, tcp, _ = configured(tmp_path)

    async def unknown(head_end: HeadEnd) -> None:
        await trio.to_thread.run_sync(push, tcp, wpdu(5))
        await until(lambda: head_end.figures.pushes_quarantined == 1)

    async def known(head_end: HeadEnd) -> None:
        await until(lambda: head_end.figures.lines == 1)

    serving(path, unknown)
    adopt = run(path, "meters", "adopt", TITLE.hex(), "--name", "m7", "--keys", str(tmp_path / "keys.toml"), "--json")
    nobody = run(path, "meters", "adopt", "00" * 8, "--name", "m9")
    serving(path, known)

    assert (adopt.returncode, json.loads(adopt.stdout)) == (0, {"name": "m7", "adopted": True, "waiting": 1})
    assert nobody.returncode == 2
    assert titles(path) == frozenset()


def test_quarantine_over_the_rpc_and_its_forgetting(tmp_path: Path) -> None:
    path, tcp, _ = configured(tmp_path)

    async def use(head_end: HeadEnd) -> None:
        await trio.to_thread.run_sync(push, tcp, wpdu(1) + wpdu(2))
        await until(lambda: head_end.figures.pushes_quarantined == 2)
        async with AsyncClient(f"unix:{head_end.config.rpc.socket}") as client:
            [sender] = (await client.call("device.quarantine"))["senders"]
            assert sender["wpdus"] == [wpdu(1), wpdu(2)]
            with pytest.raises(CallFailed, match="E_PARAMS: columns: line 2: encryption_key is empty"):
                await client.call(
                    "device.adopt", system_title=TITLE.hex(), columns={"name": "m", "auth": "hls-gmac"}, key="a"
                )
            await client.call("device.forget", system_title=TITLE.hex(), key="b")
            assert (await client.call("device.quarantine"))["senders"] == []
            with pytest.raises(CallFailed, match="E_UNKNOWN"):
                await client.call("device.forget", system_title=TITLE.hex(), key="c")

    serving(path, use)


def test_push_over_a_second_connection_of_a_meter_is_opened_by_its_session(tmp_path: Path) -> None:
    """The meter is polled at its address; its pushes come over connections of their own."""
    path, tcp, _ = configured(tmp_path)
    names = "name,address,system_title,encryption_key,authentication_key"
    line = f"m7,127.0.0.1:9,{TITLE.hex()},{ENCRYPTION.hex()},{AUTHENTICATION.hex()}"
    loaded = config.load(path)
    with opened(loaded) as database, database.writing() as connection:
        keystore = Keystore.open(connection, loaded.keystore)
        assert import_meters(connection, keystore, [names, line], "fleet.csv").imported == 1

    async def use(head_end: HeadEnd) -> None:
        await trio.to_thread.run_sync(push, tcp, wpdu(1))
        await until(lambda: head_end.figures.lines == 1)
        await trio.to_thread.run_sync(push, tcp, wpdu(1))
        await until(lambda: head_end.figures.events[EventKind.REPLAY_REFUSED] == 1)
        assert head_end.figures.lines == 1

    serving(path, use)

    assert titles(path) == frozenset()


def test_flood_of_unknown_senders_is_bounded_and_counted(tmp_path: Path) -> None:
    path, _, udp = configured(tmp_path)

    async def use(head_end: HeadEnd) -> None:
        for number in range(600):
            push(udp, wpdu(1, title=number.to_bytes(8, "big") if number else TITLE), "udp")
        await until(lambda: sum(map(head_end.reactor.stats().get, ("pushes_unclaimed", "pushes_dropped"))) >= 300)  # type: ignore[arg-type]
        stats = head_end.reactor.stats()
        await until(lambda: head_end.figures.pushes_quarantined >= stats["pushes_unclaimed"])
        assert stats["pushes_dropped"] > 0
        assert stats["pushes_unclaimed"] <= 300

    serving(path, use)
