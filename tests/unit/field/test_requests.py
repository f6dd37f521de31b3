from array import array
from typing import NoReturn

import pytest
import trio
from tests.unit.field.fakes import FakeNative, FakeReactor
from trio.testing import MockClock

from ipss_headend import errors
from ipss_headend.field.questions import Attributes, Set
from ipss_headend.field.reactor import AnswerRow, Outcome
from ipss_headend.field.requests import LARGEST_SUBMISSION, Answer, Requests

ENERGY = Attributes(0, ((3, b"\x01\x00\x01\x08\x00\xff", 2),))


def test_rows_go_to_the_submission_of_their_request(reactor: FakeReactor) -> None:
    requests = Requests(reactor, FakeNative())
    heard: dict[str, list[int]] = {"a": [], "b": []}
    ended: list[int] = []
    first = requests.submit(
        [ENERGY], array("I", [5, 6]), timeout_s=1, on_answer=lambda answer: heard["a"].append(answer[0])
    )
    second = requests.submit(
        [ENERGY],
        array("I", [7]),
        timeout_s=1,
        on_answer=lambda answer: heard["b"].append(answer[0]),
        on_end=lambda end: ended.append(end[1]),
    )

    requests.route([(7, 3, 0, None, 0, 0, [])], [], [])
    requests.route([(6, 2, 0, None, 0, 0, [])], [], [(3, 7, 0, 1, 5, ""), (2, 6, 0, 1, 5, "")])

    assert heard == {"a": [6], "b": [7]}
    assert ended == [7]
    assert second.over.is_set()
    assert not first.over.is_set()
    assert first.pending == 1
    assert len(requests) == 1


def test_r32_a_callback_that_fails_keeps_no_other_from_its_answer(reactor: FakeReactor) -> None:
    requests = Requests(reactor, FakeNative())
    heard: list[int] = []

    def fails(*_: object) -> NoReturn:
        raise OverflowError("out of range integral type conversion attempted")

    odd = requests.submit(
        [ENERGY], array("I", [5]), timeout_s=1, on_answer=fails, on_refusal=fails, on_end=fails, marks=fails
    )
    requests.submit([ENERGY], array("I", [6]), timeout_s=1, on_answer=lambda answer: heard.append(answer[0]))

    assert requests.marks([(1, 5, 0, 1, 5, "")]) == []
    answers: list[AnswerRow] = [(5, 1, 0, None, 0, 0, []), (6, 2, 0, None, 0, 0, [])]
    requests.route(answers, [(5, 1, 0, 4)], [(1, 5, 0, 1, 5, "")])

    assert heard == [6]
    assert odd.over.is_set()


def test_rows_that_nobody_waits_for_are_passed_over(reactor: FakeReactor) -> None:
    requests = Requests(reactor, FakeNative())
    submission = requests.submit([ENERGY], array("I", [5]), timeout_s=1)
    requests.withdraw(submission)

    requests.route([(5, 1, 0, None, 0, 0, []), (5, 0, 0, None, 0, 0, [])], [(5, 1, 0, 4)], [(1, 5, 6, 0, 0, "")])

    assert len(requests) == 0


def test_marks_are_made_of_the_ends_before_they_are_told(reactor: FakeReactor) -> None:
    requests = Requests(reactor, FakeNative())
    requests.submit(
        [ENERGY], array("I", [5, 6]), timeout_s=1, marks=lambda meter, outcome: [(meter, 1, 0, int(outcome) + 1)]
    )

    assert requests.marks([(2, 6, 1, 0, 0, ""), (9, 6, 0, 0, 0, "")]) == [(6, 1, 0, 2)]


