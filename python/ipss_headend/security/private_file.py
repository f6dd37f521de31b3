"""Files with secrets: read only if nobody else can."""

import os
import stat
from pathlib import Path

from ipss_headend.errors import ConfigError


def private_text(path: Path, setting: str) -> str:
    """The stripped text of a file that `[keystore] setting` names and only this user (or root) may read.

    Raises:
        ConfigError: it cannot be read, belongs to somebody else, or others may read it.
    """
    try:
        with path.open(encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigError(
                    f"keystore.{setting}: {path} has mode {stat.S_IMODE(status.st_mode):04o}, so others may read it; "
                    f"run `chmod 600 {path}`"
                )
            if status.st_uid not in {0, os.geteuid()}:
                raise ConfigError(
                    f"keystore.{setting}: {path} belongs to user {status.st_uid}; it must be this user's or root's"
                )
            return file.read(4096).strip()
    except UnicodeDecodeError:
        raise ConfigError(f"keystore.{setting}: {path} is no text") from None
    except OSError as error:
        raise ConfigError(f"keystore.{setting}: {path}: {error.strerror or error}") from error
