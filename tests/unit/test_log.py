import io
import json
from collections.abc import Iterator

import pytest
import structlog

from ipss_headend import log
from ipss_headend.config import LogConfig


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_json_is_one_object_a_line_with_the_subject() -> None:
    stream = io.StringIO()
    log.configure(LogConfig(json=True), stream)

    log.logger("field").warning("meter gone", meter="meter-1", why="refused")

    line = json.loads(stream.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "meter gone",
        "level": "warning",
        "meter": "meter-1",
        "subject": "field",
        "why": "refused",
    }


def test_lines_for_people_have_no_colours_in_a_file() -> None:
    stream = io.StringIO()
    log.configure(LogConfig(), stream)

    log.logger("field").info("meter returned", meter="meter-1")

    assert "\x1b" not in stream.getvalue()
    assert "meter=meter-1" in stream.getvalue()


def test_lower_levels_are_left_out() -> None:
    stream = io.StringIO()
    log.configure(LogConfig(level="warning"), stream)

    log.logger("field").info("meter returned")

    assert stream.getvalue() == ""


def test_traceback_is_part_of_the_json() -> None:
    stream = io.StringIO()
    log.configure(LogConfig(json=True), stream)

    try:
        int("a bug")
    except ValueError:
        log.logger("plan").exception("turn broken off")

    assert json.loads(stream.getvalue())["exception"][0]["exc_type"] == "ValueError"
