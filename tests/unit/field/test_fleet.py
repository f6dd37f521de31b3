"""From the file to the registry and back: good lines in, bad ones in words, no secret anywhere."""

import base64
import csv
import io
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert

from ipss_headend.errors import BAD_INPUT, DONE, PARTLY_DONE, ConfigError, KeyTampered, UnknownMeter
from ipss_headend.field.connect import identities
from ipss_headend.field.fleet import ImportReport, export_meters, import_meters, load_fleet, load_meter
from ipss_headend.field.fleet_file import COLUMNS, Protocol
from ipss_headend.security import Keystore
from ipss_headend.security.mechanisms import BUILT
from ipss_headend.security.sample_keys import why_no_key
from ipss_headend.store import Database, counters, registry
from ipss_headend.store.schema import key_fingerprints

KEK = bytes(range(7, 39))
EK = "7f3a91c45e08d2b66a1cf0933b57e84d"
AK = "c2580fa7913e6bd4417ce2952d88f60b"
OTHER = "19e6b3708d5fc24ab1f40d687293ea5c"


@dataclass
class Desk:
    """A store, its keystore, and a way to hand in a file."""

    database: Database
    keystore: Keystore = field(default_factory=lambda: Keystore(KEK))

    def hand_in(self, text: str, *, strict: bool = False, own_title: bytes | None = None) -> ImportReport:
        with self.database.writing() as connection:
            return import_meters(
                connection, self.keystore, io.StringIO(text), "f.csv", strict=strict, client_system_title=own_title
            )

    def names(self) -> list[str]:
        with self.database.reading() as connection:
            return [meter.name for meter in registry.all_meters(connection)]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Database(tmp_path / "s.sqlite", reserve_bytes=0) as database:
        yield Desk(database)


def one(**cells: str) -> str:
    """A file of one good meter, but for `cells`."""
    given = {
        "name": "m1",
        "address": "10.0.0.1:4059",
        "system_title": "4D4D4D0000000001",
        "encryption_key": EK,
        "authentication_key": AK,
    } | cells
    return ",".join(given) + "\n" + ",".join(given.values()) + "\n"


def many(count: int, seed: int = 1) -> str:
    """A file as the virtual fleet writes it."""
    source = random.Random(seed)
    lines = [",".join(COLUMNS[:14])]
    lines += [
        f"meter-{n:06},127.{1 + n // 65536}.{n // 256 % 256}.{n % 256}:4059,4D4D4D{n:010X},"
        f"{source.randbytes(16).hex()},{source.randbytes(16).hex()},{source.randbytes(8).hex()},"
        "1,1,hls-gmac,0,auth+enc,no,virtual,household"
        for n in range(count)
    ]
    return "\n".join(lines) + "\n"


def test_meter_comes_back_as_it_was_written(desk: Desk) -> None:
    report = desk.hand_in(one(password="secret", group="east", model="E450", dedicated="yes", client="3", server="17"))

    with desk.database.reading() as connection:
        [meter] = load_fleet(connection, desk.keystore)
    assert report == ImportReport(1, ())
    assert report.exit_status == DONE
    assert (meter.meter_id, meter.name, meter.address, meter.server) == (1, "m1", "10.0.0.1:4059", 17)
    assert meter.system_title == bytes.fromhex("4D4D4D0000000001")
    assert (meter.model, meter.group) == ("E450", "east")
    assert meter.protocol == Protocol(3, "hls-gmac", 0, "auth+enc", dedicated=True)
    assert meter.keys.encryption_key == bytes.fromhex(EK)
    assert meter.keys.authentication_key == bytes.fromhex(AK)
    assert meter.keys.password == b"secret"


