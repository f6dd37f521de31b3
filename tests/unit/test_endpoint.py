import pytest
import trio
from prometheus_client import CollectorRegistry, Gauge
from trio.testing import MockClock, memory_stream_pair

from ipss_headend.endpoint import WAIT_S, Endpoint


def fetch(octets: bytes, wrong: dict[str, str] | None = None) -> bytes:
    registry = CollectorRegistry()
    Gauge("meters", "Meters.", registry=registry).set(5)

    async def health() -> dict[str, str]:
        await trio.lowlevel.checkpoint()
        return wrong or {}

    async def main() -> bytes:
        endpoint = Endpoint(registry, health)
        here, there = memory_stream_pair()
        answer = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(endpoint._connection, there)
            await here.send_all(octets)
            while part := await here.receive_some():
                answer += part
        return answer

    return trio.run(main, clock=MockClock(autojump_threshold=0))


def test_metrics_are_text_that_prometheus_reads() -> None:
    answer = fetch(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"content-type: text/plain; version=" in answer.lower()
    assert b"\nmeters 5.0\n" in answer


def test_healthy_head_end_says_ok() -> None:
    assert fetch(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"\r\n\r\nok\n")


def test_what_is_wrong_is_said_with_503() -> None:
    answer = fetch(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", {"store": "disk full", "loop": "6.1 s late"})

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert answer.endswith(b"store: disk full\nloop: 6.1 s late\n")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [(b"GET / HTTP/1.1", 404), (b"POST /metrics HTTP/1.1", 405), (b"GET /metrics?x=1 HTTP/1.1", 200)],
)
def test_other_requests_get_their_status(request_line: bytes, status: int) -> None:
    assert fetch(request_line + b"\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 %d " % status)


def test_head_has_no_body() -> None:
    assert fetch(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"\r\n\r\n")


@pytest.mark.parametrize("octets", [b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET /metrics HTTP/1.1\r\n" + b"a" * 20_000])
def test_what_is_no_request_is_refused(octets: bytes) -> None:
    assert fetch(octets).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))


def test_peer_that_says_nothing_is_left(caplog: pytest.LogCaptureFixture) -> None:
    assert fetch(b"GET /metr") == b""
    assert WAIT_S <= 10
