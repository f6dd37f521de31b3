from collections.abc import Iterator
from pathlib import Path

import pytest

from ipss_headend.store import Database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "head_end.sqlite"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    with Database(path, own=True, reserve_bytes=0) as opened:
        yield opened
