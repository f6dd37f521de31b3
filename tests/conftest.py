"""What every rung may use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.postgresql import PrivateServer


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PrivateServer]:
    from tests.postgresql import PrivateServer  # only tests that need the server need its driver

    with PrivateServer() as server:
        yield server
