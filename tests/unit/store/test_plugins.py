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


def test_flags_are_added_and_never_taken_away(database: Database) -> None:
    with database.writing() as connection:
        plugins.flag(connection, [FlagRow(1, 2, 0, 100, 4), FlagRow(1, 2, 0, 200, 1)])
        plugins.flag(connection, [FlagRow(1, 2, 0, 100, 2), FlagRow(1, 2, 0, 200, 0)])

    with database.reading() as connection:
        assert plugins.flags(connection, 1, 0, 150) == [FlagRow(1, 2, 0, 100, 6)]
        assert plugins.flags(connection, 1, 0, 999)[1].flags == 1
