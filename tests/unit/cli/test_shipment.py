"""Shipment files: what manufacturers send beside their meters, with keys under a transport key."""

import json
import os
from base64 import b64encode
from pathlib import Path

import pytest
from Crypto.Cipher import AES
from sqlalchemy import select
from tests.unit.cli.support import Run

from ipss_headend import config as configuration
from ipss_headend.errors import ConfigError
from ipss_headend.field import shipment
from ipss_headend.field.fleet import load_fleet
from ipss_headend.field.fleet_file import MeterLine
from ipss_headend.security import key_wrap
from ipss_headend.security.keystore import Keystore
from ipss_headend.store import Database
from ipss_headend.store.schema import transport_keys

TRANSPORT = bytes.fromhex("9f3c1d7be4a256088d0f61c93b72e5ad14f8067b59c2de30a1465c9be8730d2f")


def wrapped(key: bytes, under: bytes = TRANSPORT) -> bytes:
    """By another implementation of RFC 3394 than the one under test."""
    return AES.new(under, AES.MODE_KW).seal(key)


KEYS = [[os.urandom(16) for _ in range(3)] for _ in range(4)]

XML = """<?xml version="1.0" encoding="UTF-8"?>
<s:ShipmentFile xmlns:s="urn:example:shipment" Version="2">
  <Header><Manufacturer>ACM</Manufacturer><Order>4711</Order></Header>
  <Devices>
    <Device SerialNumber="ACM-0001">
      <DeviceType>E450</DeviceType>
      <Communication><IPAddress>10.1.0.1</IPAddress></Communication>
      <SystemTitle>41434D0000000001</SystemTitle>
      <Keys><GUEK>{guek}</GUEK><GAK>{gak}</GAK><KEK>{kek}</KEK></Keys>
    </Device>
    <Device>
      <Serial_Number>ACM-0002</Serial_Number>
      <Address>10.1.0.2:4059</Address>
      <System-Title>41434D0000000002</System-Title>
      <Key Name="GUEK" Version="1">{guek2}</Key>
      <Key Name="GAK">{gak2}</Key>
      <Key Name="MK" Value="{kek2}"/>
    </Device>
    <Device>
      <SerialNumber>ACM-0003</SerialNumber>
      <Address/>
      <LogicalDeviceName>ACM0000000000003</LogicalDeviceName>
      <SystemTitle>41434D0000000003</SystemTitle>
      <EncryptedKey Id="GUEK"><EncryptionMethod/><CipherData><CipherValue>
        {guek3}
      </CipherValue></CipherData></EncryptedKey>
      <EncryptedKey Id="GAK"><CipherData><CipherValue>{gak3}</CipherValue></CipherData></EncryptedKey>
    </Device>
{more}  </Devices>
</s:ShipmentFile>
"""

DEVICE = (
    "    <Device><SerialNumber>{name}</SerialNumber><Address>{address}</Address><SystemTitle>{title}</SystemTitle>"
    "<GUEK>{guek}</GUEK><GAK>{gak}</GAK></Device>\n"
)


def xml(more: str = "") -> str:
    form = dict(zip(("guek", "gak", "kek"), (wrapped(key).hex() for key in KEYS[0]), strict=True))
    form |= dict(zip(("guek2", "gak2", "kek2"), (b64encode(wrapped(key)).decode() for key in KEYS[1]), strict=True))
    form |= {"guek3": b64encode(wrapped(KEYS[2][0])).decode(), "gak3": wrapped(KEYS[2][1]).hex().upper()}
    return XML.format(more=more, **form)


@pytest.fixture
def ready(run: Run, head_end: Path, tmp_path: Path) -> Path:
    """A head-end that has the manufacturer's transport key."""
    key = tmp_path / "acme.hex"
    key.touch(0o600)
    key.write_text(TRANSPORT.hex())
    assert run("keys", "transport", "add", "acme-2026", "--key-file", key, "--config", head_end).status == 0
    return head_end


def test_xml_shipment_is_imported_with_its_keys_opened(run: Run, ready: Path, tmp_path: Path) -> None:
    (tmp_path / "shipment.xml").write_text(xml())

    ran = run("meters", "import", tmp_path / "shipment.xml", "--transport-key", "acme-2026", "--config", ready)

    assert ran.status == 0, ran.err
    loaded = configuration.load(ready)
    with Database(loaded.database.address, reserve_bytes=0) as database, database.writing() as connection:
        fleet = load_fleet(connection, Keystore.open(connection, loaded.keystore))
        stored = connection.scalar(select(transport_keys.c.wrapped))
    found = [[one.keys.encryption_key, one.keys.authentication_key, one.keys.master_key] for one in fleet]
    assert found == [KEYS[0], KEYS[1], [*KEYS[2][:2], None]]
    assert [(one.name, one.address, one.model) for one in fleet] == [
        ("ACM-0001", "10.1.0.1:4059", "E450"),
        ("ACM-0002", "10.1.0.2:4059", ""),
        ("ACM-0003", None, ""),
    ]
    assert stored is not None
    assert TRANSPORT not in stored
    assert TRANSPORT not in b"".join(path.read_bytes() for path in loaded.data_directory.glob("*.sqlite*"))
    shown = run("keys", "transport", "list", "--config", ready, "--json")
    assert json.loads(shown.out) == {"transport_keys": ["acme-2026"]}


