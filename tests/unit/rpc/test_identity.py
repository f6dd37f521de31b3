"""Who is let in with which roles, who may change that, and that it takes effect at once."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from argon2 import PasswordHasher
from sqlalchemy import select
from tests.unit.rpc.conftest import Client, World

from ipss_headend.rpc import logins
from ipss_headend.rpc.limits import RateLimit
from ipss_headend.rpc.server import Server
from ipss_headend.security import identity
from ipss_headend.security.permission import ALL_GROUPS, Principal, Right, Role
from ipss_headend.store.schema import accounts, audit

ADMIN = Principal("local:root", frozenset(Role) - {Role.SERVICE})
ADAS, BOBS, NEW = b"a" * 32, b"b" * 32, b"n" * 32
PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a hash costs is tested once; here it would only take time."""
    monkeypatch.setattr(identity, "HASHER", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    """Time that goes on when a test says so: passwords are compared in threads, which it would not wait for."""
    return trio.testing.MockClock()


@asynccontextmanager
async def site(world: World) -> AsyncIterator[Site]:
    async with trio.open_nursery() as nursery:
        made = Site(world, nursery)
        made.admin = await made.connect(ADMIN, None)
        yield made
        nursery.cancel_scope.cancel()


class Site:
    """A server with an administrator on its unix socket."""

    admin: Client

    def __init__(self, world: World, nursery: trio.Nursery) -> None:
        self.world = world
        self.server = Server(world.services)
        self._nursery = nursery
        self._keys = 0

    async def connect(self, principal: Principal | None, fingerprint: bytes | None) -> Client:
        """A connection of this principal, or of whoever has the certificate with this fingerprint."""
        if principal is None:
            assert fingerprint is not None
            principal = await self.world.services.logins.meet(fingerprint)
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self.server.talk, theirs, principal, "10.0.0.1:5", fingerprint)
        return Client(ours)

    async def change(self, method: str, client: Client | None = None, **params: Any) -> Any:
        """A call with a key of its own."""
        self._keys += 1
        return await (client or self.admin).call(method, key=str(self._keys), **params)

    async def ada(self, *roles: tuple[str, str]) -> Client:
        """A person with a password, connected and not logged in."""
        await self.change("auth.user.add", user="ada", certificates=[ADAS.hex()])
        for role, scope in roles:
            await self.change("auth.grant", subject="ada", role=role, scope=scope)
        await self.admin.call("auth.user.password", user="ada", password=PASSWORD)
        return await self.connect(None, ADAS)


async def who(client: Client) -> str:
    name = (await client.call("auth.whoami"))["name"]
    assert isinstance(name, str)
    return name


async def test_login_gives_a_token_for_the_certificate_alone(world: World) -> None:
    async with site(world) as at:
        ada = await at.ada(("OPERATOR", "north"))
        await at.change("auth.user.add", user="bob", certificates=[BOBS.hex()])
        assert await who(ada) == "nobody"

        given = await ada.call("auth.login", user="ada", password=PASSWORD)

        assert given["roles"] == ["OPERATOR"]
        assert await who(ada) == "ada"
        thief = await at.connect(None, BOBS)
        assert "E_AUTH" in await thief.call("auth.renew", token=given["token"])
        local = await at.connect(Principal("x"), None)
        assert "E_AUTH" in await local.call("auth.renew", token=given["token"])
        again = await at.connect(None, ADAS)
        renewed = await again.call("auth.renew", token=given["token"])
        assert await who(again) == "ada"
        third = await at.connect(None, ADAS)
        assert "E_AUTH" in await third.call("auth.renew", token=given["token"]), "a token is good for one renewal"
        await again.call("auth.logout")
        assert await who(again) == "nobody"
        assert "E_AUTH" in await third.call("auth.renew", token=renewed["token"])


