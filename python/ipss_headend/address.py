"""Where a store is. Light: the configuration needs it, and knows no database."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ipss_headend.errors import ConfigError

if TYPE_CHECKING:
    import psycopg

CONNECT_S = 5


@dataclass(frozen=True, slots=True)
class Server:
    """Where a PostgreSQL store is."""

    url: str
    """libpq's own form, without a password: postgresql://user@host:5432/database?sslmode=verify-full."""
    marker: Path
    """The restore guard's file, in the head-end's data directory."""
    password_file: Path | None = None
    """Its first line; None: as libpq finds one (PGPASSWORD, ~/.pgpass)."""

    @property
    def name(self) -> str:
        """For messages: never with a password."""
        parts = urlsplit(self.url)
        user = f"{parts.username}@" if parts.username else ""
        port = f":{parts.port}" if parts.port else ""
        return f"postgresql://{user}{parts.hostname or ''}{port}{parts.path}"

    def connect(self, **settings: object) -> psycopg.Connection[Any]:
        """A connection with these settings of the server's (such as lock_timeout).

        Raises:
            ConfigError: psycopg is not installed, or the password's file cannot be read.
        """
        try:
            import psycopg
        except ImportError as error:
            raise ConfigError(
                f"{self.name}: PostgreSQL needs psycopg, which is not installed; run "
                "`pip install 'ipss-headend[postgresql]'`"
            ) from error
        secret: dict[str, Any] = {}
        if self.password_file is not None:
            try:
                secret["password"] = self.password_file.read_text(encoding="utf-8").partition("\n")[0]
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{self.password_file}: {error}; expected the password of {self.name}") from error
        return psycopg.connect(
            self.url,
            connect_timeout=CONNECT_S,
            application_name=f"ipss-headend {os.getpid()} on {socket.gethostname()}"[:63],
            # A network that swallows octets is noticed, and not after two hours.
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=20_000,
            client_encoding="utf8",
            options=" ".join(f"-c {name}={str(value).replace(' ', chr(92) + ' ')}" for name, value in settings.items()),
            **secret,
        )


Address = Path | Server
"""SQLite's file, or a PostgreSQL database."""


def redacted(url: str) -> str:
    """A URL as messages may show it."""
    return re.sub(r"(?<=password=)[^&]*", "***", re.sub(r"(://[^:/@]*):.*@", r"\1:***@", url))
