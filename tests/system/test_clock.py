"""R42: the host's wall clock jumps under a whole head-end, by an hour, by a year, or stands still."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.system.clock import WallClock
from tests.system.clock_me import TOKEN_S
from tests.system.fleet import fleet, head_end
from tests.system.people import Office, People
from tests.system.test_control import actions, name
from tests.system.test_rpc_users import PASSWORD, Site, users

from ipss_headend.client import AsyncClient, CallFailed
from ipss_headend.errors import RequestError
from ipss_headend.field.control.machine import State
from ipss_headend.schedule import SECOND_US

ROUNDS = int(os.environ.get("IPSS_CLOCK_ROUNDS", "1"))
"""How often the clock makes all of its jumps."""

HOUR_S = 3600.0
YEAR_S = 365 * 24 * HOUR_S
HOUR_US = 3600 * SECOND_US

LIFE_S = 3.0
"""How long the orders live whose time is over while the clock is wrong."""

DOUBT_S = 6.0
"""So long a clock has to stand until it shows; the gate allows for five seconds."""

WAIT_S = 60.0

PLAN = """
[[plans]]
name = "hourly"
objects = ["1.0.1.8.0.255"]
every = "1h"
"""

CONTROL = (
    '[control]\nread_back = "2s"\nreconnect_window = "1s"\n'
    "per_minute = 100000\nper_hour = 100000\nfleet_per_day_least = 100000\nreconnects_per_day_least = 1\n"
)

JUMPS: dict[str, float | None] = {
    "an hour on": HOUR_S,
    "an hour back": -HOUR_S,
    "a second twice": -1.0,
    "a year on": YEAR_S,
    "a year back": -YEAR_S,
    "it stands still": None,
}

WATCHED = 1
"""The meter whose readings are counted; the others are switched."""


class Host:
    """A machine with a head-end, its people, and a wall clock that anybody may set."""

    def __init__(self, clock: WallClock, office: Office, site: Site | None, context: Any) -> None:
        self.clock, self.office, self.site, self._context = clock, office, site, context
        self.fresh = itertools.count(WATCHED + 1)
        """Meters that nobody has switched yet."""
        self.hours: set[int] = set()
        """That the clock has shown."""

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        gives_up_s = time.monotonic() + WAIT_S
        while not await trio.to_thread.run_sync(condition):
            assert time.monotonic() < gives_up_s, f"not within {WAIT_S:g} s: {what}"
            await trio.sleep(0.05)

    async def ended(self, order_id: bytes, state: State) -> None:
        """Wait until an order's command came to this end; none comes to another."""
        await self.until(lambda: self.office.over(order_id), f"the end of a command that is to be {state}")
        assert self.office.states(order_id) == [state], self.office.commands(order_id)

    def shows(self) -> int:
        """The hour that the clock shows."""
        hour = self.clock.now_us() // HOUR_US
        self.hours.add(hour)
        return hour

    def captured(self) -> list[int]:
        """The hours of the watched meter's readings, each as often as it was read in it."""
        with self.office.open() as database, database.reading() as connection:
            found = connection.exec_driver_sql(
                f"SELECT capture_time_us FROM readings WHERE meter_id = {WATCHED} "
                "AND layout_id IN (SELECT layout_id FROM layouts WHERE class_id = 3)"
            )
            return [at_us // HOUR_US for at_us in found.scalars()]

    async def read_this_hour(self) -> None:
        """Wait until the plan's turn of the hour that the clock shows was taken."""
        await self.until(lambda: self.shows() in self.captured(), "the turn of this hour")

    @contextmanager
    def wrong(self, ahead_s: float | None) -> Iterator[None]:
        """The clock is so far off; None: it stands."""
        if ahead_s is None:
            self.clock.stop()
        else:
            self.clock.set(ahead_s)
        self.shows()
        try:
            yield
            self.shows()
        finally:
            self.clock.set()

    def connection(self) -> AsyncClient:
        """Over TLS, with Ada's certificate."""
        assert self.site is not None
        return AsyncClient(self.site.address, tls=self._context)


async def through(host: Host, ahead_s: float | None) -> None:
    """One jump, and back."""
    office = host.office
    forward = ahead_s is not None and ahead_s > 0
    back = ahead_s is not None and ahead_s < -60
    async with host.connection() as caller:
        token = (await caller.call("auth.login", user="ada", password=PASSWORD))["token"]
        logged_in_s = time.monotonic()
        late = office.ask("off", [name(next(host.fresh))], life_s=LIFE_S)
        asked_s = time.monotonic()
        with host.wrong(ahead_s):
            await trio.sleep(asked_s + (DOUBT_S if ahead_s is None else LIFE_S) + 1.5 - time.monotonic())
            # Somebody on that host approves what its clock says is in time.
            with host.clock.here(), suppress(RequestError):
                office.approve(late)
                assert not forward, "approved behind its not-after"
            if forward:
                await host.read_this_hour()
            if ahead_s is not None and not back:
                # The clock is ahead, or as good as right: what is asked by it goes, within the budgets.
                with host.clock.here():
                    now = office.switch("off", [name(next(host.fresh))])
                    again = office.switch("on", [name(WATCHED + 1)])
                await host.ended(now, State.CONFIRMED)
                await host.until(lambda: office.commands(again)[0].quarantined == 1, "an order beyond the day's budget")
                with host.clock.here():
                    cancel(office, again)
            else:
                # The clock is in doubt: nothing goes.
                with host.clock.here():
                    held = office.switch("off", [name(next(host.fresh))], life_s=600.0)
                await trio.sleep(1.0)
                assert office.states(held) == [State.APPROVED]
            await trio.sleep(max(0.0, logged_in_s + TOKEN_S + 0.5 - time.monotonic()))
            with pytest.raises(CallFailed, match="E_AUTH"):
                await caller.call("auth.renew", token=token)
    await host.ended(late, State.EXPIRED)
    if ahead_s is not None and not back:
        return
    # By the clock that is right it is over, or goes now.
    await host.until(lambda: office.over(held), "the end of what was held")
    assert office.states(held) == [State.EXPIRED if back else State.CONFIRMED]


def cancel(office: Office, order_id: bytes) -> None:
    with office.open() as database, database.writing() as connection:
        office.desk.cancel(connection, order_id, "ada")


@contextmanager
def head_end_of(clock: WallClock, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A head-end by this clock; it has to end by itself when it is asked to."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.system.clock_me", str(path)],
        env=clock.environment,
        cwd=Path(__file__).parents[2],
    )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.timeout(240 + 120 * ROUNDS)
