"""No test may show a secret that it used (R21, R41): hooks of pytest, which `tests/conftest.py` takes in.

While a test runs, the secrets that pass through its process are noted: meters' keys and passwords, master keys, private
keys, passwords and tokens of the RPC; behind it, those of the key files and fleet files in its directory. Then what it
printed and logged, what it read of other processes and commands, and every file in its directory are searched: logs,
databases, exports, what crashes leave. Not searched are `CARRIERS`. A hit fails the test and says where and what kind
of secret it is, never which. When all tests are over, a sample of all their secrets is looked for in what they left in
directories that several share.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from Crypto.PublicKey import ECC
from tests.secrecy import Hit, Search, carries_columns_of_keys, looked_for, of_files
from typer.testing import CliRunner

from ipss_headend.security.keystore import MeterKeys
from ipss_headend.security.locked import LockedKey

MOST_SECRETS = 1_000
"""Of one test: a fleet's keys are all handled alike."""

SAMPLE = 5
"""Secrets of each test that are looked for in what tests share, up to `MOST_SECRETS` of all."""

LARGEST_CARRIER = 4 << 20
"""Octets of a file that secrets are taken from."""

CARRIERS = (
    (
        r".*\.(key|pem|hex)|kek",
        "key files of `init`, `serve`, the key ceremony, people and tests: a key is all they hold",
    ),
    (r".*(password|passphrase|pin)", "what tests hand over by `--password-file` and its like"),
    (r"keys\.toml", "the keys of a sender who is in no registry yet, for `meters adopt --keys`"),
)
"""Names of files that are there to carry secrets, and why. Beside them fleet files, known by their columns of keys:
`simulate` and `meters export --keys` write them, `meters import` and makers' shipments bring them."""

_CARRIERS = re.compile("|".join(f"(?:{pattern})" for pattern, _ in CARRIERS))


class Watch:
    """What one test used and what it showed."""

    def __init__(self) -> None:
        self.secrets: dict[bytes, str] = {}
        self.heard: list[bytes] = []
        self.directory: Path | None = None
        self.sample: dict[bytes, str] = {}
        """Of all tests."""
        self.searched: set[Path] = set()
        """The directories of tests that are over."""

    def begin(self) -> None:
        """Another test."""
        self.secrets, self.heard, self.directory = {}, [], None

    def note(self, secret: object, kind: str) -> None:
        """A secret passes by."""
        octets = secret.encode() if isinstance(secret, str) else secret
        if isinstance(octets, bytes | bytearray | memoryview) and len(self.secrets) < MOST_SECRETS:
            self.secrets.setdefault(bytes(octets), kind)

    def hear(self, *said: object) -> None:
        """Another process or a command said this, and the test has read it."""
        for one in said:
            if isinstance(one, str):
                self.heard.append(one.encode("utf-8", "replace"))
            elif isinstance(one, bytes):
                self.heard.append(one)

    def found(self, sections: Iterable[tuple[str, str]]) -> list[str]:
        """Where secrets of the test are, in words."""
        files = [] if self.directory is None else list(_files(self.directory))
        known = {**self.secrets, **of_files(path for path in files if path.stat().st_size <= LARGEST_CARRIER)}
        known = {secret: kind for secret, kind in islice(known.items(), MOST_SECRETS) if looked_for(secret)}
        if len(self.sample) < MOST_SECRETS:
            self.sample |= dict(islice(known.items(), SAMPLE))
        if self.directory is not None:
            self.searched.add(self.directory)
        if not known:
            return []
        search = Search(known)
        said = [(name, text.encode("utf-8", "replace")) for name, text in sections]
        said.append(("what other processes and commands said", b"\0".join(self.heard)))
        lines = {_words(name, hit) for name, octets in said for hit in search.octets(octets)}
        return sorted(lines | _in_files(search, files))

    def found_in(self, directory: Path) -> list[str]:
        """Where secrets of any test are in a directory that tests share, but for what was searched behind its test."""
        files = [path for path in _files(directory) if not self.searched.intersection(path.parents)]
        return sorted(_in_files(Search(self.sample), files))


