"""The search for secrets finds what it must, and fails the tests that show one (R21, R41)."""

import base64
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import secrecy
from tests.secrecy import Search, of_files

KEY = bytes.fromhex("859b2ecfbfd633a7a4cb8e9a908e89fa")
FORMS: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "small digits": lambda key: key.hex().encode(),
    "large digits": lambda key: key.hex().upper().encode(),
    "digits with spaces": lambda key: key.hex(" ").encode(),
    "digits with colons": lambda key: key.hex(":").upper().encode(),
    "base64": base64.b64encode,
    "base64 for addresses": base64.urlsafe_b64encode,
    "base64 of something before it": lambda key: base64.b64encode(b"x" + key),
    "base64 of more around it": lambda key: base64.b64encode(b"xy" + key + b"z"),
    "Python's octets": lambda key: repr(key).encode(),
    "Python's list": lambda key: repr(list(key)).encode(),
}


@pytest.fixture
def planted() -> Iterator[Path]:
    """A directory for what this file's own run must not stumble over."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("few", [0, 1 << 40], ids=["table", "one by one"])
def test_a_key_is_found_in_every_form_at_every_place(form: str, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrecy, "FEW", few)
    others = [os.urandom(16) for _ in range(20)]
    search = Search({KEY: "key"} | dict.fromkeys(others, "other"))
    shown = FORMS[form](KEY)

    for before in range(9):
        noise = os.urandom(before)
        assert {hit.kind for hit in search.octets(noise + b"," + shown + b"\n")} == {"key"}
    assert search.octets(shown[: len(shown) // 2]) == set()
    assert search.octets(os.urandom(4096) + b"key tag meter 859b2ecf") == set()


@settings(max_examples=40)
@given(st.binary(min_size=12, max_size=40), st.sampled_from(sorted(FORMS)), st.binary(max_size=40))
def test_any_secret_is_found_in_any_form(secret: bytes, form: str, noise: bytes) -> None:
    if secrecy.looked_for(secret):
        assert Search({secret: "key"}).octets(noise + b"," + FORMS[form](secret) + b"," + noise)


def test_a_key_across_two_pieces_of_a_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrecy, "PIECE", 1000)
    file = tmp_path / "file"

    for before in range(980, 1005):
        file.write_bytes(bytes(before) + KEY + bytes(900))
        assert Search({KEY: "key"}).file(file)


def test_zeros_sequences_and_samples_are_met_by_chance_and_not_looked_for() -> None:
    for secret in (bytes(16), bytes(range(16)), b"short"):
        assert not Search({secret: "key"})


def test_keys_are_taken_from_the_files_that_carry_them(planted: Path) -> None:
    (planted / "kek.key").write_text("1f" + KEY.hex() + "2e" * 15 + "\n")
    (planted / "fleet.csv").write_text(f"name,encryption_key,system_title\nm,{KEY.hex()},4d4d4d0000000001\n")
    (planted / "log").write_text(KEY.hex() + " is no file of keys")

    found = of_files(planted.iterdir())

    assert sorted(found.values()) == ["key of a fleet file", "key of a key file"]
    assert KEY in found


LEAKS = """
import base64, logging, sqlite3, subprocess, sys
from pathlib import Path
import pytest
from ipss_headend.security.keystore import MeterKeys

KEY = bytes.fromhex("859b2ecf" + "bfd633a7a4cb8e9a908e89fa")

@pytest.fixture(autouse=True)
def used():
    MeterKeys(encryption_key=KEY)

def test_prints(): print("opened with", KEY.hex(" "))
def test_logs(): logging.getLogger("x").error("key %r", KEY)
def test_reads_it_itself(capsys):
    print(base64.b64encode(KEY).decode())
    assert capsys.readouterr().out
def test_writes_a_log(tmp_path): (tmp_path / "head_end.log").write_text(f"key={KEY.hex().upper()}")
def test_writes_a_database(tmp_path):
    with sqlite3.connect(tmp_path / "s.sqlite") as database:
        database.execute("CREATE TABLE t (k BLOB)")
        database.execute("INSERT INTO t VALUES (?)", (b"in front " + KEY,))
    database.close()
def test_hears_it_of_a_child():
    code = "print(bytes.fromhex('859b2ecf' + 'bfd633a7a4cb8e9a908e89fa').hex())"
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
def test_leaves_what_a_file_told_of(tmp_path):
    (tmp_path / "fleet.csv").write_text("name,encryption_key\\nm," + bytes(reversed(KEY)).hex())
    (tmp_path / "core.7").write_bytes(bytes(77) + bytes(reversed(KEY)))

def test_carries(tmp_path):
    (tmp_path / "kek.key").write_text(KEY.hex())
    (tmp_path / "fleet.csv").write_text("name,encryption_key\\nm," + KEY.hex())
def test_shows_nothing(): print("MeterKeys(1 secrets)", KEY.hex()[:8])
def test_that_shares(tmp_path_factory):
    (tmp_path_factory.mktemp("shared") / "log").write_bytes(KEY)
"""


def test_a_test_that_shows_a_key_it_used_fails_and_is_not_told_which(planted: Path) -> None:
    (planted / "conftest.py").write_text("from tests.secrecy_watch import *\n")
    (planted / "test_leaks.py").write_text(LEAKS)
    root = Path(__file__).parents[2]

    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, "-rE", "-q"]
    ran = subprocess.run(
        [*command, f"--basetemp={planted / 'bt'}", planted / "test_leaks.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])},
    )

    names = {line.split("::")[1].split(" ")[0] for line in ran.stdout.splitlines() if line.startswith("ERROR ")}
    assert names == {
        "test_prints",
        "test_logs",
        "test_reads_it_itself",
        "test_writes_a_log",
        "test_writes_a_database",
        "test_hears_it_of_a_child",
        "test_leaves_what_a_file_told_of",
    }, ran.stdout
    assert ran.returncode == 1
    assert "head_end.log: a meter's encryption key, in hexadecimal" in ran.stdout
    assert "s.sqlite: a meter's encryption key, raw" in ran.stdout
    assert "core.7: a key of a fleet file, raw" in ran.stdout
    assert "shared0/log: a meter's encryption key, raw" in ran.stdout
    shown = ran.stdout + ran.stderr
    assert not Search({KEY: "key", KEY[::-1]: "key"}).octets(shown.encode())
