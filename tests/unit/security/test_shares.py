"""The master key in custodians' shares: any two of three restore it, and every wrong share is named."""

import itertools
import os
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipss_headend.errors import SECURITY, ConfigError, WrongShares
from ipss_headend.security import shares
from ipss_headend.security.shares import Share

PEOPLE = ("Anna", "Ben", "Cleo")


def named(some: list[Share]) -> list[tuple[str, Share]]:
    return [(f"{share.custodian}.txt", share) for share in some]


@settings(max_examples=30)
@given(st.binary(min_size=32, max_size=32), st.integers(2, 5), st.integers(0, 3))
def test_r25_any_shares_that_are_enough_restore_the_key(key: bytes, need: int, more: int) -> None:
    made = shares.split(key, need, need + more)

    for some in itertools.combinations(made, need):
        assert shares.combine([("f", share) for share in some]) == key


@settings(max_examples=30)
@given(st.binary(min_size=32, max_size=32))
def test_r25_one_share_is_not_enough(key: bytes) -> None:
    for share in shares.split(key, 2, 3, PEOPLE):
        with pytest.raises(WrongShares, match="1 of 2 shares needed are here; bring 1 more") as caught:
            shares.combine(named([share]))
        assert caught.value.exit_status == SECURITY
        assert share.secret != key


def test_a_share_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    for share in shares.split(os.urandom(32), 2, 3, PEOPLE):
        path = shares.save(share, tmp_path)

        assert path.stat().st_mode & 0o777 == 0o600
        assert shares.load(path) == share
        with pytest.raises(ConfigError, match="File exists"):
            shares.save(share, tmp_path)


def test_a_share_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = shares.save(shares.split(os.urandom(32), 2, 3)[0], tmp_path)
    path.chmod(0o640)

    with pytest.raises(ConfigError, match=r"has mode 0640, so others may read it; run `chmod 600"):
        shares.load(path)


def test_every_mistyped_digit_is_noticed() -> None:
    text = shares.split(os.urandom(32), 2, 3, PEOPLE)[0].text()

    for place, character in enumerate(text.rstrip()):
        if character in "0123456789ABCDEF":
            mistyped = text[:place] + ("0" if character != "0" else "1") + text[place + 1 :]
            with pytest.raises(WrongShares, match=r"f\.txt: "):
                Share.parse(mistyped, "f.txt")


@pytest.mark.parametrize("text", ["", "x", "ipss-headend share of a master key, form 1\n"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(WrongShares, match=r"f\.txt: is no share"):
        Share.parse(text, "f.txt")


def test_the_same_share_twice_is_named() -> None:
    share = shares.split(os.urandom(32), 2, 3)[1]

    with pytest.raises(WrongShares, match=r"b\.txt: is share 2 once more, as a\.txt"):
        shares.combine([("a.txt", share), ("b.txt", share)])


def test_shares_of_two_sets_are_named() -> None:
    key = os.urandom(32)
    ours, others = shares.split(key, 2, 3, PEOPLE), shares.split(key, 2, 3, PEOPLE)

    with pytest.raises(WrongShares, match=r"Ben\.txt: is of set [0-9A-F]{8}, Anna\.txt of set [0-9A-F]{8}"):
        shares.combine(named([ours[0], others[1]]))


def test_an_altered_share_with_a_right_checksum_makes_no_key() -> None:
    first, second, third = shares.split(os.urandom(32), 2, 3, PEOPLE)
    altered = replace(second, secret=bytes(32))

    with pytest.raises(WrongShares, match=r"Anna\.txt, Ben\.txt: what they make is not the key"):
        shares.combine(named([first, altered]))
    with pytest.raises(WrongShares, match=r"Ben\.txt: was altered; the others make the key without it"):
        shares.combine(named([first, third, altered]))


@pytest.mark.parametrize(("need", "of"), [(1, 3), (4, 3), (2, 17), (0, 0)])
def test_shares_that_cannot_be_are_refused(need: int, of: int) -> None:
    with pytest.raises(ConfigError, match=f"{need} of {of} cannot be"):
        shares.split(os.urandom(32), need, of)


def test_one_custodian_does_not_get_two_shares() -> None:
    with pytest.raises(ConfigError, match="3 different custodians"):
        shares.split(os.urandom(32), 2, 3, ("Anna", "anna", "Ben"))


def test_shares_show_themselves_to_nobody() -> None:
    key = os.urandom(32)
    made = shares.split(key, 2, 3, PEOPLE)

    assert repr(made) == "[Share(1 of 3), Share(2 of 3), Share(3 of 3)]"
    assert re.fullmatch(r"[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{4}", made[0].check_value)
    for share in made:
        assert key.hex() not in share.text().lower().replace(" ", "")
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(share)
