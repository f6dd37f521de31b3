"""Meters' keys at rest: wrapped with AES-256 under one key-encryption key, and bound to their meter.

The master key wraps them. In the software keystore it is the key-encryption key itself, from a file that only its
owner may read or from a passphrase (scrypt). With a hardware module it is in the store, wrapped under a
key-encryption key that never leaves the module (`hardware.py`). While the process runs the master key is in its memory,
in a locked page (`locked.py`). What is wrapped carries the meter's number and system title, so that a wrapped key moved
to another row is refused like a changed one.
"""

import contextlib
import hashlib
import hmac
import os
import resource
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgpack
from sqlalchemy import Connection, Row, delete, insert, select, update

from ipss_headend.config import KeystoreConfig, Pkcs11Config
from ipss_headend.errors import ConfigError, KeyTampered, WrongKeyEncryptionKey
from ipss_headend.security import hardware, key_wrap, shares
from ipss_headend.security.locked import LockedKey
from ipss_headend.security.private_file import private_text
from ipss_headend.store.files import sync
from ipss_headend.store.schema import keystore, keystore_secrets

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

PKCS11 = "pkcs11"
_MASTER_NAME = "master key"
_FINGERPRINT_NAME = "fingerprint key"
_NAMED = {
    "file": "the key file is not",
    "passphrase": "the passphrase is not",
    PKCS11: "the master key under the module's key is not",
}


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
    """Wraps and opens meters' keys. Holds the master key and shows it to nobody."""

    __slots__ = ("_fingerprint_key", "_master_key")

    def __init__(self, master_key: bytes | bytearray, fingerprint_key: bytes | None = None) -> None:
        """Take the key; `open` is for everybody but tests. A `bytearray` is zeroised afterwards."""
        if len(master_key) != KEY_OCTETS:
            raise ValueError(f"a key-encryption key has {KEY_OCTETS} octets, this one {len(master_key)}")
        self._fingerprint_key = fingerprint_key or hmac.digest(master_key, _FINGERPRINT, "sha256")
        self._master_key = LockedKey(master_key)

    def __repr__(self) -> str:
        return "Keystore()"

    def __reduce__(self) -> str:
        raise TypeError("keys are not pickled")

    @classmethod
    def open(cls, connection: Connection, config: KeystoreConfig) -> Self:
        """The keystore of this store, made on its first use. Needs a writing transaction then.

        Raises:
            ConfigError: the key file or passphrase is missing, open to others, or no key.
            TokenError: the hardware module cannot be used. No key in software takes its place.
            WrongKeyEncryptionKey: it is not the one that this store's keys are wrapped with.
            KeyTampered: the store's record of its key-encryption key was changed.
        """
        kind = kind_of(config)
        row = connection.execute(select(keystore)).one_or_none()
        if row is not None and row.kind != kind:
            raise ConfigError(
                f"keystore: this store's keys are under a key from a {row.kind}, the configuration gives a {kind}"
                + ("; `ipss-headend keys migrate` moves them into the module" if kind == PKCS11 else "")
                + ("; `ipss-headend keys renew` makes a new one" if "passphrase" in {kind, row.kind} else "")
            )
        salt = secrets.token_bytes(16) if row is None else row.salt
        cost = (SCRYPT_COST, SCRYPT_BLOCK_SIZE, SCRYPT_PARALLEL) if row is None else _stored_cost(row)
        master_key: bytes | bytearray
        if config.pkcs11 is not None:
            master_key = _master_from_token(connection, config.pkcs11, make=row is None)
        elif config.key_file is not None:
            renewed = None if row is None else _settled(config.key_file, row.check_value)
            master_key = renewed or _key_from_file(config.key_file)
        else:
            master_key = _key_from_passphrase(config, salt, cost)
        opened = cls(master_key, _stored_fingerprint_key(connection, bytes(master_key)))
        if row is None:
            connection.execute(
                insert(keystore).values(
                    id=1,
                    kind=kind,
                    salt=salt,
                    cost=cost[0],
                    block_size=cost[1],
                    parallel=cost[2],
                    check_value=opened._sealed_check(),
                )
            )
        elif not opened._fits(row.check_value):
            where = "" if config.key_file is None else f"{config.key_file}: "
            raise WrongKeyEncryptionKey(
                f"keystore: {where}{_NAMED[kind]} the one that this store's keys are wrapped with; put that one back"
            )
        return opened

    @property
    def check_value(self) -> str:
        """What people compare to know that they mean the same master key."""
        return shares.check_value(self._master_key.view)

    @property
    def locked(self) -> bool:
        """Whether the system keeps the master key out of its swap space."""
        return self._master_key.locked

    def shares(self, need: int, of: int, custodians: Sequence[str] = ()) -> list[shares.Share]:
        """The master key in shares for its custodians.

        Raises:
            ConfigError: these numbers or names cannot be.
        """
        return shares.split(bytes(self._master_key.view), need, of, custodians)

    def renewed(self, connection: Connection, config: KeystoreConfig) -> Self:
        """Give this store a new master key of random octets. Needs a writing transaction.

        The caller wraps every key anew in the same transaction. A key file's key lies beside it until `settle`: a
        process that dies in between leaves a store that opens, before the commit with the old key and after it with
        the new one. Fingerprints stay, as keys that are gone have some, too: their key moves along.

        Raises:
            TokenError: the hardware module cannot be used.
            ConfigError: the key file cannot be written; a passphrase is configured, which nobody makes but people; or
                it would go out of a hardware module.
        """
        kind = kind_of(config)
        if connection.scalar(select(keystore.c.kind)) == PKCS11 != kind:
            raise ConfigError("keystore: keys move into a hardware module and not out of it")
        connection.execute(delete(keystore_secrets))
        master_key: bytes | bytearray
        if config.pkcs11 is not None:
            master_key = _master_from_token(connection, config.pkcs11, make=True)
        elif config.key_file is not None:
            master_key = secrets.token_bytes(KEY_OCTETS)
            _stage(config.key_file, master_key)
        else:
            raise ConfigError("keystore: a new master key goes into a key_file or a hardware module; configure one")
        [fingerprint_key] = key_wrap.wrap(bytes(master_key), [self._fingerprint_key])
        connection.execute(insert(keystore_secrets).values(name=_FINGERPRINT_NAME, wrapped=fingerprint_key))
        new = type(self)(master_key, self._fingerprint_key)
        connection.execute(update(keystore).values(kind=kind, check_value=new._sealed_check()))
        return new

    def _sealed_check(self) -> bytes:
        return key_wrap.wrap(self._master_key.view, [_CHECK])[0]

    def _fits(self, sealed_check: bytes) -> bool:
        return key_wrap.unwrap(self._master_key.view, [sealed_check]) == [_CHECK]

    def wrap(self, bound: Sequence[tuple[int, bytes | None, MeterKeys]]) -> list[bytes]:
        """Wrap the keys of each (meter_id, system_title, keys), many at once."""
        packed = [keys.pack(meter_id, system_title) for meter_id, system_title, keys in bound]
        return key_wrap.wrap(self._master_key.view, packed)

    def unwrap(self, bound: Sequence[BoundKeys]) -> list[MeterKeys]:
        """The keys again, many at once.

        Raises:
            KeyTampered: at least one was changed, or belongs to another meter; all such are named.
        """
        opened = key_wrap.unwrap(self._master_key.view, [one.wrapped for one in bound])
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


