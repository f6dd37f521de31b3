"""A setting is not finished until it is documented."""

import re
import tomllib
from pathlib import Path

from ipss_headend.config import load, parse
from ipss_headend.errors import ConfigError

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "configuration.md").read_text()
WHOLE = ROOT / "tests" / "unit" / "config" / "whole.good.toml"


def _documented() -> dict[str, dict[str, str]]:
    """Each section's settings and their defaults as written; the top level is the section without a name."""
    sections: dict[str, dict[str, str]] = {}
    name = ""
    for line in DOCUMENT.splitlines():
        heading = re.match(r"## `\[+(\w+)\]+`", line)
        name = heading[1] if heading else name
        row = re.match(r"\| `(\w+)` \| ([^|]*) \|", line)
        if row:
            sections.setdefault(name, {})[row[1]] = row[2].strip()
    return sections


def _known(section: str) -> set[str]:
    """The settings that the program knows, from what it says of one that it does not know."""
    body = {"": "qqqqqqqq = 1\n"}.get(section, "")
    for table in ("keystore", section) if section not in {"", "keystore"} else ("keystore",):
        opened = f"[[{table}]]" if table in {"listeners", "plans", "principals"} else f"[{table}]"
        body += f"{opened}\n" + ("qqqqqqqq = 1\n" if table == section else "")
    try:
        parse(body, Path("x.toml"))
    except ConfigError as error:
        hints = [mistake for mistake in error.mistakes if "qqqqqqqq: unknown" in mistake]
        return set(hints[0].partition("known here: ")[2].split(", "))
    raise AssertionError("an unknown setting was taken")


def test_every_setting_is_documented_and_every_documented_one_exists() -> None:
    documented = _documented()

    tables = {"database", "keystore", "reactor", "listeners", "plans", "metrics", "modbus", "rpc", "log"}
    tables |= {"control", "principals", "audit", "plugins", "rollout", "retention"}
    assert set(documented) == tables | {""}
    for section, settings in documented.items():
        assert set(settings) == _known(section) - tables, section


def test_documented_defaults_are_the_defaults() -> None:
    text = '[keystore]\nkey_file = "k"\n'
    sections = [
        *("database", "reactor", "listeners", "control", "rollout", "audit", "retention", "metrics", "modbus", "rpc"),
        *("plugins", "log"),
    ]
    for section in sections:
        opened = f"[[{section}]]" if section == "listeners" else f"[{section}]"
        text += f"{opened}\n" + "".join(f"{key} = {value}\n" for key, value in _documented()[section].items()).replace(
            "`", ""
        )
    top = "".join(f"{key} = {value}\n" for key, value in _documented()[""].items()).replace("`", "")

    written = parse(top + text, Path("/x/head_end.toml"))

    assert written == parse('[keystore]\nkey_file = "k"\n[[listeners]]\n', Path("/x/head_end.toml"))


def test_whole_example_sets_every_setting() -> None:
    document = tomllib.loads(WHOLE.read_text())

    load(WHOLE)
    for section, settings in _documented().items():
        found = document if not section else document[section]
        tables = found if isinstance(found, list) else [found]
        missing = set(settings) - {key for table in tables for key in table}
        assert missing <= {
            "password_file",
            "key_file",
            "passphrase_file",
            "pkcs11_module",
            "token",
            "pin_file",
            "label",
        }, section
