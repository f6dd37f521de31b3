"""TLS towards other systems: version 1.3 alone, and both sides show a certificate (R36).

Sessions are never resumed: each connection's certificate is checked anew, against the files as they are at that moment.
"""

from __future__ import annotations

import socket
import ssl
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ipss_headend.errors import ConfigError, words
from ipss_headend.log import Logger, logger
from ipss_headend.rpc.wire import Wire, taken

if TYPE_CHECKING:
    from ipss_headend.config import RpcConfig

HANDSHAKE_S = 10.0
"""How long a client may take to prove who it is."""
HANDSHAKES = 64
"""At once; more are closed. Each costs a signature and some 100 KiB."""


class Door:
    """Lets in whom the authority knows."""

    def __init__(self, config: RpcConfig) -> None:
        """Read the certificates.

        Raises:
            ConfigError: one cannot be read, or is none.
        """
        self._config = config
        self._stamp = self._stamps()
        self._context = context_of(config)
        self._handshakes = 0
        self.refused = 0
        """Connections that did not prove who they are, or came when too many were about to."""
        self._log: Logger = logger("rpc")

    async def enter(self, stream: trio.SocketStream, peer: str) -> tuple[Wire, bytes] | None:
        """The wire inside TLS and the fingerprint of the client's certificate; None: it was shut out."""
        if self._handshakes >= HANDSHAKES:
            self.refused += 1
            await trio.aclose_forcefully(stream)
            return None
        self._handshakes += 1
        plain = taken(stream)
        try:
            with trio.fail_after(HANDSHAKE_S):
                inside = await _shaken(plain, self._newest())
        except (OSError, trio.TooSlowError) as error:
            self.refused += 1
            self._log.warning("client shut out", peer=peer, why=str(error) or type(error).__name__)
            return None
        finally:
            self._handshakes -= 1
        return inside

    def _newest(self) -> ssl.SSLContext:
        """The context of the files as they are now; of the last good ones while they are wrong."""
        stamp = self._stamps()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = context_of(self._config)
                self._log.info("certificates read again")
            except ConfigError as error:
                self._log.error("certificates cannot be read again; the last good ones stay", why=str(error))
        return self._context

    def _stamps(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(path) for path in _files(self._config).values())


async def _shaken(plain: socket.socket, context: ssl.SSLContext) -> tuple[Wire, bytes]:
    """The wire inside TLS, and the fingerprint of the certificate that was shown. The socket is closed on failure.

    Raises:
        OSError: the other side did not prove who it is, or went.
    """
    inside = plain
    try:
        inside = secured = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        while True:
            try:
                secured.do_handshake()
                break
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(secured)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(secured)
        certificate = secured.getpeercert(binary_form=True)
    except BaseException:
        inside.close()
        raise
    # No handshake ends without one: CERT_REQUIRED.
    return Wire(secured), sha256(certificate or b"").digest()


def context_of(config: RpcConfig) -> ssl.SSLContext:
    """A context that takes TLS 1.3 alone, from clients with a certificate of the authority's for clients.

    Raises:
        ConfigError: a file cannot be read, or does not hold what it should.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0
    files = _files(config)
    for name in ("certificate", "client_authority", "revoked"):
        path = files[name]
        if path is None:
            continue
        for file in ("certificate", "key") if name == "certificate" else (name,):
            _check_readable(file, files[file])
        try:
            if name == "certificate":
                context.load_cert_chain(path, files["key"])
            else:
                context.load_verify_locations(path)
        except (OSError, ssl.SSLError) as error:
            if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
                raise ConfigError(f"rpc.key: {files['key']}: not the private key of rpc.certificate, {path}") from error
            raise ConfigError(f"rpc.{name}: {path}: {words(error)}; expected PEM") from error
    if files["revoked"] is not None:
        if not context.cert_store_stats()["crl"]:
            raise ConfigError(f"rpc.revoked: {files['revoked']}: no revocation list in it; expected PEM (X509 CRL)")
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def _files(config: RpcConfig) -> dict[str, Path | None]:
    return {
        "certificate": config.certificate,
        "key": config.key,
        "client_authority": config.client_authority,
        "revoked": config.revoked,
    }


def _check_readable(name: str, path: Path | None) -> None:
    if path is None:
        return
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(f"rpc.{name}: {path}: {words(error)}; expected PEM") from error


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
