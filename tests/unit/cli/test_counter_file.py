import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ipss_headend.cli.counter_file import LIMIT, CounterFile
from ipss_headend.errors import AuthenticationFailed, ConfigError

TITLE, OTHER, KEY = b"IPS00001", b"IPS00002", b"k" * 16


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "counters.json"


def test_blocks_follow_each_other_through_restarts(path: Path) -> None:
    blocks = [CounterFile(path).reserve(TITLE, KEY, 10) for _ in range(3)]

    assert blocks == [(1, 11), (11, 21), (21, 31)]
    assert path.stat().st_mode & 0o777 == 0o600


def test_meters_that_share_a_key_share_the_counter_and_others_do_not(path: Path) -> None:
    file = CounterFile(path)

    assert file.reserve(TITLE, KEY, 10) == (1, 11)
    assert file.reserve(TITLE, b"o" * 16, 10) == (1, 11)
    assert file.reserve(OTHER, KEY, 10) == (1, 11)
    assert file.reserve(TITLE, KEY, 10) == (11, 21)


def test_commands_at_once_get_blocks_of_their_own(path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        blocks = list(threads.map(lambda _: CounterFile(path).reserve(TITLE, KEY, 7), range(24)))

    counters = [counter for first, end in blocks for counter in range(first, end)]
    assert len(counters) == len(set(counters)) == 24 * 7


def test_no_counter_is_given_that_is_not_on_the_disk(path: Path) -> None:
    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    CounterFile(path).reserve(TITLE, KEY, 10)

    with pytest.raises(ConfigError, match="Input/output error"):
        CounterFile(path, sync=broken).reserve(TITLE, KEY, 10)

    assert CounterFile(path).reserve(TITLE, KEY, 10)[0] >= 11


def test_file_is_synced_before_it_takes_the_place_of_the_old_one(path: Path) -> None:
    synced: list[bool] = []

    def sync(descriptor: int) -> None:
        synced.append(path.exists())
        os.fsync(descriptor)

    CounterFile(path, sync=sync).reserve(TITLE, KEY, 10)

    assert synced == [False, True], "the new file first, then the directory that names it"


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"counters": {"x": -1}}', '{"counters": {"x": "1"}}', '{"client_title": "00"}']
)
def test_damaged_file_is_refused_and_left_alone(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)

    with pytest.raises(ConfigError, match="must not be used again"):
        CounterFile(path).reserve(TITLE, KEY, 10)

    assert path.read_text() == text


def test_last_counters_are_given_and_then_none(path: Path) -> None:
    file = CounterFile(path)

    assert file.reserve(TITLE, KEY, 10, at_least=LIMIT - 3) == (LIMIT - 3, LIMIT)
    with pytest.raises(AuthenticationFailed, match="change the meter's key"):
        file.reserve(TITLE, KEY, 10)


def test_own_title_is_random_and_kept(path: Path, tmp_path: Path) -> None:
    title = CounterFile(path).client_title()

    assert len(title) == 8
    assert CounterFile(path).client_title() == title
    assert CounterFile(tmp_path / "other.json").client_title() != title


def test_meters_counter_rises_only(path: Path) -> None:
    file = CounterFile(path)
    assert file.peer_counter(OTHER, KEY) is None

    for counter in (5, 9, 7):
        file.raise_peer(OTHER, KEY, counter)

    assert file.peer_counter(OTHER, KEY) == 9
    assert KEY.hex() not in json.dumps(path.read_text())
