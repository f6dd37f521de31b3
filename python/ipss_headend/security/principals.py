"""Who may ask for critical commands and who may approve them: names and Ed25519 keys from the configuration.

A public key stands in the configuration file, never in the store: whoever can write rows cannot make himself an
approver. The private key is a file of the person's own. What is signed is specified in docs/commands.md; the native
gate checks it again before anything leaves.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Literal, NamedTuple

from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa

from ipss_headend.config import PrincipalConfig
from ipss_headend.errors import ConfigError, NotAuthorised, words

Purpose = Literal["propose", "approve", "unquarantine", "unprotect", "resume", "clear", "clock"]
"""What a signature says: I ask for it; I want it done; it may go on within the budget; it may be cut again; commands
may leave again; it is known which one the meter is."""

RESUME = b"ipss-headend resume, form 1"
"""What is signed to take the stop switch back, with the generation that ends."""


Principal = PrincipalConfig
"""Somebody the configuration names. Users of the RPC get theirs from the same place."""


class Signature(NamedTuple):
    """One signature beside what it is about."""

    purpose: str
    principal: str
    generation: int
    octets: bytes


class Signer:
    """A principal with the private key. Shows the name, never the key; cannot be pickled."""

    __slots__ = ("_key", "principal")

    def __init__(self, principal: Principal, key: ECC.EccKey) -> None:
        self.principal = principal
        self._key = key

    def __repr__(self) -> str:
        return f"Signer({self.principal.name})"

    def __reduce__(self) -> str:
        raise TypeError("keys are not pickled")

    def sign(self, purpose: Purpose, generation: int, octets: bytes) -> Signature:
        """Say this of these octets."""
        message = signed_octets(purpose, generation, self.principal.name, octets)
        return Signature(purpose, self.principal.name, generation, eddsa.new(self._key, "rfc8032").sign(message))


class HandedIn:
    """A principal who has signed somewhere else: has that one signature to give, and only where it fits.

    For the RPC, whose clients keep their private keys; the head-end signs for nobody.
    """

    __slots__ = ("_octets", "principal")

    def __init__(self, principal: Principal, octets: bytes) -> None:
        self.principal = principal
        self._octets = octets

    def sign(self, purpose: Purpose, generation: int, octets: bytes) -> Signature:
        """The signature, if it says this of these octets.

        Raises:
            NotAuthorised: it says something else, or is not this principal's.
        """
        signature = Signature(purpose, self.principal.name, generation, self._octets)
        if fits((self.principal,), signature, octets) is None:
            name = self.principal.name
            raise NotAuthorised(f'the signature is not {name}\'s "{purpose}" for these octets, generation {generation}')
        return signature


def digest(octets: bytes) -> bytes:
    """What stands for an order (or a list of meters) in what is signed."""
    return sha256(b"ipss-headend order, form 1\0" + octets).digest()


def signed_octets(purpose: str, generation: int, principal: str, octets: bytes) -> bytes:
    """The octets that are signed. `rust/src/control/approval.rs` builds the same."""
    return b"".join(
        (
            b"ipss-headend signature, form 1\0",
            purpose.encode() + b"\0",
            generation.to_bytes(8, "big"),
            principal.encode() + b"\0",
            digest(octets),
        )
    )


def fits(principals: Iterable[Principal], signature: Signature, octets: bytes) -> Principal | None:
    """Whose signature it is, if it is one of these principals' and fits these octets."""
    principal = next((one for one in principals if one.name == signature.principal), None)
    if principal is None:
        return None
    message = signed_octets(signature.purpose, signature.generation, principal.name, octets)
    try:
        eddsa.new(eddsa.import_public_key(principal.public_key), "rfc8032").verify(message, signature.octets)
    except ValueError:
        return None
    return principal


def create_key_file(path: Path, passphrase: str | None = None) -> bytes:
    """Make a private key that only this user may read; returns the public key. An existing file is left alone.

    Raises:
        ConfigError: there is a file already, or it cannot be written.
    """
    key = ECC.generate(curve="Ed25519")
    text = (
        key.export_key(
            format="PEM",
            passphrase=passphrase,
            protection="PBKDF2WithHMAC-SHA512AndAES256-CBC",
            prot_params={"iteration_count": 600_000},
        )
        if passphrase
        else key.export_key(format="PEM")
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; name another file for the key") from error
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    return public_key_of(key)


def load_key_file(path: Path, passphrase: str | None = None) -> ECC.EccKey:
    """A private key from its file.

    Raises:
        ConfigError: it is not there, open to others, or no such key.
    """
    try:
        with path.open(encoding="ascii") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(16_384)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {words(error)}; expected the private key that `control operator` made") from error
    if mode & 0o077:
        raise ConfigError(f"{path}: mode {mode:04o}, so others may read the key; run `chmod 600 {path}`")
    try:
        key = ECC.import_key(text, passphrase)
    except ValueError:
        key = None
    if key is None or key.curve != "Ed25519" or not key.has_private():
        raise ConfigError(
            f"{path}: no Ed25519 private key, or another passphrase; `control operator NAME --key-file FILE` makes one"
        )
    return key


def public_key_of(key: ECC.EccKey) -> bytes:
    """The 32 octets that go into the configuration."""
    return key.public_key().export_key(format="raw")


def signer(principals: Sequence[Principal], key: ECC.EccKey) -> Signer:
    """Whose key it is.

    Raises:
        NotAuthorised: nobody's.
    """
    public_key = public_key_of(key)
    principal = next((one for one in principals if one.public_key == public_key), None)
    if principal is None:
        raise NotAuthorised(f"the configuration has no [[principals]] with the public key {public_key.hex()}; add one")
    return Signer(principal, key)
