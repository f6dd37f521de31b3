"""How much one caller may ask: a token bucket for each principal and method, in memory (R38)."""

from collections.abc import Callable
from dataclasses import dataclass

PRINCIPALS_KEPT = 10_000
"""Buckets kept; the fullest are dropped first, which gives nobody more than a burst."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RateLimit:
    """`rate` calls a second in the long run, `burst` at once."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def take(self, principal: str, method: str, now: float | None = None) -> float:
        """Take one call. 0 if it may go on, else the seconds after which it may be tried again."""
        if now is None:
            now = self._clock()
        key = (principal, method)
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= PRINCIPALS_KEPT:
                self._drop()
            bucket = self._buckets[key] = _Bucket(self._burst, now)
        tokens = bucket.tokens + (now - bucket.at) * self._rate
        if tokens > self._burst:
            tokens = self._burst
        bucket.at = now
        if tokens >= 1:
            bucket.tokens = tokens - 1
            return 0.0
        bucket.tokens = tokens
        return (1 - tokens) / self._rate

    def _drop(self) -> None:
        by_tokens = sorted(self._buckets, key=lambda key: (self._buckets[key].tokens, -self._buckets[key].at))
        for key in by_tokens[PRINCIPALS_KEPT // 2 :]:
            del self._buckets[key]