@pytest.mark.parametrize(
    ("cells", "protocol"),
    [
        ({}, Protocol(1, "hls-gmac", 0, "auth+enc")),
        ({"protection": "auth"}, Protocol(1, "hls-gmac", 0, "auth")),
        ({"encryption_key": "", "authentication_key": "", "password": "p"}, Protocol(1, "low", 0, "none")),
        ({"encryption_key": "", "authentication_key": ""}, Protocol(16, "none", 0, "none")),
        ({"auth": "none", "protection": "none"}, Protocol(16, "none", 0, "none")),
    ],
)
def test_what_is_left_out_follows_from_the_secrets(desk: Desk, cells: dict[str, str], protocol: Protocol) -> None:
    assert desk.hand_in(one(**cells)).mistakes == ()

    with desk.database.reading() as connection:
        assert load_meter(connection, desk.keystore, "m1").protocol == protocol


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("10.0.0.1:4060", "10.0.0.1:4060"),
        ("10.0.0.1", "10.0.0.1:4059"),
        ("[2001:db8::1]:4060", "[2001:db8::1]:4060"),
        ("[2001:DB8::1]", "[2001:db8::1]:4059"),
        ("2001:db8::1", "[2001:db8::1]:4059"),
        ("meter-1.ami.example:4059", "meter-1.ami.example:4059"),
        ("", None),
    ],
)
def test_addresses_as_people_write_them(desk: Desk, written: str, address: str | None) -> None:
    assert desk.hand_in(one(address=written)).mistakes == ()

    with desk.database.reading() as connection:
        assert load_meter(connection, desk.keystore, "m1").address == address


BAD_CELLS = [
    ({"name": ""}, "name is empty; every meter has one"),
    ({"name": "n" * 101}, "name has 101 characters; at most 100"),
    ({"name": "dlms+tcp://x"}, "name has characters that no name has; use letters, digits and - _ . /"),
    ({"name": "a\x07b"}, "name has characters that no name has; use letters, digits and - _ . /"),
    ({"address": "10.0.0.1:0"}, 'address: "0" is not a port; use 4059 for DLMS or leave it out'),
    ({"address": "10.0.0.1:x"}, 'address: "x" is not a port; use 4059 for DLMS or leave it out'),
    ({"address": "10.0.0.1:70000"}, 'address: "70000" is not a port; use 4059 for DLMS or leave it out'),
    ({"address": "10.0.0.256:4059"}, 'address: "10.0.0.256" is neither an IP address nor a host name'),
    ({"address": "a b:4059"}, 'address: "a b" is neither an IP address nor a host name'),
    ({"address": ":4059"}, 'address: "" is neither an IP address nor a host name'),
    ({"address": "[::1"}, 'address: "[::1" is not an address; write [2001:db8::1]:4059'),
    ({"address": "", "name": "n" * 17},
     ("address and logical_device_name are empty; a meter that dials in is known by its logical device name, and name "
      "is too long to be one (16 octets)")),
    ({"logical_device_name": "0x4D4"},
     'logical_device_name: "0x4D4" is not 0x and pairs of hexadecimal digits'),
    ({"logical_device_name": "x" * 17}, "logical_device_name has 17 octets; it has 1 to 16"),
    ({"system_title": "4D4D"}, 'system_title: "4D4D" has 2 octets; a system title has 8'),
    ({"system_title": "xyz"}, 'system_title: "xyz" is not hexadecimal; a system title is 16 hexadecimal digits'),
    ({"system_title": "00" * 8},
     "system_title is all zero; take the one that is printed on the meter or in its delivery file"),
    ({"system_title": ""}, "system_title is empty; security needs it, as 16 hexadecimal digits"),
    ({"encryption_key": EK[:-1]}, "encryption_key is an odd number, 31, of hexadecimal digits; expected 32"),
    ({"encryption_key": "x" + EK[1:]},
     "encryption_key is 32 characters that are not all hexadecimal digits; expected 32"),
    ({"encryption_key": EK[:-2]}, "encryption_key has 30 hexadecimal digits; suite 0 has keys of 32"),
    ({"authentication_key": AK + AK}, "authentication_key has 64 hexadecimal digits; suite 0 has keys of 32"),
    ({"authentication_key": ""}, "authentication_key is empty; none with protection auth needs both keys"),
    ({"encryption_key": ""}, "encryption_key is empty; none with protection auth needs both keys"),
    ({"authentication_key": EK}, "two of the meter's keys are the same; each has its own use and its own value"),
    ({"master_key": AK}, "two of the meter's keys are the same; each has its own use and its own value"),
    ({"auth": "hls2"}, 'auth: "hls2" is none of ' + ", ".join(BUILT)),
    ({"auth": "hls-md5"}, "password is empty; hls-md5 needs one"),
    ({"auth": "hls-sha256", "password": "x", "system_title": "", "protection": "none"},
     "system_title is empty; security needs it, as 16 hexadecimal digits"),
    ({"auth": "hls-ecdsa"}, "auth is hls-ecdsa, but suite 0 has no signatures; set suite to 1 or 2"),
    ({"auth": "hls-ecdsa", "suite": "1"},
     "private_key is empty; hls-ecdsa needs our private key and the meter's public key"),
    ({"private_key": "12" * 32}, "private_key is given, but suite 0 has no signatures; set suite to 1 or 2"),
    ({"peer_public_key": "12" * 63, "suite": "1"}, "peer_public_key has 126 hexadecimal digits; suite 1 has 128"),
    ({"auth": "low"}, "password is empty; low needs one"),
    ({"protection": "strong"}, 'protection: "strong" is none of none, auth, enc, auth+enc'),
    ({"suite": "2"}, "encryption_key has 32 hexadecimal digits; suite 2 has keys of 64"),
    ({"suite": "9"}, 'suite: "9" is not a number from 0 to 2'),
    ({"client": "0"}, 'client: "0" is not a number from 1 to 65535'),
    ({"server": "-1"}, 'server: "-1" is not a number from 1 to 65535'),
    ({"server": "\u0663"}, 'server: "\u0663" is not a number from 1 to 65535'),
    ({"dedicated": "maybe"}, 'dedicated: "maybe" is none of yes, no, true, false, 1, 0'),
    ({"dedicated": "yes", "auth": "none", "protection": "none"},
     "dedicated is yes and protection none; a dedicated key protects something or is left out"),
    ({"invocation_counter": "4294967295"}, 'invocation_counter: "4294967295" is not a number from 0 to 4294967294'),
    ({"group": "g" * 101}, "group is longer than 100 characters or cannot be printed"),
]  # fmt: skip


