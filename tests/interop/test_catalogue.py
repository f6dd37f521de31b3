"""The catalogue of logical names, held against gurux-dlms' list of standard objects."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.interop.environments import ROOT, make

CATALOGUE = ROOT / "protocols" / "dlms" / "data" / "objects.tsv"
# What gurux-dlms calls these quantities; the words of ours stand in the catalogue.
DIRECTIONS = {
    "import": ("power+", "(QI+QII)", "(QI+QIV)"),
    "export": ("power-", "(QIII+QIV)", "(QII+QIII)"),
    "quadrant I": (" QI ",),
    "quadrant II": (" QII ",),
    "quadrant III": (" QIII ",),
    "quadrant IV": (" QIV ",),
    "total": ("abs(QI+QIV)+abs(QII+QIII)", "(abs(QI+QIV)+(abs(QII+QIII))"),
    # Of single phases its list has a misprint in the second pair of quadrants.
    "net": ("abs(QI+QIV)-abs(QII+QIII)", "(abs(QI+QIV)-(abs(QII+QIII))", "(abs(QI+QIV)-abs(QI+QIII))"),
}
# It has no words for these, or lists them with another class.
UNKNOWN_TO_GURUX = {
    "0.0.2.0.0.255": "class 27 in its list; the modem of a PSTN or GSM line",
    "0.0.24.0.0.255": "class 24, twisted pair",
    "0.0.25.5.0.255": "class 46, SMTP setup, which it does not have",
    "0.0.44.1.0.255": "class 123, function control, newer than its list",
    "0.0.96.10.0.255": "its list begins at 1",
    "0.0.96.12.0.255": "its list begins at 1",
    "1.0.92.32.0.255": "sags of the neutral",
    "1.0.99.10.0.255": "power quality logs",
}
OTHER_MEDIA = ("6.", "8.", "9.")


@dataclass(frozen=True)
class Entry:
    logical_name: str
    class_id: str
    direction: str
    name: str


def entries() -> Iterator[Entry]:
    for line in CATALOGUE.read_text().splitlines():
        if line.startswith("#"):
            continue
        name, class_id, _, direction, _, text = line.split("\t")
        groups = ["0" if group == "*" else group.partition("-")[0] for group in name.split(".")]
        yield Entry(".".join(groups), class_id, direction, text)


@pytest.fixture(scope="module")
def described() -> list[tuple[Entry, str]]:
    asked = list(entries())
    ran = subprocess.run(
        [str(make("gurux")), "-W", "ignore", "-m", "tests.interop.obis_peer"],
        input="".join(f"{entry.logical_name} {entry.class_id}\n" for entry in asked),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=True,
    )
    return list(zip(asked, ran.stdout.splitlines(), strict=True))


def test_gurux_knows_our_names_but_for_those_that_are_explained(described: list[tuple[Entry, str]]) -> None:
    unknown = {
        entry.logical_name
        for entry, text in described
        if text in ("Invalid", "class unknown") and not entry.logical_name.startswith(OTHER_MEDIA)
    }

    assert unknown == set(UNKNOWN_TO_GURUX)


def test_gurux_says_the_same_direction(described: list[tuple[Entry, str]]) -> None:
    directed = [(entry, text) for entry, text in described if entry.direction != "-"]

    assert len(directed) > 200
    wrong = [
        (entry.logical_name, entry.direction, text)
        for entry, text in directed
        if not any(word in text for word in DIRECTIONS[entry.direction])
    ]
    assert wrong == []


def test_gurux_says_the_same_phase(described: list[tuple[Entry, str]]) -> None:
    phases = [
        (entry, text, phase) for entry, text in described for phase in ("L1", "L2", "L3") if f", {phase}" in entry.name
    ]

    assert len(phases) > 100
    assert [(entry.logical_name, text) for entry, text, phase in phases if phase not in text] == []
