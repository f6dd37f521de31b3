"""Events: who may see to them."""

from types import SimpleNamespace
from typing import Any, cast

from sqlalchemy import select
from tests.unit.rpc.conftest import World

from ipss_headend.security.permission import Principal, Role
from ipss_headend.store.journal import WriteBatch
from ipss_headend.store.schema import event_acknowledgements


async def test_events_outside_the_callers_scope_are_not_acknowledged(world: World) -> None:
    meters = {1: SimpleNamespace(name="m1", group="east"), 2: SimpleNamespace(name="m2", group="west")}
    world.services.field = cast("Any", SimpleNamespace(meters=meters))
    await world.services.store.write(WriteBatch(events=[(1, 1, 6, 0, ""), (2, 2, 6, 0, ""), (9, 3, 6, 0, "")]))
    east = Principal("east", frozenset({Role.OPERATOR}), frozenset({"east"}))

    async with world.client(east) as client:
        assert await client.call("event.ack", events=[1, 2, 3, 4], key="k") == {"acknowledged": 1}

    def acknowledged(connection: Any) -> list[int]:
        return list(connection.scalars(select(event_acknowledgements.c.event_id)))

    assert await world.services.store.read(acknowledged) == [1]
