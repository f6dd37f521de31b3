"""Serial lines as pseudo-terminals: pushes over wired M-Bus, and a meter read out as text (IEC 62056-21 mode C)."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
from pathlib import Path

from tests.system.fleet import opened
from tests.system.serial_line import line
from tests.system.test_quarantine import AUTHENTICATION, ENCRYPTION, TITLE, titles, wpdu
from tests.system.test_serve import serving, until

from ipss_headend import config
from ipss_headend.field.fleet import import_meters
from ipss_headend.security.keystore import Keystore, create_key_file
from ipss_headend.server import HeadEnd

READOUT = (
    b"F.F(00000000)\r\n0.0.0(12345678)\r\n1.8.0(000123.45*kWh)\r\n1-0:2.8.0*255(7.5*kWh)\r\n0.9.2(2026-11-22)\r\n!\r\n"
)


def long_frames(apdu: bytes, *, segment: int) -> list[bytes]:
    """An APDU in long frames of M-Bus (EN 13757-2): service access points 1 and 1, `segment` octets in each."""
    pieces = [apdu[start : start + segment] for start in range(0, len(apdu), segment)]
    frames = []
    for number, piece in enumerate(pieces):
        last = 0x10 if number == len(pieces) - 1 else 0
        body = bytes((0x53, 0xFF, number | last, 1, 1)) + piece
        frames.append(bytes((0x68, len(body), len(body), 0x68)) + body + bytes((sum(body) & 0xFF, 0x16)))
    return frames


def test_pushes_over_wired_mbus_are_stored_and_those_of_strangers_kept(tmp_path: Path) -> None:
    create_key_file(tmp_path / "key_encryption.key")
    path = tmp_path / "head_end.toml"
    names = "name,address,system_title,encryption_key,authentication_key"
    ours = f"m7,,{TITLE.hex()},{ENCRYPTION.hex()},{AUTHENTICATION.hex()}"

    async def use(head_end: HeadEnd) -> None:
        os.write(master, b"\x00\x68\xe5")  # noise
        for octets in (wpdu(1), wpdu(2, title=b"stranger"), wpdu(3, 99)):
            for frame in long_frames(octets[8:], segment=25):
                os.write(master, frame)
        await until(lambda: head_end.figures.lines == 2)
        await until(lambda: head_end.figures.pushes_quarantined == 3)

    with line() as (master, device):
        path.write_text(
            '[keystore]\nkey_file = "key_encryption.key"\n[reactor]\nthreads = 1\n[metrics]\nport = 0\n'
            f'[[listeners]]\ntransport = "mbus"\nline = "{device}?baud=2400&parity=even"\n',
            encoding="utf-8",
        )
        loaded = config.load(path)
        with opened(loaded) as database, database.writing() as connection:
            keystore = Keystore.open(connection, loaded.keystore)
            assert import_meters(connection, keystore, [names, ours], "fleet.csv").mistakes == ()
        serving(path, use)

    assert titles(path) == {b"stranger"}


class Meter(threading.Thread):
    """A meter of mode C: it identifies itself, waits for the acknowledgement, and reads out."""

    def __init__(self, end: int, block: bytes) -> None:
        super().__init__()
        self.end, self.block = end, block
        self.heard = b""
        self.over = threading.Event()

    def run(self) -> None:
        asked = False
        while not self.over.is_set():
            if not select.select([self.end], [], [], 0.05)[0]:
                continue
            self.heard += os.read(self.end, 100)
            if not asked and self.heard.endswith(b"!\r\n"):
                asked = True
                os.write(self.end, b"/ABC5\\@V1.0 METER\r\n")
            if asked and self.heard.endswith(b"\x06050\r\n"):
                os.write(self.end, self.block)
                return


def read(device: str, block: bytes, *objects: str) -> tuple[subprocess.CompletedProcess[str], bytes]:
    with line() as (master, name):
        meter = Meter(master, block)
        meter.start()
        url = f"iec62056-21://{name}{device}"
        command = [sys.executable, "-m", "ipss_headend.cli", "read", url, *objects, "--json", "--timeout", "20"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        finally:
            meter.over.set()
            meter.join()
    return done, meter.heard


def data_block(text: bytes) -> bytes:
    body = text + b"\x03"
    check = 0
    for octet in body:
        check ^= octet
    return b"\x02" + body + bytes((check,))


def test_a_meter_of_mode_c_is_read_out() -> None:
    done, heard = read("?device=12345678", data_block(READOUT), "readout")

    assert done.returncode == 0, done.stderr
    items = {item["object"]: item for item in json.loads(done.stdout)["items"]}
    assert heard.startswith(b"/?12345678!\r\n")
    assert (items["1.0.1.8.0.255"]["value"], items["1.0.1.8.0.255"]["unit"]) == ("123.45", "kWh")
    assert items["1.0.2.8.0.255"]["raw"] == "7.5"
    assert items["1.0.0.9.2.255"]["value"] == "2026-11-22"
    assert len(items) == 5


def test_single_data_sets_are_chosen_and_a_damaged_block_gives_none() -> None:
    done, _ = read("", data_block(READOUT), "1.0.1.8.0.255", "1.0.9.9.9.255")
    wrong = bytearray(data_block(READOUT))
    wrong[40] ^= 1
    broken, _ = read("", bytes(wrong), "readout")

    assert done.returncode == 8
    assert [item["ok"] for item in json.loads(done.stdout)["items"]] == [True, False]
    assert broken.returncode == 7
    assert "check character" in broken.stderr
    assert "123.45" not in broken.stdout
