"""Durable invocation counters of this client, for reads that do not go through a head-end's store (R7).

AES-GCM breaks when one key meets one initialisation vector twice, and the vector is our system title and our counter.
So counters are kept for each (our title, key), whichever meters share that key; a block is on the disk before its first
counter is used, and what is left of it is burnt. A lost file would start again at the first counter: our title, unless
it is given, is therefore random and kept in the same file, so that it is lost too.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ipss_headend.errors import AuthenticationFailed, ConfigError

FIRST = 1
LIMIT = 2**32 - 1
"""Never used (R10): the key must be changed before."""

MANUFACTURER = b"IPS"


class CounterFile:
    """One file of counters; many commands may use it at once, each gets blocks of its own."""

    def __init__(self, path: Path, *, sync: Callable[[int], None] = os.fsync) -> None:
        self.path = path
        self._sync = sync

    def client_title(self) -> bytes:
        """Our own system title: random when the file is made, the same from then on.

        Raises:
            ConfigError: the file is there and cannot be understood, or cannot be written.
        """
        with self._changing() as content:
            if "client_title" not in content:
                content["client_title"] = (MANUFACTURER + secrets.token_bytes(5)).hex()
            return bytes.fromhex(content["client_title"])

    def reserve(
        self, client_title: bytes, encryption_key: bytes, size: int, *, at_least: int = FIRST
    ) -> tuple[int, int]:
        """A block [next, end) of counters that nobody had before. It is on the disk when this returns.

        Raises:
            AuthenticationFailed: the key is used up.
            ConfigError: the file is there and cannot be understood, or cannot be written.
        """
        with self._changing() as content:
            counters = content.setdefault("counters", {})
            name = _name(client_title, encryption_key)
            first = max(int(counters.get(name, FIRST)), at_least)
            end = min(first + size, LIMIT)
            if first >= end:
                raise AuthenticationFailed(
                    f"{self.path}: the key is used up at counter {first}; change the meter's key"
                )
            counters[name] = end
            return first, end

    def peer_counter(self, system_title: bytes, encryption_key: bytes) -> int | None:
        """The highest invocation counter ever believed of this meter: lower ones are replays (R9)."""
        with self._locked():
            counter = self._load().get("peers", {}).get(_name(system_title, encryption_key))
            return None if counter is None else int(counter)

    def raise_peer(self, system_title: bytes, encryption_key: bytes, counter: int) -> None:
        """Keep the meter's counter, if it is higher than what is kept."""
        with self._changing() as content:
            peers = content.setdefault("peers", {})
            name = _name(system_title, encryption_key)
            peers[name] = max(counter, int(peers.get(name, 0)))

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        with self._locked():
            content = self._load()
            before = json.dumps(content)
            yield content
            if json.dumps(content) != before:
                self._save(content)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.path.with_name(self.path.name + ".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror}; name another place with --counter-file") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _load(self) -> dict[str, Any]:
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.path}: {error}; expected a file of invocation counters") from error
        try:
            content = json.loads(text)
            sound = _is_sound(content)
        except (ValueError, AttributeError, TypeError):
            sound = False
        if not sound:
            raise ConfigError(
                f"{self.path}: damaged. Counters that were used must not be used again: restore the file, or move it "
                "away and give --client-title a value that these meters never saw"
            )
        return content  # type: ignore[no-any-return]

    def _save(self, content: dict[str, Any]) -> None:
        try:
            temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({"version": 1, **content}, file, indent=1, sort_keys=True)
                file.write("\n")
                file.flush()
                self._sync(file.fileno())
            temporary.replace(self.path)
            directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                self._sync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise ConfigError(
                f"{self.path}: {error.strerror}; no invocation counter is used that is not on the disk. Name another "
                "place with --counter-file"
            ) from error


def _is_sound(content: dict[str, Any]) -> bool:
    counters = [*content.get("counters", {}).values(), *content.get("peers", {}).values()]
    title = content.get("client_title", "00" * 8)
    return all(FIRST <= counter <= LIMIT for counter in counters) and len(bytes.fromhex(title)) == 8


def _name(system_title: bytes, encryption_key: bytes) -> str:
    """A title and a key, as an entry's name: tells keys apart and says nothing of them."""
    digest = blake2b(encryption_key, digest_size=8, person=b"counter file").hexdigest()
    return f"{system_title.hex()}:{digest}"
