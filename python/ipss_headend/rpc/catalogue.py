"""What a method is, and the table of all of them.

A method is a function with a struct of params and a struct of result; the decorator puts it into the table under its
name, with the right that it needs. Schema, documentation and the check of every call are made from that.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

import msgspec

from ipss_headend.rpc.faults import Fault
from ipss_headend.security.permission import Right

if TYPE_CHECKING:
    from ipss_headend.rpc.call import Call


class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every call may carry."""

    deadline_ms: int | None = None
    """Give up after this many milliseconds; at most 600000."""


class Change(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every call that changes something carries."""

    key: str
    """Idempotency key, at most 128 characters: a repeat with the same params has the same answer and no effect."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a method answers: one map. It may grow within a version, never shrink."""


class Empty(Result, frozen=True):
    """Nothing to say but that it is done."""


P = TypeVar("P", bound=Params)
Handler = Callable[["Call", Any], "Result | Awaitable[Result]"]
H = TypeVar("H", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Method:
    """One method of the catalogue."""

    name: str
    right: Right | None
    params: type[Params]
    result: type[Result]
    handler: Handler
    waits: bool
    """It is a coroutine: it may wait for a meter or the store."""
    open: bool
    """It answers before anybody has said who they are."""
    example: Mapping[str, Any] | None
    decoder: msgspec.msgpack.Decoder[tuple[Params]] = field(repr=False)
    changes: bool = field(init=False)
    """It changes something, so it takes an idempotency key."""
    tasked: bool = field(init=False)
    """A call of it has a task of its own."""

    def __post_init__(self) -> None:
        changes = "key" in self.params.__struct_fields__
        object.__setattr__(self, "changes", changes)
        object.__setattr__(self, "tasked", self.waits or changes)

    @property
    def summary(self) -> str:
        """What it does, in one line."""
        return inspect.getdoc(self.handler).partition("\n")[0]  # type: ignore[union-attr]

    @property
    def description(self) -> str:
        """What it does, whole."""
        return inspect.getdoc(self.handler) or ""

    def decode(self, octets: bytes) -> Params:
        """The params of a call: one map in an array, or values in the order of the schema.

        Raises:
            Fault: they do not fit.
        """
        try:
            return self.decoder.decode(octets)[0]
        except msgspec.ValidationError as error:
            return self._positional(octets, error)

    def _positional(self, octets: bytes, error: msgspec.ValidationError) -> Params:
        values = msgspec.msgpack.decode(octets)
        names = self.params.__struct_fields__
        # What only some calls carry stands last in a schema, whatever class brought it in.
        own = [name for name in names if name not in _COMMON] + [name for name in names if name in _COMMON]
        if len(values) == 1 and isinstance(values[0], dict):
            takes = f"; it takes {', '.join(own)}" if any(key not in names for key in values[0]) else ""
            raise Fault("E_PARAMS", f"{self.name}: {_where(error)}{takes}") from None
        if len(values) > len(own):
            raise Fault("E_PARAMS", f"{self.name}: {len(values)} params; it takes {', '.join(own)}") from None
        try:
            return msgspec.convert(dict(zip(own, values, strict=False)), self.params)
        except msgspec.ValidationError as wrong:
            raise Fault("E_PARAMS", f"{self.name}: {_where(wrong)}") from None


_COMMON = ("key", "deadline_ms")


def _where(error: msgspec.ValidationError) -> str:
    words = str(error).replace("Object", "The map").removesuffix(" - at `$[0]`")
    return words.replace("$[0].", "").replace("$.", "")


METHODS: dict[str, Method] = {}
"""Every method by its name. Plugins' methods are added under `x.`."""


def method(
    name: str, right: Right | None, *, example: Mapping[str, Any] | None = None, open_to_all: bool = False
) -> Callable[[H], H]:
    """Put a function into the table.

    Raises:
        TypeError: it does not say what it takes and gives.
    """

    def register(handler: H) -> H:
        METHODS[name] = make(name, right, handler, example=example, open_to_all=open_to_all)
        return handler

    return register


def make(
    name: str,
    right: Right | None,
    handler: Handler,
    *,
    example: Mapping[str, Any] | None = None,
    open_to_all: bool = False,
) -> Method:
    """A method of a function.

    Raises:
        TypeError: it does not say what it takes and gives.
    """
    hints = {key: kind for key, kind in get_type_hints(handler).items() if key != "call"}
    given = hints.pop("return", None)
    # A method that may have its answer at hand gives the struct or something to wait for.
    found = [kind for kind in (given, *get_args(given)) if isinstance(kind, type) and issubclass(kind, Result)]
    params = next(iter(hints.values()), None)
    if not (isinstance(params, type) and issubclass(params, Params)):
        raise TypeError(f"{name}: its function takes a call and a struct of params")
    if len(found) != 1:
        raise TypeError(f"{name}: its function gives a struct of result")
    if not inspect.getdoc(handler):
        raise TypeError(f"{name}: its function does not say what it does")
    return Method(
        name=name,
        right=right,
        params=params,
        result=found[0],
        handler=handler,
        waits=inspect.iscoroutinefunction(handler),
        open=open_to_all,
        example=example,
        decoder=msgspec.msgpack.Decoder(tuple[params]),  # type: ignore[valid-type]
    )
