"""What is pinned of a meter comes from the registry, and from the companion profile of its model."""

from typing import Any

import pytest
from tests.unit.field.fakes import meter

from ipss_headend import _core
from ipss_headend.config import ReactorConfig
from ipss_headend.field.connect import Connector, Knowledge

NOTHING = Knowledge({}, {})
OWN = """
inherits = "dsmr4"
about = "a utility's own meters"
source = "the utility"

[quirks]
with_list_limit = 4
max_pdu = 512
"""


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What profiles were made of."""
    made: list[dict[str, Any]] = []
    profile = _core.Profile

    def keep(**settings: Any) -> _core.Profile:
        made.append(settings)
        return profile(**settings)

    monkeypatch.setattr(_core, "Profile", keep)
    return made


def test_quirks_of_the_models_companion_profile_reach_its_sessions(pinned: list[dict[str, Any]]) -> None:
    _core.add_profile("utility-own", OWN)
    connector = Connector(ReactorConfig(), b"HEADEND1")

    for number, model in enumerate(("utility-own", "utility-own", "dsmr4", "no such profile", "")):
        connector.meter(meter(number, model=model), "127.0.0.1:4059", NOTHING)

    inherited = {"column_selection": False, "deviation_in_ranges": "set", "plain_alarms": True}
    assert [dict(settings["quirks"]) for settings in pinned] == [
        {**inherited, "with_list_limit": 4, "max_pdu": 512},
        inherited,
        {},
    ], "meters of one model share a profile, and those without one share the plain one"
