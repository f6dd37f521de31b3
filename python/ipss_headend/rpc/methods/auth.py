"""`auth.*`: who the caller is and what it may do; accounts, their roles, and what proves them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import msgspec
import trio
from sqlalchemy import Connection

from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import Change, Empty, Params, Result, method
from ipss_headend.rpc.faults import Fault
from ipss_headend.security import identity
from ipss_headend.security.identity import Account, Kind
from ipss_headend.security.permission import ALL_GROUPS, NOBODY, Principal, Right, Role

LONGEST_SCOPE = 64


class Who(Result, frozen=True):
    """A principal."""

    name: str
    roles: list[str]
    groups: list[str]
    rights: list[str]


class Action(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something that the caller may want to do."""

    action: str
    """A method's name."""
    target: str | None = None
    """A meter's name."""


class Verdict(Result, frozen=True):
    """Whether it may."""

    allowed: bool
    why: str


@method("auth.whoami", None, open_to_all=True, example={})
def whoami(call: Call, params: Params) -> Who:
    """Who the server takes the caller for."""
    who = call.principal
    return Who(name=who.name, roles=sorted(who.roles), groups=sorted(_groups(who)), rights=sorted(who.rights))


def _groups(who: Principal) -> frozenset[str]:
    return frozenset().union(*(who.scopes.get(role, who.groups) for role in who.roles))


@method("auth.check", None, example={"action": "read.now", "target": "virtual-00001"})
def check(call: Call, params: Action) -> Verdict:
    """Whether the caller may call a method, for a meter where one is named."""
    found = call.services.methods.get(params.action)
    if found is None:
        raise Fault("E_METHOD", f'no method is called "{params.action[:128]}"; rpc.methods lists them')
    who = call.principal
    if who is NOBODY and not found.open:
        return Verdict(allowed=False, why="nobody has said who they are")
    if found.right is not None and found.right not in who.rights:
        return Verdict(allowed=False, why=f"it needs the right {found.right}")
    if params.target is not None:
        meter = call.services.names.get(params.target)
        if meter is None or not who.may(found.right, meter.group):
            return Verdict(allowed=False, why="no such meter is in the caller's scope")
    return Verdict(allowed=True, why="")


