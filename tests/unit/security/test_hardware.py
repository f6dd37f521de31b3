"""The key-encryption key in a token: it stays there, and nothing takes its place."""

import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pkcs11
import pytest
from sqlalchemy import select, update
from tests.unit.security import softhsm

from ipss_headend.config import KeystoreConfig, Pkcs11Config
from ipss_headend.errors import SECURITY, ConfigError, KeyTampered, TokenError, WrongKeyEncryptionKey
from ipss_headend.security import Keystore, MeterKeys, create_key_file, hardware, keystore, shares
from ipss_headend.security.keystore import BoundKeys
from ipss_headend.store import Database
from ipss_headend.store.schema import keystore_secrets

KEYS = MeterKeys(os.urandom(16), os.urandom(16))
_numbers = itertools.count(1)


@pytest.fixture(scope="module", autouse=True)
def soft_hsm(tmp_path_factory: pytest.TempPathFactory) -> None:
    softhsm.prepare(tmp_path_factory.mktemp("softhsm"))


@pytest.fixture
def empty(tmp_path: Path) -> KeystoreConfig:
    return softhsm.make_token(f"token{next(_numbers)}", tmp_path)


@pytest.fixture
def config(empty: KeystoreConfig) -> KeystoreConfig:
    with hardware.token(of(empty)) as token:
        token.make_key()
    return empty


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path / "s.sqlite", reserve_bytes=0) as opened:
        yield opened


def of(config: KeystoreConfig) -> Pkcs11Config:
    assert config.pkcs11 is not None
    return config.pkcs11


def changed(config: KeystoreConfig, **values: object) -> KeystoreConfig:
    return replace(config, pkcs11=replace(of(config), **values))  # type: ignore[arg-type]


def opened(database: Database, config: KeystoreConfig) -> Keystore:
    with database.writing() as connection:
        return Keystore.open(connection, config)


def wrapped_master(database: Database) -> bytes:
    with database.reading() as connection:
        return bytes(connection.scalars(select(keystore_secrets.c.wrapped)).one())


def test_keys_come_back_after_a_restart(database: Database, config: KeystoreConfig) -> None:
    [wrapped] = opened(database, config).wrap([(1, None, KEYS)])

    assert opened(database, config).unwrap([BoundKeys(1, None, wrapped)]) == [KEYS]


def test_r21_the_token_refuses_to_give_its_key(config: KeystoreConfig) -> None:
    session = pkcs11.lib(str(of(config).module)).get_token(token_label=of(config).token).open(user_pin=softhsm.PIN)
    with session:
        key: Any = session.get_key(object_class=pkcs11.ObjectClass.SECRET_KEY, label="ipss-headend")
        with pytest.raises(pkcs11.exceptions.AttributeSensitive):
            key[pkcs11.Attribute.VALUE]
        with pytest.raises(pkcs11.exceptions.PKCS11Error):
            key.wrap_key(key, mechanism=pkcs11.Mechanism.AES_KEY_WRAP)
        assert key[pkcs11.Attribute.NEVER_EXTRACTABLE]
        assert key[pkcs11.Attribute.ALWAYS_SENSITIVE]


def test_the_master_key_is_not_in_the_store(database: Database, config: KeystoreConfig) -> None:
    keystore = opened(database, config)
    master = shares.combine([("a", share) for share in keystore.shares(2, 3)[:2]])

    octets = b"".join(path.read_bytes() for path in database.path.parent.glob("s.sqlite*"))

    assert wrapped_master(database) in octets
    assert master not in octets
    assert KEYS.encryption_key not in octets  # type: ignore[operator]


def test_a_fleet_costs_one_call_to_the_token(
    database: Database, config: KeystoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    keystore = opened(database, config)
    bound = [
        BoundKeys(number, None, octets)
        for number, octets in enumerate(keystore.wrap([(number, None, KEYS) for number in range(10_000)]))
    ]
    calls = []
    unwrap = hardware.Token.unwrap

    def counted(token: hardware.Token, wrapped: bytes) -> bytearray:
        calls.append(wrapped)
        return unwrap(token, wrapped)

    monkeypatch.setattr(hardware.Token, "unwrap", counted)

    assert len(opened(database, config).unwrap(bound)) == 10_000
    assert len(calls) == 1


def test_every_changed_octet_of_the_master_key_is_tampering(database: Database, config: KeystoreConfig) -> None:
    opened(database, config)
    sound = wrapped_master(database)
    mutants = [sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :] for place in range(len(sound))]

    for mutant in [*mutants, b"", sound[:-8], sound + bytes(8)]:
        with database.writing() as connection:
            connection.execute(update(keystore_secrets).values(wrapped=mutant))
        with pytest.raises(KeyTampered, match="master key") as caught:
            opened(database, config)
        assert caught.value.exit_status == SECURITY


def test_no_key_in_the_token(database: Database, empty: KeystoreConfig) -> None:
    with pytest.raises(TokenError, match='has no keys "ipss-headend"; exactly one is needed'):
        opened(database, empty)


