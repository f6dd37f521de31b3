"""Other systems call a head-end that reads virtual meters: through the client, and as the command line does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.system.fleet import fleet, head_end
from tests.system.test_serve import BILLING, serving, until

from ipss_headend import client as rpc
from ipss_headend.client import AsyncClient, CallFailed, Client, Disconnected
from ipss_headend.rpc.catalogue import METHODS
from ipss_headend.server import HeadEnd

REGISTER = "1.0.1.8.0.255"


def address(started: HeadEnd) -> str:
    assert started.config.rpc.socket is not None
    return f"unix:{started.config.rpc.socket}"


def test_values_come_from_the_store_and_from_the_meter(tmp_path: Path) -> None:
    async def talk(started: HeadEnd) -> None:
        await until(lambda: started.figures.plans["billing"].done == 3)
        async with AsyncClient(address(started)) as head_end:
            last = await head_end.call(
                "read.last", points=["virtual-00001", "virtual-00003"], items=[REGISTER, "9.9.9.9.9.9"]
            )
            assert [value["point"] for value in last["values"]] == ["virtual-00001", "virtual-00003"]
            assert {value["unit"] for value in last["values"]} == {"Wh"}
            assert last["missing"] == [["virtual-00001", "9.9.9.9.9.9"], ["virtual-00003", "9.9.9.9.9.9"]]
            asked: list[Any] = []

            async def ask() -> None:
                asked.append(
                    await head_end.call("read.now", device="virtual-00002", items=[REGISTER, "3/1.0.77.77.77.255"])
                )

            exchanges = started.figures.exchanges
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(ask)
            assert started.figures.exchanges - exchanges < 10, "equal questions share their way"
            assert all(one["refused"] == [["3/1.0.77.77.77.255", "object-undefined"]] for one in asked)
            newest = await head_end.call("read.last", points=["virtual-00002"], items=[REGISTER])
            assert newest["values"][0]["value"] == asked[0]["values"][0]["value"]
            job = (await head_end.call("read.now", devices=["virtual-00001", "virtual-00002"], items=[REGISTER]))["job"]
            done = await head_end.call("job.wait", job=job["job"])
            assert (done["state"], done["done"]) == ("done", 2)
            series = await head_end.call("read.series", point="virtual-00002", item=REGISTER, from_ms=0, to_ms=2**45)
            assert len(series["values"]) >= 3
            assert series["times_ms"] == sorted(series["times_ms"])
            with pytest.raises(CallFailed, match='E_UNKNOWN: no meter is called "virtual-9"'):
                await head_end.call("read.last", points=["virtual-9"], items=[REGISTER])

    with fleet(3, "127.91.0.1") as running:
        serving(head_end(tmp_path, BILLING, running), talk)


def test_examples_of_the_documentation_work(tmp_path: Path) -> None:
    async def talk(started: HeadEnd) -> None:
        await until(lambda: started.figures.plans["billing"].done == 1)
        async with AsyncClient(address(started)) as head_end:
            for name, method in sorted(METHODS.items()):
                if method.example is None:
                    continue
                example = dict(method.example) | ({"key": name} if method.changes else {})
                assert isinstance(await head_end.call(name, **example), dict), name

    with fleet(1, "127.91.1.1") as running:
        serving(head_end(tmp_path, BILLING, running), talk)


def test_stream_goes_on_from_its_cursor_over_broken_connections(tmp_path: Path) -> None:
    seen: list[tuple[str, str, str]] = []

    async def talk(started: HeadEnd) -> None:
        cursor = 0
        with trio.fail_after(30):
            while len(seen) < 9:
                # Each turn is a new connection, as of a consumer that dies after what it has dealt with.
                async with AsyncClient(address(started)) as head_end:
                    found = await head_end.call("stream.poll", topics=["readings"], cursor=cursor, limit=1)
                    cursor = found["cursor"]
                    for event in found["events"]:
                        [column] = found["layouts"][event["layout"]]["columns"]
                        seen.append((event["point"], column["logical_name"], event["key"]))

    with fleet(3, "127.91.2.1") as running:
        serving(head_end(tmp_path, BILLING, running), talk)
    assert len(seen) == len(set(seen)) == 9


def test_meters_come_and_go_while_it_runs(tmp_path: Path) -> None:
    async def talk(started: HeadEnd) -> None:
        assert started.meters == {}
        async with AsyncClient(address(started)) as head_end:
            text = running.meters.csv()
            report = await head_end.call("device.import", csv=text + "bad,line\n")
            assert report["imported"] == 2
            assert len(report["mistakes"]) == 1
            values = await head_end.call("read.now", device="virtual-00002", items=[REGISTER])
            assert values["values"][0]["unit"] == "Wh"
            again = await head_end.call("device.import", csv=text)
            assert again["imported"] == 0
            await head_end.call("device.retire", device="virtual-00001")
            listed = await head_end.call("device.list")
            assert [device["device"] for device in listed["devices"]] == ["virtual-00002"]

    with fleet(2, "127.91.3.1") as running, fleet(1, "127.91.4.1") as other:
        path = head_end(tmp_path, BILLING, other)
        # A head-end whose registry is empty again.
        from tests.system.fleet import opened

        from ipss_headend import config

        with opened(config.load(path)) as database, database.writing() as connection:
            for table in ("meters", "meter_keys", "key_fingerprints"):
                connection.exec_driver_sql(f"DELETE FROM {table}")
        serving(path, talk)


def test_command_line_and_plain_client_call_a_running_head_end(tmp_path: Path) -> None:
    async def talk(started: HeadEnd) -> None:
        await until(lambda: started.figures.plans["billing"].done == 1)

        def call(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [
                sys.executable,
                "-m",
                "ipss_headend.cli",
                "rpc",
                *arguments,
                "--config",
                str(tmp_path / "head_end.toml"),
            ]
            return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

        ran = await trio.to_thread.run_sync(call, "read.last", "points[]=virtual-00001", f"items[]={REGISTER}")
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)["values"][0]["unit"] == "Wh"
        refused = await trio.to_thread.run_sync(call, "device.get", "device=x")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "E_UNKNOWN" in refused.stderr
        # Digits alone are text where the method declares text, and null stays nil.
        put = await trio.to_thread.run_sync(call, "weather.put", "source=5", "node=null", "forecasts=[]", "key=7")
        assert put.returncode == 0, put.stderr

        def plain() -> None:
            with Client(address(started)) as head_end:
                assert head_end.call("device.get", device="virtual-00001")["auth"] == "hls-gmac"
                head_end._socket.close()  # type: ignore[union-attr] # as when the network breaks
                assert "now_ms" in head_end.call("rpc.ping")
                first = next(head_end.stream("readings", cursor=0))
                assert first["events"]

        await trio.to_thread.run_sync(plain)

    with fleet(1, "127.91.5.1") as running:
        serving(head_end(tmp_path, BILLING, running), talk, limit_s=180)


def test_head_end_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "FIRST_PAUSE_S", 0.001)
    with (
        Client(f"unix:{tmp_path}/none.sock") as client,
        pytest.raises(Disconnected, match=r"none\.sock: .*is the head-end running"),
    ):
        client.call("rpc.ping")