async def test_login_needs_the_users_own_certificate(world: World) -> None:
    async with site(world) as at:
        await at.ada()
        await at.change("auth.user.add", user="bob", certificates=[BOBS.hex()])
        bob = await at.connect(None, BOBS)
        stranger = await at.connect(None, NEW)

        answers = [
            await client.call("auth.login", user=user, password=PASSWORD)
            for client, user in ((bob, "ada"), (stranger, "ada"), (stranger, "nobody-of-this-name"), (bob, "bob"))
        ]

        assert len(set(answers)) == 1, "the answer tells nobody what was wrong"
        assert answers[0].startswith("E_AUTH")
        assert "over TLS" in await at.admin.call("auth.login", user="ada", password=PASSWORD)
        users = await at.admin.call("auth.user.list")
        assert [user["failures"] for user in users["users"]] == [0, 0], (
            "without the certificate nobody locks a user out"
        )


async def test_login_ends_after_a_quarter_of_an_hour(world: World, autojump_clock: trio.testing.MockClock) -> None:
    async with site(world) as at:
        ada = await at.ada(("VIEWER", "*"))
        given = await ada.call("auth.login", user="ada", password=PASSWORD)
        autojump_clock.jump(899)
        assert await who(ada) == "ada"
        autojump_clock.jump(2)
        assert await who(ada) == "nobody"
        assert "E_AUTH" in await ada.call("auth.renew", token=given["token"])


async def test_login_is_renewed_for_twelve_hours(world: World, autojump_clock: trio.testing.MockClock) -> None:
    async with site(world) as at:
        ada = await at.ada(("VIEWER", "*"))
        given = await ada.call("auth.login", user="ada", password=PASSWORD)
        for _ in range(12 * 6 - 1):
            autojump_clock.jump(600)
            given = await ada.call("auth.renew", token=given["token"])
        autojump_clock.jump(599)
        assert await who(ada) == "ada"
        autojump_clock.jump(2)
        assert await who(ada) == "nobody"
        assert "E_AUTH" in await ada.call("auth.renew", token=given["token"])


