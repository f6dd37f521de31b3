"""What every hook gets first: who asks, when, until when; and where effects go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that a plugin wants done or kept. One effect for each key, however often it is emitted."""

    key: str
    kind: str
    content: Any


KEPT = "kept"
"""The kind of what `Context.keep` has kept."""


@dataclass(slots=True)
class Context:
    """One invocation, as the plugin sees it. It holds no key, no store and no connection."""

    plugin: str
    hook: str
    invocation: int
    now_us: int
    """The head-end's wall clock when it asked: use this one, so that a replay gives the same."""
    limit_s: float
    """An answer that takes longer is not heard."""
    effects: list[Effect] = field(default_factory=list)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the configuration says to this plugin, `[plugins.settings.NAME]`."""

    def emit(self, key: str, kind: str, content: object) -> None:
        """Have something kept, once for each key of this plugin: a repeat after a crash has no second effect."""
        self.effects.append(Effect(key, kind, content))

    def keep(self, key: str, content: object) -> None:
        """Have something kept in the place of what was kept under this key; None: nothing any more.

        What is kept comes back with the hook `restore` when the plugin's process starts.
        """
        self.effects.append(Effect(key, KEPT, content))