def kind_of(config: KeystoreConfig) -> str:
    """Where this configuration takes the key-encryption key from: `file`, `passphrase` or `pkcs11`."""
    if config.pkcs11 is not None:
        return PKCS11
    return "file" if config.key_file is not None else "passphrase"


def restore(connection: Connection, config: KeystoreConfig, master_key: bytes) -> None:
    """Put a master key from its shares where the configuration wants it. Needs a writing transaction.

    A key file is written anew, and not over another; in a hardware module the master key is wrapped under the key that
    is there now.

    Raises:
        WrongKeyEncryptionKey: this store's keys are wrapped with another.
        ConfigError: the key file is there already, or the key cannot go where the configuration says.
        TokenError: the hardware module cannot be used.
    """
    row = connection.execute(select(keystore)).one_or_none()
    kind = kind_of(config)
    if kind == "passphrase":
        raise ConfigError("keystore: a passphrase is not restored from shares; configure key_file or pkcs11_module")
    if row is not None and not Keystore(master_key)._fits(row.check_value):
        raise WrongKeyEncryptionKey(
            f"keystore: the shares make the key {shares.check_value(master_key)}, and it is not the one that this "
            "store's keys are wrapped with; bring the shares of this store's key"
        )
    if row is not None and row.kind == PKCS11 != kind:
        raise ConfigError("keystore: this store's master key belongs into a hardware module; configure one")
    if config.pkcs11 is not None:
        if row is None or row.kind != PKCS11:
            raise ConfigError("keystore: this store's keys are in no hardware module yet; use `keys migrate`")
        with hardware.token(config.pkcs11) as token:
            if not token.has_key():
                token.make_key()
            wrapped = token.wrap(master_key)
        connection.execute(delete(keystore_secrets).where(keystore_secrets.c.name == _MASTER_NAME))
        connection.execute(insert(keystore_secrets).values(name=_MASTER_NAME, wrapped=wrapped))
    elif config.key_file is not None:
        try:
            create_key_file(config.key_file, master_key)
        except OSError as error:
            raise ConfigError(f"keystore.key_file: {config.key_file}: {error.strerror or error}") from error
        if row is not None:
            connection.execute(update(keystore).values(kind=kind))


def settle(connection: Connection, config: KeystoreConfig) -> None:
    """End a renewal that was committed: the key file holds the new key, and the old key is overwritten.

    Until then, and if this cannot be done, `Keystore.open` does it. Harmless at any other time.
    """
    row = connection.execute(select(keystore)).one_or_none()
    if row is not None and config.key_file is not None:
        _settled(config.key_file, row.check_value)


