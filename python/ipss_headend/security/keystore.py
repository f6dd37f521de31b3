"""Meters' keys at rest: wrapped with AES-256 under one key-encryption key, and bound to their meter.

The key-encryption key comes from a file that only its owner may read, or from a passphrase (scrypt). It is in this
process's memory; a hardware module takes its place where the utility has one. What is wrapped carries the meter's
number and system title, so that a wrapped key moved to another row is refused like a changed one.
"""

import hashlib
import hmac
import os
import resource
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgpack
from sqlalchemy import Connection, Row, insert, select

from ipss_headend.config import KeystoreConfig
from ipss_headend.errors import ConfigError, KeyTampered, WrongKeyEncryptionKey
from ipss_headend.security import key_wrap
from ipss_headend.store.schema import keystore

KEY_OCTETS = 32
SHORTEST_PASSPHRASE = 12

SCRYPT_COST = 2**15
"""32 MiB and about 0.1 s: what a guesser pays for each try. Stored with the salt, so it can rise."""
SCRYPT_BLOCK_SIZE = 8
SCRYPT_PARALLEL = 1
_SCRYPT_MEMORY_LIMIT = 1 << 28

_FORM = "meter keys, form 1"
_CHECK = b"ipss-headend keystore, form 1"
_FINGERPRINT = b"ipss-headend key fingerprint, form 1"


@dataclass(frozen=True, slots=True, repr=False)
class MeterKeys:
    """One meter's secrets. Shows how many, never which; cannot be pickled."""

    encryption_key: bytes | None = None
    authentication_key: bytes | None = None
    password: bytes | None = None
    """The secret of the mechanisms that have one, low-level security among them."""
    master_key: bytes | None = None
    """The key that wraps new keys on their way to the meter."""
    private_key: bytes | None = None
    """Our own, for signatures towards this meter."""
    peer_public_key: bytes | None = None
    """The meter's, for signatures. No secret, but nobody may exchange it."""

    def __repr__(self) -> str:
        count = sum(key is not None for key in self._secrets())
        return f"MeterKeys({count} secrets)"

    def __reduce__(self) -> str:
        raise TypeError("keys are not pickled")

    def _secrets(self) -> list[bytes | None]:
        return [
            self.encryption_key,
            self.authentication_key,
            self.password,
            self.master_key,
            self.private_key,
            self.peer_public_key,
        ]

    def pack(self, meter_id: int, system_title: bytes | None) -> bytes:
        """What is wrapped."""
        return msgpack.packb([_FORM, meter_id, system_title, *self._secrets()])  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class BoundKeys:
    """Wrapped keys, and the meter that they must belong to."""

    meter_id: int
    system_title: bytes | None
    wrapped: bytes


class Keystore:
    """Wraps and opens meters' keys. Holds the key-encryption key and shows it to nobody."""

    __slots__ = ("_fingerprint_key", "_key_encryption_key")

    def __init__(self, key_encryption_key: bytes) -> None:
        """Take the key; `open` is for everybody but tests."""
        if len(key_encryption_key) != KEY_OCTETS:
            raise ValueError(f"a key-encryption key has {KEY_OCTETS} octets, this one {len(key_encryption_key)}")
        self._key_encryption_key = key_encryption_key
        self._fingerprint_key = hmac.digest(key_encryption_key, _FINGERPRINT, "sha256")

    def __repr__(self) -> str:
        return "Keystore()"

    def __reduce__(self) -> str:
        raise TypeError("keys are not pickled")

    @classmethod
    def open(cls, connection: Connection, config: KeystoreConfig) -> Self:
        """The keystore of this store, made on its first use. Needs a writing transaction then.

        Raises:
            ConfigError: the key file or passphrase is missing, open to others, or no key.
            WrongKeyEncryptionKey: it is not the one that this store's keys are wrapped with.
            KeyTampered: the store's record of its key-encryption key was changed.
        """
        kind = "file" if config.key_file is not None else "passphrase"
        row = connection.execute(select(keystore)).one_or_none()
        if row is not None and row.kind != kind:
            raise ConfigError(
                f"keystore: this store's keys are under a key from a {row.kind}, the configuration gives a {kind}"
            )
        salt = secrets.token_bytes(16) if row is None else row.salt
        cost = (SCRYPT_COST, SCRYPT_BLOCK_SIZE, SCRYPT_PARALLEL) if row is None else _stored_cost(row)
        opened = cls(_key_from_file(config.key_file) if config.key_file else _key_from_passphrase(config, salt, cost))
        if row is None:
            [check_value] = key_wrap.wrap(opened._key_encryption_key, [_CHECK])
            connection.execute(
                insert(keystore).values(
                    id=1,
                    kind=kind,
                    salt=salt,
                    cost=cost[0],
                    block_size=cost[1],
                    parallel=cost[2],
                    check_value=check_value,
                )
            )
        elif key_wrap.unwrap(opened._key_encryption_key, [row.check_value]) != [_CHECK]:
            raise WrongKeyEncryptionKey(
                f"keystore: the {'key file' if kind == 'file' else 'passphrase'} is not the one that this store's keys "
                "are wrapped with; give the one it was made with"
            )
        return opened

    def wrap(self, bound: Sequence[tuple[int, bytes | None, MeterKeys]]) -> list[bytes]:
        """Wrap the keys of each (meter_id, system_title, keys), many at once."""
        packed = [keys.pack(meter_id, system_title) for meter_id, system_title, keys in bound]
        return key_wrap.wrap(self._key_encryption_key, packed)

    def unwrap(self, bound: Sequence[BoundKeys]) -> list[MeterKeys]:
        """The keys again, many at once.

        Raises:
            KeyTampered: at least one was changed, or belongs to another meter; all such are named.
        """
        opened = key_wrap.unwrap(self._key_encryption_key, [one.wrapped for one in bound])
        found: list[MeterKeys] = []
        tampered: list[int] = []
        for one, packed in zip(bound, opened, strict=True):
            parts = None if packed is None else msgpack.unpackb(packed)  # what opens was packed here
            if parts is None or parts[:3] != [_FORM, one.meter_id, one.system_title]:
                tampered.append(one.meter_id)
            else:
                found.append(MeterKeys(*parts[3:]))
        if tampered:
            some = ", ".join(map(str, tampered[:10])) + (", ..." if len(tampered) > 10 else "")
            raise KeyTampered(
                f"the stored keys of {len(tampered)} meters were tampered with or belong to others (meter {some}); "
                "import these meters again with their right keys, and find out who wrote to the store"
            )
        return found

    def fingerprint(self, key: bytes) -> bytes:
        """The same for the same key, and of no use without the key-encryption key."""
        return hmac.digest(self._fingerprint_key, key, "sha256")[:16]


