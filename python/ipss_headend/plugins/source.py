"""Where a plugin's code is: an installed entry point, another one, a module, or a path that is not installed.

    night_rule                      the entry point of this name, or the module
    night_rule.next:rules           an object in a module
    ./night_rule                    a directory with a pyproject.toml or an __init__.py
    /opt/plugins/night_rule-2       what `pip install --target` wrote
    night_rule.py                   a module's file

A path has a `/` in it or ends in `.py`. It goes in front of the path of the process that loads it, which loads nothing
else: what is installed beside it stays as it is.
"""

from __future__ import annotations

import difflib
import sys
import tomllib
from importlib import metadata, util
from pathlib import Path

from ipss_headend.errors import PluginError
from ipss_headend.plugins.specs import GROUP

TABLE = f'[project.entry-points."{GROUP}"]'
"""Where a package's pyproject.toml names its plugins."""


def is_path(source: str) -> bool:
    """It names a place of the file system, not something that is installed."""
    return "/" in source or source.endswith(".py")


def absolute(source: str, base: Path) -> str:
    """The same source for a process that runs elsewhere; relative paths are below `base`."""
    return str((base / Path(source).expanduser()).resolve()) if is_path(source) else source


def find(name: str, source: str | None = None) -> metadata.EntryPoint:
    """What is to be imported for the plugin `name`. A path is put in front of `sys.path`.

    Raises:
        PluginError: nothing is there, or it names no plugin.
    """
    if source is None:
        return _installed(name)
    if is_path(source):
        return _at(name, Path(source))
    found = metadata.entry_points(group=GROUP, name=source)
    if found:
        return next(iter(found))
    module = source.partition(":")[0]
    if not _is_there(module):
        raise PluginError(
            f'{source}: no plugin of this name is installed, and no module; a path has a "/" in it, such as ./{module}'
        )
    return metadata.EntryPoint(name=name, value=source, group=GROUP)


def _installed(name: str) -> metadata.EntryPoint:
    found = metadata.entry_points(group=GROUP, name=name)
    if found:
        return next(iter(found))
    known = sorted({entry.name for entry in metadata.entry_points(group=GROUP)})
    there = f"There are: {', '.join(known) or 'none'}"
    try:
        package = metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "install its package, pip install ./DIRECTORY."
        raise PluginError(f'no plugin "{name}" is installed (entry points {GROUP}); {hint} {there}') from None
    own = [entry.name for entry in package.entry_points if entry.group == GROUP]
    if own:
        raise PluginError(
            f'the package "{name}" is installed, and its plugins are called {", ".join(own)}; use that name'
        )
    near = difflib.get_close_matches(GROUP, {entry.group for entry in package.entry_points}, n=1)
    has = f"its entry points are in the group {near[0]}" if near else "it has no entry point for us"
    raise PluginError(
        f'the package "{name}" is installed and is no plugin: {has}. Its pyproject.toml needs {TABLE} with the line '
        f'{name} = "{name}"; then install it again. {there}'
    )


def _at(name: str, path: Path) -> metadata.EntryPoint:
    if path.suffix == ".py":
        if not path.is_file():
            raise PluginError(f"{path}: no such file")
        return _module(name, path.stem, path.parent)
    if not path.is_dir():
        raise PluginError(f"{path}: no such directory; expected a plugin's, with its pyproject.toml")
    if (path / "pyproject.toml").is_file():
        value = _chosen(name, _declared(path / "pyproject.toml"), path)
        inside = path / "src"
        _in_front(inside if inside.is_dir() else path)
        return metadata.EntryPoint(name=name, value=value, group=GROUP)
    installed = {
        entry.name: entry.value
        for package in metadata.distributions(path=[str(path)])
        for entry in package.entry_points
        if entry.group == GROUP
    }
    if installed:
        value = _chosen(name, installed, path)
        _in_front(path)
        return metadata.EntryPoint(name=name, value=value, group=GROUP)
    if (path / "__init__.py").is_file():
        return _module(name, path.name, path.parent)
    raise PluginError(
        f"{path}: no plugin is in it; expected a pyproject.toml with {TABLE}, an __init__.py, "
        "or what pip install --target wrote"
    )


def _declared(path: Path) -> dict[str, str]:
    try:
        project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PluginError(f"{path}: {error}") from error
    found = project.get("entry-points", {}).get(GROUP, {})
    if not found:
        near = difflib.get_close_matches(GROUP, project.get("entry-points", {}), n=1)
        hint = f"; it has the group {near[0]}" if near else ""
        raise PluginError(
            f'{path}: it names no plugin{hint}; expected {TABLE} with a line such as night_rule = "night_rule"'
        )
    return {str(key): str(value) for key, value in found.items()}


def _chosen(name: str, values: dict[str, str], path: Path) -> str:
    if name in values:
        return values[name]
    if len(values) == 1:
        return next(iter(values.values()))
    raise PluginError(f"{path}: it has the plugins {', '.join(sorted(values))}, and none is called {name}")


def _module(name: str, module: str, directory: Path) -> metadata.EntryPoint:
    if not module.isidentifier():
        raise PluginError(f"{directory / module}: {module} cannot be a module's name; rename it")
    _in_front(directory)
    return metadata.EntryPoint(name=name, value=module, group=GROUP)


def _in_front(directory: Path) -> None:
    sys.path.insert(0, str(directory))


def _is_there(module: str) -> bool:
    try:
        return util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False
