"""Keys at rest: opened by the right key only, and shown by nothing."""

import json
import os
import pickle
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from Crypto.Cipher import AES
from hypothesis import given, settings
from hypothesis import strategies as st

from ipss_headend.config import KeystoreConfig, Pkcs11Config
from ipss_headend.errors import SECURITY, ConfigError, KeyTampered, WrongKeyEncryptionKey
from ipss_headend.security import Keystore, MeterKeys, create_key_file, key_wrap
from ipss_headend.security.keystore import BoundKeys, forbid_core_dumps
from ipss_headend.security.locked import LockedKey
from ipss_headend.server import tell_of_software_key
from ipss_headend.store import Database

KEK = bytes(range(7, 39))
TITLE = b"MMM\x01\x02\x03\x04\x05"
KEYS = MeterKeys(os.urandom(16), os.urandom(16), b"a password", os.urandom(16))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path / "s.sqlite", reserve_bytes=0) as opened:
        yield opened


def open_keystore(database: Database, config: KeystoreConfig) -> Keystore:
    with database.writing() as connection:
        return Keystore.open(connection, config)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    create_key_file(tmp_path / "kek.key")
    return tmp_path / "kek.key"


@settings(max_examples=50)
@given(st.binary(min_size=32, max_size=32), st.lists(st.binary(min_size=9, max_size=200), max_size=20))
def test_wrapping_many_is_what_pycryptodome_does_one_by_one(key: bytes, texts: list[bytes]) -> None:
    wrapped = key_wrap.wrap(key, texts)

    assert wrapped == [AES.new(key, AES.MODE_KWP).seal(text) for text in texts]
    assert key_wrap.unwrap(key, wrapped) == texts


def test_wrap_gives_the_published_answer() -> None:
    # RFC 5649, section 6, the 20-octet example (a 192-bit key-encryption key).
    key = bytes.fromhex("5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8")
    text = bytes.fromhex("c37b7e6492584340bed12207808941155068f738")

    assert key_wrap.wrap(key, [text])[0].hex() == "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a"


def test_too_short_a_text_is_refused() -> None:
    with pytest.raises(ValueError, match="less than 9 octets"):
        key_wrap.wrap(KEK, [b"12345678"])


def test_every_flipped_bit_of_a_wrapped_key_is_noticed() -> None:
    [wrapped] = key_wrap.wrap(KEK, [KEYS.pack(1, TITLE)])
    number = int.from_bytes(wrapped, "big")

    mutants = [(number ^ 1 << bit).to_bytes(len(wrapped), "big") for bit in range(8 * len(wrapped))]

    assert set(key_wrap.unwrap(KEK, mutants)) == {None}


@pytest.mark.parametrize("octets", [b"", b"x" * 8, b"x" * 16, b"x" * 23, b"x" * 25, b"x" * 24])
def test_what_was_never_wrapped_is_not_opened(octets: bytes) -> None:
    assert key_wrap.unwrap(KEK, [octets]) == [None]


def test_keys_come_back() -> None:
    keystore = Keystore(KEK)
    some = [(1, TITLE, KEYS), (2, None, MeterKeys()), (3, b"12345678", replace(KEYS, password=None))]

    wrapped = keystore.wrap(some)

    bound = [BoundKeys(number, title, octets) for (number, title, _), octets in zip(some, wrapped, strict=True)]
    assert keystore.unwrap(bound) == [keys for _, _, keys in some]


def test_keys_moved_to_another_meter_are_tampered_with() -> None:
    keystore = Keystore(KEK)
    [wrapped] = keystore.wrap([(1, TITLE, KEYS)])

    for number, title in ((2, TITLE), (1, b"MMM\x09\x09\x09\x09\x09"), (1, None)):
        with pytest.raises(KeyTampered, match=rf"tampered with or belong to others \(meter {number}\)") as caught:
            keystore.unwrap([BoundKeys(number, title, wrapped)])
        assert caught.value.exit_status == SECURITY


def test_all_tampered_meters_are_counted() -> None:
    bound = [BoundKeys(number, None, b"") for number in range(30)]

    with pytest.raises(KeyTampered, match=r"30 meters .* \(meter 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, \.\.\.\)"):
        Keystore(KEK).unwrap(bound)


def test_keys_are_shown_by_nothing() -> None:
    shown = f"{KEYS} {KEYS!r} {[KEYS]} {Keystore(KEK)!r} {BoundKeys(1, TITLE, b'')}"

    assert "4 secrets" in shown
    for secret in (KEYS.encryption_key, KEYS.authentication_key, KEYS.password, KEYS.master_key, KEK):
        assert secret is not None
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown
    for thing in (KEYS, Keystore(KEK)):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(thing)
        with pytest.raises(TypeError):
            json.dumps(thing)


def test_fingerprint_is_of_no_use_without_the_key_encryption_key() -> None:
    key = os.urandom(16)

    assert Keystore(KEK).fingerprint(key) == Keystore(KEK).fingerprint(key)
    assert Keystore(KEK).fingerprint(key) != Keystore(KEK[::-1]).fingerprint(key)


