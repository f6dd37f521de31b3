"""Cursors, effects and flags."""

from ipss_headend.store import Database, plugins
from ipss_headend.store.plugins import FlagRow


def test_an_effect_is_kept_once_for_each_key_and_plugin(database: Database) -> None:
    with database.writing() as connection:
        assert plugins.advance(connection, "sms", 3, [("k1", "sent", {"n": 1})]) == 1
        assert plugins.advance(connection, "sms", 2, [("k1", "sent", {"n": 2}), ("k2", "sent", 5)]) == 1
        assert plugins.advance(connection, "other", 1, [("k1", "sent", None)]) == 1

    with database.reading() as connection:
        assert plugins.cursor(connection, "sms") == 3, "it never goes back"
        assert list(plugins.effects(connection, "sms")) == [("k1", "sent", {"n": 1}), ("k2", "sent", 5)]
        assert plugins.cursor(connection, "nobody") is None


def test_what_is_kept_is_the_newest_and_no_effect(database: Database) -> None:
    with database.writing() as connection:
        rows = [("B/1", "kept", [1]), ("a", "kept", {"n": 1}), ("B/1", "kept", [2]), ("k1", "sent", 1)]
        assert plugins.keep(connection, "sales", rows) == 1
        plugins.keep(connection, "sales", [("a", "kept", {"n": 2}), ("c", "kept", 3), ("other", "kept", None)])
        plugins.keep(connection, "sales", [("c", "kept", None)])
        plugins.keep(connection, "sale", [("a", "kept", "another plugin's")])

    with database.reading() as connection:
        assert plugins.kept(connection, "sales") == {"B/1": [2], "a": {"n": 2}}
        assert list(plugins.effects(connection, "sales")) == [("k1", "sent", 1)]
        first = plugins.kept(connection, "sales", limit=1)
        behind = plugins.kept(connection, "sales", next(reversed(first)))
        assert {**first, **behind} == {"B/1": [2], "a": {"n": 2}}
        assert len(first) == len(behind) == 1


def test_flags_are_added_and_never_taken_away(database: Database) -> None:
    with database.writing() as connection:
        plugins.flag(connection, [FlagRow(1, 2, 0, 100, 4), FlagRow(1, 2, 0, 200, 1)])
        plugins.flag(connection, [FlagRow(1, 2, 0, 100, 2), FlagRow(1, 2, 0, 200, 0)])

    with database.reading() as connection:
        assert plugins.flags(connection, 1, 0, 150) == [FlagRow(1, 2, 0, 100, 6)]
        assert plugins.flags(connection, 1, 0, 999)[1].flags == 1
