"""docs/plugins.md says what the code says."""

from pathlib import Path

from ipss_headend.plugins import document

DOCUMENT = Path(__file__).parents[3] / "docs" / "plugins.md"


def test_hook_table_is_that_of_the_code() -> None:
    text = DOCUMENT.read_text()

    assert document.renewed(text) == text, "run python -m ipss_headend.plugins.document docs/plugins.md"