def test_each_bad_device_is_refused_with_its_line_and_the_good_ones_are_in(
    run: Run, ready: Path, tmp_path: Path
) -> None:
    fresh = [os.urandom(16) for _ in range(12)]
    bad = [
        ("same-title", "41434D0000000001", wrapped(fresh[0]), wrapped(fresh[1]), "system_title is also that of line 5"),
        ("same-key", "41434D0000000011", wrapped(KEYS[0][0]), wrapped(fresh[3]), "encryption_key is also that of"),
        ("zero", "41434D0000000012", wrapped(bytes(16)), wrapped(fresh[5]), "encryption_key"),
        ("plain", "41434D0000000013", fresh[6], wrapped(fresh[7]), "is no key wrapped under a transport key"),
        ("other", "41434D0000000014", wrapped(fresh[8], b"o" * 16), wrapped(fresh[9]), "does not open under this"),
        ("cut", "41434D0000000015", wrapped(fresh[10])[:-1], wrapped(fresh[11]), "is no key wrapped"),
    ]
    more = "".join(
        DEVICE.format(name=name, address=f"10.2.0.{place + 1}", title=title, guek=guek.hex(), gak=gak.hex())
        for place, (name, title, guek, gak, _) in enumerate(bad)
    )
    (tmp_path / "shipment.xml").write_text(xml(more))

    ran = run(
        "meters", "import", tmp_path / "shipment.xml", "--transport-key", "acme-2026", "--config", ready, "--json"
    )

    said = json.loads(ran.out)
    assert (ran.status, said["imported"], said["refused"]) == (8, 3, 6)
    first = xml(more).splitlines().index(more.splitlines()[0]) + 1
    for place, (mistake, (*_, why)) in enumerate(zip(sorted(said["mistakes"]), bad, strict=True)):
        assert mistake.startswith(f"shipment.xml: line {first + place}: "), mistake
        assert why in mistake
    for key in (*fresh, KEYS[0][0], TRANSPORT):
        assert key.hex() not in ran.out + ran.err


def test_csv_shipment_with_a_manufacturers_column_names(run: Run, ready: Path, tmp_path: Path) -> None:
    fields = ["Serial Number", "IP-Address", "SystemTitle", "GUEK", "GAK", "KEK"]
    cells = ["ACM-9", "10.3.0.1", "41434D0000000009", *(wrapped(key).hex() for key in KEYS[3])]
    (tmp_path / "s.csv").write_text(",".join(fields) + "\n" + ",".join(cells) + "\n")

    ran = run("meters", "import", tmp_path / "s.csv", "--transport-key", "acme-2026", "--config", ready)

    assert ran.status == 0, ran.err
    again = run("meters", "import", tmp_path / "s.csv", "--transport-key", "acme-2026", "--config", ready)
    assert "is also that of" in again.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<!DOCTYPE x [<!ENTITY a "b">]><x><Device/></x>', "a document type"),
        ("<x><Device></x>", "not XML"),
        ("<x><Other/></x>", "no devices in it"),
        ("<x/>", "no devices in it"),
    ],
)
def test_what_is_no_shipment_is_refused_whole(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        list(shipment.read(text, "s.xml", TRANSPORT))


def test_shipment_cut_at_every_octet_is_a_mistake_and_never_a_fault() -> None:
    text = xml()
    for end in range(1, len(text) - 2):
        with pytest.raises(ConfigError):
            list(shipment.read(text[:end], "s.xml", TRANSPORT))


def test_unknown_transport_key_and_wrong_ones_are_refused(run: Run, ready: Path, tmp_path: Path) -> None:
    (tmp_path / "s.xml").write_text(xml())
    unknown = run("meters", "import", tmp_path / "s.xml", "--transport-key", "other", "--config", ready)
    assert (unknown.status, "known: acme-2026" in unknown.err) == (3, True)
    key = tmp_path / "zero.hex"
    key.touch(0o600)
    key.write_text("00" * 16)
    assert run("keys", "transport", "add", "zero", "--key-file", key, "--config", ready).status == 3
    assert run("keys", "transport", "remove", "acme-2026", "--config", ready).status == 0
    assert run("meters", "import", tmp_path / "s.xml", "--transport-key", "acme-2026", "--config", ready).status == 3


def test_many_keys_are_unwrapped_as_one_by_one() -> None:
    keys = [os.urandom(16 if place % 3 else 32) for place in range(50)]
    sealed = [wrapped(key) for key in keys]
    sealed[7] = sealed[7][:-1] + bytes([sealed[7][-1] ^ 1])

    opened = key_wrap.unwrap_keys(TRANSPORT, sealed)

    assert opened == [*keys[:7], None, *keys[8:]]


def test_meters_of_a_file_are_read_lazily_and_as_values() -> None:
    [first, *_] = shipment.read(xml(), "s.xml", TRANSPORT)

    assert isinstance(first, MeterLine)
    assert first.line == 5
