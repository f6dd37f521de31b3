"""What `ipss-headend plugin new` writes: a package with one hook and a test that passes."""

from __future__ import annotations

import re
from pathlib import Path

from ipss_headend.errors import ConfigError

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=70"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "0.1.0"
dependencies = ["ipss-headend"]

[project.entry-points."ipss_headend.plugins"]
{name} = "{name}"

[tool.setuptools]
packages = ["{name}"]
"""
_PLUGIN = '''\
"""Rules of our own: see docs/plugins.md of the head-end for all hooks."""

from ipss_headend.plugins import Context, Refusal, hook


@hook
def control_disconnect_veto(ctx: Context, account: str, calendar: dict) -> Refusal | None:
    """Say whether this supply may be cut now."""
    if calendar.get("holiday"):
        return Refusal("no supply is cut on a holiday", "holiday")
    return None
'''
_TEST = """\
from {name} import control_disconnect_veto

from ipss_headend.plugins import Context

CONTEXT = Context("{name}", "control_disconnect_veto", 1, now_us=0, limit_s=1.0)


def test_no_supply_is_cut_on_a_holiday():
    refusal = control_disconnect_veto(CONTEXT, "a-1", {{"holiday": True}})

    assert refusal is not None
    assert refusal.code == "holiday"


def test_other_days_are_free():
    assert control_disconnect_veto(CONTEXT, "a-1", {{}}) is None
"""
_README = """\
# {name}

A plugin of the head-end ipss-headend.

    ipss-headend plugin selftest {name} --source ./     as it is here
    pip install ./
    ipss-headend plugin selftest {name}

Then name it in the configuration: `[plugins] enabled = ["{name}"]`.
"""


def write(name: str, directory: Path) -> list[Path]:
    """Write the package `name` into `directory`, and say which files.

    Raises:
        ConfigError: the name cannot be a package's, or is taken there.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name):
        raise ConfigError(f'"{name}" is no name for a plugin; use small letters, digits and _, such as night_rule')
    root = directory / name
    if root.exists():
        raise ConfigError(f"{root} is there already; choose another name or directory")
    files = {
        root / "pyproject.toml": _PYPROJECT,
        root / "README.md": _README,
        root / name / "__init__.py": _PLUGIN,
        root / "tests" / f"test_{name}.py": _TEST,
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if path.suffix == ".py" and path.parent.name == name else text.format(name=name))
    return list(files)