def discard(config: KeystoreConfig) -> None:
    """Forget the key of a renewal that was certainly not committed."""
    if config.key_file is not None:
        _beside(config.key_file).unlink(missing_ok=True)


def create_key_file(path: Path, key: bytes | None = None) -> None:
    """Write a new key-encryption key, or this one, that only this user may read. An existing file is left alone.

    Raises:
        FileExistsError: there is one already.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write((key or secrets.token_bytes(KEY_OCTETS)).hex() + "\n")
        file.flush()
        os.fsync(file.fileno())


def forbid_core_dumps() -> None:
    """Keep the keys of this process out of core files (R21)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _master_from_token(connection: Connection, config: Pkcs11Config, *, make: bool) -> bytearray:
    with hardware.token(config) as token:
        if make:
            master_key = bytearray(secrets.token_bytes(KEY_OCTETS))
            wrapped = token.wrap(bytes(master_key))
            connection.execute(insert(keystore_secrets).values(name=_MASTER_NAME, wrapped=wrapped))
            return master_key
        wrapped = (
            connection.scalar(select(keystore_secrets.c.wrapped).where(keystore_secrets.c.name == _MASTER_NAME)) or b""
        )
        return token.unwrap(wrapped)


def _stored_fingerprint_key(connection: Connection, master_key: bytes) -> bytes | None:
    wrapped = connection.scalar(select(keystore_secrets.c.wrapped).where(keystore_secrets.c.name == _FINGERPRINT_NAME))
    return None if wrapped is None else key_wrap.unwrap(master_key, [wrapped])[0]


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".renewed")


def _stage(path: Path, key: bytes) -> None:
    # One that lies there protects nothing: its store opens with another.
    staged = _beside(path)
    try:
        staged.unlink(missing_ok=True)
        create_key_file(staged, key)
        if os.geteuid() == 0 and path.exists():
            owner = path.stat()
            os.chown(staged, owner.st_uid, owner.st_gid)  # or whoever serves could not read it
        sync(path.parent)
    except OSError as error:
        raise ConfigError(f"keystore.key_file: {staged}: {error.strerror or error}") from error


def _settled(path: Path, check_value: bytes) -> bytes | None:
    # The key of a renewal, if the store is under it.
    staged = _beside(path)
    if not staged.exists():
        return None
    try:
        key = _key_from_file(staged)
    except ConfigError:  # torn: it was never committed
        return None
    if not Keystore(key)._fits(check_value):
        return None
    with contextlib.suppress(OSError):  # whoever may not write there uses it where it is
        if path.exists():
            with path.open("r+b") as old:
                old.write(b"0" * os.fstat(old.fileno()).st_size)
                old.flush()
                os.fsync(old.fileno())
        staged.replace(path)
        sync(path.parent)
    return key


def _key_from_file(path: Path) -> bytes:
    text = private_text(path, "key_file")
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


def check_source(config: KeystoreConfig) -> None:
    """See that the files are there, and are what `Keystore.open` wants, without opening anything with them.

    Raises:
        ConfigError: with the remedy.
    """
    if config.pkcs11 is not None:
        if not config.pkcs11.module.is_file():
            raise ConfigError(f"keystore.pkcs11_module: {config.pkcs11.module} is not there; name the maker's library")
        private_text(config.pkcs11.pin_file, "pin_file")
    elif config.key_file is not None:
        _key_from_file(config.key_file)
    else:
        _passphrase(config)


def _key_from_passphrase(config: KeystoreConfig, salt: bytes, cost: tuple[int, int, int]) -> bytes:
    passphrase = _passphrase(config)
    n, r, p = cost
    return hashlib.scrypt(passphrase.encode(), salt=salt, n=n, r=r, p=p, maxmem=_SCRYPT_MEMORY_LIMIT, dklen=KEY_OCTETS)


def _passphrase(config: KeystoreConfig) -> str:
    if config.passphrase_file is not None:
        place = f"keystore.passphrase_file: {config.passphrase_file}"
        passphrase = private_text(config.passphrase_file, "passphrase_file")
    else:
        place = f"keystore.passphrase_env: {config.passphrase_env}"
        passphrase = os.environ.get(config.passphrase_env or "", "")
        if not passphrase:
            raise ConfigError(f"{place} is not in the environment; set it, or use key_file")
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise ConfigError(f"{place} has {len(passphrase)} characters; a passphrase has at least {SHORTEST_PASSPHRASE}")
    return passphrase


def _stored_cost(row: Row[tuple[object, ...]]) -> tuple[int, int, int]:
    # Whoever can write to the store must not choose a cheaper cost, nor one that takes all memory.
    if not (SCRYPT_COST <= row.cost <= 2**17 and row.block_size == SCRYPT_BLOCK_SIZE and 1 <= row.parallel <= 4):
        raise KeyTampered("keystore: the stored cost of the passphrase was changed; restore the store from a backup")
    return row.cost, row.block_size, row.parallel
