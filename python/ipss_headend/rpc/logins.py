"""Who is at the other end: certificates, passwords and tokens, and the sessions that rest on them.

A token is 32 random octets, known here by their hash alone, good for 15 minutes and for connections with the
certificate that it was given to: stolen, it is worth nothing without the key. Tokens live in memory; after a restart
people log in again. When an account changes, its open sessions change with it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, TypeVar

import trio

from ipss_headend.errors import UnknownSubject
from ipss_headend.rpc.faults import Fault
from ipss_headend.rpc.limits import RateLimit
from ipss_headend.security import identity
from ipss_headend.security.identity import Account, Kind
from ipss_headend.security.permission import NOBODY, Principal
from ipss_headend.security.turns import give_way
from ipss_headend.store.database import now_us

if TYPE_CHECKING:
    from ipss_headend.rpc.call import Session
    from ipss_headend.store import Store

T = TypeVar("T")

TOKEN_S = 900.0
"""How long a token, and the session that rests on it, is good (R36)."""
LOGIN_S = 12 * 3600.0
"""How long a login may be renewed before the password is asked for again."""
TOKENS = 10_000
TOKENS_EACH = 16
"""Of one account; the oldest goes for the seventeenth."""
HASHING = 2
"""Passwords that are compared at once: each takes 64 MiB and a core for some 0.2 s (R36)."""
WAITING = 16
"""Logins that wait for it; more are told to come again."""
TRIES_PER_S = 1.0
TRIES_AT_ONCE = 20.0
"""Logins and renewals of one certificate."""

REFUSED = "user, password or token is wrong, or not of this connection's certificate, or was wrong too often"
"""The one answer to all of it: it tells nobody which."""


@dataclass(slots=True)
class _Token:
    name: str
    fingerprint: bytes
    until: float
    ends: float


class Logins:
    """The logins of one head-end."""

    def __init__(self, store: Store, wall_us: Callable[[], int] = now_us) -> None:
        self._store = store
        self._wall_us = wall_us
        self._tokens: dict[bytes, _Token] = {}
        self._sessions: dict[int, Session] = {}
        self._hashing = trio.CapacityLimiter(HASHING)
        self._threads = ThreadPoolExecutor(HASHING, "password", give_way)
        self._changes = 0
        self._limit = RateLimit(TRIES_PER_S, TRIES_AT_ONCE, trio.current_time)

    async def meet(self, fingerprint: bytes) -> Principal:
        """Who connects with this certificate; NOBODY if it is nobody's, or its person has to log in."""
        account = await self._owner(fingerprint)
        return NOBODY if account is None else _by_certificate(account)

    def begin(self, session: Session) -> None:
        """A session is open."""
        self._sessions[session.number] = session

    def end(self, session: Session) -> None:
        """A session is over."""
        self._sessions.pop(session.number, None)

    async def login(self, session: Session, user: str, password: str) -> tuple[str, float]:
        """Prove who is at the other end with a password; returns a token and for how many seconds it is good.

        The certificate has to be the user's own, so who has none learns nothing here, locks nobody out, and makes
        nobody hash.

        Raises:
            Fault: it is not proved, or too many try.
        """
        fingerprint = self._try(session)
        account = await self._owner(fingerprint)
        if account is None or account.name != user or len(password) > identity.LONGEST_PASSWORD:
            raise Fault("E_AUTH", REFUSED)
        moment_us = self._wall_us()
        if account.disabled or not account.has_password or account.locked_until_us > moment_us:
            raise Fault("E_AUTH", REFUSED)
        if self._hashing.statistics().tasks_waiting >= WAITING:
            raise Fault("E_BUSY", "too many log in at once; try again in a second")
        hashed = await self._store.change(
            lambda connection: identity.begin_login(connection, user, moment_us), spend_reserve=True
        )
        right = hashed is not None and await self.fits(hashed, password)
        end = partial(identity.end_login, name=user, peer=session.peer, right=right, why="" if right else "password")
        await self._store.change(end, spend_reserve=True)
        if not right:
            raise Fault("E_AUTH", REFUSED)
        return await self._let_in(session, user, fingerprint, trio.current_time() + LOGIN_S)

    async def fits(self, hashed: str, password: str) -> bool:
        """Compare in a thread, two at once; calls go first (R36)."""
        return await self._aside(partial(identity.password_fits, hashed, password))

    async def hashed(self, password: str) -> str:
        """Hash a new password in a thread.

        Raises:
            Fault: too many wait.
        """
        if self._hashing.statistics().tasks_waiting >= WAITING:
            raise Fault("E_BUSY", "too many log in at once; try again in a second")
        return await self._aside(partial(identity.HASHER.hash, password))

    async def _aside(self, work: Callable[[], T]) -> T:
        """Do it in one of the threads for passwords, to its end."""
        async with self._hashing:
            over = trio.Event()
            token = trio.lowlevel.current_trio_token()
            future = self._threads.submit(work)
            future.add_done_callback(lambda _: token.run_sync_soon(over.set))
            with trio.CancelScope(shield=True):
                await over.wait()
            return future.result()

    async def renew(self, session: Session, token: str) -> tuple[str, float]:
        """Give a new token for one that is still good; this session, if it is another one, is its user's from now on.

        Raises:
            Fault: the token is not good, or was given to another certificate.
        """
        fingerprint = self._try(session)
        digest = sha256(token.encode()).digest()
        known = self._tokens.get(digest)
        if known is None or known.fingerprint != fingerprint or trio.current_time() >= known.until:
            if known is not None:
                stolen = partial(identity.end_login, name=known.name, peer=session.peer, right=False, why="token")
                await self._store.change(stolen, spend_reserve=True)
            raise Fault("E_AUTH", REFUSED)
        if self._tokens.pop(digest, None) is None:  # somebody was quicker with it
            raise Fault("E_AUTH", REFUSED)
        return await self._let_in(session, known.name, fingerprint, known.ends)

    def logout(self, session: Session) -> None:
        """The session is nobody's, and the tokens of its user's certificate are worth nothing."""
        name = session.principal.name
        for digest, token in list(self._tokens.items()):
            if token.name == name and token.fingerprint == session.fingerprint:
                del self._tokens[digest]
        session.become(NOBODY)

    async def changed(self, name: str) -> None:
        """An account changed: its sessions have its new roles, and end where it may not come in any more."""

        def read(connection: object) -> Account | None:
            try:
                return identity.find(connection, name)  # type: ignore[arg-type]
            except UnknownSubject:
                return None

        self._changes += 1
        account = await self._store.read(read)
        certificates = frozenset() if account is None or account.disabled else account.certificates
        for digest, token in list(self._tokens.items()):
            if token.name == name and token.fingerprint not in certificates:
                del self._tokens[digest]
        for session in list(self._sessions.values()):
            if session.principal.name == name and session.fingerprint is not None:
                if account is None or session.fingerprint not in certificates:
                    session.become(NOBODY)
                elif session.until is not None:
                    session.become(account.principal(), session.until)
                else:
                    session.become(_by_certificate(account))

    def forget(self, name: str) -> None:
        """A user has another password: what rests on the old one ends."""
        for digest, token in list(self._tokens.items()):
            if token.name == name:
                del self._tokens[digest]
        for session in self._sessions.values():
            if session.principal.name == name and session.fingerprint is not None:
                session.become(NOBODY)

    async def _owner(self, fingerprint: bytes) -> Account | None:
        """Whose certificate it is, at this moment: what becomes of a session by it misses no change."""
        while True:
            changes = self._changes
            account = await self._store.read(lambda connection: identity.of_certificate(connection, fingerprint))
            if changes == self._changes:
                return account

    def _try(self, session: Session) -> bytes:
        if session.fingerprint is None:
            raise Fault("E_AUTH", "log in over TLS, with the certificate that is registered as yours")
        wait_s = self._limit.take(session.fingerprint.hex(), "login")
        if wait_s:
            raise Fault("E_RATE", f"too many tries; retry_after_ms={int(wait_s * 1000) + 1}")
        return session.fingerprint

    async def _let_in(self, session: Session, name: str, fingerprint: bytes, ends: float) -> tuple[str, float]:
        account = await self._owner(fingerprint)
        if account is None or account.name != name or account.disabled:
            raise Fault("E_AUTH", REFUSED)
        now = trio.current_time()
        until = min(now + TOKEN_S, ends)
        if until <= now:
            raise Fault("E_AUTH", REFUSED)
        token = secrets.token_urlsafe(32)
        self._prune(name, now)
        self._tokens[sha256(token.encode()).digest()] = _Token(name, fingerprint, until, ends)
        session.become(account.principal(), until)
        return token, until - now

    def _prune(self, name: str, now: float) -> None:
        for digest, token in list(self._tokens.items()):
            if token.until <= now:
                del self._tokens[digest]
        own = [digest for digest, token in self._tokens.items() if token.name == name]
        oldest = own[: max(0, len(own) - TOKENS_EACH + 1)] or list(self._tokens)[: len(self._tokens) - TOKENS + 1]
        for digest in oldest if len(own) >= TOKENS_EACH or len(self._tokens) >= TOKENS else ():
            del self._tokens[digest]


def _by_certificate(account: Account) -> Principal:
    if account.kind is Kind.USER and account.has_password:
        return NOBODY  # the certificate is one of two things
    return account.principal()
