"""`network import`, `show`, `export` and `meters place`, as people type them."""

import json
from pathlib import Path

import pytest
from tests.unit.cli.support import FLEET, Run

from ipss_headend.errors import BAD_INPUT, PARTLY_DONE, RequestError

FILE = "name,kind,parent\nT1,transformer,F1\nT2,transformer,F1\nF1,feeder,S1\nS1,substation,\n"


@pytest.fixture
def ready(run: Run, head_end: Path, tmp_path: Path) -> Path:
    """A head-end with two meters and a network of four nodes."""
    fleet, network = tmp_path / "fleet.csv", tmp_path / "network.csv"
    fleet.write_text(FLEET)
    network.write_text(FILE)
    assert run("network", "import", network, "--config", head_end).out == "4 nodes taken, 0 mistakes; version 1\n"
    assert run("meters", "import", fleet, "--config", head_end).status == 0
    return head_end


def test_meters_stand_in_a_network(run: Run, ready: Path, tmp_path: Path) -> None:
    placed = run("meters", "place", "oak street 1", "T1", "--phases", "A", "--config", ready)
    assert placed.out == "1 meters placed, 0 lines refused\n"
    many = tmp_path / "places.csv"
    many.write_text("name,node,phases\noak street 2,T2,ABC\noak street 3,T2,\n")
    some = run("meters", "place", "--file", many, "--config", ready)
    assert some.status == PARTLY_DONE
    assert 'places.csv: line 3: no meter is called "oak street 3"' in some.err

    shown = json.loads(run("meters", "show", "oak street 1", "--json", "--config", ready).out)
    assert (shown["node"], shown["phases"], shown["path"]) == ("T1", "A", ["T1", "F1", "S1"])
    assert "path\tT1 < F1 < S1" in run("meters", "show", "oak street 1", "--config", ready).out
    head, first, _ = run("meters", "list", "--config", ready).out.splitlines()
    assert (head.split("\t")[-2:], first.split("\t")[-2:]) == (["node", "phases"], ["T1", "A"])
    listed = json.loads(run("meters", "list", "--json", "--config", ready).out)["meters"]
    assert [(one["node"], one["phases"]) for one in listed] == [("T1", "A"), ("T2", "ABC")]
    exported = tmp_path / "out.csv"
    run("meters", "export", exported, "--config", ready)
    assert exported.read_text().splitlines()[2].endswith(",T2,ABC")
    keys = tmp_path / "keys.csv"
    run("meters", "export", keys, "--with-keys", "--yes", "--config", ready)
    assert keys.read_text().splitlines()[1].endswith(",T1,A")


def test_network_is_shown_and_exported(run: Run, ready: Path, tmp_path: Path) -> None:
    run("meters", "place", "oak street 1", "T1", "--config", ready)

    lines = run("network", "show", "--meters", "--config", ready).out.splitlines()
    below = json.loads(run("network", "show", "F1", "--json", "--depth", "1", "--config", ready).out)
    file = tmp_path / "again.csv"
    run("network", "export", file, "--config", ready)

    assert lines == [
        "S1  substation, 1 meters",
        "  F1  feeder, 1 meters",
        "    T1  transformer, 1 meters",
        "      oak street 1",
        "    T2  transformer, 0 meters",
    ]
    assert below["path"] == ["S1"]
    assert [one["name"] for one in below["nodes"][0]["below"]] == ["T1", "T2"]
    assert file.read_text() == "name,kind,parent\nS1,substation,\nF1,feeder,S1\nT1,transformer,F1\nT2,transformer,F1\n"
    assert run("network", "export", "--config", ready).out == file.read_text()
    assert run("network", "show", "F2", "--config", ready).status == RequestError.exit_status


def test_mistakes_keep_what_they_should(run: Run, ready: Path, tmp_path: Path) -> None:
    file = tmp_path / "bad.csv"
    file.write_text("name,kind,parent\nF2,feeder,S11\nF3,feeder,S1\n")

    some = run("network", "import", file, "--json", "--config", ready)
    strict = run("network", "import", file, "--strict", "--config", ready)
    whole = run("network", "import", file, "--replace", "--config", ready)

    assert some.status == PARTLY_DONE
    assert json.loads(some.out)["taken"] == 1
    assert some.err.startswith('bad.csv: line 2: parent: "S11" is not in the network; did you mean S1?')
    assert (strict.status, whole.status) == (BAD_INPUT, BAD_INPUT)
    assert run("meters", "place", "--config", ready).status == RequestError.exit_status
    assert run("meters", "place", "oak street 1", "T9", "--config", ready).status == BAD_INPUT