def test_a_key_is_not_made_over_another(config: KeystoreConfig) -> None:
    with hardware.token(of(config)) as token, pytest.raises(TokenError, match="already; it is kept"):
        token.make_key()


def test_a_wrong_pin_is_tried_once(database: Database, config: KeystoreConfig) -> None:
    of(config).pin_file.write_text("00000000\n")

    with pytest.raises(TokenError, match=r"the PIN in .*\.pin is wrong; not tried again") as caught:
        opened(database, config)
    assert "00000000" not in str(caught.value)


def test_the_pin_file_is_for_its_owner_only(database: Database, config: KeystoreConfig) -> None:
    of(config).pin_file.chmod(0o644)

    with pytest.raises(ConfigError, match=r"keystore\.pin_file: .* has mode 0644"):
        opened(database, config)


def test_a_token_that_is_not_there(database: Database, config: KeystoreConfig) -> None:
    with pytest.raises(TokenError, match=r"is not there; plug it in, or start its service\. Nothing takes its place"):
        opened(database, changed(config, token="elsewhere"))


def test_a_module_that_is_not_there(database: Database, config: KeystoreConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"keystore\.pkcs11_module: .* is not there"):
        opened(database, changed(config, module=tmp_path / "none.so"))


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (pkcs11.exceptions.PinLocked, "the PIN is locked after wrong tries"),
        (pkcs11.exceptions.PinExpired, "the PIN has expired"),
        (pkcs11.exceptions.DeviceRemoved, "DeviceRemoved; the module cannot be used now"),
        (pkcs11.exceptions.DeviceError, "DeviceError; the module cannot be used now, and nothing takes its place"),
    ],
)
def test_what_a_module_says_is_said_in_words(
    raised: type[Exception],
    words: str,
    database: Database,
    config: KeystoreConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken:
        def get_token(self, **_: object) -> object:
            raise raised

    monkeypatch.setattr(hardware, "_loaded", lambda _: Broken())

    with pytest.raises(TokenError, match=words):
        opened(database, config)


def test_an_extractable_key_is_refused(database: Database, empty: KeystoreConfig) -> None:
    token = pkcs11.lib(str(of(empty).module)).get_token(token_label=of(empty).token)
    with token.open(user_pin=softhsm.PIN, rw=True) as session:
        session.generate_key(
            pkcs11.KeyType.AES,
            256,
            label="ipss-headend",
            store=True,
            template={pkcs11.Attribute.EXTRACTABLE: True, pkcs11.Attribute.SENSITIVE: False},
        )

    with pytest.raises(TokenError, match="no AES-256 key that stays in the token"):
        opened(database, empty)


def test_a_software_key_does_not_open_the_store_of_a_token(
    database: Database, config: KeystoreConfig, tmp_path: Path
) -> None:
    opened(database, config)
    create_key_file(tmp_path / "kek")

    with pytest.raises(ConfigError, match="under a key from a pkcs11, the configuration gives a file"):
        opened(database, KeystoreConfig(key_file=tmp_path / "kek"))


def test_keys_move_into_the_token_and_not_out(database: Database, config: KeystoreConfig, tmp_path: Path) -> None:
    create_key_file(tmp_path / "kek")
    software = KeystoreConfig(key_file=tmp_path / "kek")
    before = opened(database, software)
    with pytest.raises(ConfigError, match="`ipss-headend keys migrate` moves them"):
        opened(database, config)

    with database.writing() as connection:
        moved = before.renewed(connection, config)
    again = opened(database, config)

    assert moved.check_value == again.check_value != before.check_value
    assert again.fingerprint(b"x") == before.fingerprint(b"x")
    with pytest.raises(KeyTampered):
        again.unwrap([BoundKeys(1, None, before.wrap([(1, None, KEYS)])[0])])
    with pytest.raises(ConfigError, match="into a hardware module and not out of it"), database.writing() as connection:
        again.renewed(connection, software)
    with pytest.raises(ConfigError):
        opened(database, software)


def test_two_shares_restore_the_store_under_a_new_token(
    database: Database, config: KeystoreConfig, tmp_path: Path
) -> None:
    lost = opened(database, config)
    [wrapped] = lost.wrap([(1, None, KEYS)])
    parts = lost.shares(2, 3)
    other = softhsm.make_token(f"token{next(_numbers)}", tmp_path)
    with hardware.token(of(other)) as token:
        token.make_key()
    with pytest.raises(KeyTampered, match="or the key from its shares"):
        opened(database, other)

    with database.writing() as connection:
        keystore.restore(connection, other, shares.combine([("a", parts[2]), ("b", parts[0])]))

    assert opened(database, other).unwrap([BoundKeys(1, None, wrapped)]) == [KEYS]


def test_shares_of_another_store_restore_nothing(database: Database, config: KeystoreConfig) -> None:
    opened(database, config)

    with pytest.raises(WrongKeyEncryptionKey, match="bring the shares of this store's key"), database.writing() as c:
        keystore.restore(c, config, os.urandom(32))
    assert isinstance(opened(database, config), Keystore)
