"""R14: the table of states, every row and every illegal step."""

import itertools

import pytest

from ipss_headend.field.control.machine import (
    BEFORE_SENT,
    FINAL,
    ON_WIRE,
    TABLE,
    IllegalStep,
    State,
    Step,
    sources,
    step,
)


def test_r14_every_step_is_in_the_table_or_is_an_error() -> None:
    for state, taken in itertools.product(State, Step):
        if (state, taken) in TABLE:
            assert step(state, taken) == TABLE[state, taken]
        else:
            with pytest.raises(IllegalStep, match=f"a command that is {state} does not {taken}"):
                step(state, taken)


def test_r14_nothing_leads_back_from_the_wire_and_nothing_out_of_an_end() -> None:
    for (state, _), after in TABLE.items():
        assert state not in FINAL
        if state in ON_WIRE:
            assert after in FINAL | ON_WIRE
        if after is State.SENT:
            assert state is State.RELEASED
        if after is State.RELEASED:
            assert state is State.APPROVED


def test_r14_every_state_has_a_way_to_an_end() -> None:
    ends = set(FINAL)
    while more := {state for (state, _), after in TABLE.items() if after in ends} - ends:
        ends |= more

    assert ends == set(State)
    assert set(sources(Step.EXPIRE)) == BEFORE_SENT
    assert {TABLE[state, taken] for state, taken in TABLE if taken is Step.FAIL} == {State.FAILED}
