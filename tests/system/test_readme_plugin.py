"""The README's way to a plugin, as an outsider types it."""

from pathlib import Path

from tests.system.test_plugin_tutorial import run
from tests.system.test_readme import block


def test_readme_leads_to_a_plugin_that_is_installed_and_well(tmp_path: Path) -> None:
    # The kit measures: on a busy machine a plugin may take longer than a hook's milliseconds.
    said = run(block("Add a rule of your own").replace("selftest ", "selftest --patience 50 "), tmp_path)

    assert "night_rule: 4 of 4 well" in said
    assert "night_rule  night_rule  night_rule 0.1.0" in said
