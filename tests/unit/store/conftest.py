"""What is said of the store is said of both databases: `database` and `address` are of each in turn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipss_headend.store import Address, Database

if TYPE_CHECKING:
    from tests.postgresql import PrivateServer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "head_end.sqlite"


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, path: Path) -> Iterator[Address]:
    if request.param == "sqlite":
        yield path
    else:
        server: PrivateServer = request.getfixturevalue("postgresql")
        with server.store(path.parent) as found:
            yield found


@pytest.fixture
def database(address: Address) -> Iterator[Database]:
    with Database(address, own=True, reserve_bytes=0) as opened:
        yield opened