@pytest.mark.parametrize(("cells", "message"), BAD_CELLS)
def test_bad_cell_is_refused_in_words(desk: Desk, cells: dict[str, str], message: str) -> None:
    if "needs both keys" in message:
        cells = cells | {"protection": "auth"}

    report = desk.hand_in(one(**cells))

    assert report.mistakes == (f"f.csv: line 2: {message}",)
    assert report.exit_status == BAD_INPUT
    assert EK not in message
    assert AK not in message


SAMPLE_KEYS = [
    ("00" * 16, "is all zero"),
    ("000102030405060708090A0B0C0D0E0F", "counts up in equal steps"),
    ("D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF", "counts up in equal steps"),
    ("0F0E0D0C0B0A09080706050403020100", "counts up in equal steps"),
    ("00112233445566778899AABBCCDDEEFF", "counts up in equal steps"),
    ("AA" * 16, "is one octet over and over"),
    ("11" * 16, "is one octet over and over"),
    ("FF" * 16, "is one octet over and over"),
    ("DEADBEEF" * 4, "repeats itself"),
    ("0123456789ABCDEF" * 2, "repeats itself"),
    ("0123456789ABCDEFFEDCBA9876543210", "is published as a sample key"),
    ("2B7E151628AED2A6ABF7158809CF4F3C", "is published as a sample key"),
    ("00000000000000000000000000000001", "has fewer than 6 different octets"),
    (b"1234567890123456".hex(), "is made of letters and digits"),
    (b"AbcDefGhiJklMno1".hex(), "is made of letters and digits"),
]


@pytest.mark.parametrize(("key", "why"), SAMPLE_KEYS)
@pytest.mark.parametrize("column", ["encryption_key", "authentication_key", "master_key"])
def test_sample_keys_are_refused(desk: Desk, column: str, key: str, why: str) -> None:
    [mistake] = desk.hand_in(one(**{column: key})).mistakes

    assert mistake.startswith(f"f.csv: line 2: {column} {why}")
    assert mistake.endswith("; give the meter a random key of its own")
    assert key.lower() not in mistake.lower()


def test_random_keys_are_no_sample_keys() -> None:
    source = random.Random(4)

    assert [key for key in (source.randbytes(16) for _ in range(20_000)) if why_no_key(key)] == []


