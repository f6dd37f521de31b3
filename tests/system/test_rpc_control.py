"""R14, R15, R22, R40 over the RPC: two people switch a meter or change its keys; the head-end signs for nobody."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
from tests.system.test_control import FAST, actions, name, world
from tests.system.test_rotation import QUICK, keys_of, reads
from tests.system.test_rpc import address
from tests.system.test_serve import serving, until

from ipss_headend.client import AsyncClient, CallFailed, sign_order
from ipss_headend.field.control.orders import Order
from ipss_headend.security import MeterKeys
from ipss_headend.security.principals import RESUME
from ipss_headend.server import HeadEnd


async def draft(head_end: AsyncClient, key: Path, **wanted: Any) -> dict[str, Any]:
    """What control.switch takes."""
    given = {"to": "off", "reason": "test", "signer": "ada", **wanted}
    made = await head_end.call("control.preview", **given)
    order = Order.decode(bytes.fromhex(made["octets"]))
    assert order.requester == "ada"
    signature = sign_order(made["octets"], key, signer="ada", purpose="propose")
    return {**given, "order": made["order"], "created_ms": made["created_ms"], "signature": signature}


def test_two_people_switch_a_meter_over_the_rpc_and_the_stream_tells_every_step(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    async def talk(started: HeadEnd) -> None:
        keys = office.people.files
        async with AsyncClient(address(started)) as head_end:
            cursor = (await head_end.call("stream.open", topics=["commands"]))["cursor"]
            wanted = await draft(head_end, keys["ada"], targets=[name(1)])
            asked = await head_end.call("control.switch", **wanted, key="one")
            assert await head_end.call("control.switch", **wanted, key="one") == asked
            assert (await head_end.call("control.switch", **wanted, key="two"))["order"] == asked["order"]
            assert asked["approvers"] == 1
            shown = await head_end.call("control.order", order=asked["order"])
            assert (shown["requester"], shown["approved_by"], shown["needed"]) == ("ada", [], 1)

            def approval(who: str, **changed: Any) -> dict[str, Any]:
                given = {"generation": shown["generation"], "purpose": "approve", "key": keys[who], **changed}
                signature = sign_order(
                    shown["octets"],
                    given["key"],
                    signer=who,
                    purpose=given["purpose"],
                    generation=given["generation"],
                )
                return {"order": asked["order"], "signer": who, "signature": signature}

            for wrong in (
                approval("ada"),
                approval("bob", key=keys["ada"]),
                approval("bob", purpose="propose"),
                approval("bob", generation=shown["generation"] + 1),
                {**approval("bob"), "signer": "cyd"},
            ):
                with pytest.raises(CallFailed, match="E_DENIED"):
                    await head_end.call("control.approve", **wrong)
            assert (await head_end.call("control.get", order=asked["order"]))["order"]["states"] == {"proposed": 1}
            approved = await head_end.call("control.approve", **approval("bob"))
            assert (approved["approved_by"], approved["complete"]) == (["bob"], True)
            while ("confirmed", name(1)) not in seen:
                found = await head_end.call("stream.poll", topics=["commands"], cursor=cursor, wait_ms=20_000)
                cursor = found["cursor"]
                seen.extend((event["state"], event["point"]) for event in found["events"])
                assert {event["order"] for event in found["events"]} <= {asked["order"]}
            [command] = asked["commands"].values()
            whole = await head_end.call("control.get", command=command)
            assert [one["state"] for one in whole["commands"]] == ["confirmed"]
            assert whole["approved_by"] == ["bob"]
            listed = await head_end.call("control.list", limit=1)
            assert [one["order"] for one in listed["orders"]] == [asked["order"]]
            again = await head_end.call("control.list", cursor=listed["cursor"], limit=1)
            assert again == {"orders": [], "cursor": None}
            told = await head_end.call("control.state", targets=[name(1), name(2)])
            assert [(one["output"], one["control_state"]) for one in told["meters"]] == [(False, 0), (True, 1)]
            refused = await head_end.call("audit.query", kinds=["refused"])
            assert len(refused["records"]) == 5
            verdict = await head_end.call("audit.verify")
            assert (verdict["ok"], verdict["first_bad"]) == (True, None)

    with world(tmp_path, 2, "127.38.0.1") as (running, office, path):
        serving(path, talk)
        done = actions(running)
    assert done == {0: 1}
    assert [state for state, _ in seen] == ["proposed", "approved", "released", "sent", "confirmed"]


def test_stop_over_the_rpc_holds_and_resume_wants_a_signature(tmp_path: Path) -> None:
    async def talk(started: HeadEnd) -> None:
        keys = office.people.files
        async with AsyncClient(address(started)) as head_end:
            asked = await head_end.call("control.switch", **await draft(head_end, keys["ada"], targets=[name(1)]))
            await head_end.call("control.stop", reason="wrong list")
            now = await head_end.call("control.status")
            assert (now["stopped"], now["commands"]) == (True, {"proposed": 1})
            shown = await head_end.call("control.order", order=asked["order"])
            signature = sign_order(
                shown["octets"], keys["bob"], signer="bob", purpose="approve", generation=now["generation"]
            )
            with pytest.raises(CallFailed, match="the stop switch is set"):
                await head_end.call("control.approve", order=asked["order"], signer="bob", signature=signature)
            with pytest.raises(CallFailed, match="E_DENIED"):
                await head_end.call("control.resume", signer="bob", signature=signature)
            assert (await head_end.call("control.status"))["stopped"]
            await until(lambda: started.figures.control_stopped)
            signature = sign_order(RESUME, keys["bob"], signer="bob", purpose="resume", generation=now["generation"])
            resumed = await head_end.call("control.resume", signer="bob", signature=signature)
            assert (resumed["stopped"], resumed["generation"]) == (False, now["generation"] + 1)
            await until(lambda: not started.figures.control_stopped)
            assert await head_end.call("control.cancel", order=asked["order"]) == {"commands": 1}
            whole = await head_end.call("control.get", order=asked["order"])
            assert whole["order"]["states"] == {"cancelled": 1}
            with pytest.raises(CallFailed, match="E_UNKNOWN"):
                await head_end.call("control.get", order=str(uuid.UUID(int=7)))

    with world(tmp_path, 1, "127.39.0.1") as (running, office, path):
        serving(path, talk)
        done = actions(running)
    assert not done


def test_unsigned_forged_or_changed_orders_are_refused_and_protected_meters_stay(tmp_path: Path) -> None:
    async def talk(started: HeadEnd) -> None:
        keys = office.people.files
        with office.open() as database, database.writing() as connection:
            office.desk.protect(connection, 2, b"", name(2), "ada", "hospital")
        async with AsyncClient(address(started)) as head_end:
            wanted = await draft(head_end, keys["ada"], targets=[name(1)])
            for changed in (
                {"signature": ""},
                {"signature": "00" * 64},
                {"targets": [name(1), name(3)]},
                {"to": "on"},
                {"reason": "another"},
                {"signer": "bob"},
                {"created_ms": wanted["created_ms"] + 1},
            ):
                with pytest.raises(CallFailed, match="E_DENIED"):
                    await head_end.call("control.switch", **{**wanted, **changed})
            with pytest.raises(CallFailed, match=r'E_DENIED: the configuration has no .* called "eve"'):
                await head_end.call("control.switch", **{**wanted, "signer": "eve"})
            with pytest.raises(CallFailed, match="protected, never cut"):
                await head_end.call("control.switch", **await draft(head_end, keys["ada"], targets=[name(2)]))
            dry = await head_end.call("control.switch", **{**wanted, "targets": [name(2)]}, dry_run=True)
            assert dry["preview"]["protected"] == [name(2)]
            assert (await head_end.call("control.list"))["orders"] == []

    with world(tmp_path, 3, "127.40.0.1") as (running, office, path):
        serving(path, talk)
        done = actions(running)
    assert not done


def test_r22_two_people_change_keys_over_the_rpc(tmp_path: Path) -> None:
    """The order says which keys, never what they are; the meters answer under the new ones."""

    async def talk(started: HeadEnd) -> None:
        keys = office.people.files
        before.extend(keys_of(office, *names))
        async with AsyncClient(address(started)) as head_end:
            for wrong in ({"to": "off"}, {"tariff": True}, {"watts": 5}):
                with pytest.raises(CallFailed, match="E_PARAMS: one thing is asked for"):
                    await head_end.call(
                        "control.preview", targets=names, reason="x", signer="ada", new_keys=True, **wrong
                    )
            wanted = await draft(head_end, keys["ada"], targets=names, to=None, new_keys=True)
            for other in ("to", "new_keys"):
                del wanted[other]
            with pytest.raises(CallFailed, match="E_DENIED"):
                await head_end.call("control.keys", **{**wanted, "targets": [name(1)]})
            asked = await head_end.call("control.keys", **wanted)
            assert (asked["preview"]["kind"], asked["preview"]["rings"]) == ("key-change", [1, 2])
            assert asked["preview"]["effect"] == "key-transfer 64/0.0.43.0.0.255:2 0002"
            shown = await head_end.call("control.order", order=asked["order"])
            signature = sign_order(
                shown["octets"], keys["bob"], signer="bob", purpose="approve", generation=shown["generation"]
            )
            await head_end.call("control.approve", order=asked["order"], signer="bob", signature=signature)
            await until(lambda: office.over(bytes.fromhex(asked["order"].replace("-", ""))))
            whole = await head_end.call("control.get", order=asked["order"])
            assert whole["order"]["states"] == {"confirmed": 2}
            assert [await reads(started, meter) for meter in (1, 2, 3)] == [True] * 3

    names = [name(1), name(2)]
    before: list[MeterKeys] = []
    with world(tmp_path, 3, "127.75.0.1", control=FAST + QUICK) as (running, office, path):
        serving(path, talk)
        after = keys_of(office, *names)
        assert running.reused() == []
    for old, new in zip(before, after, strict=True):
        assert old.master_key == new.master_key
        assert old.encryption_key != new.encryption_key
        assert old.authentication_key != new.authentication_key