async def test_wrong_passwords_lock_for_longer_and_longer(world: World) -> None:
    now_us = 1_000_000_000_000
    async with site(world) as at:
        ada = await at.ada()
        at.world.services.logins._wall_us = lambda: now_us
        at.world.services.logins._limit._rate = 1e9
        pauses = []
        for _ in range(8):
            while "E_AUTH" in await ada.call("auth.login", user="ada", password="wrong"):
                [user] = (await at.admin.call("auth.user.list"))["users"]
                if user["locked_until_ms"] * 1000 > now_us:
                    break
            assert "E_AUTH" in await ada.call("auth.login", user="ada", password=PASSWORD), "locked"
            pauses.append(user["locked_until_ms"] - now_us // 1000)
            now_us = user["locked_until_ms"] * 1000

        assert pauses == [30_000 * 2**turn for turn in range(7)] + [3_600_000]
        await ada.call("auth.login", user="ada", password=PASSWORD)
        assert await who(ada) == "ada"
        [user] = (await at.admin.call("auth.user.list"))["users"]
        assert user["failures"] == 0


async def test_tries_at_once_are_counted_before_they_are_compared(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = 0

    def fits(hashed: str, password: str) -> bool:
        nonlocal compared
        compared += 1
        return False

    async with site(world) as at:
        ada = await at.ada()
        monkeypatch.setattr(identity, "password_fits", fits)
        await ada.send(*([0, number, "auth.login", [{"user": "ada", "password": "x"}]] for number in range(1000)))
        answers = [answer[2] for answer in await ada.hear(1000)]

        assert compared <= identity.FREE_FAILURES
        assert {answer[:6] for answer in answers} <= {"E_AUTH", "E_RATE", "E_BUSY"}
        assert sum(answer.startswith("E_RATE") for answer in answers) >= 1000 - logins.TRIES_AT_ONCE - 5


async def test_nobody_gives_roles_to_itself_or_that_it_does_not_administer(world: World) -> None:
    async with site(world) as at:
        await at.change("auth.user.add", user="sec", certificates=[ADAS.hex()])
        await at.change("auth.user.add", user="eve", certificates=[BOBS.hex()])
        await at.change("auth.user.add", user="chief")
        await at.change("auth.grant", subject="chief", role="RBACMNT")
        await at.change("auth.grant", subject="sec", role="SECADM", scope="north")
        sec, eve = await at.connect(None, ADAS), await at.connect(None, BOBS)

        async def by(client: Client, method: str, **params: Any) -> str:
            answer = await at.change(method, client, **params)
            return answer[: answer.index(":")] if isinstance(answer, str) else "done"

        assert await by(sec, "auth.grant", subject="sec", role="OPERATOR", scope="north") == "E_DENIED"
        assert await by(sec, "auth.grant", subject="eve", role="SECADM", scope="north") == "E_DENIED"
        assert await by(sec, "auth.grant", subject="eve", role="VIEWER", scope="*") == "E_DENIED"
        assert await by(sec, "auth.grant", subject="eve", role="VIEWER", scope="south") == "E_DENIED"
        assert await by(sec, "auth.grant", subject="eve", role="VIEWER", scope="north") == "done"
        assert await by(sec, "auth.user.certificate", user="chief", fingerprint=NEW.hex()) == "E_DENIED"
        assert await by(sec, "auth.user.disable", user="chief") == "E_DENIED"
        assert "E_DENIED" in await sec.call("auth.user.password", user="chief", password=PASSWORD)
        assert "E_DENIED" in await sec.call("auth.user.password", user="sec", password=PASSWORD)
        assert await by(eve, "auth.grant", subject="sec", role="VIEWER", scope="north") == "E_DENIED"
        assert await by(sec, "auth.grant", subject="who", role="VIEWER", scope="north") == "E_UNKNOWN"
        assert await by(sec, "auth.grant", subject="eve", role="ROOT", scope="north") == "E_PARAMS"


async def test_service_never_approves_nor_administers(world: World) -> None:
    async with site(world) as at:
        await at.change("auth.user.add", user="billing", kind="service", certificates=[ADAS.hex()])
        for role in Role:
            answer = await at.change("auth.grant", subject="billing", role=role)
            assert isinstance(answer, str) == (role in {Role.OPERATOR, Role.SECADM, Role.RBACMNT}), role

        def cheat(connection: Any) -> None:
            for role in Role:
                connection.exec_driver_sql(
                    "INSERT OR IGNORE INTO account_roles VALUES ('billing', ?, ?)", (str(role), ALL_GROUPS)
                )

        await world.services.store.change(cheat)
        rights = (await world.services.logins.meet(ADAS)).rights
        assert not rights & {Right.APPROVE, Right.SECURITY}
        assert "E_PARAMS" in await at.admin.call("auth.user.password", user="billing", password=PASSWORD)


async def test_changes_reach_open_sessions(world: World) -> None:
    async with site(world) as at:
        ada = await at.ada(("VIEWER", "*"))
        await ada.call("auth.login", user="ada", password=PASSWORD)
        await at.change("auth.user.add", user="mdm", kind="service", certificates=[BOBS.hex()])
        mdm = await at.connect(None, BOBS)
        rows = [(await client.call("auth.whoami"))["roles"] for client in (ada, mdm)]
        await at.change("auth.grant", subject="mdm", role="SERVICE", scope="north")
        rows.append((await mdm.call("auth.whoami"))["roles"])
        await at.change("auth.revoke", subject="ada", role="VIEWER")
        rows.append((await ada.call("auth.whoami"))["roles"])
        assert rows == [["VIEWER"], [], ["SERVICE"], []]

        await at.change("auth.user.certificate", user="mdm", fingerprint=BOBS.hex(), remove=True)
        await at.admin.call("auth.user.password", user="ada", password=PASSWORD + "!")
        assert [await who(ada), await who(mdm)] == ["nobody", "nobody"]
        given = await ada.call("auth.login", user="ada", password=PASSWORD + "!")
        await at.change("auth.user.disable", user="ada")
        assert await who(ada) == "nobody"
        assert "E_AUTH" in await ada.call("auth.renew", token=given["token"])
        assert "E_AUTH" in await ada.call("auth.login", user="ada", password=PASSWORD + "!")
        await at.change("auth.user.disable", user="ada", disabled=False)
        await ada.call("auth.login", user="ada", password=PASSWORD + "!")
        assert await who(ada) == "ada"


async def test_audit_has_every_change_and_login_and_no_secret(world: World) -> None:
    async with site(world) as at:
        ada = await at.ada(("VIEWER", "*"))
        await ada.call("auth.login", user="ada", password="a wrong password")
        given = await ada.call("auth.login", user="ada", password=PASSWORD)

        def read(connection: Any) -> tuple[list[Any], list[Any]]:
            return list(connection.execute(select(audit))), list(connection.execute(select(accounts)))

        records, rows = await world.services.store.read(read)

    assert [row.kind for row in records] == [
        "account-added", "certificate-registered", "role-granted", "password-set", "login-refused", "login"
    ]  # fmt: skip
    for secret in (PASSWORD, "a wrong password", given["token"]):
        assert secret not in repr(records) + repr(rows)


def test_hash_costs_what_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    hashed = identity.HASHER.hash(PASSWORD)

    assert hashed.startswith("$argon2id$v=19$m=65536,t=3,p=1$")
    assert identity.password_fits(hashed, PASSWORD)
    assert not identity.password_fits(hashed, PASSWORD + "x")
    assert not identity.password_fits("no hash", PASSWORD)


def test_a_role_reaches_its_own_scope_alone() -> None:
    two = Principal("p", frozenset({Role.VIEWER, Role.INSTALLER}), frozenset(), {
        Role.VIEWER: frozenset({ALL_GROUPS}), Role.INSTALLER: frozenset({"north"}),
    })  # fmt: skip

    assert two.may(Right.VIEW, "south")
    assert two.may(Right.MANAGE, "north")
    assert not two.may(Right.MANAGE, "south")
    assert two.everywhere(Right.VIEW)
    assert not two.everywhere(Right.MANAGE)


async def test_one_caller_at_a_hundred_times_takes_nothing_from_others(world: World) -> None:
    async with site(world) as at:
        at.server._limit = RateLimit(0.001, 10, trio.current_time)
        noisy = await at.connect(Principal("noisy", frozenset({Role.VIEWER})), None)
        quiet = await at.connect(Principal("quiet", frozenset({Role.VIEWER})), None)

        await noisy.send(*([0, number, "rpc.ping", [{}]] for number in range(1000)))
        heard = [await quiet.call("rpc.ping") for _ in range(10)]
        refused = [answer[2] for answer in await noisy.hear(1000) if answer[2] is not None]

    assert all(isinstance(one, dict) for one in heard)
    assert len(refused) == 990
    assert all("retry_after_ms=" in words for words in refused)


async def test_passwords_are_compared_two_at_once_in_threads_that_give_way(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, most, names = 0, 0, set()
    together = threading.Barrier(logins.HASHING)

    def compare(hashed: str, password: str) -> bool:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        names.add(threading.current_thread().name)
        together.wait(60)
        busy -= 1
        return password == PASSWORD

    monkeypatch.setattr(identity, "password_fits", compare)
    found: list[bool] = []

    async def fits(password: str) -> None:
        found.append(await world.services.logins.fits("hash", password))

    async with trio.open_nursery() as nursery:
        for number in range(4 * logins.HASHING):
            nursery.start_soon(fits, PASSWORD if number % 2 else "wrong")

    assert (most, found.count(True), found.count(False)) == (2, 4, 4)
    assert names == {"password_0", "password_1"}


async def test_comparison_that_fails_is_told_and_frees_its_place(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def compare(hashed: str, password: str) -> bool:
        raise MemoryError

    monkeypatch.setattr(identity, "password_fits", compare)
    for _ in range(3 * logins.HASHING):
        with pytest.raises(MemoryError):
            await world.services.logins.fits("hash", "password")
