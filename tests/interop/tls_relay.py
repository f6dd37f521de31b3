"""TLS put around a Modbus connection, and taken off it: Modbus/TCP Security is the same frames inside."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TLS = Path(__file__).parents[2] / "rust" / "tests" / "tls"


@contextmanager
def into_tls(address: str) -> Iterator[str]:
    """Where plain connections go to the TLS server at `address`, as an operator."""
    context = ssl.create_default_context(cafile=str(TLS / "authority.pem"))
    context.load_cert_chain(TLS / "operator.pem", TLS / "operator.key")
    with relay(address, lambda plain: plain, lambda far: context.wrap_socket(far, server_hostname="127.0.0.1")) as here:
        yield here


@contextmanager
def out_of_tls(address: str) -> Iterator[str]:
    """Where TLS connections with a certificate go to the plain server at `address`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "device.pem", TLS / "device.key")
    context.load_verify_locations(TLS / "authority.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with relay(address, lambda near: context.wrap_socket(near, server_side=True), lambda plain: plain) as here:
        yield here


Wrap = Callable[[socket.socket], socket.socket]


@contextmanager
def relay(address: str, near: Wrap, far: Wrap) -> Iterator[str]:
    """Carry connections to `address`, each side wrapped by its function; where they are taken."""
    host, _, port = address.rpartition(":")

    def take(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                stream, _ = listener.accept()
                threading.Thread(target=connect, args=(stream,), daemon=True).start()

    def connect(stream: socket.socket) -> None:
        with suppress(OSError), near(stream) as one, far(socket.create_connection((host, int(port)))) as other:
            threading.Thread(target=carry, args=(other, one), daemon=True).start()
            carry(one, other)

    def carry(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while octets := source.recv(4096):
                target.sendall(octets)
            target.shutdown(socket.SHUT_RDWR)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=take, args=(listener,), daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
