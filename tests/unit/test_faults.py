"""The catalogue of faults names tests that exist, and every row has one or says why not."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CATALOGUE = (ROOT / "tests" / "FAULTS.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`([\w./-]+\.(?:py|rs))::(\w+)`")


def rows() -> list[list[str]]:
    """The cells of each fault's row."""
    table = [line for line in CATALOGUE.splitlines() if line.startswith("| ") and not line.startswith("| fault |")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def test_every_test_that_the_catalogue_names_exists() -> None:
    named = NAMED.findall(CATALOGUE)

    missing = []
    for path, test in named:
        file = ROOT / path if path.endswith(".rs") else ROOT / "tests" / path
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        word = "fn" if path.endswith(".rs") else "def"
        if not re.search(rf"\b{word} {test}\b", text):
            missing.append(f"{path}::{test}")

    assert len(named) > 80
    assert missing == []


def test_every_fault_has_a_test_or_says_why_not() -> None:
    found = rows()

    bare = [row[0] for row in found if not NAMED.search(row[-1]) and "*not shown yet*" not in " ".join(row)]

    assert len(found) >= 40
    assert bare == []