class Login(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A user and its password."""

    user: str
    password: str


class Renew(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A token."""

    token: str


class LoggedIn(Result, frozen=True):
    """What proves the login again, on any connection with the same certificate."""

    token: str
    expires_ms: int
    """The time at which it runs out, and the session with it."""
    roles: list[str]


class Grant(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A role of somebody's."""

    subject: str
    """An account's name."""
    role: str
    scope: str = ALL_GROUPS
    """A group of meters; `*`: all."""


class NewUser(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An account to be made."""

    user: str
    kind: str = "user"
    """`user`: a person; `service`: another system, which never approves and administers nobody."""
    certificates: list[str] = msgspec.field(default_factory=list)
    """SHA-256 fingerprints of its certificates, hexadecimal."""


class Disable(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An account to be kept out."""

    user: str
    disabled: bool = True
    """False: let it in again."""


class Certificate(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A certificate of an account's."""

    user: str
    fingerprint: str
    """SHA-256, hexadecimal."""
    remove: bool = False
    """It is the account's no more."""


class NewPassword(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A password for somebody."""

    user: str
    password: str


class Held(msgspec.Struct, frozen=True):
    """A role for a group of meters."""

    role: str
    scope: str


class User(Result, frozen=True):
    """An account."""

    user: str
    kind: str
    roles: list[Held]
    certificates: list[str]
    """SHA-256 fingerprints, hexadecimal."""
    password: bool
    """It has one, so it has to log in."""
    disabled: bool
    failures: int
    """Wrong passwords since the last right one."""
    locked_until_ms: int
    """No password is taken before; 0: any time."""


class Users(Result, frozen=True):
    """All accounts."""

    users: list[User]


@method("auth.login", None, open_to_all=True)
async def login(call: Call, params: Login) -> LoggedIn:
    """Prove with a password who is at the other end of a connection with that user's certificate.

    The token that comes back is good for 15 minutes and for the certificate's connections; `auth.renew` gives the
    next, for 12 hours. After five wrong passwords each further try has to wait twice as long as the one before.
    """
    token, seconds = await call.services.logins.login(call.session, params.user, params.password)
    return _logged_in(call, token, seconds)


@method("auth.renew", None, open_to_all=True)
async def renew(call: Call, params: Renew) -> LoggedIn:
    """Give a new token for one that is still good, which ends; makes a new connection its user's, too."""
    token, seconds = await call.services.logins.renew(call.session, params.token)
    return _logged_in(call, token, seconds)


@method("auth.logout", None, open_to_all=True)
def logout(call: Call, params: Params) -> Empty:
    """End the login: this session is nobody's, and the tokens of its certificate are worth nothing."""
    call.services.logins.logout(call.session)
    return Empty()


@method("auth.grant", Right.SECURITY)
async def grant(call: Call, params: Grant) -> User:
    """Give an account a role for a group of meters.

    SECADM gives all roles but SECADM and RBACMNT; RBACMNT gives SECADM, RBACMNT and SECAUD; each within the groups
    that it has the role for itself, and nobody to itself. Another system is never given a role that approves.
    """
    role = _role(params.role)
    return await _changed(call, params.subject, partial(identity.grant, role=role, scope=_scope(params.scope)))


@method("auth.revoke", Right.SECURITY)
async def revoke(call: Call, params: Grant) -> User:
    """Take a role for a group of meters from an account, by the rules of auth.grant; its sessions lose it at once."""
    role = _role(params.role)
    return await _changed(call, params.subject, partial(identity.revoke, role=role, scope=_scope(params.scope)))


@method("auth.user.add", Right.SECURITY)
async def add(call: Call, params: NewUser) -> User:
    """Make an account, with its certificates. It has no roles yet."""
    if params.kind not in set(Kind):
        raise Fault("E_PARAMS", f'kind: "{params.kind[:32]}"; it is {" or ".join(Kind)}')
    fingerprints = [_fingerprint(text) for text in params.certificates]

    def change(connection: Connection, actor: Principal, name: str) -> None:
        identity.add(connection, actor, name, Kind(params.kind))
        for fingerprint in fingerprints:
            identity.certify(connection, actor, name, fingerprint)

    return await _changed(call, params.user, change)


@method("auth.user.list", Right.SECURITY, example={})
async def list_(call: Call, params: Params) -> Users:
    """All accounts by name, with their roles and certificates."""
    found = await call.services.store.read(identity.listed)
    return Users(users=[_shown(account) for account in found])


@method("auth.user.disable", Right.SECURITY)
async def disable(call: Call, params: Disable) -> User:
    """Keep an account out, its open sessions at once, or let it in again and forget its wrong passwords."""
    return await _changed(call, params.user, partial(identity.disable, disabled=params.disabled))


@method("auth.user.certificate", Right.SECURITY)
async def certificate(call: Call, params: Certificate) -> User:
    """Register a certificate as an account's own, or take it away, which ends the sessions that rest on it."""
    fingerprint = _fingerprint(params.fingerprint)
    return await _changed(call, params.user, partial(identity.certify, fingerprint=fingerprint, remove=params.remove))


@method("auth.user.password", Right.SECURITY)
async def password(call: Call, params: NewPassword) -> User:
    """Give a person a password: from then on it needs its certificate and `auth.login`; its open sessions end.

    Takes no key, because what a key remembers of a call would help to guess the password; a repeat does no harm.
    """
    identity.check_password(params.password)
    hashed = await call.services.logins.hashed(params.password)
    shown = await _changed(call, params.user, partial(identity.set_password, hashed=hashed))
    call.services.logins.forget(params.user)
    return shown


async def _changed(call: Call, name: str, change: Callable[[Connection, Principal, str], None]) -> User:
    """Make a change to an account in one transaction with its audit record, then to its open sessions."""
    actor = call.principal

    def write(connection: Connection) -> Account:
        change(connection, actor, name)
        return identity.find(connection, name)

    with trio.CancelScope(shield=True):  # a session must not miss what is durable
        # What keeps somebody out may use the disk's last room.
        account = await call.services.store.change(write, spend_reserve=True)
        await call.services.logins.changed(name)
    return _shown(account)


def _logged_in(call: Call, token: str, seconds: float) -> LoggedIn:
    roles = sorted(call.principal.roles)
    return LoggedIn(token=token, expires_ms=time.time_ns() // 1_000_000 + int(seconds * 1000), roles=list(roles))


def _shown(account: Account) -> User:
    return User(
        user=account.name,
        kind=account.kind,
        roles=[Held(role, scope) for role, scope in sorted(account.roles)],
        certificates=sorted(one.hex() for one in account.certificates),
        password=account.has_password,
        disabled=account.disabled,
        failures=account.failures,
        locked_until_ms=account.locked_until_us // 1000,
    )


def _role(text: str) -> Role:
    if text not in set(Role):
        raise Fault("E_PARAMS", f'role: "{text[:32]}"; there are {", ".join(Role)}')
    return Role(text)


def _scope(text: str) -> str:
    if not 1 <= len(text) <= LONGEST_SCOPE or not text.isprintable():
        raise Fault("E_PARAMS", f"scope: a group of meters, at most {LONGEST_SCOPE} characters, or {ALL_GROUPS}")
    return text


def _fingerprint(text: str) -> bytes:
    try:
        octets = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        octets = b""
    if len(octets) != 32:
        raise Fault("E_PARAMS", "a fingerprint is SHA-256 of the certificate, 64 hexadecimal digits")
    return octets
