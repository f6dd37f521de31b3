"""The master key in shares for custodians: any `need` of `of` restore it, fewer say nothing about it (R25).

Shamir's scheme over GF(2^128), by pycryptodome: the 32 octets are two halves, shared separately and at the same places.
A share is a text file that can be printed and typed in again; its checksum finds a wrong digit before anything is put
together. Shares of one set carry the set's number and the key's check value, so that a wrong, mixed or repeated
share is told by its file's name, and what was put together is compared before it is used.
"""

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from Crypto.Protocol.SecretSharing import Shamir

from ipss_headend.errors import ConfigError, WrongShares

KEY_OCTETS = 32
MOST_SHARES = 16

_FORM = "ipss-headend share of a master key, form 1"
_CHECK = b"ipss-headend key check value, form 1"
_HALF = 16
_LARGEST_FILE = 4096


def check_value(key: bytes | memoryview) -> str:
    """What people compare aloud to know that they mean the same key: 48 bits that say nothing else about it."""
    digits = hmac.digest(key, _CHECK, "sha256")[:6].hex().upper()
    return f"{digits[:4]}-{digits[4:8]}-{digits[8:]}"


@dataclass(frozen=True, slots=True, repr=False)
class Share:
    """One custodian's part. Shows its place, never itself; cannot be pickled."""

    set_number: str
    place: int
    need: int
    of: int
    check_value: str
    """Of the whole key."""
    custodian: str
    secret: bytes

    def __repr__(self) -> str:
        return f"Share({self.place} of {self.of})"

    def __reduce__(self) -> str:
        raise TypeError("shares are not pickled")

    def digest(self) -> str:
        """Names this share in a protocol without giving it away."""
        return hashlib.sha256(self.text().encode()).hexdigest()[:16]

    def text(self) -> str:
        """The file."""
        body = "\n".join(
            (
                _FORM,
                f"set: {self.set_number}",
                f"place: {self.place} of {self.of}, {self.need} needed",
                f"key check value: {self.check_value}",
                f"custodian: {self.custodian}",
                f"secret: {_grouped(self.secret)}",
            )
        )
        return f"{body}\nchecksum: {_checksum(body)}\n"

    @classmethod
    def parse(cls, text: str, source: str) -> Self:
        """A share from its file; `source` names it in messages.

        Raises:
            WrongShares: it is none, or was changed or mistyped.
        """
        lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
        if not lines or lines[0] != _FORM or len(lines) != 7:
            raise WrongShares(f"{source}: is no share of a master key; its first line is `{_FORM}`")
        fields = dict(line.partition(": ")[::2] for line in lines[1:])
        body = "\n".join(lines[:-1])
        if not hmac.compare_digest(fields.get("checksum", "").encode(), _checksum(body).encode()):
            raise WrongShares(f"{source}: the checksum does not fit; compare it with the original, digit by digit")
        try:
            place, of, need = (int(word) for word in fields["place"].replace("of", "").replace(", ", " ").split()[:3])
            share = cls(
                set_number=fields["set"],
                place=place,
                need=need,
                of=of,
                check_value=fields["key check value"],
                custodian=fields.get("custodian", ""),
                secret=bytes.fromhex(fields["secret"]),
            )
        except (KeyError, ValueError):
            raise WrongShares(f"{source}: is not written as a share is") from None
        if not (2 <= need <= of <= MOST_SHARES and 1 <= place <= of and len(share.secret) == KEY_OCTETS):
            raise WrongShares(f"{source}: its place or length is not that of a share")
        return share


def split(key: bytes, need: int, of: int, custodians: Sequence[str] = ()) -> list[Share]:
    """Share a key of 32 octets: any `need` of the `of` shares restore it.

    Raises:
        ConfigError: not 2 <= need <= of <= 16, or the custodians are not `of` different people.
    """
    if len(key) != KEY_OCTETS:
        raise ValueError(f"a master key has {KEY_OCTETS} octets, this one {len(key)}")
    if not 2 <= need <= of <= MOST_SHARES:
        raise ConfigError(f"shares: {need} of {of} cannot be; need at least 2, and at most {MOST_SHARES} shares")
    people = list(custodians) or [""] * of
    if len(people) != of or (custodians and len({name.casefold() for name in people}) != of):
        raise ConfigError(f"shares: {of} shares go to {of} different custodians; {len(set(people))} are named")
    for name in people:
        if not name.isprintable() or len(name) > 100:
            raise ConfigError("shares: a custodian's name is printable and has at most 100 characters")
    halves = [Shamir.split(need, of, key[start : start + _HALF]) for start in (0, _HALF)]
    set_number, check = secrets.token_hex(4).upper(), check_value(key)
    return [
        Share(set_number, place, need, of, check, name.strip(), bytes(first) + bytes(second))
        for (place, first), (_, second), name in zip(*halves, people, strict=True)
    ]


def combine(named: Sequence[tuple[str, Share]]) -> bytes:
    """The key from (name of the file, share). More shares than needed are checked, too.

    Raises:
        WrongShares: too few, one twice, of different sets, or one is wrong; the message names the files.
    """
    if not named:
        raise WrongShares("no share is given")
    first_name, first = named[0]
    seen: dict[int, str] = {}
    for name, share in named:
        if (share.set_number, share.check_value) != (first.set_number, first.check_value):
            raise WrongShares(
                f"{name}: is of set {share.set_number}, {first_name} of set {first.set_number}; "
                "shares of different sets do not go together"
            )
        if (share.need, share.of) != (first.need, first.of):
            raise WrongShares(f"{name}: says {share.need} of {share.of}, {first_name} {first.need} of {first.of}")
        if share.place in seen:
            raise WrongShares(f"{name}: is share {share.place} once more, as {seen[share.place]}; bring another one")
        seen[share.place] = name
    if len(named) < first.need:
        raise WrongShares(f"{len(named)} of {first.need} shares needed are here; bring {first.need - len(named)} more")
    key = _combined([share for _, share in named[: first.need]])
    if check_value(key) != first.check_value:
        raise WrongShares(
            f"{', '.join(name for name, _ in named[: first.need])}: what they make is not the key with check value "
            f"{first.check_value}; one was altered, try another pair"
        )
    for name, share in named[first.need :]:
        others = [one for _, one in named[: first.need - 1]]
        if check_value(_combined([*others, share])) != first.check_value:
            raise WrongShares(f"{name}: was altered; the others make the key without it")
    return key


def load(path: Path) -> Share:
    """A custodian's file.

    Raises:
        ConfigError: it cannot be read, or others may read it.
        WrongShares: it is no share.
    """
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigError(f"{path}: has mode {mode:04o}, so others may read it; run `chmod 600 {path}`")
            return Share.parse(file.read(_LARGEST_FILE), str(path))
    except UnicodeDecodeError:
        raise WrongShares(f"{path}: is no text") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error


def save(share: Share, directory: Path) -> Path:
    """Write a share for its custodian alone, as a new file `share-SET-PLACE.txt`.

    Raises:
        ConfigError: it is there already, or cannot be written.
    """
    path = directory / f"share-{share.set_number}-{share.place}.txt"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(share.text())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    return path


def _combined(shares: Sequence[Share]) -> bytes:
    return b"".join(
        Shamir.combine([(share.place, share.secret[start : start + _HALF]) for share in shares]) for start in (0, _HALF)
    )


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:8].upper()


def _grouped(octets: bytes) -> str:
    digits = octets.hex().upper()
    return " ".join(digits[start : start + 4] for start in range(0, len(digits), 4))
