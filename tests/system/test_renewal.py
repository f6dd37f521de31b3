"""A store's master key is renewed: whoever dies on the way, one key opens it, and afterwards only the new one (R25)."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.system.orders import Orders, forking
from tests.system.renewal_kill_me import POINTS
from tests.unit.cli.support import Ran
from tests.unit.security import softhsm

from ipss_headend import config as configuration
from ipss_headend.cli.serve import make_head_end
from ipss_headend.errors import HeadEndError
from ipss_headend.field import fleet
from ipss_headend.security import Keystore, MeterKeys, audit, ceremony, rotation, transport
from ipss_headend.store import Database, counters, registry
from ipss_headend.store.schema import keystore_secrets, meter_keys, pending_keys, transport_keys

METERS = 20
COLUMNS = "name,address,system_title,encryption_key,authentication_key,master_key\n"
ROUNDS = int(os.environ.get("IPSS_RENEWALS", "1"))
"""How often the process is killed at each point."""
COMMITTED = POINTS.index("committed")
ANSWERS = 'operator = "Olga"\nauditor = "Dora"\ncustodians = ["Anna", "Cleo", "Dan"]\nconfirm = {}\n'
ELSEWHERE = {"staged", "overwritten", "renamed"}
"""Points of a key file alone."""
IN_POSTGRESQL = {"staged", "wrapped", "before-commit", "committed", "overwritten", "swept"}
"""The others are as with SQLite: between statements of one transaction, or with the file."""


@dataclass
class Utility:
    """A store with meters, keys on their way and a transport key, and the plain keys that it has to keep."""

    directory: Path
    config: Path
    plain: list[tuple[int, MeterKeys]]
    orders: Orders
    runs: Iterator[int] = field(default_factory=count)

    def database(self) -> Database:
        return Database(configuration.load(self.config).database.address, reserve_bytes=0)

    def opened(self) -> tuple[str, list[tuple[int, MeterKeys]]]:
        """The check value of the key that the configuration gives, and every key under it."""
        with self.database() as database, database.writing() as connection:
            opened = Keystore.open(connection, configuration.load(self.config).keystore)
            return opened.check_value, everything(connection, opened)

    def wrapped(self) -> list[bytes]:
        with self.database() as database, database.reading() as connection:
            tables = (meter_keys, pending_keys, transport_keys)
            found = [row for table in tables for row in connection.scalars(select(table.c.wrapped))]
            return found + list(connection.scalars(select(keystore_secrets.c.wrapped)))

    def renew(self, *more: str | Path, point: str = "never", confirm: bool = True) -> Ran:
        """The command, in a process of its own that dies at this point."""
        self.run = run = self.directory / f"run-{next(self.runs)}"
        run.mkdir()
        (run / "answers.toml").write_text(ANSWERS.format(str(confirm).lower()))
        line = ["keys", "renew", "--reason", "Ben left", "--answers", run / "answers.toml", "--to", run / "shares"]
        line += ["--protocol", run / "protocol.md", "--config", self.config, "--json", *more]
        (run / "line.json").write_text(json.dumps(list(map(str, line))))
        self.orders.start(run, point)
        status = self.orders.wait(120)
        assert status is not None, (run / "err").read_text()
        return Ran(status, (run / "out").read_text(), (run / "err").read_text())


@pytest.fixture
def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Orders]:
    monkeypatch.setenv("SOFTHSM2_CONF", "")
    softhsm.prepare(tmp_path / "hsm")
    with forking("tests.system.renewal_kill_me") as process:
        yield process


def line(number: int, *keys: bytes | None) -> str:
    shown = ",".join(key.hex() for key in keys if key is not None)
    return f"m{number},192.0.2.1:{4000 + number},4d4d4d{number:010x},{shown}\n"


def everything(connection: Any, opened: Keystore) -> list[tuple[int, MeterKeys]]:
    meters = fleet.load_fleet(connection, opened)
    found = [(one.meter_id, one.keys) for one in meters]
    first = meters[0]
    found.append((-1, rotation.new_keys(connection, opened, first.meter_id, first.system_title)))
    found.append((-2, MeterKeys(master_key=transport.key_named(connection, opened, "acme"))))
    return found


def utility(
    directory: Path, orders: Orders, url: str = "", token: configuration.KeystoreConfig | None = None
) -> Utility:
    path, key = make_head_end(directory / "utility")
    text = path.read_text()
    if url:
        text = text.replace('url = "sqlite:///head_end.sqlite"', f'url = "{url}"')
    if token is not None:
        assert token.pkcs11 is not None
        text = text.replace(f'key_file = "{key.name}"', in_token(token.pkcs11))
    path.write_text(text)
    loaded = configuration.load(path)
    with Database(loaded.database.address, own=True, reserve_bytes=0) as database, database.writing() as connection:
        if token is not None:
            ceremony.make(token)
        opened = Keystore.open(connection, loaded.keystore)
        lines = [COLUMNS, *(line(number, *(os.urandom(16) for _ in range(3))) for number in range(METERS))]
        assert fleet.import_meters(connection, opened, lines, "test").imported == METERS
        first = registry.all_meters(connection)[0]
        rotation.begin(connection, opened, first.meter_id, first.system_title, "ada", 0)
        transport.add(connection, opened, "acme", os.urandom(16))
        plain = everything(connection, opened)
    return Utility(directory, path, plain, orders)


def in_token(token: Any) -> str:
    return f'pkcs11_module = "{token.module}"\ntoken = "{token.token}"\npin_file = "{token.pin_file}"'


def dies_everywhere(one: Utility, points: list[str]) -> None:
    for point in points * ROUNDS:
        before, keys = one.opened()
        assert keys == one.plain

        died = one.renew(point=point)

        assert died.status == -signal.SIGKILL, (point, died.err)
        after, keys = one.opened()
        assert keys == one.plain, point
        assert (after != before) == (POINTS.index(point) >= COMMITTED), point
        assert not list(one.config.parent.glob("*.renewed")) or after == before


def test_r25_killed_at_any_step_one_key_opens_the_store(tmp_path: Path, orders: Orders, stored: str) -> None:
    one = utility(tmp_path, orders, stored)
    points = [point for point in POINTS if not stored or point in IN_POSTGRESQL]

    dies_everywhere(one, points)
    done = one.renew()

    assert done.status == 0, done.err
    assert json.loads(done.out)["check_value"] == one.opened()[0]
    assert not list(one.config.parent.glob("*.renewed"))


def test_r25_killed_with_a_token_one_key_opens_the_store(tmp_path: Path, orders: Orders) -> None:
    one = utility(tmp_path, orders, "", softhsm.make_token("mine", tmp_path))

    dies_everywhere(one, [point for point in POINTS if point not in ELSEWHERE])
    done = one.renew()

    assert done.status == 0, done.err
    assert "which was there" in (one.run / "protocol.md").read_text()


def test_the_old_key_and_its_shares_open_nothing_any_more(
    tmp_path: Path, orders: Orders, stored: str, request: pytest.FixtureRequest
) -> None:
    """Not by the configuration, not by shares, and not by what the database's files still have."""
    one = utility(tmp_path, orders, stored)
    key_file = one.config.parent / "key_encryption.key"
    first = one.renew()
    assert first.status == 0, first.err
    old_shares, old_key, old_wrapped = sorted((one.run / "shares").iterdir()), key_file.read_text(), one.wrapped()
    old = json.loads(first.out)["check_value"]
    kept = key_file.open()  # as it was on the disk

    renewed = one.renew()

    assert renewed.status == 0, renewed.err
    said = json.loads(renewed.out)
    assert (said["meters"], said["old_check_value"]) == (METERS, old)
    assert set(kept.read()) == {"0"}, "the old file's octets are overwritten"
    kept.close()
    with one.database() as database, database.reading() as connection:
        [*_, record] = audit.records(connection)
    assert (record.kind, record.principal, record.subject) == ("master key renewed", "Olga", said["check_value"])
    detail = json.loads(record.detail)
    assert (detail["from"], detail["auditor"], detail["reason"]) == (old, "Dora", "Ben left")
    assert detail["custodians"] == ["Anna", "Cleo", "Dan"]
    assert old in (one.run / "protocol.md").read_text()
    new_key = key_file.read_text()
    assert new_key.strip() not in renewed.out + renewed.err + (one.run / "protocol.md").read_text()

    key_file.write_text(old_key)
    with pytest.raises(HeadEndError, match="not the one that this store's keys"):
        one.opened()
    key_file.unlink()
    ipss = [sys.executable, "-m", "ipss_headend.cli", "keys", "restore", "--config", str(one.config)]
    refused = subprocess.run([*ipss, *old_shares[:2]], capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 5
    assert "bring the shares of this store's key" in refused.stderr
    subprocess.run([*ipss, *sorted((one.run / "shares").iterdir())[1:]], check=True, capture_output=True, timeout=60)
    assert key_file.read_text() == new_key
    assert one.opened()[1] == one.plain

    if stored:
        server = request.getfixturevalue("postgresql")
        with one.database() as database, database.reading() as connection:
            connection.exec_driver_sql("CHECKPOINT")
            own = connection.exec_driver_sql("SELECT oid FROM pg_database WHERE datname = current_database()").scalar()
        files = list((server.data / "base" / str(own)).iterdir())
    else:
        files = list((one.config.parent / "data").iterdir())
    octets = [path.read_bytes() for path in files if path.is_file()]
    assert any(wrapped in data for data in octets for wrapped in one.wrapped()), "the search finds what is there"
    assert not any(wrapped in data for data in octets for wrapped in old_wrapped)


def test_a_renewal_is_refused_while_a_head_end_runs_or_the_auditor_says_no(tmp_path: Path, orders: Orders) -> None:
    one = utility(tmp_path, orders)
    before = one.opened()
    key = (one.config.parent / "key_encryption.key").read_text()

    with Database(configuration.load(one.config).database.address, own=True, reserve_bytes=0):
        running = one.renew()
    unsure = one.renew(confirm=False)

    assert running.status == 3
    assert "is the head-end of this store; stop it first" in running.err
    assert unsure.status == 5
    assert "the auditor did not confirm" in unsure.err
    assert list((one.run / "shares").iterdir()) == []
    assert not (one.run / "protocol.md").exists()
    assert not list(one.config.parent.glob("*.renewed"))
    assert one.opened() == before
    assert (one.config.parent / "key_encryption.key").read_text() == key


def test_keys_of_two_meters_are_told_apart_under_the_new_key_too(tmp_path: Path, orders: Orders) -> None:
    """And so is a key of a meter that is gone: its counters go on, if it comes back."""
    one = utility(tmp_path, orders)
    with one.database() as database, database.writing() as connection:
        gone = registry.meter_named(connection, "m5").meter_id
        counters.raise_to(connection, [(gone, 5_000)])
        registry.remove_meter(connection, gone)

    assert one.renew().status == 0
    assert one.renew().status == 0

    loaded = configuration.load(one.config)
    with one.database() as database, database.writing() as connection:
        opened = Keystore.open(connection, loaded.keystore)
        keys = one.plain[3][1]
        twin = line(METERS, keys.encryption_key, keys.authentication_key, keys.master_key)
        report = fleet.import_meters(connection, opened, [COLUMNS, twin], "test")
        keys = one.plain[5][1]
        back = line(METERS + 1, keys.encryption_key, keys.authentication_key, keys.master_key)
        assert fleet.import_meters(connection, opened, [COLUMNS, back], "test").imported == 1
        number = registry.meter_named(connection, f"m{METERS + 1}").meter_id
        assert counters.granted_until(connection, [number])[number] == 5_000
    assert report.imported == 0
    assert 'is also that of "m3"' in report.mistakes[0]


def test_a_replaced_token_takes_a_new_master_key(tmp_path: Path, orders: Orders) -> None:
    """Both are there: --old-config opens the old one. The old token opens nothing of the store afterwards."""
    first, second = (softhsm.make_token(name, tmp_path) for name in ("old", "new"))
    one = utility(tmp_path, orders, "", first)
    old_text = one.config.read_text()
    old_config = one.config.with_name("old.toml")
    old_config.write_text(old_text)
    assert first.pkcs11 is not None
    assert second.pkcs11 is not None
    one.config.write_text(old_text.replace(in_token(first.pkcs11), in_token(second.pkcs11)))

    renewed = one.renew("--old-config", old_config)

    assert renewed.status == 0, renewed.err
    assert one.opened() == (json.loads(renewed.out)["check_value"], one.plain)
    one.config.write_text(old_text)
    with pytest.raises(HeadEndError):
        one.opened()


def test_a_passphrase_makes_room_for_a_key_file(tmp_path: Path, orders: Orders) -> None:
    one = utility(tmp_path, orders)
    phrase = one.config.with_name("phrase")
    phrase.touch(0o600)
    phrase.write_text("correct horse battery\n")
    with_file = one.config.read_text()
    other = one.config.with_name("other.key")
    with_phrase = with_file.replace('key_file = "key_encryption.key"', 'passphrase_file = "phrase"')
    old_config = one.config.with_name("old.toml")
    old_config.write_text(with_phrase)
    store = configuration.load(one.config).database.address
    assert isinstance(store, Path)
    for path in store.parent.iterdir():
        path.unlink()
    one.config.write_text(with_phrase)
    loaded = configuration.load(one.config)
    with Database(store, own=True, reserve_bytes=0) as database, database.writing() as connection:
        Keystore.open(connection, loaded.keystore)
    one.config.write_text(with_file.replace('"key_encryption.key"', f'"{other.name}"'))

    died = one.renew("--old-config", old_config, point="committed")
    renewed = one.renew()

    assert died.status == -signal.SIGKILL
    assert renewed.status == 0, renewed.err
    assert other.exists()
    again = one.renew("--old-config", old_config)
    assert again.status == 3
    assert "under a key from a file, the configuration gives a passphrase" in again.err
