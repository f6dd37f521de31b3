from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.field.fakes import FakeReactor

from ipss_headend.store import Database, Store


@pytest.fixture
def reactor() -> Iterator[FakeReactor]:
    made = FakeReactor()
    yield made
    made.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Database(tmp_path / "head_end.sqlite", own=True, reserve_bytes=0) as database:
        yield Store(database)