def test_r42_clock_that_jumps_sends_nothing_late_reads_nothing_twice_and_gives_nothing_back(tmp_path: Path) -> None:
    """No command whose time is over by either clock, no turn twice or never, no budget afresh, no token again."""
    site, people, clock = Site(tmp_path / "tls"), People(tmp_path), WallClock(tmp_path)
    certificate = site.authority.issue("ada")
    (tmp_path / "password").write_text(PASSWORD + "\n")
    meters = WATCHED + 3 + 2 * len(JUMPS) * ROUNDS

    async def use() -> None:
        assert (await users(path, "add", "ada", "--certificate", str(certificate.pem)))[0] == 0
        assert (await users(path, "password", "ada", "--password-file", str(tmp_path / "password")))[0] == 0
        await host.read_this_hour()
        first = office.switch("off", [name(next(host.fresh))])
        await host.ended(first, State.CONFIRMED)
        spent = office.switch("on", [name(WATCHED + 1)])
        await host.ended(spent, State.CONFIRMED)
        for _, ahead_s in itertools.product(range(ROUNDS), JUMPS.values()):
            await through(host, ahead_s)
        # It goes on: the next hour that was never seen is read.
        with host.wrong(2 * HOUR_S):
            await host.read_this_hour()
        host.shows()

    with fleet(meters, "127.74.0.1") as running:
        path = head_end(tmp_path, CONTROL + people.config() + PLAN + site.settings, running)
        office = Office(path, people)
        host = Host(clock, office, site, site.context(certificate))
        with head_end_of(clock, path):
            trio.run(use)
        done = actions(running)
        assert running.reused() == []

    assert len(done) == 1 + sum(one is None or one > -60 for one in JUMPS.values()) * ROUNDS
    assert done.pop(WATCHED) == 2, "off and on, and not on again"
    assert set(done.values()) == {1}
    read = Counter(host.captured())
    assert set(read.values()) == {1}, f"turns that were taken twice: {read}"
    assert set(read) <= host.hours


@pytest.mark.timeout(240)
def test_r42_a_head_end_that_began_in_the_future_switches_again_when_two_people_say_so(tmp_path: Path) -> None:
    """The clock was a year ahead while a head-end began; now it is right: running on, and after a restart."""
    people, clock = People(tmp_path), WallClock(tmp_path)
    ipss = [sys.executable, "-m", "ipss_headend.cli", "control"]

    def says(*words: str, status: int = 0) -> str:
        line = [*ipss, *words, "--config", str(path)]
        ran = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, env=clock.environment)
        assert ran.returncode == status, ran.stderr
        return ran.stdout + ran.stderr

    def accepted() -> None:
        assert "control accept-clock" in says("status")
        accept = ("accept-clock", "--reason", "the time server was wrong", "--key")
        assert "a second person" in says(*accept, str(people.files["ada"]))
        assert "a second person" in says(*accept, str(people.files["ada"]), status=5)
        says(*accept, str(people.files["bob"]))
        assert "right, as far as" in says("status")
        assert "nothing to accept" in says(*accept, str(people.files["bob"]), status=2)

    async def confirmed(order_id: bytes) -> None:
        await host.ended(order_id, State.CONFIRMED)

    async def began_in_the_future() -> None:
        with host.wrong(YEAR_S), clock.here():
            await confirmed(office.switch("off", [name(1)]))
        held = office.switch("off", [name(2)], life_s=600.0)
        await trio.sleep(1.0)
        assert office.states(held) == [State.APPROVED], "behind the clock that it began by"
        accepted()
        await host.ended(held, State.EXPIRED)
        await confirmed(office.switch("off", [name(2)]))

    async def began_again() -> None:
        held = office.switch("off", [name(3)], life_s=600.0)
        await trio.sleep(1.0)
        assert office.states(held) == [State.APPROVED]
        accepted()
        await host.ended(held, State.EXPIRED)
        await confirmed(office.switch("off", [name(4)]))

    async def goes_on() -> None:
        await confirmed(office.switch("off", [name(5)]))

    with fleet(5, "127.76.0.1") as running:
        path = head_end(tmp_path, CONTROL + people.config(), running)
        office = Office(path, people)
        host = Host(clock, office, None, None)
        clock.set(YEAR_S)
        with head_end_of(clock, path):
            trio.run(began_in_the_future)
        clock.set(YEAR_S)
        with head_end_of(clock, path), host.wrong(YEAR_S):
            trio.run(host.until, lambda: office.audit_kinds().count("start") == 2, "its beginning")
        with head_end_of(clock, path):
            trio.run(began_again)
        with head_end_of(clock, path):
            trio.run(goes_on)
        done = actions(running)
        verified = subprocess.run(
            [sys.executable, "-m", "ipss_headend.cli", "audit", "verify", "--config", str(path)],
            check=False,
            timeout=60,
        )

    assert verified.returncode == 0
    assert done == {0: 1, 1: 1, 3: 1, 4: 1}