@pytest.mark.parametrize(
    ("again", "message"),
    [
        ({"name": "m1"}, 'name "m1" is also that of {}; every meter has a name of its own'),
        ({"address": "10.0.0.1"},
         "address 10.0.0.1:4059 with server 1 is also that of {}; every meter has an address of its own"),
        ({"system_title": "4d4d4d0000000001"},
         "system_title is also that of {}; every meter has a system title of its own"),
        ({"encryption_key": EK}, "encryption_key is also that of {}; every meter has a key of its own"),
        ({"authentication_key": AK}, "authentication_key is also that of {}; every meter has a key of its own"),
        ({"master_key": EK}, "master_key is also that of {}; every meter has a key of its own"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("same_file", [True, False])
def test_nothing_is_given_to_two_meters(desk: Desk, again: dict[str, str], message: str, same_file: bool) -> None:
    second = {
        "name": "m2",
        "address": "10.0.0.2:4059",
        "system_title": "4D4D4D0000000002",
        "encryption_key": os.urandom(16).hex(),
        "authentication_key": os.urandom(16).hex(),
        "master_key": os.urandom(16).hex(),
    } | again
    first = one(master_key="")
    if same_file:
        report = desk.hand_in(first + ",".join(second.values()) + "\n")
        place = "f.csv: line 3"
    else:
        assert desk.hand_in(first).imported == 1
        report = desk.hand_in(one(**second))
        place = "f.csv: line 2"

    owner = "line 2" if same_file else '"m1", which is in the registry'
    assert report.mistakes == (f"{place}: {message.format(owner)}",)
    assert desk.names() == ["m1"]


def test_two_logical_devices_share_an_address(desk: Desk) -> None:
    second = ["m2", "10.0.0.1:4059", "4D4D4D0000000002", OTHER, os.urandom(16).hex(), "2"]

    assert desk.hand_in(one(server="1") + ",".join(second) + "\n").imported == 2


def test_any_number_of_meters_may_dial_in(desk: Desk) -> None:
    second = ["m2", "", "4D4D4D0000000002", OTHER, os.urandom(16).hex()]

    assert desk.hand_in(one(address="") + ",".join(second) + "\n").imported == 2


@pytest.mark.parametrize(
    ("written", "octets", "called"),
    [
        ("VRT0000000000001", b"VRT0000000000001", b"VRT0000000000001"),
        ("0x4b464D00FF", bytes.fromhex("4B464D00FF"), bytes.fromhex("4B464D00FF")),
        ("", None, b"m1"),
    ],
)
def test_meter_that_dials_in_is_known_by_its_device_name(
    desk: Desk, written: str, octets: bytes | None, called: bytes
) -> None:
    assert desk.hand_in(one(address="", logical_device_name=written)).mistakes == ()

    with desk.database.reading() as connection:
        meter = load_meter(connection, desk.keystore, "m1")
        exported = io.StringIO()
        export_meters(connection, exported)
    assert meter.logical_device_name == octets
    assert identities(meter) == [called, meter.system_title]
    [row] = csv.DictReader(io.StringIO(exported.getvalue()))
    assert row["logical_device_name"].upper() == written.upper()


@pytest.mark.parametrize("first", [{"name": "VRT01", "logical_device_name": ""}, {"logical_device_name": "VRT01"}])
def test_two_meters_have_two_device_names(desk: Desk, first: dict[str, str]) -> None:
    assert desk.hand_in(one(**{"address": "", **first})).mistakes == ()
    second = one(name="m9", address="", system_title="4D4D4D0000000002", logical_device_name="VRT01")

    report = desk.hand_in(second.replace(EK, OTHER).replace(AK, os.urandom(16).hex()))

    [mistake] = report.mistakes
    assert mistake.startswith("f.csv: line 2: logical_device_name VRT01 is also that of ")
    assert mistake.endswith("; every meter has a logical device name of its own")


def test_head_ends_own_title_is_no_meters(desk: Desk) -> None:
    report = desk.hand_in(one(), own_title=bytes.fromhex("4D4D4D0000000001"))

    assert report.mistakes == ("f.csv: line 2: system_title is the head-end's own; a meter has another",)


def test_good_lines_go_in_and_bad_ones_are_named(desk: Desk) -> None:
    lines = many(5).splitlines()
    lines[2] = lines[2].replace("hls-gmac", "hls-gmax")
    lines[4] += ",surplus"

    report = desk.hand_in("\n".join(lines))

    assert report.imported == 3
    assert report.mistakes == (
        'f.csv: line 3: auth: "hls-gmax" is none of ' + ", ".join(BUILT),
        "f.csv: line 5: 15 columns; the first line names 14",
    )
    assert report.exit_status == PARTLY_DONE
    assert desk.names() == ["meter-000000", "meter-000002", "meter-000004"]


def test_strict_keeps_all_out_for_one_bad_line(desk: Desk) -> None:
    report = desk.hand_in(many(3) + "bad\n", strict=True)

    assert (report.imported, len(report.mistakes), report.exit_status) == (0, 1, BAD_INPUT)
    assert desk.names() == []
    assert desk.hand_in(many(3), strict=True).imported == 3


IMPORTS = int(os.environ.get("IPSS_IMPORTS", "10000"))


@pytest.mark.timeout(120 + IMPORTS // 1_000)
def test_r23_planted_bad_lines_are_all_found_among_thousands(desk: Desk) -> None:
    lines = many(IMPORTS).splitlines()
    planted = sorted(random.Random(9).sample(range(2, IMPORTS + 1), 100))
    for number, place in enumerate(planted):
        cells = lines[place].split(",")
        column = 3 + number % 2
        cells[column] = (SAMPLE_KEYS[number % len(SAMPLE_KEYS)][0], lines[1].split(",")[column])[number % 3 == 0]
        lines[place] = ",".join(cells)

    report = desk.hand_in("\n".join(lines))

    assert report.imported == IMPORTS - 100
    assert [int(mistake.split()[2].rstrip(":")) for mistake in report.mistakes] == [place + 1 for place in planted]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f.csv: nothing is in it; its first line names columns, name, address at least"),
        ("name;address;group\n", "f.csv: line 1: semicolons are between the columns; write commas"),
        ("name,adress\n", "f.csv: line 1: \"adress\" is unknown; did you mean address?"),
        ("name,address,name\n", "f.csv: line 1: name stands there 2 times; once is enough"),
        (f"m1,10.0.0.1,{EK}\n", "a column that is no name is unknown; known are name, address"),
        ('"name\n', "f.csv: line 1: not CSV: unexpected end of data"),
    ],
)  # fmt: skip
def test_first_line_must_name_the_columns(desk: Desk, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        desk.hand_in(text)

    assert message in str(caught.value)
    assert EK not in str(caught.value)


def test_byte_order_mark_blank_lines_and_spaces_do_no_harm(desk: Desk) -> None:
    text = "\ufeff name , address \n\n m1 , 10.0.0.1 \n,\n"

    assert desk.hand_in(text) == ImportReport(1, ())


def test_broken_quotes_are_one_bad_line(desk: Desk) -> None:
    report = desk.hand_in('name,address\n"m1"x,10.0.0.1\nm2,10.0.0.2\n')

    assert report.imported == 1
    assert report.mistakes[0].startswith("f.csv: line 2: not CSV: ")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.lists(st.text(max_size=12), min_size=len(COLUMNS), max_size=len(COLUMNS)), max_size=4))
def test_whatever_stands_in_a_file_it_is_imported_or_refused(desk: Desk, rows: list[list[str]]) -> None:
    text = ",".join(COLUMNS) + "\n" + "".join(",".join(row) + "\n" for row in rows)

    report = desk.hand_in(text)

    assert all(mistake.startswith("f.csv: line ") for mistake in report.mistakes)


def test_counter_of_an_earlier_head_end_is_not_used_again(desk: Desk) -> None:
    desk.hand_in(one(invocation_counter="5000"))

    with desk.database.writing() as connection:
        assert counters.reserve(connection, [1], 10) == [(1, 5000, 5010)]


def test_r7_r9_keys_of_a_meter_that_was_taken_out_go_on_where_their_counters_were(desk: Desk) -> None:
    desk.hand_in(one())
    with desk.database.writing() as connection:
        counters.reserve(connection, [1], 700)
        counters.raise_peer(connection, [(1, 900)])
        registry.remove_meter(connection, 1)

    assert desk.hand_in(one(name="other", address="10.0.0.9:4059")).imported == 1

    with desk.database.writing() as connection:
        assert counters.reserve(connection, [2], 10) == [(2, 701, 711)]
        assert counters.peer_high_water(connection, [2]) == {2: 900}
        registry.remove_meter(connection, 2)
    # Once more, and under the authentication key alone: any key that comes back counts.
    assert desk.hand_in(one(encryption_key=OTHER)).imported == 1
    with desk.database.writing() as connection:
        assert counters.reserve(connection, [3], 10) == [(3, 711, 721)]
    assert "is in the registry" in desk.hand_in(one(name="m9", system_title="4D4D4D0000000009")).mistakes[0]


def test_r7_key_whose_counters_were_used_up_is_refused(desk: Desk) -> None:
    with desk.database.writing() as connection:
        mark = desk.keystore.fingerprint(bytes.fromhex(EK))
        connection.execute(insert(key_fingerprints).values(fingerprint=mark, meter_id=counters.USED_UP))

    assert "were used up" in desk.hand_in(one()).mistakes[0]


def test_groups_select(desk: Desk) -> None:
    desk.hand_in("name,address,group\na,10.0.0.1,east\nb,10.0.0.2,west\nc,10.0.0.3,east\n")

    with desk.database.reading() as connection:
        assert [meter.name for meter in load_fleet(connection, desk.keystore, ["east"])] == ["a", "c"]
        with pytest.raises(UnknownMeter):
            load_meter(connection, desk.keystore, "d")


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE meter_keys SET wrapped = (SELECT wrapped FROM meter_keys WHERE meter_id = 1) WHERE meter_id = 2",
        "UPDATE meter_keys SET wrapped = zeroblob(length(wrapped)) WHERE meter_id = 2",
        "DELETE FROM meter_keys WHERE meter_id = 2",
        "UPDATE meters SET system_title = x'4D4D4D00000000FF' WHERE meter_id = 2",
    ],
)
def test_tampered_keys_are_said_so(desk: Desk, tampering: str) -> None:
    desk.hand_in(many(3))
    with desk.database.writing() as connection:
        connection.exec_driver_sql(tampering)

    with desk.database.reading() as connection, pytest.raises(KeyTampered, match=r"1 meters .* \(meter 2\)"):
        load_fleet(connection, desk.keystore)


