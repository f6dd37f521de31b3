"""What the system's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(params=["sqlite", "postgresql"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Each database in turn: the URL of an empty store in PostgreSQL; empty: a file of the head-end's own."""
    if request.param == "sqlite":
        yield ""
        return
    with request.getfixturevalue("postgresql").store(tmp_path / "data") as address:
        yield address.url
