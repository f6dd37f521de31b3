"""What every rung may use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import structlog
from tests.secrecy_watch import (  # noqa: F401 - hooks
    WATCH,
    pytest_configure,
    pytest_runtest_makereport,
    pytest_runtest_setup,
    pytest_runtest_teardown,
    pytest_sessionfinish,
)

if TYPE_CHECKING:
    from tests.postgresql import PrivateServer


@pytest.fixture(scope="module", autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """Commands that a file runs within this process set how much is logged; the next file's tests want to see all."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PrivateServer]:
    from tests.postgresql import PrivateServer  # only tests that need the server need its driver

    with PrivateServer() as server:
        yield server
        assert WATCH.found_in(server.data) == []
