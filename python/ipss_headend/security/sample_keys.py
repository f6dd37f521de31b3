"""Keys that are none: zeros, sequences, and what stands in every manual (R23).

Rules rather than a list where a rule says it: a random key of 16 octets meets one of them less than once in 10^9.
"""

import string
from itertools import pairwise

PUBLISHED = frozenset(
    bytes.fromhex(text)
    for text in (
        "0123456789abcdeffedcba9876543210",
        "0123456789abcdef0011223344556677",
        "2b7e151628aed2a6abf7158809cf4f3c",  # FIPS 197 and SP 800-38A
        "603deb1015ca71be2b73aef0857d7781",  # SP 800-38A, first half of the 256-bit one
        "feffe9928665731c6d6a8f9467308308",  # the AES-GCM test cases
        "deadbeefcafebabe0123456789abcdef",
    )
)

FEWEST_VALUES = 6
"""Distinct octets of 16 that a random key has, but for one in 10^16."""

_WRITABLE = frozenset((string.ascii_letters + string.digits).encode())


def why_no_key(key: bytes) -> str | None:
    """What is wrong with the key, in words that do not give it away; None if nothing is."""
    distinct = len(set(key))
    if distinct <= len(key) // 2:
        if distinct == 1:
            return "is all zero" if not key[0] else "is one octet over and over"
        if any(key == key[:period] * (len(key) // period) for period in (2, 4, 8)):
            return "repeats itself, as sample keys do"
        if distinct < FEWEST_VALUES:
            return f"has fewer than {FEWEST_VALUES} different octets"
    step = key[1] - key[0]
    if (key[2] - key[1] - step) % 256 == 0 and all(
        (after - before - step) % 256 == 0 for before, after in pairwise(key)
    ):
        return "counts up in equal steps, as sample keys do"
    if key in PUBLISHED:
        return "is published as a sample key"
    if _WRITABLE.issuperset(key):
        return "is made of letters and digits, not of random octets"
    return None
