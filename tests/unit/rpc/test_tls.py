"""Nobody gets in over TCP but who shows a certificate of the authority's that is good for it, in TLS 1.3 (R36)."""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from tests.unit.rpc.certificates import DAY, SERVER, Authority, Shown
from tests.unit.rpc.conftest import Client, World

from ipss_headend.config import RpcConfig
from ipss_headend.errors import ConfigError
from ipss_headend.rpc import tls
from ipss_headend.rpc.server import Server
from ipss_headend.rpc.tls import Door, context_of
from ipss_headend.security import identity
from ipss_headend.security.identity import Kind
from ipss_headend.security.permission import Principal, Role

ROOT = Principal("local:root", frozenset(Role) - {Role.SERVICE})


class Site:
    """A head-end with certificates, and clients of its authority's."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        own = self.authority.issue("head-end.test", purpose=SERVER)
        self.config = RpcConfig(
            host="127.0.0.1", port=1, certificate=own.pem, key=own.key, client_authority=self.authority.pem
        )

    def context(self, shown: Shown | None) -> ssl.SSLContext:
        """A client's, with a certificate or none."""
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(self.authority.pem))
        if shown is not None:
            context.load_cert_chain(shown.pem, shown.key)
        return context


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@asynccontextmanager
async def listening(world: World, door: Door) -> AsyncIterator[int]:
    server = Server(world.services)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_tls, listeners, door)
        with trio.fail_after(20):
            yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def connect(port: int, context: ssl.SSLContext) -> AsyncIterator[Client]:
    plain = await trio.open_tcp_stream("127.0.0.1", port)
    inside = trio.SSLStream(plain, context, server_hostname="head-end.test")
    try:
        yield Client(inside)
    finally:
        await trio.aclose_forcefully(inside)


async def is_answered(port: int, context: ssl.SSLContext) -> bool:
    """Whether one call, of a method that answers anybody, is answered."""
    async with connect(port, context) as client:
        try:
            await client.send([0, 1, "rpc.ping", [{}]])
            return bool(await client.hear())
        except (trio.BrokenResourceError, ssl.SSLError):
            return False


async def register(world: World, name: str, shown: Shown, *roles: Role, kind: Kind = Kind.SERVICE) -> None:
    def write(connection: object) -> None:
        identity.add(connection, ROOT, name, kind)  # type: ignore[arg-type]
        identity.certify(connection, ROOT, name, shown.fingerprint)  # type: ignore[arg-type]
        for role in roles:
            identity.grant(connection, ROOT, name, role, "*")  # type: ignore[arg-type]

    await world.services.store.change(write)


async def test_registered_certificate_is_its_account(world: World, site: Site) -> None:
    shown = site.authority.issue("billing")
    await register(world, "billing", shown, Role.SERVICE)

    async with listening(world, Door(site.config)) as port, connect(port, site.context(shown)) as client:
        who = await client.call("auth.whoami")

        assert (who["name"], who["roles"], who["groups"]) == ("billing", ["SERVICE"], ["*"])
        assert "E_DENIED" in await client.call("auth.user.list")


async def test_unregistered_certificate_is_nobody(world: World, site: Site) -> None:
    context = site.context(site.authority.issue("unknown"))

    async with listening(world, Door(site.config)) as port, connect(port, context) as client:
        assert (await client.call("auth.whoami"))["name"] == "nobody"
        assert "E_AUTH" in await client.call("device.list")


async def test_wrong_certificates_are_shut_out(world: World, site: Site, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    good = site.authority.issue("good")
    wrong = {
        "none": None,
        "expired": site.authority.issue("expired", ends=-DAY),
        "not yet": site.authority.issue("not-yet", begins=DAY, ends=2 * DAY),
        "another authority": Authority(other).issue("stranger"),
        "a server's": site.authority.issue("server", purpose=SERVER),
    }
    door = Door(site.config)
    for name, shown in wrong.items():
        if shown is not None:
            await register(world, name.replace(" ", "-").replace("'", ""), shown, Role.SERVICE)

    async with listening(world, door) as port:
        answered = {name: await is_answered(port, site.context(shown)) for name, shown in wrong.items()}
        still = await is_answered(port, site.context(good))

    assert answered == dict.fromkeys(wrong, False)
    assert still
    assert door.refused == len(wrong)


async def test_older_tls_is_shut_out(world: World, site: Site) -> None:
    context = site.context(site.authority.issue("old"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    async with listening(world, Door(site.config)) as port:
        assert not await is_answered(port, context)


async def test_revoked_certificate_is_shut_out_from_the_next_connection_on(world: World, site: Site) -> None:
    good, bad = site.authority.issue("good"), site.authority.issue("bad")
    site.config = RpcConfig(
        host="127.0.0.1",
        port=1,
        certificate=site.config.certificate,
        key=site.config.key,
        client_authority=site.config.client_authority,
        revoked=site.authority.revoke(),
    )

    async with listening(world, Door(site.config)) as port:
        before = [await is_answered(port, site.context(shown)) for shown in (good, bad)]
        site.authority.revoke(bad)
        after = [await is_answered(port, site.context(shown)) for shown in (good, bad)]
        site.authority.revoke(bad, ends=-DAY)
        run_out = [await is_answered(port, site.context(shown)) for shown in (good, bad)]

    assert (before, after, run_out) == ([True, True], [True, False], [False, False])


async def test_silent_client_holds_its_place_for_ten_seconds_at_most(
    world: World, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "HANDSHAKES", 2)
    monkeypatch.setattr(tls, "HANDSHAKE_S", 0.2)
    context = site.context(site.authority.issue("good"))

    async with listening(world, Door(site.config)) as port:
        silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
        for stream in silent:
            assert await stream.receive_some(1) == b""
            await stream.aclose()

        assert await is_answered(port, context)


def test_file_without_certificate_is_named(site: Site, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")

    with pytest.raises(ConfigError, match=r"rpc\.client_authority: .*empty\.pem"):
        context_of(
            RpcConfig(certificate=site.config.certificate, key=site.config.key, client_authority=tmp_path / "empty.pem")
        )
    with pytest.raises(ConfigError, match=r"rpc\.revoked: .*no revocation list"):
        context_of(
            RpcConfig(
                certificate=site.config.certificate,
                key=site.config.key,
                client_authority=site.authority.pem,
                revoked=site.authority.pem,
            )
        )


def test_a_mistake_in_the_files_names_the_file_that_it_is_in(site: Site) -> None:
    other = site.authority.issue("other.test", purpose=SERVER)

    with pytest.raises(ConfigError, match=r"rpc\.key: .*: not the private key of rpc\.certificate"):
        context_of(dataclasses.replace(site.config, key=other.key))
    with pytest.raises(ConfigError, match=r"rpc\.key: .*none\.key: No such file"):
        context_of(dataclasses.replace(site.config, key=other.key.with_name("none.key")))
    with pytest.raises(ConfigError, match=r"rpc\.certificate: .*none\.pem: No such file"):
        context_of(dataclasses.replace(site.config, certificate=other.pem.with_name("none.pem")))
