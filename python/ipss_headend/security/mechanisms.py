"""What the authentication mechanisms and security suites need (Green Book, "Information security in DLMS/COSEM")."""

MECHANISMS = ("none", "low", "hls2", "hls-md5", "hls-sha1", "hls-gmac", "hls-sha256", "hls-ecdsa")
"""In the order of their numbers. hls2 is a procedure of the manufacturer's, which this program has none of."""

BUILT = tuple(name for name in MECHANISMS if name != "hls2")

WITH_SECRET = frozenset({"low", "hls-md5", "hls-sha1", "hls-sha256"})
"""Those that hang on a password or secret that both ends know."""

WITH_TITLES = frozenset({"hls-gmac", "hls-sha256", "hls-ecdsa"})
"""Those into whose proofs both ends' system titles go."""

KEY_OCTETS = (16, 16, 32)
"""Octets of a symmetric key, by suite."""

COORDINATE_OCTETS = (0, 32, 48)
"""Octets of a private key, and half of those of a public key, by suite."""


def needs_keys(auth: str, protection: str) -> bool:
    """Whether symmetric keys are used, and with them invocation counters."""
    return auth == "hls-gmac" or protection != "none"


def needs_titles(auth: str, protection: str) -> bool:
    """Whether both ends' system titles are used."""
    return auth in WITH_TITLES or protection != "none"
