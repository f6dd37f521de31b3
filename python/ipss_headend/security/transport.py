"""Transport keys: under these manufacturers wrap the keys of the meters that they ship. Kept like meters' keys."""

import re
from hashlib import sha256

from sqlalchemy import Connection, delete, insert, select

from ipss_headend.errors import ConfigError
from ipss_headend.security.keystore import BoundKeys, Keystore, MeterKeys
from ipss_headend.security.sample_keys import why_no_key
from ipss_headend.store.database import now_us
from ipss_headend.store.schema import transport_keys

LENGTHS = (16, 24, 32)
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
NOBODY = 0
"""The meter that a transport key belongs to: none has this number."""


def add(connection: Connection, keystore: Keystore, name: str, key: bytes) -> None:
    """Keep a transport key. Needs a writing transaction.

    Raises:
        ConfigError: the name is taken or none, or the key is no key.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError("a transport key's name has 1 to 64 letters, digits and . _ -")
    wrong = f"has {len(key)} octets; AES keys have 16, 24 or 32" if len(key) not in LENGTHS else why_no_key(key)
    if wrong is not None:
        raise ConfigError(f"transport key {name}: {wrong}")
    if name in names(connection):
        raise ConfigError(f"transport key {name}: is there already; remove it first, or use another name")
    [wrapped] = keystore.wrap([(NOBODY, bound(name), MeterKeys(master_key=key))])
    connection.execute(insert(transport_keys).values(name=name, wrapped=wrapped, added_us=now_us()))


def key_named(connection: Connection, keystore: Keystore, name: str) -> bytes:
    """The key.

    Raises:
        ConfigError: there is none of this name.
        KeyTampered: it was changed in the store.
    """
    wrapped = connection.scalar(select(transport_keys.c.wrapped).where(transport_keys.c.name == name))
    if wrapped is None:
        known = ", ".join(names(connection)) or "none yet; `ipss-headend keys transport add` takes one"
        raise ConfigError(f"no transport key is called {name}; known: {known}")
    return keystore.unwrap([BoundKeys(NOBODY, bound(name), wrapped)])[0].master_key or b""


def remove(connection: Connection, name: str) -> bool:
    """Forget a key; false if there was none. Needs a writing transaction."""
    return connection.execute(delete(transport_keys).where(transport_keys.c.name == name)).rowcount == 1


def names(connection: Connection) -> list[str]:
    """All, by their names."""
    return list(connection.scalars(select(transport_keys.c.name).order_by(transport_keys.c.name)))


def bound(name: str) -> bytes:
    """What stands in the place of a system title, so that keys under two names cannot be exchanged."""
    return sha256(b"transport key" + name.encode()).digest()[:8]
