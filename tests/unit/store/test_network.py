"""Where meters stand, in both databases."""

import io

import pytest

from ipss_headend.errors import BAD_INPUT, DONE, PARTLY_DONE, ConfigError
from ipss_headend.field.fleet import export_meters, import_meters, place_meters
from ipss_headend.field.network_file import NetworkReport, export_network, import_network
from ipss_headend.network import Place
from ipss_headend.security import Keystore
from ipss_headend.store import Database, network, registry

KEYSTORE = Keystore(bytes(range(7, 39)))
FILE = "name,kind,parent\nT1,transformer,F1\nF1,feeder,S1\nS1,substation,\nT2,transformer,F1\n"
METERS = "name,address,node,phases,group\nm1,10.0.0.1,T1,A,east\nm2,10.0.0.2,T1,ABCN,east\nm3,10.0.0.3,,,west\n"


def nodes(database: Database, text: str, *, replace: bool = False, strict: bool = False) -> NetworkReport:
    with database.writing() as connection:
        return import_network(connection, io.StringIO(text), "n.csv", replace=replace, strict=strict)


def meters(database: Database, text: str) -> tuple[str, ...]:
    with database.writing() as connection:
        return import_meters(connection, KEYSTORE, io.StringIO(text), "m.csv").mistakes


def test_network_and_places_come_back_as_they_were_written(database: Database) -> None:
    report = nodes(database, FILE)

    assert (report.taken, report.removed, report.mistakes, report.exit_status) == (4, 0, (), DONE)
    assert meters(database, METERS) == ()
    with database.reading() as connection:
        found = network.load(connection)
        assert found.version == network.version(connection) == 2
        assert network.places(connection) == {1: Place("T1", "A"), 2: Place("T1", "ABCN")}
    assert found.path_of("m2") == ["T1", "F1", "S1"]
    assert found.place("m3") == Place("", "")
    assert found.all_below["S1"] == 2
    written = io.StringIO()
    assert export_network(found, written) == 4
    assert written.getvalue().splitlines()[:3] == ["name,kind,parent", "S1,substation,", "F1,feeder,S1"]
    assert nodes(database, written.getvalue()).version == 2, "nothing of it is new"


def test_lines_are_taken_or_refused_in_words(database: Database) -> None:
    text = "name,kind,parent\nS,substation,\nF,feder,S\nG,feeder,X\nH,feeder\nA,section,B\nB,section,A\nS,substation,\n"

    report = nodes(database, text)

    assert (report.taken, report.exit_status) == (1, PARTLY_DONE)
    assert list(report.mistakes) == [
        'n.csv: line 3: kind: "feder" is unknown; did you mean feeder?',
        'n.csv: line 4: parent: "X" is not in the network; leave it empty for a node that nothing feeds',
        "n.csv: line 5: 2 columns; the first line names 3",
        'n.csv: line 6: parent: it hangs below itself: "A" below "B" below "A"',
        'n.csv: line 7: parent: it hangs below itself: "A" below "B" below "A"',
        'n.csv: line 8: "S" stands on line 2 too; a node has one line',
    ]
    assert nodes(database, "name,kind,parent\nQ,x,\n").exit_status == BAD_INPUT
    assert nodes(database, "name,kind,parent\nQ,feeder,\nR,x,\n", strict=True).taken == 0
    with pytest.raises(ConfigError, match=r'line 1: "knd" is unknown; did you mean kind\?'):
        nodes(database, "name,knd\n")


def test_whole_file_takes_the_place_of_the_network(database: Database) -> None:
    nodes(database, FILE)
    meters(database, METERS)

    refused = nodes(database, "name,kind,parent\nF1,feeder,\n", replace=True)
    unknown = nodes(database, "name,kind,parent\nT1,transformer,F1\n", replace=True)
    done = nodes(database, "name,kind,parent\nT1,transformer,F9\nF9,feeder,\n", replace=True)

    assert refused.mistakes == ('"T1" would go, but 2 meters stand there; `meters place` says where',)
    assert unknown.mistakes[0].startswith('n.csv: line 2: parent: "F1" is not in the network')
    assert (done.taken, done.removed, done.mistakes) == (2, 3, ())
    with database.reading() as connection:
        assert sorted(network.nodes(connection)) == ["F9", "T1"]


def test_meters_stand_at_nodes_that_are_there(database: Database) -> None:
    nodes(database, FILE)

    head, *rows = METERS.splitlines()
    text = "\n".join([head, rows[0].replace("T1", "T22"), rows[1].replace("ABCN", "L1"), "m4,10.0.0.4,,A,"])

    assert meters(database, text) == (
        'm.csv: line 2: node: "T22" is not in the network; did you mean T2?',
        'm.csv: line 3: phases: "L1" are no phases; write A, AB, ABC, each with N behind it if it is there',
        "m.csv: line 4: phases are given and no node; say the node, or leave both out",
    )


def test_meters_are_placed_elsewhere_and_go_with_their_place(database: Database) -> None:
    nodes(database, FILE)
    meters(database, METERS)
    rows: list[tuple[int, dict[str, str] | str]] = [
        (1, {"name": "m1", "node": "T2", "phases": "B"}),
        (2, {"name": "m2", "node": "", "phases": ""}),
        (3, {"name": "m9", "node": "T2", "phases": ""}),
        (4, {"name": "m3", "node": "T9", "phases": ""}),
        (5, {"name": "m1", "node": "T1", "phases": ""}),
        (6, "said before"),
    ]

    with database.writing() as connection:
        before = network.version(connection)
        report = place_meters(connection, rows, "places: ")
        assert network.version(connection) == before + 1
        assert place_meters(connection, rows, "places: ", strict=True).imported == 0
        assert network.version(connection) == before + 1

    assert report.imported == 2
    assert [one.partition(";")[0] for one in report.mistakes] == [
        'places: 3: no meter is called "m9"',
        'places: 4: node: "T9" is not in the network',
        'places: 5: "m1" is number 1 too',
        "said before",
    ]
    with database.writing() as connection:
        assert network.places(connection) == {1: Place("T2", "B")}
        text = io.StringIO()
        export_meters(connection, text)
        assert [line.split(",")[0::18] for line in text.getvalue().splitlines()][1][0] == "m1"
        assert text.getvalue().splitlines()[1].endswith(",T2,B")
        assert text.getvalue().splitlines()[2].endswith(",,")
        registry.remove_meter(connection, 1)
        assert network.places(connection) == {}
        assert network.load(connection).version == before + 2
