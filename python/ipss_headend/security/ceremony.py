"""The key ceremony: from nothing to a key-encryption key, shares with custodians, and a protocol to sign (R25).

No step shows a key. What people compare is the check value; what they sign is the protocol.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, select

from ipss_headend.config import KeystoreConfig
from ipss_headend.errors import ConfigError, NotAuthorised
from ipss_headend.security import audit, hardware, shares, wrapped_keys
from ipss_headend.security.keystore import Keystore, create_key_file
from ipss_headend.store import registry
from ipss_headend.store.schema import keystore


@dataclass(frozen=True, slots=True)
class Roles:
    """Who takes part. Nobody has two roles."""

    operator: str
    auditor: str
    custodians: tuple[str, ...]

    def check(self) -> None:
        """Refuse a person with two roles, and one without a name.

        Raises:
            NotAuthorised: who, and in which roles.
        """
        parts = [("operator", self.operator), ("auditor", self.auditor)]
        parts += [("custodian", name) for name in self.custodians]
        seen: dict[str, str] = {}
        for role, name in parts:
            person = " ".join(name.split()).casefold()
            if not person:
                raise NotAuthorised(f"the {role} has no name; every part is a person's")
            if person in seen:
                raise NotAuthorised(
                    f'"{name}" is {seen[person]} and {role}; operator, auditor and every custodian are different people'
                )
            seen[person] = role


@dataclass(frozen=True, slots=True)
class Done:
    """What a ceremony leaves behind."""

    check_value: str
    share_files: tuple[Path, ...]
    protocol: str


def hold(
    connection: Connection,
    config: KeystoreConfig,
    roles: Roles,
    *,
    need: int,
    directories: Sequence[Path],
    confirm: Callable[[str], bool],
    tell: Callable[[str], None] = lambda _: None,
) -> Done:
    """Make the key, share it, prove that the shares restore it, and write it down. Needs a writing transaction.

    `directories`: where each custodian's share goes. `confirm` asks the auditor, with the check value. Of a ceremony
    that is not confirmed no share and no row stays; the key in the token or file does, and protects nothing.

    Raises:
        NotAuthorised: somebody has two roles, or the auditor did not confirm.
        ConfigError: this store has its key already, or something cannot be written.
        TokenError: the hardware module cannot be used.
    """
    roles.check()
    if connection.execute(select(keystore.c.id)).first() is not None:
        raise ConfigError("keys ceremony: this store has its key already; `keys share` makes new shares of it")
    if config.key_file is None and config.pkcs11 is None:
        raise ConfigError("keys ceremony: a passphrase has no ceremony; configure pkcs11_module, or key_file")
    tell("1. the key-encryption key")
    made = make(config)
    tell(f"   {made}")
    opened = Keystore.open(connection, config)
    tell(f"2. {len(roles.custodians)} shares, {need} needed")
    with handed_out(opened, roles, need, directories, confirm=confirm, tell=tell) as handed:
        audit.append(connection, "key ceremony", roles.operator, opened.check_value, handed.detail(roles))
    return Done(opened.check_value, handed.files, protocol("a key ceremony", roles, handed, [made]))


@dataclass(frozen=True, slots=True)
class Handed:
    """Shares that were written and proven."""

    parts: tuple[shares.Share, ...]
    files: tuple[Path, ...]
    groups: int
    """How many groups of shares were put together."""

    def detail(self, roles: Roles) -> dict[str, object]:
        """What the audit trail says of them."""
        digests = [part.digest() for part in self.parts]
        people = {"auditor": roles.auditor, "custodians": list(roles.custodians)}
        return {**people, "need": self.parts[0].need, "shares": digests}


@contextmanager
def handed_out(
    opened: Keystore,
    roles: Roles,
    need: int,
    directories: Sequence[Path],
    *,
    confirm: Callable[[str], bool],
    tell: Callable[[str], None],
) -> Iterator[Handed]:
    """Write the shares, prove them, and ask the auditor; of a block that raises no share stays.

    Raises:
        NotAuthorised: the auditor did not confirm.
        ConfigError: a share cannot be written.
    """
    parts = opened.shares(need, len(roles.custodians), roles.custodians)
    files: list[Path] = []
    try:
        for part, directory in zip(parts, directories, strict=True):
            files.append(shares.save(part, directory))
            tell(f"   {files[-1]} for {part.custodian}")
        tell("3. every group of shares that is enough is read back and put together")
        groups = prove(files, need, opened.check_value)
        tell(f"   {groups} groups restore the key")
        tell(f"4. check value: {opened.check_value}")
        _insist(confirmed=confirm(opened.check_value))
        yield Handed(tuple(parts), tuple(files), groups)
    except BaseException:
        for path in files:
            path.unlink(missing_ok=True)
        raise


def share(
    connection: Connection, opened: Keystore, roles: Roles, *, need: int, directories: Sequence[Path]
) -> tuple[Path, ...]:
    """New shares of a key that is there. The old ones stay good: destroy them. Needs a writing transaction.

    Raises:
        NotAuthorised, ConfigError: as `hold`.
    """
    roles.check()
    parts = opened.shares(need, len(roles.custodians), roles.custodians)
    files: list[Path] = []
    try:
        for part, directory in zip(parts, directories, strict=True):
            files.append(shares.save(part, directory))
        prove(files, need, opened.check_value)
        detail = {"custodians": list(roles.custodians), "need": need, "shares": [part.digest() for part in parts]}
        audit.append(connection, "keys shared", roles.operator, opened.check_value, detail)
    except BaseException:
        for path in files:
            path.unlink(missing_ok=True)
        raise
    return tuple(files)


def migrate(connection: Connection, old: Keystore, config: KeystoreConfig, operator: str) -> tuple[Keystore, int]:
    """Move all keys from a key in software under one in a hardware module, all or none. Needs a writing transaction.

    Returns the new keystore and how many meters have keys in it. The head-end must not run meanwhile.

    Raises:
        KeyTampered: some key does not open; nothing was moved.
        ConfigError: out of a hardware module, which is not done.
    """
    if config.pkcs11 is None:
        raise ConfigError("keystore: keys move into a hardware module and not out of it")
    titles = {meter.meter_id: meter.system_title for meter in registry.all_meters(connection)}
    found = wrapped_keys.opened(connection, old, titles)
    make(config)
    new = old.renewed(connection, config)
    wrapped_keys.replace(connection, new, found)
    detail = {"from": old.check_value, "meters": len(found)}
    audit.append(connection, "keys migrated", operator, new.check_value, detail)
    return new, len({one.meter_id for one in found})


def prove(files: Sequence[Path], need: int, check_value: str) -> int:
    """Read the shares back and put every group of `need` together; returns how many groups there are.

    Raises:
        WrongShares: some group does not make the key with this check value.
    """
    loaded = [(str(path), shares.load(path)) for path in files]
    groups = list(itertools.combinations(loaded, need))
    for group in groups:
        if shares.check_value(shares.combine(group)) != check_value:
            raise AssertionError("shares make another key than they were made of")
    return len(groups)


def _insist(*, confirmed: bool) -> None:
    if not confirmed:
        raise NotAuthorised("keys ceremony: the auditor did not confirm the check value; no share was kept")


def make(config: KeystoreConfig) -> str:
    """Make the key-encryption key in the module or file, if there is none; returns where it is, in words.

    Raises:
        ConfigError: the file cannot be written.
        TokenError: the hardware module cannot be used.
    """
    if config.pkcs11 is not None:
        where = f'"{config.pkcs11.label}" in token "{config.pkcs11.token}"'
        with hardware.token(config.pkcs11) as token:
            if token.has_key():
                return f"{where}, which was there"
            token.make_key()
        return f"{where}, made there: AES-256, sensitive, not extractable"
    assert config.key_file is not None
    if config.key_file.exists():
        return f"{config.key_file}, which was there"
    try:
        create_key_file(config.key_file)
    except OSError as error:
        raise ConfigError(f"keystore.key_file: {config.key_file}: {error.strerror or error}") from error
    return f"{config.key_file}, made now: in software, as safe as this machine"


def protocol(title: str, roles: Roles, handed: Handed, made: Sequence[str]) -> str:
    """What was done, for people to sign; `made`: how the key was made, and what else is to be said of it."""
    first = handed.parts[0]
    lines = [
        f"# Protocol of {title}",
        "",
        f"- time (UTC): {datetime.now(UTC).isoformat(timespec='seconds')}",
        f"- key-encryption key: {made[0]}",
        *(f"- {line}" for line in made[1:]),
        f"- key check value: {first.check_value}",
        f"- set of shares: {first.set_number}, {first.need} of {first.of} needed",
        f"- groups of {first.need} shares that were read back and restored the key: {handed.groups}",
        "",
        "| role | name | share | digest of the share | signature |",
        "|---|---|---|---|---|",
        f"| operator | {roles.operator} | | | |",
        f"| auditor | {roles.auditor} | | | |",
    ]
    lines += [f"| custodian | {part.custodian} | {part.place} | {part.digest()} | |" for part in handed.parts]
    lines += [
        "",
        "Each custodian has taken the share named here, keeps it apart from the others, and has compared the key check",
        "value on it with the one above. The files on the head-end's disk were destroyed after the shares were handed",
        "over. Nobody has two roles.",
        "",
    ]
    return "\n".join(lines)
