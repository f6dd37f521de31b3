"""Accounts: who may call from another machine, what proves it, and who may change that. Deny by default.

A person (`user`) proves itself with a registered certificate and, if it has one, a password; another system
(`service`) with its certificate. A role is held for a scope: a group of meters, or `*`. Roles are given by those who
administer them, never to oneself; whoever may change what an account proves itself with could act as that account, so
that needs the same. Every change is in the audit trail, in the transaction that makes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from argon2 import PasswordHasher, Type
from argon2.exceptions import Argon2Error, InvalidHashError
from sqlalchemy import Connection, delete, insert, select, update

from ipss_headend.errors import NotAuthorised, RequestError, UnknownSubject
from ipss_headend.security import audit
from ipss_headend.security.permission import ALL_GROUPS, NOBODY, RIGHTS, Principal, Right, Role
from ipss_headend.store.database import now_us
from ipss_headend.store.schema import account_certificates, account_roles, accounts

HASHER = PasswordHasher(time_cost=3, memory_cost=64 << 10, parallelism=1, hash_len=32, salt_len=16, type=Type.ID)
"""Argon2id with 64 MiB and three passes (R36): some 0.2 s."""

SHORTEST_PASSWORD, LONGEST_PASSWORD = 12, 256
LONGEST_NAME = 64
MOST_CERTIFICATES = 10

FREE_FAILURES = 5
FIRST_PAUSE_US = 30_000_000
LONGEST_PAUSE_US = 3600_000_000
"""After five wrong passwords in a row each try waits twice as long as the one before, an hour at most."""

ADMINISTERS: Mapping[Role, frozenset[Role]] = {
    Role.SECADM: frozenset(Role) - {Role.SECADM, Role.RBACMNT},
    Role.RBACMNT: frozenset({Role.SECADM, Role.RBACMNT, Role.SECAUD}),
}
"""Which roles a role may give and take. Who gives rights to people is not who says who gives them."""


class Kind(StrEnum):
    """What an account is."""

    USER = "user"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Account:
    """One account. Its password's hash stays in the store."""

    name: str
    kind: Kind
    roles: frozenset[tuple[Role, str]]
    """Roles with their scopes."""
    certificates: frozenset[bytes]
    """SHA-256 of the certificates that are its own."""
    has_password: bool
    disabled: bool
    failures: int
    """Wrong passwords since the last right one."""
    locked_until_us: int

    def principal(self) -> Principal:
        """What it may do once it has proved itself. A service never approves, whatever its row says (R15)."""
        if self.disabled:
            return NOBODY
        scopes: dict[Role, set[str]] = {}
        for role, scope in self.roles:
            if fitting(self.kind, role):
                scopes.setdefault(role, set()).add(scope)
        return Principal(
            self.name,
            frozenset(scopes),
            frozenset(),
            {role: frozenset(groups) for role, groups in scopes.items()},
        )


def fitting(kind: Kind, role: Role) -> bool:
    """Whether such an account may hold this role."""
    if kind is Kind.SERVICE:
        return not RIGHTS[role] & {Right.APPROVE, Right.SECURITY}
    return role is not Role.SERVICE


def find(connection: Connection, name: str) -> Account:
    """The account of this name.

    Raises:
        UnknownSubject: there is none.
    """
    for account in _accounts(connection, name):
        return account
    raise UnknownSubject(f'no account is called "{name[:LONGEST_NAME]}"; auth.user.list shows them')


def listed(connection: Connection) -> list[Account]:
    """All accounts by name."""
    return _accounts(connection, None)


def of_certificate(connection: Connection, fingerprint: bytes) -> Account | None:
    """Whose certificate this is."""
    name = connection.scalar(
        select(account_certificates.c.name).where(account_certificates.c.fingerprint == fingerprint)
    )
    return None if name is None else find(connection, name)