WATCH = Watch()


def _words(where: str, hit: Hit) -> str:
    return f"{where}: a {hit.kind}, {hit.form}"


def _files(directory: Path) -> Iterator[Path]:
    for root, _, names in os.walk(directory):
        for path in (Path(root, name) for name in names):
            if path.is_file() and not path.is_symlink():
                yield path


def _in_files(search: Search, files: Iterable[Path]) -> set[str]:
    found: set[str] = set()
    for path in files:
        try:
            with path.open("rb") as stream:
                carrier = carries_columns_of_keys(stream.read(4096)) or _CARRIERS.fullmatch(path.name)
            if not carrier:
                found |= {_words(str(path), hit) for hit in search.file(path)}
        except FileNotFoundError:
            continue  # a process that ends takes its own along
    return found


def pytest_configure() -> None:
    """From now on secrets are noted."""
    _behind(MeterKeys, "__init__", _keys_made)
    _before(LockedKey, "__init__", lambda given: WATCH.note(given[1], "master key"))
    _before(PasswordHasher, "hash", lambda given: WATCH.note(given[1], "password"))
    _behind(secrets, "token_urlsafe", lambda made, _: WATCH.note(made, "token"))
    for name in ("generate", "import_key"):
        _behind(ECC, name, lambda made, _: WATCH.note(_private(made), "private key"))
    _behind(subprocess.Popen, "communicate", lambda made, _: WATCH.hear(*made))
    _behind(CliRunner, "invoke", lambda made, _: WATCH.hear(made.stdout, made.stderr))
    _behind(pytest.CaptureFixture, "readouterr", lambda made, _: WATCH.hear(*made))


def _behind(owner: Any, name: str, note: Callable[[Any, tuple[Any, ...]], None]) -> None:
    """Have `note` see what a function gave back, and what it was given."""
    function = getattr(owner, name)

    def noted(*given: Any, **named: Any) -> Any:
        made = function(*given, **named)
        note(made, given)
        return made

    setattr(owner, name, noted)


def _before(owner: Any, name: str, note: Callable[[tuple[Any, ...]], None]) -> None:
    """Have `note` see what a function is given, before that may wipe it."""
    function = getattr(owner, name)

    def noted(*given: Any, **named: Any) -> Any:
        note(given)
        return function(*given, **named)

    setattr(owner, name, noted)


def _keys_made(_: None, given: tuple[Any, ...]) -> None:
    keys: MeterKeys = given[0]
    for name in ("encryption_key", "authentication_key", "password", "master_key", "private_key"):
        WATCH.note(getattr(keys, name), f"meter's {name.replace('_', ' ')}")


def _private(key: ECC.EccKey) -> bytes | None:
    if not key.has_private():
        return None
    if key.seed:
        return bytes(key.seed)
    number = int(key.d)
    return number.to_bytes(-(-number.bit_length() // 8), "big")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup() -> Generator[None]:
    """Another test begins."""
    WATCH.begin()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Where its files are is known until it is torn down."""
    WATCH.directory = getattr(item, "funcargs", {}).get("tmp_path")
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """When all of a test is over: what did it show?"""
    report = yield
    if call.when == "teardown":
        found = WATCH.found(report.sections)
        if found:
            report.outcome = "failed"
            report.longrepr = "\n  ".join(["secrets that this test used are shown:", *found])
            report.sections = []  # which would show them once more
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """When all tests are over: what did they leave in places that are no single test's?"""
    factory = getattr(session.config, "_tmp_path_factory", None)
    if factory is None or not WATCH.sample:
        return
    found = WATCH.found_in(factory.getbasetemp())
    if found:
        print("\n  ".join(["\nsecrets that tests used are shown:", *found]))
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