def ask(reactor: FakeReactor, *, outcome: int, detail: str = "") -> Answer:
    requests = Requests(reactor, FakeNative())
    answers: list[Answer] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def asking() -> None:
                answers.append(await requests.ask([ENERGY, ENERGY], 5, timeout_s=1, name="meter-5"))

            nursery.start_soon(asking)
            await trio.testing.wait_all_tasks_blocked()
            line = (5, 1, 0, None, 0, 0, [b"\x06\x00\x00\x00\x07"])
            requests.route([line], [(5, 1, 1, 4)], [(1, 5, outcome, 2, 1500, detail)])  # type: ignore[list-item]

    try:
        trio.run(main)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    return answers[0]


def test_ask_returns_lines_and_the_meters_own_no(reactor: FakeReactor) -> None:
    answer = ask(reactor, outcome=Outcome.REFUSED)

    assert answer.line(0) == (5, 1, 0, None, 0, 0, [b"\x06\x00\x00\x00\x07"])
    assert answer.line(1) is None
    assert answer.refusals == {1: 4}
    assert (answer.exchanges, answer.duration_us) == (2, 1500)
    assert reactor.asked[0].options["priority"] == "on-demand"


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (Outcome.TIMED_OUT, errors.MeterTimeout),
        (Outcome.UNREACHABLE, errors.MeterGone),
        (Outcome.VIOLATION, errors.ProtocolViolation),
        (Outcome.AUTHENTICATION_FAILED, errors.AuthenticationFailed),
        (Outcome.OVERLOADED, errors.RequestError),
        (Outcome.UNKNOWN, errors.MeterGone),
    ],
)
def test_ask_raises_by_who_is_at_fault(reactor: FakeReactor, outcome: Outcome, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"^meter-5: {outcome.label}: why$"):
        ask(reactor, outcome=outcome, detail="why")


def test_cancelled_caller_withdraws_its_request(reactor: FakeReactor) -> None:
    requests = Requests(reactor, FakeNative())

    async def main() -> None:
        with trio.move_on_after(0.001):
            await requests.ask([ENERGY], 5, timeout_s=10)

    trio.run(main)

    assert reactor.cancelled == [(5, 1)]
    assert len(requests) == 0


def test_draining_withdraws_nothing_and_still_marks(reactor: FakeReactor) -> None:
    requests = Requests(reactor, FakeNative())

    async def main() -> None:
        submission = requests.submit([ENERGY], array("I", [5]), timeout_s=1, marks=lambda meter, _: [(meter, 1, 0, 9)])
        with trio.CancelScope() as scope:
            requests.drain()
            scope.cancel()
            await requests.finish([submission])

    trio.run(main)

    assert reactor.cancelled == []
    assert requests.marks([(1, 5, Outcome.DONE, 1, 5, "")]) == [(5, 1, 0, 9)]


def test_ask_ends_even_when_no_end_is_delivered(reactor: FakeReactor) -> None:
    requests = Requests(reactor, FakeNative())

    with pytest.raises(errors.MeterTimeout, match="no end within"):
        trio.run(lambda: requests.ask([ENERGY], 5, timeout_s=10), clock=MockClock(autojump_threshold=0))

    assert reactor.cancelled == [(5, 1)]


def test_offer_asks_in_parts_and_waits_while_the_reactor_is_full(reactor: FakeReactor) -> None:
    requests = Requests(reactor, FakeNative())
    reactor.full = 2
    meters = array("I", range(LARGEST_SUBMISSION + 5))

    submissions = trio.run(lambda: requests.offer([ENERGY], meters, timeout_s=1), clock=MockClock(autojump_threshold=0))

    assert [len(submission.meters) for submission in submissions] == [LARGEST_SUBMISSION, 5]


def test_same_questions_share_a_plan(reactor: FakeReactor) -> None:
    requests = Requests(reactor, FakeNative())
    for meter in (1, 2):
        requests.submit([Attributes(0, ((3, b"\x01\x00\x01\x08\x00\xff", 2),))], array("I", [meter]), timeout_s=1)

    assert reactor.asked[0].plan is reactor.asked[1].plan


def test_questions_that_differ_in_a_value_are_not_the_same() -> None:
    assert Set((3, b"a", 2), b"\x01") != Set((3, b"a", 2), b"\x02")