def test_no_secret_is_on_the_disk_in_messages_or_in_what_is_shown(desk: Desk, tmp_path: Path) -> None:
    text = many(200)
    report = desk.hand_in(text + text.splitlines()[1] + "\n" + text.splitlines()[2].replace("127.", "128.") + "\n")
    exported = io.StringIO()
    with desk.database.reading() as connection:
        fleet = load_fleet(connection, desk.keystore)
        export_meters(connection, exported)

    places = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    places += [repr(fleet).encode(), repr(report).encode(), exported.getvalue().encode()]
    everything = b"\0".join(places).lower()
    assert len(fleet) == 200
    assert len(report.mistakes) == 2
    for meter in fleet:
        for secret in (meter.keys.encryption_key, meter.keys.authentication_key, meter.keys.password):
            assert secret is not None
            for form in (secret, secret.hex().encode(), base64.b64encode(secret)):
                assert form.lower() not in everything


def test_key_pairs_of_suite_two_are_kept_and_exported(desk: Desk) -> None:
    keys = {"encryption_key": EK + AK, "authentication_key": AK + EK, "suite": "2", "auth": "hls-ecdsa"}
    pair = {"private_key": (b"\x11" * 48).hex(), "peer_public_key": (b"\x22" * 96).hex()}

    report = desk.hand_in(one(**keys, **pair, protection="auth+enc"))

    assert report.mistakes == ()
    with desk.database.reading() as connection:
        meter = load_meter(connection, desk.keystore, "m1")
    assert meter.protocol == Protocol(1, "hls-ecdsa", 2, "auth+enc")
    assert (meter.keys.private_key, meter.keys.peer_public_key) == (b"\x11" * 48, b"\x22" * 96)
    assert "11" * 48 not in repr(meter)


def test_exported_registry_has_the_columns_of_the_import(desk: Desk) -> None:
    desk.hand_in(one(address="[2001:db8::1]:4059", auth="none", protection="none", encryption_key="", group="east"))
    exported = io.StringIO()

    with desk.database.reading() as connection:
        assert export_meters(connection, exported) == 1

    line = exported.getvalue().splitlines()[1]
    assert line == "m1,[2001:db8::1]:4059,4D4D4D0000000001,16,1,none,0,none,no,,east,,,,tcp,0,0,,ln,,"
    with Database(desk.database.path.with_name("other.sqlite"), reserve_bytes=0) as database:
        assert Desk(database).hand_in(exported.getvalue()) == ImportReport(1, ())
