"""A thousand known keys are imported and exported, and found nowhere: raw, in hexadecimal, in base64 (R21, R41)."""

import base64
import os
from pathlib import Path

from tests.unit.cli.support import Run

METERS = 1000


def forms(key: bytes) -> list[bytes]:
    digits = key.hex().encode()
    return [key, digits, digits.upper(), base64.b64encode(key).rstrip(b"="), base64.urlsafe_b64encode(key).rstrip(b"=")]


def test_r21_a_thousand_marked_keys_are_found_nowhere(run: Run, head_end: Path, tmp_path: Path) -> None:
    keys = [os.urandom(16) for _ in range(2 * METERS)]
    lines = ["name,address,system_title,encryption_key,authentication_key"]
    for number in range(METERS):
        one, other = (key.hex() for key in keys[2 * number : 2 * number + 2])
        lines.append(f"m{number},192.0.2.{number % 250}:{5000 + number},4d4d4d00{number:08x},{one},{other}")
    twin = lines[1].replace("m0,", "twin,").replace(":5000,", ":9000,").replace("4d4d4d0000000000", "4d4d4d00ffffffff")
    short = lines[2].replace("m1,", "short,")[:-2]
    fleet = tmp_path / "fleet.csv"
    fleet.write_text("\n".join([*lines, twin, short, *lines[3:6]]) + "\n")

    config = ("--config", head_end)
    ran = [
        run("meters", "import", fleet, *config),
        run("meters", "import", fleet, *config, "--json"),
        run("meters", "list", *config, "--json"),
        run("meters", "show", "m7", *config),
        run("meters", "export", tmp_path / "export.csv", *config),
        run("keys", "status", *config),
        run("--debug", "meters", "show", "none", *config),
    ]

    assert "1000 meters imported, 5 lines refused" in ran[0].out
    places = [path for path in head_end.parent.rglob("*") if path.is_file()] + [tmp_path / "export.csv"]
    everything = b"\0".join(path.read_bytes() for path in places)
    everything += "\0".join(one.out + one.err for one in ran).encode()
    assert b"m999" in everything
    found = [form for key in keys for form in forms(key) if form in everything]
    assert found == []
    assert keys[0].hex().encode() in fleet.read_bytes()  # the search finds what is there
