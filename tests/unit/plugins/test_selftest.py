"""The contract kit passes the plugins that we ship, and finds what breaks the contract."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from tests.unit.plugins.installed import installed

from ipss_headend.errors import PluginError
from ipss_headend.plugins.selftest import CASES, selftest

BAD = """
import itertools
from ipss_headend.plugins import hook

counter = itertools.count()

@hook
def billing_sales_dimension(account):
    return {"call": str(next(counter))}

@hook
def control_authorize(actor, targets):
    return targets[0] if False else (None if targets else 1 / 0)
"""


@pytest.mark.parametrize("name", ["billing.validate", "billing.sales", "dispatch.classify"])
def test_shipped_plugins_keep_the_contract(name: str, tmp_path: Path) -> None:
    with installed(tmp_path, shipped=f"from ipss_headend.plugins.{name} import *"):
        findings = trio.run(lambda: selftest("shipped", patience=50))

    assert len(findings) >= len(CASES)
    assert [finding for finding in findings if not finding.well] == []


def test_what_breaks_the_contract_is_found(tmp_path: Path) -> None:
    with installed(tmp_path, bad=BAD):
        findings = trio.run(lambda: selftest("bad", patience=50))

    faults = {(one.hook, one.case): one.fault for one in findings if one.fault}
    assert faults["billing_sales_dimension", "odd"] == "the same input had different answers"
    assert "ZeroDivisionError" in faults["control_authorize", "empty"]
    assert ("control_authorize", "ordinary") not in faults


def test_a_plugin_that_is_not_there_is_an_error() -> None:
    with pytest.raises(PluginError, match='no plugin "nobody" is installed'):
        trio.run(lambda: selftest("nobody"))
