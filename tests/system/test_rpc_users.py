"""The first administrator is made over the unix socket, and comes in over TLS; the command line's side of accounts."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.system.fleet import fleet, head_end
from tests.system.test_serve import BILLING, serving
from tests.unit.rpc.certificates import SERVER, Authority, Shown

from ipss_headend.client import AsyncClient, CallFailed, Disconnected, tls_context
from ipss_headend.server import HeadEnd

PASSWORD = "correct horse battery"


class Site:
    """Certificates, and the `[rpc]` that goes with them."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.authority = Authority(directory)
        own = self.authority.issue("localhost", purpose=SERVER)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.settings = (
            f'[rpc]\nhost = "127.0.0.1"\nport = {self.port}\ncertificate = "{own.pem}"\nkey = "{own.key}"\n'
            f'client_authority = "{self.authority.pem}"\n'
        )

    def context(self, shown: Shown) -> ssl.SSLContext:
        """For the head-end's own client."""
        return tls_context(certificate=str(shown.pem), key=str(shown.key), authority=str(self.authority.pem))

    @property
    def address(self) -> str:
        """For the same."""
        return f"tls://localhost:{self.port}"


async def users(config: Path, *arguments: str) -> tuple[int, Any]:
    """Run `ipss-headend users`: its status and its document."""
    done = await trio.run_process(
        [sys.executable, "-m", "ipss_headend.cli", "users", *arguments, "--config", str(config), "--json"],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    return done.returncode, json.loads(done.stdout or b"null")


def test_first_administrator_needs_no_default_password(tmp_path: Path) -> None:
    site = Site(tmp_path / "tls")
    ada = site.authority.issue("ada")
    config = tmp_path / "head_end.toml"
    (tmp_path / "password").write_text(PASSWORD + "\n")

    async def talk(started: HeadEnd) -> None:
        assert await users(config, "list") == (0, {"users": []})
        status, made = await users(config, "add", "ada", "--certificate", str(ada.pem))
        assert (status, made["certificates"]) == (0, [ada.fingerprint.hex()])
        assert (await users(config, "grant", "ada", "SECADM"))[0] == 0
        assert (await users(config, "grant", "ada", "VIEWER", "--scope", "nowhere"))[0] == 0
        assert (await users(config, "password", "ada", "--password-file", str(tmp_path / "password")))[0] == 0
        async with AsyncClient(site.address, tls=site.context(ada)) as head_end:
            with pytest.raises(CallFailed, match="E_AUTH"):
                await head_end.call("auth.user.list")
            await head_end.call("auth.login", user="ada", password=PASSWORD)
            await head_end.call("auth.user.add", user="billing", kind="service")
            assert (await head_end.call("device.list"))["devices"] == [], "her scope has no meters"
            assert (await users(config, "revoke", "ada", "SECADM"))[0] == 0
            with pytest.raises(CallFailed, match="E_DENIED"):
                await head_end.call("auth.user.list")
            assert (await users(config, "disable", "ada"))[0] == 0
            with pytest.raises((CallFailed, Disconnected), match="E_AUTH"):
                await head_end.call("device.list")
        assert (await users(config, "grant", "billing", "OPERATOR"))[0] == 5
        assert (await users(config, "grant", "nobody-here", "VIEWER"))[0] == 2
        assert (await users(config, "add", "x", "--certificate", str(config)))[0] == 3

    with fleet(1, "127.91.40.1") as running:
        assert head_end(tmp_path, BILLING + site.settings, running) == config
        serving(config, talk, limit_s=240)
    gone = subprocess.run(
        [sys.executable, "-m", "ipss_headend.cli", "users", "list", "--config", str(config)],
        check=False,
        capture_output=True,
        timeout=60,
    )
    assert gone.returncode == 4
