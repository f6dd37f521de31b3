"""Firmware whole: an image brought to virtual meters, verified, activated by two people's order, read back."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.system.people import Office
from tests.system.test_control import name, title, world
from tests.system.test_serve import serving, until

from ipss_headend.errors import RequestError
from ipss_headend.field.control.desk import transact
from ipss_headend.field.control.firmware import Image, named, octet_string, transferred
from ipss_headend.field.control.machine import State
from ipss_headend.server import HeadEnd
from ipss_headend.store.database import now_us

FAST = (
    '[control]\nread_back = "2s"\nactivation = "8s"\nfirmware_rest = "1s"\n'
    '[rollout]\nrings = ["1", "50%"]\nrest = "1s"\n'
)


def control(office: Office, path: Path, *words: str) -> Any:
    cli = [sys.executable, "-m", "ipss_headend.cli", *words, "--config", str(path), "--json"]
    run = subprocess.run(cli, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def propose(office: Office, path: Path, octets: bytes, meters: list[str], *more: str) -> bytes:
    """Ada proposes an image on the command line, Bob approves."""
    file = path.with_name("virtual-2.bin")
    file.write_bytes(octets)
    key = ["--key", str(office.people.files["ada"])]
    words = ["firmware", "propose", str(file), *meters, "--reason", "test", *key, *more]
    made = control(office, path, *words)
    assert made["kind"] == "firmware"
    order = bytes.fromhex(made["order"].replace("-", ""))
    assert office.approve(order)
    return order


async def over(office: Office, order: bytes) -> None:
    await until(lambda: office.over(order))


OCTETS = bytes(range(256)) * 12 + b"an end that is no whole block"


@pytest.mark.parametrize(
    ("faults", "octets"),
    [("", OCTETS), ("loses=100%", OCTETS), ("reboots=100%", OCTETS[:100])],
    ids=["well", "loses", "reboots"],
)
def test_image_reaches_meters_in_rings_and_runs_there_whatever_is_lost(
    tmp_path: Path, faults: str, octets: bytes
) -> None:
    """Those that reboot do so at every step, and answer none: begun, sent, verified and activated by what is read."""

    async def use(head_end: HeadEnd) -> None:
        order = await trio.to_thread.run_sync(propose, office, path, octets, names)
        await over(office, order)
        found.extend(office.commands(order))
        shown.append(await trio.to_thread.run_sync(control, office, path, "firmware", "status"))

    names = [name(number) for number in range(1, 2 if "reboots" in faults else 4)]
    found: list[Any] = []
    shown: list[Any] = []
    with world(tmp_path, 3, "127.43.0.1", faults=faults, control=FAST) as (_, office, path):
        serving(path, use, limit_s=120)
        kinds = office.audit_kinds()

    assert [one.state for one in found] == [State.CONFIRMED] * len(names)
    assert shown[0]["orders"][0]["states"] == {"confirmed": len(names)}
    assert kinds.count("sent") == len(names)
    assert kinds.count("ring") == (len(names) > 1)  # of 1, then of all: 50 % of three is the first again


def test_bad_image_is_never_activated_and_halts_the_rings(tmp_path: Path) -> None:
    async def use(head_end: HeadEnd) -> None:
        order = await trio.to_thread.run_sync(propose, office, path, b"broken" + OCTETS, [name(1), name(2), name(3)])
        await until(lambda: office.audit_kinds().count("halt") == 1)
        found.extend(office.commands(order))

    found: list[Any] = []
    with world(tmp_path, 3, "127.44.0.1", control=FAST) as (_, office, path):
        serving(path, use, limit_s=60)
        assert "sent" not in office.audit_kinds()

    [failed] = [one for one in found if one.state == State.FAILED]
    assert failed.detail == "the meter found the image bad"
    assert [one.quarantined for one in found if one is not failed] == [1, 1]


def test_meter_that_lies_and_file_that_changed_are_found_out(tmp_path: Path) -> None:
    async def use(head_end: HeadEnd) -> None:
        order = await trio.to_thread.run_sync(propose, office, path, OCTETS, [name(1)])
        await over(office, order)
        found.extend(office.commands(order))
        kept = next(path.with_name("data").joinpath("firmware").glob("*.image"))
        assert kept.stem == Image.of_octets(b"x", OCTETS).digest.hex()
        kept.write_bytes(OCTETS[:-1] + b"?")
        image = Image.of_octets(b"virtual-2", OCTETS)
        again = await trio.to_thread.run_sync(ask_only, image)
        await over(office, again)
        found.extend(office.commands(again))

    def ask_only(image: Image) -> bytes:
        made = image.order(
            [(1, title(office, name(1)))], reason="test", requester="ada", created_us=now_us(), life_s=900
        )
        signature = office.people.signer("ada").sign("propose", 0, made.octets())
        with office.open() as database:
            transact(database, lambda connection: office.desk.propose(connection, made.octets(), signature))
        assert office.approve(made.order_id)
        return made.order_id

    found: list[Any] = []
    with world(tmp_path, 1, "127.45.0.1", faults="lies=100%", control=FAST) as (_, office, path):
        serving(path, use, limit_s=60)

    assert [one.state for one in found] == [State.FAILED] * 2
    assert found[0].alarmed
    assert "not the image that was approved" in found[1].detail


def test_verified_images_wait_for_the_moment_of_their_order_and_hold_up_no_other(tmp_path: Path) -> None:
    async def use(head_end: HeadEnd) -> None:
        at = ("--activate-at", far.isoformat())
        later = await trio.to_thread.run_sync(propose, office, path, OCTETS, [name(1)], *at)
        await until(lambda: "to be activated at" in office.commands(later)[0].detail)
        switched = await trio.to_thread.run_sync(office.switch, "off", [name(2)])
        await over(office, switched)
        waiting.extend(office.commands(later))

        moment = datetime.fromtimestamp(now_us() // 1_000_000 + 6, UTC)
        moments.append(int(moment.timestamp()) * 1_000_000)
        soon = await trio.to_thread.run_sync(
            propose, office, path, OCTETS, [name(3)], "--activate-at", moment.isoformat()
        )
        await over(office, soon)
        done.extend(office.commands(soon))
        with office.open() as database, database.reading() as connection:
            asked = connection.exec_driver_sql("SELECT at_us FROM audit WHERE kind = 'sent' ORDER BY seq")
            sent.extend(asked.scalars())

    far = datetime.now(UTC).replace(microsecond=0) + timedelta(days=10)
    waiting: list[Any] = []
    done: list[Any] = []
    moments: list[int] = []
    sent: list[int] = []
    with world(tmp_path, 3, "127.46.0.1", control=FAST) as (_, office, path):
        serving(path, use, limit_s=120)

    assert [one.state for one in waiting] == [State.RELEASED]
    assert waiting[0].detail.endswith(f"verified, to be activated at {far:%Y-%m-%dT%H:%M:%SZ}")
    assert [one.state for one in done] == [State.CONFIRMED]
    assert len(sent) == 2
    assert sent[1] >= moments[0]


def test_a_moment_behind_the_end_of_the_order_or_without_a_zone_is_refused(tmp_path: Path) -> None:
    with world(tmp_path, 1, "127.47.0.1", control=FAST) as (_, _, path):
        file = path.with_name("virtual-2.bin")
        file.write_bytes(OCTETS)
        words = ["firmware", "propose", str(file), name(1), "--reason", "test", "--dry-run", "--config", str(path)]
        cli = [sys.executable, "-m", "ipss_headend.cli", *words]
        said = [
            subprocess.run([*cli, "--activate-at", at], capture_output=True, text=True, timeout=60, check=False)
            for at in ("2199-12-31T02:00Z", "2026-12-31T02:00", "soon")
        ]

    assert [one.returncode for one in said] == [2, 3, 3], [one.stderr for one in said]
    assert "to be activated at 2199-12-31T02:00:00Z, but not-after is" in said[0].stderr


def test_words_and_encodings() -> None:
    image = Image.of_octets(b"METER-2.7", OCTETS)
    timed = Image.of_octets(b"METER-2.7", OCTETS, 1_798_682_400_500_000)
    assert timed.text() == image.text() + " at 2026-12-31T02:00:00Z"
    assert Image.of(timed.text()) == timed
    with pytest.raises(RequestError):
        Image.of(image.text() + " at 2026-12-31T25:00:00Z")
    assert transferred("101", 9, 3) == "101"
    assert transferred(None, 2, 3) == "110"
    assert transferred("", 7, 3) == "111"
    assert transferred(None, 0, 3) == transferred("10", None, 3) == ""

    assert Image.of(image.text()) == image
    for wrong in ("done", "image 0 1 " + "0" * 64, image.text() + " ", image.text()[:-1]):
        with pytest.raises(RequestError):
            Image.of(wrong)
    for identifier, octets in ((b"", b"x"), (b"x", b""), (b"x" * 65, b"x")):
        with pytest.raises(RequestError):
            Image.of_octets(identifier, octets)
    info = [["structure", [["double-long-unsigned", image.size], ["octet-string", image.identifier.hex()]]]]
    assert named(info, image)
    assert not named(info, Image.of_octets(b"METER-2.8", OCTETS))
    assert not named(None, image)
    assert [octet_string(bytes(count))[:-count] for count in (1, 127, 128, 255, 256)] == [
        b"\x09\x01",
        b"\x09\x7f",
        b"\x09\x81\x80",
        b"\x09\x81\xff",
        b"\x09\x82\x01\x00",
    ]
