"""Incidents take signals in, grow and take one another in, in both databases."""

from ipss_headend.store import Database, incidents
from ipss_headend.store.incidents import MOST_SIGNALS, Area, Filed, Signal

FEEDER, T1, T2, T3 = Area("feeder", "F1"), *(Area("transformer", name) for name in ("T1", "T2", "T3"))
QUIET = 1000


def take(database: Database, meter: str, at_us: int, *areas: Area, opens: bool = True) -> None:
    with database.writing() as connection:
        incidents.take(connection, [Filed(Signal(meter, "meter-gone", at_us, ""), opens, areas)], QUIET)


def told(database: Database) -> list[tuple[int, Area, bool, int | None, list[str]]]:
    with database.reading() as connection:
        return [
            (
                one.incident_id,
                Area(one.area_kind, one.area),
                one.closed,
                one.part_of,
                [each.meter for each in one.signals],
            )
            for one in incidents.page(connection, 0, 100, open_only=False)
        ]


def test_signal_joins_the_nearest_incident_and_opens_one_where_there_is_none(database: Database) -> None:
    take(database, "a", 0, T1, FEEDER, opens=False)
    take(database, "b", 0, T1, FEEDER)
    take(database, "c", QUIET, T1, FEEDER)
    take(database, "d", 3 * QUIET, T1, FEEDER)
    take(database, "e", 0, T2, FEEDER, opens=False)

    assert told(database) == [(1, T1, False, None, ["b", "c"]), (2, T1, False, None, ["d"])]


def test_incidents_become_one_and_signals_join_it(database: Database) -> None:
    for meter, area in (("a", T1), ("b", T2), ("c", T3)):
        take(database, meter, 0, area, FEEDER)
    with database.writing() as connection:
        incidents.unite(connection, FEEDER, [2, 3])
        incidents.unite(connection, FEEDER, [1, 2])
        incidents.unite(connection, FEEDER, [7])
    take(database, "d", 10, T2, FEEDER)

    assert told(database) == [
        (1, FEEDER, False, None, ["a", "b", "c", "d"]),
        (2, FEEDER, True, 1, ["b", "c"]),
        (3, T3, True, 1, ["c"]),
    ]


def test_signals_that_are_kept_are_bounded_when_incidents_become_one(database: Database) -> None:
    with database.writing() as connection:
        for area in (T1, T2):
            signals = [Signal(f"{area.name}-{n}", "meter-gone", n, "") for n in range(MOST_SIGNALS - 1)]
            incidents.take(connection, [Filed(one, opens=True, areas=(area, FEEDER)) for one in signals], 10**9)
        incidents.unite(connection, FEEDER, [1, 2])
        [one] = incidents.open_below(connection)

    assert (len(one.signals), one.dropped) == (MOST_SIGNALS, MOST_SIGNALS - 2)
