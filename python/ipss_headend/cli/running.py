"""How commands ask a head-end that runs on this machine: over its unix socket, as the user who runs them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ipss_headend.cli import places
from ipss_headend.cli.rpc import ERRORS, jsonable
from ipss_headend.client import CallFailed, Client
from ipss_headend.errors import ConfigError, RequestError


class Running:
    """The head-end of a configuration, for one command. A context manager."""

    def __init__(self, config: Path, name: str) -> None:
        socket = places.load_config(config).rpc.socket
        if socket is None:
            raise ConfigError(f"{config}: [rpc] has no socket; `ipss-headend {name}` asks a running head-end over it")
        self._client = Client(f"unix:{socket}", name=f"ipss-headend {name}")

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method.

        Raises:
            HeadEndError: nothing answers, or it says no.
        """
        try:
            found: dict[str, Any] = jsonable(self._client.call(method, **params))
        except CallFailed as error:
            raise ERRORS.get(error.code, RequestError)(str(error)) from error
        return found


def moment(at_ms: int) -> str:
    """A time as commands show it."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
