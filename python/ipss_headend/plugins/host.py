"""A plugin's own process: `python -m ipss_headend.plugins.host NAME DESCRIPTOR MEMORY_MIB CPU_S NICE [SOURCE]`.

It has one connection, to the head-end that started it, and goes when that closes. Messages are msgpack-RPC: the
head-end requests a hook, and the answer is the notification `answer`, with the invocation that it belongs to. Calls are
answered one after the other.
"""

from __future__ import annotations

import difflib
import inspect
import os
import re
import resource
import signal
import socket
import sys
import traceback
from collections import deque
from importlib.metadata import EntryPoint
from typing import Any

import msgspec
import pluggy

from ipss_headend import _core
from ipss_headend.errors import PluginError
from ipss_headend.plugins import columns, sandbox, source
from ipss_headend.plugins.context import Context
from ipss_headend.plugins.specs import HOOKS, PROJECT

HELLO = "hello"
SETTINGS = "settings"
"""What the plugin is set to: sent once, before the first hook."""
ANSWER = "answer"
READ_OCTETS = 65_536
MOST_OCTETS = 8 << 20
"""A message from the head-end; from the plugin a smaller one is taken."""
DESCRIPTORS = 2
NOTIFICATION = 2
NICE = 5
"""The head-end's own work goes first where there is not enough processor for both."""
TRIAL_NICE = 15
"""And any plugin's work before that of one which is only tried."""

_encoder = msgspec.msgpack.Encoder()
_OURS = re.compile(r"importlib|/pluggy/|" + re.escape(__file__))
"""Lines of a traceback that say nothing of the plugin."""


class Loaded:
    """A plugin with its hooks, in this process."""

    def __init__(self, name: str, plugin: object) -> None:
        self.name = name
        self.plugin = plugin
        self._hooks = pluggy.PluginManager(PROJECT)
        self._hooks.add_hookspecs(sys.modules["ipss_headend.plugins.specs"])
        self.settings: dict[str, Any] = {}
        _check(name, plugin)
        try:
            self._hooks.register(plugin, name)
            self._hooks.check_pending()
        except pluggy.PluginValidationError as error:
            raise PluginError(f"{name}: {error}") from error
        self.orders: dict[str, int] = {}
        """The hooks that it has, and their places: -1 first, 1 last."""
        for caller in self._hooks.get_hookcallers(plugin) or ():
            options = caller.get_hookimpls()[-1]
            self.orders[caller.name] = -1 if options.tryfirst else 1 if options.trylast else 0
        if not self.orders:
            raise PluginError(f"{name}: no hook in it; {_unmarked(plugin)}, from ipss_headend.plugins import hook")

    def call(self, context: Context, arguments: dict[str, Any]) -> Any:
        """One invocation; its typed answer.

        Raises:
            PluginError: it gave what the hook does not give.
        """
        spec = HOOKS[context.hook]
        typed = {name: _typed(spec.function, name, value) for name, value in arguments.items()}
        found = getattr(self._hooks.hook, context.hook)(ctx=context, **typed)
        answer = found[0] if found else None
        if spec.mode == "batch":
            return None
        try:
            return msgspec.convert(msgspec.to_builtins(answer, builtin_types=(bytes,)), spec.result | None)
        except (msgspec.ValidationError, TypeError) as error:
            wanted = str(spec.result).replace("ipss_headend.plugins.specs.", "")
            wanted = wanted.removeprefix("<class '").removesuffix("'>")
            hint = '; to refuse, return Refusal("why"); else nothing' if spec.mode == "veto" else ""
            raise PluginError(f"an answer of type {type(answer).__name__}, expected {wanted}: {error}{hint}") from error


