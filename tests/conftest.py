"""What every rung may use."""

from collections.abc import Iterator

import pytest
from tests.postgresql import PrivateServer


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PrivateServer]:
    with PrivateServer() as server:
        yield server
