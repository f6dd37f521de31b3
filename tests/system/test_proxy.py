"""The proxy does what it says, no more, and the same again for the same seed."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from tests.system.proxy import Line, proxy

TEXT = bytes(range(256)) * 40


@contextmanager
def echo(kind: socket.SocketKind = socket.SOCK_STREAM) -> Iterator[tuple[str, int]]:
    """Sends back what comes."""
    server = socket.socket(socket.AF_INET, kind)
    server.bind(("127.0.0.1", 0))
    if kind is socket.SOCK_STREAM:
        server.listen(64)

    def one(peer: socket.socket) -> None:
        with suppress(OSError), peer:
            while octets := peer.recv(65_536):
                peer.sendall(octets)

    def serve() -> None:
        with suppress(OSError):
            while True:
                if kind is socket.SOCK_STREAM:
                    threading.Thread(target=one, args=(server.accept()[0],), daemon=True).start()
                else:
                    octets, peer = server.recvfrom(65_536)
                    if not octets:
                        return
                    server.sendto(octets, peer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.getsockname()
    finally:
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        if kind is socket.SOCK_DGRAM:
            with socket.socket(socket.AF_INET, kind) as last:
                last.sendto(b"", server.getsockname())
        thread.join(5)
        server.close()


def spoken(port: int, text: bytes = TEXT, *, wait_s: float = 5.0) -> bytes | None:
    """What comes back; None: a reset."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait_s) as line:
        back = b""
        try:
            line.sendall(text)
            while len(back) < len(text) and (octets := line.recv(65_536)):
                back += octets
        except TimeoutError:
            pass
        except ConnectionError:
            return None
    return back


def test_a_good_line_carries_everything() -> None:
    with echo() as server, proxy(lambda _: server) as line:
        assert spoken(line.port) == TEXT
        assert line.seen.octets == 2 * len(TEXT)


def test_a_bad_line_flips_bits_the_same_ones_for_the_same_seed() -> None:
    found = []
    for seed in (5, 5, 6):
        with echo() as server, proxy(lambda _: server, seed=seed, line=Line(corrupt=1.0)) as line:
            found.append(spoken(line.port, b"one piece"))

    assert found[0] == found[1] != found[2]
    assert len(found[0] or b"") == len(b"one piece")


def test_a_reset_comes_in_mid_frame_and_a_refusal_at_once() -> None:
    with echo() as server, proxy(lambda _: server, line=Line(reset=1.0)) as line:
        assert spoken(line.port) in (None, b"")
        assert line.seen.resets >= 1

        line.line = Line(refuse=True)

        with suppress(ConnectionError):
            assert spoken(line.port) is None


def test_a_forgotten_connection_is_silent_and_another_one_works() -> None:
    with echo() as server, proxy(lambda _: server) as line:
        with socket.create_connection(("127.0.0.1", line.port), timeout=0.3) as old:
            old.sendall(b"x")
            assert old.recv(10) == b"x"

            assert line.forget() == 1

            old.sendall(b"y")
            with pytest.raises(TimeoutError):
                old.recv(10)
            assert spoken(line.port) == TEXT
        assert line.seen.swallowed == 1


def test_a_slow_line_takes_its_time() -> None:
    with echo() as server, proxy(lambda _: server, line=Line(delay_s=0.05, octets_per_s=100_000)) as line:
        began = time.monotonic()

        assert spoken(line.port, b"z" * 4000) == b"z" * 4000

        assert time.monotonic() - began >= 2 * (0.05 + 0.04)


def test_datagrams_are_dropped_doubled_and_reordered() -> None:
    kind = socket.SOCK_DGRAM
    with (
        echo(kind) as server,
        proxy(lambda _: server, udp="127.0.0.1") as line,
        socket.socket(socket.AF_INET, kind) as asker,
    ):
        asker.settimeout(0.3)

        def said(count: int) -> list[int]:
            for number in range(count):
                asker.sendto(number.to_bytes(2, "big"), ("127.0.0.1", line.port))
                time.sleep(0.001)
            back = []
            with suppress(TimeoutError):
                while True:
                    back.append(int.from_bytes(asker.recv(10), "big"))
            return back

        assert said(100) == list(range(100))
        line.line = Line(drop=0.3)
        dropped = said(100)
        assert 20 < len(dropped) < 80
        assert dropped == sorted(dropped)
        line.line = Line(double=0.3)
        doubled = said(100)
        assert len(doubled) > 120
        assert set(doubled) == set(range(100))
        line.line = Line(reorder=0.3)
        reordered = said(100)
        assert reordered != sorted(reordered)
        assert sorted(reordered) == list(range(100))