def _check(name: str, plugin: object) -> None:
    """Tell the usual mistakes with a remedy, before pluggy tells them without.

    Raises:
        PluginError: a hook that does not exist, or an argument that a hook does not have.
    """
    for attribute in dir(plugin):
        function = getattr(plugin, attribute, None)
        if not callable(function) or not isinstance(getattr(function, f"{PROJECT}_impl", None), dict):
            continue
        given = getattr(function, f"{PROJECT}_impl").get("specname") or attribute
        spec = HOOKS.get(given)
        if spec is None:
            near = difflib.get_close_matches(given, HOOKS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(HOOKS)}"
            raise PluginError(f"{name}: no hook is called {given}; {hint}")
        if inspect.iscoroutinefunction(function):
            raise PluginError(f"{name}: {given} is async; a hook is a plain function, in a process of its own")
        known = ("ctx", *spec.arguments)
        wrong = [one for one in inspect.signature(function).parameters if one not in known and one != "self"]
        if wrong:
            near = difflib.get_close_matches(wrong[0], known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise PluginError(f"{name}: {given} takes no {wrong[0]}; {hint}It may take {', '.join(known)}")


def _unmarked(plugin: object) -> str:
    """What to do about a plugin without a hook."""
    there = [one for one in dir(plugin) if one in HOOKS and callable(getattr(plugin, one))]
    if not there:
        return "mark one with @hook"
    foreign = [name for name in vars(getattr(plugin, there[0])) if name.endswith("_impl")]
    if foreign:
        return f"{there[0]} is marked for {foreign[0].removesuffix('_impl')}: mark it with @hook"
    return f"mark one with @hook: {there[0]} has a hook's name and is not marked"


def load(name: str, where: str | None = None) -> Loaded:
    """Import the plugin of this name, from `where` it is: see `source.py`.

    Raises:
        PluginError: there is none, or it is none.
    """
    entry = source.find(name, where)
    try:
        plugin = entry.load()
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing == entry.module or entry.module.startswith(f"{missing}."):
            raise PluginError(
                f"{name}: its entry point names {entry.value}, and no module is called {missing}; correct "
                f"{source.TABLE} in its pyproject.toml and install it again"
            ) from error
        raise PluginError(
            f"{name}: it needs the module {missing}, which is not installed; name its package under dependencies in "
            "the plugin's pyproject.toml and install it again"
        ) from error
    except Exception as error:
        if isinstance(error, AttributeError) and entry.attr and entry.module in sys.modules and not _own(error, entry):
            raise PluginError(
                f"{name}: its entry point names {entry.value}, and {entry.module} has no {entry.attr}; correct "
                f"{source.TABLE} in its pyproject.toml and install it again"
            ) from error
        raise PluginError(f"{name}: its import failed{_where(error)}: {_words(error)}") from error
    if isinstance(plugin, type):
        try:
            plugin = plugin()
        except Exception as error:
            raise PluginError(
                f"{name}: its entry point names the class {entry.value}, which is made without arguments, and that "
                f"failed{_where(error)}: {_words(error)}"
            ) from error
    return Loaded(name, plugin)


def _own(error: Exception, entry: EntryPoint) -> bool:
    """It was raised in the plugin's own code, not in looking for what the entry point names."""
    own = getattr(sys.modules[entry.module], "__file__", None)
    return any(frame.filename == own for frame in traceback.extract_tb(error.__traceback__))


def _where(error: Exception) -> str:
    """The last line of the plugin's own that was run."""
    if isinstance(error, SyntaxError):
        return f" in {error.filename}, line {error.lineno}"
    frames = [one for one in traceback.extract_tb(error.__traceback__) if not _OURS.search(one.filename)]
    return f" in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""


def _typed(function: Any, name: str, value: Any) -> Any:
    if name == "classes":
        from ipss_headend.plugins.specs import IncidentClass

        return msgspec.convert(value, list[IncidentClass])
    return value


def serve(connection: socket.socket, name: str, cpu_s: int, where: str | None = None) -> None:
    """Answer until the head-end closes the connection."""
    scanner = _core.RpcScanner(octets=MOST_OCTETS, values=4 << 20)
    descriptors: deque[int] = deque()
    try:
        plugin = load(name, where)
    except Exception as error:  # noqa: BLE001 - whatever a plugin does when it is imported
        _send(connection, HELLO, [None, _words(error)])
        return
    _send(connection, HELLO, [plugin.orders, None])
    while True:
        octets, received, _, _ = socket.recv_fds(connection, READ_OCTETS, DESCRIPTORS)
        descriptors.extend(received)
        if not octets:
            return
        calls, ended = scanner.feed(octets)
        for kind, number, hook, params in calls:
            if kind == NOTIFICATION:
                [plugin.settings] = msgspec.msgpack.decode(params)
                continue
            _limit_cpu(cpu_s)
            _send(connection, ANSWER, _answer(plugin, number, hook, params, descriptors))
        if ended is not None:
            raise PluginError(f"the head-end sent {ended[1]}")


def _answer(plugin: Loaded, number: int, hook: str, params: bytes, descriptors: deque[int]) -> list[Any]:
    now_us, limit_s, arguments, layout = msgspec.msgpack.decode(params)
    context = Context(plugin.name, hook, number, now_us, limit_s, settings=plugin.settings)
    try:
        if layout is not None:
            batch = columns.attach(descriptors.popleft(), descriptors.popleft(), [tuple(one) for one in layout])
            arguments = {"batch": batch}
        value = plugin.call(context, arguments)
    except MemoryError:
        # What it holds is not known to be given back: a new process begins with none.
        traceback.print_exc()
        os._exit(1)
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises is its answer
        traceback.print_exc()
        where = "" if isinstance(error, PluginError) else _where(error)
        return [number, _words(error) + where, None, []]
    effects = [[effect.key, effect.kind, effect.content] for effect in context.effects]
    try:
        _encoder.encode([value, effects])
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        return [number, f"an answer that cannot be sent: {error}", None, []]
    return [number, None, value, effects]


def _words(error: BaseException) -> str:
    return (str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}")[:500]


def _send(connection: socket.socket, name: str, params: list[Any]) -> None:
    connection.sendall(_encoder.encode([2, name, params]))


def _limit_cpu(cpu_s: int) -> None:
    # What the process may use until the next call: a plugin that burns time between calls is ended by the kernel.
    usage = resource.getrusage(resource.RUSAGE_SELF)
    until = int(usage.ru_utime + usage.ru_stime) + cpu_s
    resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))


def main() -> None:
    """Be the process."""
    name, descriptor, memory_mib, cpu_s, nice = sys.argv[1], *map(int, sys.argv[2:6])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the head-end's
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_mib << 20, memory_mib << 20))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    os.nice(nice)
    _limit_cpu(cpu_s)
    connection = socket.socket(fileno=descriptor)
    sandbox.enter()
    serve(connection, name, cpu_s, sys.argv[6] if len(sys.argv) > 6 else None)


if __name__ == "__main__":
    main()