def create_key_file(path: Path) -> None:
    """Make a new key-encryption key that only this user may read. An existing file is left alone.

    Raises:
        FileExistsError: there is one already.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(KEY_OCTETS) + "\n")
        file.flush()
        os.fsync(file.fileno())


def forbid_core_dumps() -> None:
    """Keep the keys of this process out of core files (R21)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _key_from_file(path: Path) -> bytes:
    text = _private_text(path, "key_file")
    try:
        key = bytes.fromhex(text)
    except ValueError:
        raise ConfigError(f"keystore.key_file: {path} is not hexadecimal; it holds {2 * KEY_OCTETS} digits") from None
    if len(key) != KEY_OCTETS:
        raise ConfigError(
            f"keystore.key_file: {path} holds {len(key)} octets; a key-encryption key has {KEY_OCTETS}, "
            f"written as {2 * KEY_OCTETS} hexadecimal digits"
        )
    if len(set(key)) < KEY_OCTETS // 4:
        raise ConfigError(f"keystore.key_file: {path} holds no random key; make one with `openssl rand -hex 32`")
    return key


def _key_from_passphrase(config: KeystoreConfig, salt: bytes, cost: tuple[int, int, int]) -> bytes:
    if config.passphrase_file is not None:
        place = f"keystore.passphrase_file: {config.passphrase_file}"
        passphrase = _private_text(config.passphrase_file, "passphrase_file")
    else:
        place = f"keystore.passphrase_env: {config.passphrase_env}"
        passphrase = os.environ.get(config.passphrase_env or "", "")
        if not passphrase:
            raise ConfigError(f"{place} is not in the environment; set it, or use key_file")
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise ConfigError(f"{place} has {len(passphrase)} characters; a passphrase has at least {SHORTEST_PASSPHRASE}")
    n, r, p = cost
    return hashlib.scrypt(passphrase.encode(), salt=salt, n=n, r=r, p=p, maxmem=_SCRYPT_MEMORY_LIMIT, dklen=KEY_OCTETS)


def _stored_cost(row: Row[tuple[object, ...]]) -> tuple[int, int, int]:
    # Whoever can write to the store must not choose a cheaper cost, nor one that takes all memory.
    if not (SCRYPT_COST <= row.cost <= 2**17 and row.block_size == SCRYPT_BLOCK_SIZE and 1 <= row.parallel <= 4):
        raise KeyTampered("keystore: the stored cost of the passphrase was changed; restore the store from a backup")
    return row.cost, row.block_size, row.parallel


def _private_text(path: Path, setting: str) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigError(
                    f"keystore.{setting}: {path} has mode {stat.S_IMODE(status.st_mode):04o}, so others may read it; "
                    f"run `chmod 600 {path}`"
                )
            if status.st_uid not in {0, os.geteuid()}:
                raise ConfigError(
                    f"keystore.{setting}: {path} belongs to user {status.st_uid}; it must be this user's or root's"
                )
            return file.read(4096).strip()
    except UnicodeDecodeError:
        raise ConfigError(f"keystore.{setting}: {path} is no text") from None
    except OSError as error:
        raise ConfigError(f"keystore.{setting}: {path}: {error.strerror or error}") from error
