"""R17, R30, R37, R38: what one caller may not do to others, or to the stop switch, whatever way it takes."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from tests.unit.rpc.conftest import OPERATOR, World

from ipss_headend.config import PlanConfig
from ipss_headend.errors import StoreFull, StoreUnavailable
from ipss_headend.rpc.call import Call, Session
from ipss_headend.rpc.catalogue import Params, Result, make
from ipss_headend.rpc.faults import Fault
from ipss_headend.rpc.jobs import KEPT_EACH, Job, Jobs
from ipss_headend.rpc.methods import event as events
from ipss_headend.rpc.methods import rpc
from ipss_headend.rpc.methods.device import refuse_groups
from ipss_headend.security.permission import Principal, Right, Role
from ipss_headend.store.journal import WriteBatch

EAST = Principal("east", frozenset({Role.OPERATOR, Role.ENGINEER}), frozenset({"east"}))


@pytest.mark.parametrize("fault", [StoreFull("no room"), StoreUnavailable("gone")])
@pytest.mark.parametrize("within", [False, True], ids=["alone", "in a batch"])
async def test_r17_stop_needs_no_store(
    world: World, monkeypatch: pytest.MonkeyPatch, fault: Exception, within: bool
) -> None:
    stopped: list[str] = []
    world.services.control = cast("Any", SimpleNamespace(ask_stop=stopped.append))
    control = SimpleNamespace(control=SimpleNamespace(bulk=25), principals=(), rollout=None)
    world.services.config = cast("Any", control)

    async def change(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(world.services.store, "change", change)
    async with world.client() as client:
        params = {"reason": "wrong list"}
        if within:
            await client.call("rpc.batch", calls=[{"method": "control.stop", "params": params}])
        else:
            assert "E_" in str(await client.call("control.stop", **params))

    assert stopped == ["op"]


async def test_r38_calls_of_a_batch_count_as_calls(world: World) -> None:
    world.rate = 5.0
    async with world.client() as client:
        said = await client.call("rpc.batch", calls=[{"method": "rpc.ping"}] * 20)

    refused = [error for error, _ in said["answers"] if error is not None]
    assert len(refused) >= 14
    assert all(str(error).startswith("E_RATE") for error in refused)


class Much(Result, frozen=True):
    """Much."""

    text: str


def much(call: object, params: Params) -> Much:
    """Say much."""
    return Much(text="x" * 1_000_000)


async def test_r30_a_batch_gathers_no_more_than_its_bound(world: World) -> None:
    world.services.methods["t.much"] = world.methods["t.much"] = make("t.much", Right.VIEW, much)
    async with world.client() as client:
        said = await client.call("rpc.batch", calls=[{"method": "t.much"}] * 20)

    answers = said["answers"]
    whole = [answer for error, answer in answers if error is None]
    assert len(whole) == rpc.MOST_OCTETS // 1_000_000 + 1
    assert "another batch" in answers[-1][0]


async def test_r37_who_manages_some_groups_replaces_no_plan_of_others(world: World) -> None:
    kept = PlanConfig(name="night", every=cast("Any", SimpleNamespace(period_s=60)), groups=("west",))
    taken: list[str] = []

    async def keep(name: str, values: object, who: str) -> None:
        taken.append(who)
        raise StoreFull("no room")  # far enough

    world.services.schedules = cast("Any", SimpleNamespace(plans=[(kept, False)], set=keep))
    params = {"name": "night", "every": "15min", "objects": ["1.0.1.8.0.255"], "groups": ["east"]}
    async with world.client(EAST) as client:
        assert (await client.call("read.schedule.set", **params, key="a")).startswith("E_DENIED")
        assert (await client.call("read.schedule.set", **params | {"name": "other"}, key="b")).startswith("E_STORE")
    assert taken == ["east"]
    async with world.client(OPERATOR) as client:
        assert (await client.call("read.schedule.set", **params, key="a")).startswith("E_STORE")
    assert taken == ["east", "op"]


async def asleep(job: Job) -> None:
    await trio.sleep_forever()


async def nothing(job: Job) -> None: ...


async def test_r37_jobs_tell_their_meters_to_who_sees_all_groups(world: World) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.services.jobs.run)
        await trio.testing.wait_all_tasks_blocked()
        others = world.services.jobs.start("read.now", "billing", ["west-1"], asleep)
        own = world.services.jobs.start("read.now", "east", ["east-1"], asleep)
        async with world.client(EAST) as client:
            assert [job["job"] for job in (await client.call("job.list"))["jobs"]] == [own.name]
            assert (await client.call("job.get", job=others.name)).startswith("E_UNKNOWN")
            assert (await client.call("job.cancel", job=others.name, key="k")).startswith("E_UNKNOWN")
        async with world.client(OPERATOR) as client:
            assert len((await client.call("job.list"))["jobs"]) == 2
        nursery.cancel_scope.cancel()


async def test_r30_one_callers_jobs_leave_room_for_others() -> None:
    jobs = Jobs()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(jobs.run)
        await trio.testing.wait_all_tasks_blocked()
        kept = jobs.start("t", "quiet", [], nothing)
        for _ in range(KEPT_EACH + 10):
            jobs.start("t", "busy", [], nothing)
            await trio.lowlevel.checkpoint()
        assert len(jobs.all()) <= KEPT_EACH + 1
        assert jobs.get(kept.name) is kept
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(KEPT_EACH):
            jobs.start("t", "busy", [], asleep)
        with pytest.raises(RuntimeError, match="under way already"):
            jobs.start("t", "busy", [], asleep)
        jobs.start("t", "quiet", [], asleep)
        nursery.cancel_scope.cancel()


async def test_r30_a_page_of_events_looks_at_so_many_rows_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows of others were loaded to find one's own, by PostgreSQL's driver into memory."""
    monkeypatch.setattr(events, "MOST_LOOKED_AT", 10)
    meters = {1: SimpleNamespace(name="m1", group="east"), 2: SimpleNamespace(name="m2", group="west")}
    world.services.field = cast("Any", SimpleNamespace(meters=meters))
    rows: Sequence[Any] = [(1 if at in {7, 31} else 2, at, 6, 0, "") for at in range(35)]
    await world.services.store.write(WriteBatch(events=rows))

    found, pages, cursor = [], 0, 0
    async with world.client(EAST) as client:
        while cursor is not None:
            page = await client.call("event.query", cursor=cursor, limit=5)
            found += [one["event"] for one in page["events"]]
            cursor, pages = page["cursor"], pages + 1
            assert pages < 10

    assert len(found) == 2
    assert pages == 4


@pytest.mark.parametrize(
    "text",
    [
        "name,address,group\nm1,10.0.0.1,west\n",
        "name,address\nm1,10.0.0.1\n",
        # One row of `east` to a reader that forgives; a bad line and then a meter of `west` to a strict one.
        'name,address,group\n"a"x,"b\nm2,10.0.0.2,west\nc",east\n',
        "\ufeffname,address, group\nm1,10.0.0.1,west\n",
    ],
)
def test_r37_no_spelling_of_a_file_brings_a_meter_into_anothers_group(world: World, text: str) -> None:
    call = Call(world.services, Session(1, "test", EAST), "device.import")

    with pytest.raises(Fault, match="E_DENIED"):
        refuse_groups(call, text, "csv")
    refuse_groups(call, "name,address,group\nm1,10.0.0.1,east\n", "csv")
    refuse_groups(Call(world.services, Session(1, "test", OPERATOR), "device.import"), text, "csv")