def add(connection: Connection, actor: Principal, name: str, kind: Kind) -> Account:
    """Make an account without roles, certificates and password: it can do nothing yet.

    Raises:
        RequestError: the name cannot be one, or is taken.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]*", name) or len(name) > LONGEST_NAME or name == NOBODY.name:
        raise RequestError(f'"{name[:LONGEST_NAME]}" is no name: letters, digits and . _ @ -, at most {LONGEST_NAME}')
    if connection.scalar(select(accounts.c.name).where(accounts.c.name == name)) is not None:
        raise RequestError(f'an account is called "{name}" already')
    connection.execute(
        insert(accounts).values(
            name=name, kind=kind, password=None, disabled=0, failures=0, locked_until_us=0, added_us=now_us()
        )
    )
    audit.append(connection, "account-added", actor.name, name, {"kind": kind})
    return find(connection, name)


def grant(connection: Connection, actor: Principal, name: str, role: Role, scope: str) -> None:
    """Give an account a role for a group of meters.

    Raises:
        NotAuthorised: the actor does not administer the role there, or means itself, or the account may not hold it.
        UnknownSubject: no such account.
    """
    account = find(connection, name)
    _administers(actor, name, {(role, scope)})
    if not fitting(account.kind, role):
        raise NotAuthorised(f"{name} is a {account.kind} account, which never is {role}")
    if (role, scope) not in account.roles:
        connection.execute(insert(account_roles).values(name=name, role=role, scope=scope))
    audit.append(connection, "role-granted", actor.name, name, {"role": role, "scope": scope})


def revoke(connection: Connection, actor: Principal, name: str, role: Role, scope: str) -> None:
    """Take a role for a group from an account.

    Raises:
        NotAuthorised: the actor does not administer the role there, or means itself.
        UnknownSubject: no such account.
    """
    account = find(connection, name)
    _administers(actor, name, {(role, scope)})
    if (role, scope) not in account.roles:
        raise RequestError(f'{name} is not {role} for "{scope}"; auth.user.list shows its roles')
    where = (account_roles.c.name == name) & (account_roles.c.role == role) & (account_roles.c.scope == scope)
    connection.execute(delete(account_roles).where(where))
    audit.append(connection, "role-revoked", actor.name, name, {"role": role, "scope": scope})


def disable(connection: Connection, actor: Principal, name: str, *, disabled: bool) -> None:
    """Keep an account out, or let it in again, which also forgets its wrong passwords.

    Raises:
        NotAuthorised: the actor does not administer all that the account is, or means itself.
        UnknownSubject: no such account.
    """
    _administers(actor, name, find(connection, name).roles)
    connection.execute(
        update(accounts).where(accounts.c.name == name).values(disabled=int(disabled), failures=0, locked_until_us=0)
    )
    audit.append(connection, "account-disabled" if disabled else "account-enabled", actor.name, name)


def certify(connection: Connection, actor: Principal, name: str, fingerprint: bytes, *, remove: bool = False) -> None:
    """Register a certificate as an account's own, or take it away.

    Raises:
        NotAuthorised: the actor does not administer all that the account is, or means itself.
        RequestError: it is somebody's already, or is not the account's.
        UnknownSubject: no such account.
    """
    account = find(connection, name)
    _administers(actor, name, account.roles)
    detail = {"fingerprint": fingerprint.hex()}
    if remove:
        if fingerprint not in account.certificates:
            raise RequestError(f"{name} has no certificate {fingerprint.hex()}")
        connection.execute(delete(account_certificates).where(account_certificates.c.fingerprint == fingerprint))
        audit.append(connection, "certificate-removed", actor.name, name, detail)
        return
    if len(account.certificates) >= MOST_CERTIFICATES:
        raise RequestError(f"{name} has {MOST_CERTIFICATES} certificates; remove one first")
    if of_certificate(connection, fingerprint) is not None:
        raise RequestError(f"certificate {fingerprint.hex()} is registered already")
    connection.execute(insert(account_certificates).values(fingerprint=fingerprint, name=name, added_us=now_us()))
    audit.append(connection, "certificate-registered", actor.name, name, detail)


def check_password(password: str) -> None:
    """Refuse what is too short to be a password, or too long to be looked at.

    Raises:
        RequestError: it is.
    """
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise RequestError(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")


def set_password(connection: Connection, actor: Principal, name: str, hashed: str) -> None:
    """Give a person a password; `hashed` by `HASHER`.

    Raises:
        NotAuthorised: the actor does not administer all that the account is, or means itself.
        RequestError: it is another system's account.
        UnknownSubject: no such account.
    """
    account = find(connection, name)
    _administers(actor, name, account.roles)
    if account.kind is not Kind.USER:
        raise RequestError(f"{name} is a {account.kind} account: its certificate proves who it is, it has no password")
    connection.execute(
        update(accounts).where(accounts.c.name == name).values(password=hashed, failures=0, locked_until_us=0)
    )
    audit.append(connection, "password-set", actor.name, name)


def begin_login(connection: Connection, name: str, moment_us: int) -> str | None:
    """Count a try before it is known whether it is right, so tries at once count, too.

    Returns the hash to compare with; None: it is locked, disabled, or has no password.
    """
    row = connection.execute(select(accounts).where(accounts.c.name == name)).one_or_none()
    if row is None or row.disabled or row.password is None or row.locked_until_us > moment_us:
        return None
    failures = row.failures + 1
    pause_us = 0
    if failures >= FREE_FAILURES:
        pause_us = min(FIRST_PAUSE_US << min(failures - FREE_FAILURES, 20), LONGEST_PAUSE_US)
    connection.execute(
        update(accounts)
        .where(accounts.c.name == name)
        .values(failures=failures, locked_until_us=moment_us + pause_us if pause_us else 0)
    )
    found: str = row.password
    return found


def end_login(connection: Connection, name: str, peer: str, *, right: bool, why: str = "") -> None:
    """Write down what a try came to; a right password forgets the wrong ones before it."""
    if right:
        connection.execute(update(accounts).where(accounts.c.name == name).values(failures=0, locked_until_us=0))
    audit.append(connection, "login" if right else "login-refused", name, peer, {"why": why} if why else {})


def password_fits(hashed: str, password: str) -> bool:
    """Compare a password with its hash. Takes as long as hashing: for a thread."""
    try:
        return HASHER.verify(hashed, password)
    except (Argon2Error, InvalidHashError):
        return False


def _administers(actor: Principal, name: str, roles: frozenset[tuple[Role, str]] | set[tuple[Role, str]]) -> None:
    if actor.name == name:
        raise NotAuthorised("nobody changes what it may do itself; somebody else has to")
    if not actor.may(Right.SECURITY):
        raise NotAuthorised(f"{actor.name} has not the right {Right.SECURITY}")
    for role, scope in sorted(roles):
        allowed = any(
            role in ADMINISTERS.get(mine, frozenset()) and {ALL_GROUPS, scope} & actor.scopes.get(mine, actor.groups)
            for mine in actor.roles
        )
        if not allowed:
            raise NotAuthorised(f'{actor.name} does not administer {role} for "{scope}"')


def _accounts(connection: Connection, name: str | None) -> list[Account]:
    rows = select(accounts).order_by(accounts.c.name)
    roles = select(account_roles)
    certificates = select(account_certificates.c.name, account_certificates.c.fingerprint)
    if name is not None:
        rows = rows.where(accounts.c.name == name)
        roles = roles.where(account_roles.c.name == name)
        certificates = certificates.where(account_certificates.c.name == name)
    held: dict[str, set[tuple[Role, str]]] = {}
    for whose, role, scope in connection.execute(roles):
        if role in Role.__members__:
            held.setdefault(whose, set()).add((Role(role), scope))
    own: dict[str, set[bytes]] = {}
    for whose, fingerprint in connection.execute(certificates):
        own.setdefault(whose, set()).add(fingerprint)
    return [
        Account(
            name=row.name,
            kind=Kind(row.kind),
            roles=frozenset(held.get(row.name, ())),
            certificates=frozenset(own.get(row.name, ())),
            has_password=row.password is not None,
            disabled=bool(row.disabled),
            failures=row.failures,
            locked_until_us=row.locked_until_us,
        )
        for row in connection.execute(rows)
    ]
