"""Methods of plugins: `x.PLUGIN.NAME`, in the table while the plugin is enabled.

What a plugin declares becomes a method as any other: its params are checked before it is asked, the caller needs the
right, a change takes a key, the answer is of the declared fields. A plugin knows no scopes: a method whose params name
meters needs the right for each of these; any other needs it for every meter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

import msgspec
import trio

from ipss_headend.errors import PluginError
from ipss_headend.log import Logger, logger
from ipss_headend.plugins.manager import Manager
from ipss_headend.plugins.process import PluginProcess
from ipss_headend.plugins.specs import HOOKS, MethodOffer
from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import Change, Method, Params, Result
from ipss_headend.rpc.faults import Fault
from ipss_headend.security.permission import Right

METHODS, CALL = "rpc_methods", "rpc_call"
SPACE = "x."
MOST_METHODS = 64
MOST_FIELDS = 32
LONGEST_MS = 30_000
TYPES: Mapping[str, Any] = {
    "text": str,
    "integer": int,
    "boolean": bool,
    "list": list[Any],
    "map": dict[str, Any],
    "meter": str,
    "meters": list[str],
}
"""What a field of params or result may be; with `?` behind it, it may be left out. Decimals are text."""
METERS = 1000
"""In one `meters` param."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
_COMMON = frozenset({"key", "deadline_ms"})


class Offers:
    """Keeps the table of methods as the plugins have it."""

    def __init__(self, manager: Manager, methods: MutableMapping[str, Method]) -> None:
        self._manager = manager
        self._methods = methods
        self._log: Logger = logger("plugin")
        self._asking = trio.Lock()

    async def run(self) -> None:
        """Ask plugins for their methods whenever one has started, until cancelled."""
        while True:
            changed = self._manager.changed
            await self.refresh()
            await changed.wait()

    async def refresh(self) -> None:
        """Ask all plugins now. One that does not answer keeps the methods that it has."""
        async with self._asking:
            await self._refresh()

    async def _refresh(self) -> None:
        found: dict[str, Method] = {}
        for plugin in self._manager.plugins:
            if plugin.hooks is None or METHODS not in plugin.hooks:
                continue
            prefix = f"{SPACE}{plugin.name}."
            try:
                offers: list[MethodOffer] = await self._manager.ask_one(plugin, HOOKS[METHODS], {})
            except PluginError as error:
                self._log.warning("plugin does not say its methods", plugin=plugin.name, why=str(error))
                found |= {name: method for name, method in self._methods.items() if name.startswith(prefix)}
                continue
            for offer in offers[:MOST_METHODS]:
                try:
                    method = made(self._manager, plugin, offer)
                except PluginError as error:
                    self._log.error("a method of a plugin is left out", plugin=plugin.name, why=str(error))
                else:
                    found[method.name] = method
        for name in [name for name in self._methods if name.startswith(SPACE) and name not in found]:
            del self._methods[name]
        self._methods.update(found)


def made(manager: Manager, plugin: PluginProcess, offer: MethodOffer) -> Method:
    """The method that a plugin offers.

    Raises:
        PluginError: it cannot be one.
    """
    name = f"{SPACE}{plugin.name}.{offer.name}"
    if not _NAME.fullmatch(offer.name):
        raise PluginError(f"{name}: a method's name is small letters, digits and _")
    if offer.right not in set(Right):
        raise PluginError(f'{name}: no right is called "{offer.right}"; there are {", ".join(Right)}')
    if not offer.summary.strip().endswith("."):
        raise PluginError(f"{name}: its summary says in a sentence what it does")
    if not 1 <= offer.limit_ms <= LONGEST_MS:
        raise PluginError(f"{name}: limit_ms is 1 to {LONGEST_MS}, not {offer.limit_ms}")
    right = Right(offer.right)
    params: Any = msgspec.defstruct(
        "Params_", _fields(name, offer.params), bases=(Change if offer.changes else Params,),
        frozen=True, forbid_unknown_fields=True, kw_only=True,
    )  # fmt: skip
    result: Any = msgspec.defstruct("Result_", _fields(name, offer.result), bases=(Result,), frozen=True, kw_only=True)
    own = params.__struct_fields__

    async def handler(call: Call, given: Any) -> Result:
        asked = {
            one: value for one in own if one not in _COMMON and (value := getattr(given, one)) is not msgspec.UNSET
        }
        _reach(call, name, right, offer.params, asked)
        arguments = {"method": offer.name, "params": asked, "actor": call.principal.name}
        try:
            answer = await plugin.ask(CALL, arguments, limit_s=offer.limit_ms / 1000 * manager.patience)
            await manager.kept(plugin, answer.effects)
            found: Result = msgspec.convert(answer.value if answer.value is not None else {}, result)
        except (PluginError, msgspec.ValidationError) as error:
            raise Fault("E_PLUGIN", f"{name}: {error}") from error
        return found

    handler.__doc__ = offer.summary.strip()
    decoder: Any = msgspec.msgpack.Decoder(tuple[params])
    if offer.example is not None:
        try:
            decoder.decode(msgspec.msgpack.encode([{**offer.example, **({"key": "k"} if offer.changes else {})}]))
        except msgspec.ValidationError as error:
            raise PluginError(f"{name}: its example does not fit its params: {error}") from error
    return Method(
        name=name, right=right, params=params, result=result, handler=handler, waits=True, open=False,
        example=offer.example, decoder=decoder,
    )  # fmt: skip


def _fields(name: str, declared: Mapping[str, str]) -> list[Any]:
    if len(declared) > MOST_FIELDS:
        raise PluginError(f"{name}: {len(declared)} fields; at most {MOST_FIELDS}")
    found: list[Any] = []
    for field, words in declared.items():
        kind = TYPES.get(words.removesuffix("?"))
        if kind is None or not _NAME.fullmatch(field) or field in _COMMON:
            raise PluginError(f"{name}: {field} is {words}; it may be {', '.join(TYPES)}, with ? if it may be left out")
        found.append((field, kind | msgspec.UnsetType, msgspec.UNSET) if words.endswith("?") else (field, kind))
    return found


def _reach(call: Call, name: str, right: Right, declared: Mapping[str, str], asked: Mapping[str, Any]) -> None:
    """Whether the caller may ask about these meters; about all, where none is named.

    Raises:
        Fault: it may not.
    """
    named: list[str] = []
    for field, value in asked.items():
        if declared[field].removesuffix("?") == "meter":
            named.append(value)
        elif declared[field].removesuffix("?") == "meters":
            if len(value) > METERS:
                raise Fault("E_PARAMS", f"{name}: {field}: at most {METERS} meters a call")
            named += value
    for one in named:
        call.meter(one, right)
    if not named and not call.principal.everywhere(right):
        raise Fault("E_DENIED", f"{name} names no meter, so it needs the right {right} for all")
