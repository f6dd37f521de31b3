"""docs/plugins.md says what the code says."""

import inspect
import re
from pathlib import Path

import ipss_headend
import ipss_headend.plugins as public
from ipss_headend.plugins import document
from ipss_headend.plugins.specs import HOOKS

DOCUMENT = Path(__file__).parents[3] / "docs" / "plugins.md"
SOURCES = Path(ipss_headend.__file__).parent


def test_hook_table_is_that_of_the_code() -> None:
    text = DOCUMENT.read_text()

    assert document.renewed(text) == text, "run python -m ipss_headend.plugins.document docs/plugins.md"


def test_every_hook_says_what_it_is_and_when_it_is_asked() -> None:
    for hook in HOOKS.values():
        assert hook.summary, hook.name
        assert hook.when, hook.name
        assert hook.limit_s > 0, hook.name
        assert f"`{hook.name}`" in DOCUMENT.read_text(), hook.name


def test_every_hook_is_asked_somewhere() -> None:
    asked = "".join(
        path.read_text()
        for path in SOURCES.rglob("*.py")
        if path.name not in {"specs.py", "selftest.py", "scaffold.py"}
        and path.parent.name not in {"billing", "dispatch"}
    )

    unasked = [name for name in HOOKS if not re.search(rf"[\"']{name}[\"']", asked)]

    assert unasked == []


def test_everything_that_plugins_may_use_is_described() -> None:
    for name in public.__all__:
        assert inspect.getdoc(getattr(public, name)), name
