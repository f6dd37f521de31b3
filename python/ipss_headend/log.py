"""Structured logs: facts with keys, on standard error, as lines for people or as JSON for machines.

A log line never carries a key, a password or a customer's value. Levels are the operator's: *error*, somebody must act;
*warning*, something got worse; *info*, something changed; *debug*, for whoever looks for a fault.
"""

import logging
import sys
from typing import TextIO

import structlog

from ipss_headend.config import LogConfig

Logger = structlog.typing.FilteringBoundLogger


def configure(config: LogConfig, stream: TextIO | None = None) -> None:
    """Write what is logged from now on to `stream`, standard error by default."""
    where = sys.stderr if stream is None else stream
    shown: list[structlog.typing.Processor] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
        if config.json
        else [structlog.dev.ConsoleRenderer(colors=where.isatty())]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *shown,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(config.level.upper())),
        logger_factory=structlog.PrintLoggerFactory(where),
        cache_logger_on_first_use=False,
    )


def logger(subject: str) -> Logger:
    """The log of one subject: `field`, `store`, `plan`, `server`."""
    bound: Logger = structlog.get_logger().bind(subject=subject)
    return bound