def test_store_opens_again_with_its_key_file(database: Database, key_file: Path) -> None:
    config = KeystoreConfig(key_file=key_file)
    [wrapped] = open_keystore(database, config).wrap([(1, TITLE, KEYS)])

    assert open_keystore(database, config).unwrap([BoundKeys(1, TITLE, wrapped)]) == [KEYS]


def test_another_key_file_is_told_from_tampering(database: Database, key_file: Path, tmp_path: Path) -> None:
    open_keystore(database, KeystoreConfig(key_file=key_file))
    create_key_file(tmp_path / "other.key")

    with pytest.raises(WrongKeyEncryptionKey, match="the key file is not the one"):
        open_keystore(database, KeystoreConfig(key_file=tmp_path / "other.key"))


def test_key_file_is_private_and_made_once(key_file: Path) -> None:
    assert key_file.stat().st_mode & 0o777 == 0o600

    with pytest.raises(FileExistsError):
        create_key_file(key_file)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_key_file_that_others_may_read_is_refused(database: Database, key_file: Path, mode: int) -> None:
    key_file.chmod(mode)

    with pytest.raises(ConfigError, match=rf"mode 0{mode:o}, so others may read it; run `chmod 600 "):
        open_keystore(database, KeystoreConfig(key_file=key_file))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no key at all", "is not hexadecimal; it holds 64 digits"),
        (b"00112233", r"holds 4 octets; a key-encryption key has 32"),
        (b"00" * 32, "holds no random key; make one with `openssl rand -hex 32`"),
        (b"\xff\xfe", "is no text"),
        (b"", "holds 0 octets"),
    ],
)
def test_key_file_without_a_key_is_said_so(database: Database, key_file: Path, content: bytes, message: str) -> None:
    key_file.write_bytes(content)

    with pytest.raises(ConfigError, match=message):
        open_keystore(database, KeystoreConfig(key_file=key_file))


def test_missing_key_file_is_said_so(database: Database, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"keystore.key_file: .*absent: No such file or directory"):
        open_keystore(database, KeystoreConfig(key_file=tmp_path / "absent"))


def test_passphrase_opens_its_own_store_only(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key_file: Path
) -> None:
    in_file = tmp_path / "passphrase"
    in_file.write_text("correct horse battery\n")
    in_file.chmod(0o600)
    [wrapped] = open_keystore(database, KeystoreConfig(passphrase_file=in_file)).wrap([(1, TITLE, KEYS)])

    monkeypatch.setenv("PASSPHRASE", "correct horse battery")
    keystore = open_keystore(database, KeystoreConfig(passphrase_env="PASSPHRASE"))
    assert keystore.unwrap([BoundKeys(1, TITLE, wrapped)]) == [KEYS]

    monkeypatch.setenv("PASSPHRASE", "correct horse batterz")
    with pytest.raises(WrongKeyEncryptionKey, match="the passphrase is not the one"):
        open_keystore(database, KeystoreConfig(passphrase_env="PASSPHRASE"))
    with pytest.raises(ConfigError, match="keys are under a key from a passphrase, the configuration gives a file"):
        open_keystore(database, KeystoreConfig(key_file=key_file))


def test_passphrase_must_be_there_and_long(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PASSPHRASE", raising=False)
    with pytest.raises(ConfigError, match="passphrase_env: PASSPHRASE is not in the environment"):
        open_keystore(database, KeystoreConfig(passphrase_env="PASSPHRASE"))

    monkeypatch.setenv("PASSPHRASE", "short")
    with pytest.raises(ConfigError, match="has 5 characters; a passphrase has at least 12") as caught:
        open_keystore(database, KeystoreConfig(passphrase_env="PASSPHRASE"))
    assert "short" not in str(caught.value)


@pytest.mark.parametrize("change", ["cost = 2", "cost = 1 << 30", "block_size = 1", "parallel = 1000"])
def test_cost_of_the_passphrase_cannot_be_changed(
    database: Database, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setenv("PASSPHRASE", "correct horse battery")
    config = KeystoreConfig(passphrase_env="PASSPHRASE")
    open_keystore(database, config)
    with database.writing() as connection:
        connection.exec_driver_sql(f"UPDATE keystore SET {change}")

    with pytest.raises(KeyTampered, match="stored cost of the passphrase was changed"):
        open_keystore(database, config)


def test_core_dumps_are_forbidden() -> None:
    forbid_core_dumps()

    assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)


@pytest.mark.parametrize(
    ("config", "warnings"),
    [
        (KeystoreConfig(key_file=Path("k")), 1),
        (KeystoreConfig(passphrase_env="P"), 1),
        (KeystoreConfig(key_file=Path("k"), software_accepted=True), 0),
        (KeystoreConfig(pkcs11=Pkcs11Config(Path("m"), "t", Path("p"))), 0),
    ],
)
def test_r21_a_key_in_software_is_told_at_each_start(config: KeystoreConfig, warnings: int) -> None:
    log = Mock()

    tell_of_software_key(config, log)

    assert log.warning.call_count == warnings


def test_the_master_key_is_wiped_at_the_end() -> None:
    key = bytearray(KEK)
    locked = LockedKey(key)
    page = locked.view

    assert bytes(page) == KEK
    assert key == bytes(32)
    locked.wipe()
    assert bytes(page) == bytes(32)
    with pytest.raises(ValueError, match="was wiped"):
        _ = locked.view
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(locked)
