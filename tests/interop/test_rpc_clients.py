"""Unmodified msgpack-RPC clients in five languages call a head-end, each a process of its own.

Those that speak TLS have a certificate, those that speak unix sockets the head-end's; the two that speak plain TCP
alone go through a relay on this machine that has their certificate, as the documentation has it (docs/rpc.md).
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.interop.environments import make
from tests.system.fleet import fleet, head_end
from tests.system.test_rpc_users import Site, users
from tests.system.test_serve import BILLING, serving, until
from tests.unit.rpc.certificates import Shown

from ipss_headend.server import HeadEnd

CLIENTS = Path(__file__).parent / "rpc_clients"
LIMIT_S = 25.0
GOCODE = "/usr/share/gocode"
"""Where Debian puts Go's libraries."""

Command = Callable[[Site, Shown, HeadEnd, trio.Nursery], Awaitable[tuple[list[str], dict[str, str]]]]


async def relay(nursery: trio.Nursery, site: Site, shown: Shown) -> int:
    """Plain TCP on this machine, TLS with a client's certificate from there on; gives the port."""
    context: ssl.SSLContext = site.context(shown)

    async def copy(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
        async for octets in source:
            await sink.send_all(octets)

    async def handle(plain: trio.SocketStream) -> None:
        outside = trio.SSLStream(
            await trio.open_tcp_stream("127.0.0.1", site.port), context, server_hostname="localhost"
        )
        async with outside, trio.open_nursery() as both:
            both.start_soon(copy, outside, plain)
            with suppress(trio.BrokenResourceError):  # the client is gone
                await copy(plain, outside)
            both.cancel_scope.cancel()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, handle, listeners)
    port: int = listeners[0].socket.getsockname()[1]
    return port


def plain(environment: str, script: str) -> Command:
    async def command(
        site: Site, shown: Shown, started: HeadEnd, nursery: trio.Nursery
    ) -> tuple[list[str], dict[str, str]]:
        port = await relay(nursery, site, shown)
        return [str(make(environment)), str(CLIENTS / script), "127.0.0.1", str(port)], {}

    return command


async def aio(site: Site, shown: Shown, started: HeadEnd, nursery: trio.Nursery) -> tuple[list[str], dict[str, str]]:
    program = [str(make("aio-msgpack-rpc")), str(CLIENTS / "aio_msgpack_rpc_client.py")]
    return [*program, str(site.port), str(site.authority.pem), str(shown.pem), str(shown.key)], {}


async def pynvim(site: Site, shown: Shown, started: HeadEnd, nursery: trio.Nursery) -> tuple[list[str], dict[str, str]]:
    return [str(make("pynvim")), str(CLIENTS / "pynvim_client.py"), str(started.config.rpc.socket)], {}


async def neovim(site: Site, shown: Shown, started: HeadEnd, nursery: trio.Nursery) -> tuple[list[str], dict[str, str]]:
    script = str(CLIENTS / "neovim_client.lua")
    command = ["nvim", "--headless", "--clean", "-c", f"luafile {script}", "-c", "qa!"]
    return command, {"HEAD_END_SOCKET": str(started.config.rpc.socket)}


async def ugorji(site: Site, shown: Shown, started: HeadEnd, nursery: trio.Nursery) -> tuple[list[str], dict[str, str]]:
    program = shown.pem.parent / "ugorji"
    settings = os.environ | {"GO111MODULE": "off", "GOPATH": GOCODE, "GOFLAGS": "", "GOTOOLCHAIN": "local"}
    await trio.run_process(["go", "build", "-o", str(program), str(CLIENTS / "ugorji_client.go")], env=settings)
    return [str(program), str(site.port), str(site.authority.pem), str(shown.pem), str(shown.key)], {}


MATRIX: dict[str, Command] = {
    "msgpack-rpc-python 0.4.1": plain("msgpack-rpc-python", "msgpack_rpc_python_client.py"),
    "mprpc 0.1.17": plain("mprpc", "mprpc_client.py"),
    "aio-msgpack-rpc 0.2.0": aio,
    "pynvim 0.6.0": pynvim,
    "neovim": neovim,
    "ugorji MsgpackSpecRpc": ugorji,
}


@pytest.fixture(scope="module", autouse=True)
def environments() -> None:
    """Made before any time limit runs."""
    for name in ("msgpack-rpc-python", "mprpc", "aio-msgpack-rpc", "pynvim"):
        make(name)


@pytest.mark.timeout(600)
def test_unmodified_clients_read_a_meter(tmp_path: Path) -> None:
    site = Site(tmp_path / "tls")
    shown = site.authority.issue("client")
    found: dict[str, Any] = {}

    async def talk(started: HeadEnd) -> None:
        config = tmp_path / "head_end.toml"
        assert (await users(config, "add", "client", "--service", "--certificate", str(shown.pem)))[0] == 0
        assert (await users(config, "grant", "client", "SERVICE"))[0] == 0
        await until(lambda: started.figures.plans["billing"].done == 2)
        for name, prepare in MATRIX.items():
            async with trio.open_nursery() as nursery:
                command, more = await prepare(site, shown, started, nursery)
                with trio.fail_after(LIMIT_S):
                    done = await trio.run_process(
                        command, env=os.environ | more, capture_stdout=True, capture_stderr=True, check=False
                    )
                assert done.returncode == 0, (name, done.stderr.decode()[-2000:])
                found[name] = json.loads(done.stdout)
                nursery.cancel_scope.cancel()

    with fleet(2, "127.91.41.1") as running:
        serving(head_end(tmp_path, BILLING + site.settings, running), talk, limit_s=240)

    ages = [value.pop("age_ms") for said in found.values() for value in said["last"]["values"]]
    assert min(ages) >= 0
    for name, said in found.items():
        assert said["ping"]["now_ms"] > 1_600_000_000_000, name
        assert [one["device"] for one in said["devices"]["devices"]] == ["virtual-00001", "virtual-00002"], name
        [value] = said["last"]["values"]
        assert (value["point"], value["unit"]) == ("virtual-00001", "Wh"), name
        assert value == found["aio-msgpack-rpc 0.2.0"]["last"]["values"][0], name
        failure = said["failure"].replace("\\", "")
        assert 'no meter is called "nobody"' in failure, name
        # pynvim takes an error apart, as Neovim's, and shows its text alone.
        assert "E_UNKNOWN" in failure or name.startswith("pynvim"), name
    assert set(found) == set(MATRIX)
