from pathlib import Path

import pytest
from tests.unit.cli.support import FLEET, Run

from ipss_headend.cli.targets import Auth, Options, Referencing, resolve
from ipss_headend.errors import ConfigError, RequestError, StoreInUse, UnknownMeter
from ipss_headend.store import Database

KEYS = f'encryption_key = "{"1a" * 16}"\nauthentication_key = "{"2b" * 16}"\n'


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IPSS_HEADEND_DATA", str(tmp_path / "client"))
    return tmp_path / "client"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.toml"
    path.write_text(f"[4d4d4d0000000001]\n{KEYS}")
    path.chmod(0o600)
    return path


def test_bare_url_is_the_public_client(own_directory: Path) -> None:
    target = resolve("dlms+tcp://192.0.2.7", Options(), Path("none"))

    assert (target.host, target.port, target.client, target.server) == ("192.0.2.7", 4059, 16, 1)
    assert (target.auth, target.protection) == ("none", "none")
    assert not target.needs_counters
    assert not own_directory.exists()


def test_keys_make_it_hls_gmac_with_a_title_and_counters_of_our_own(keys: Path) -> None:
    options = Options(client=1, keys=keys)

    target = resolve("dlms+tcp://[2001:db8::1]:4060", options, Path("none"))

    assert (target.host, target.port) == ("2001:db8::1", 4060)
    assert (target.auth, target.protection) == ("hls-gmac", "auth+enc")
    assert target.server_title.hex() == "4d4d4d0000000001"
    assert len(target.client_title) == 8
    first, second = target.reserve(), target.reserve()
    assert first[1] == second[0]
    assert resolve("dlms+tcp://h", options, Path("none")).client_title == target.client_title
    assert "1a1a" not in repr(target)


def test_secured_read_without_the_meters_title_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(KEYS)
    path.chmod(0o600)

    with pytest.raises(RequestError, match="--server-title"):
        resolve("dlms+tcp://h", Options(keys=path), Path("none"))


def test_two_tables_need_a_choice(keys: Path) -> None:
    keys.write_text(f"[4d4d4d0000000001]\n{KEYS}[4d4d4d0000000002]\n{KEYS}")

    with pytest.raises(RequestError, match="4d4d4d0000000002"):
        resolve("dlms+tcp://h", Options(keys=keys), Path("none"))

    chosen = resolve("dlms+tcp://h", Options(keys=keys, server_title="4D4D4D0000000002"), Path("none"))
    assert chosen.server_title.hex() == "4d4d4d0000000002"


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "dlms+tcp://",
        "dlms+tcp://h:0",
        "dlms+tcp://h:99999",
        "dlms+tcp://h/1",
        "dlms+tcp://u@h",
    ],
)
def test_url_that_cannot_be_read_names_what_can(url: str) -> None:
    with pytest.raises(RequestError, match=r"dlms\+tcp://"):
        resolve(url, Options(), Path("none"))


@pytest.mark.parametrize(
    "options",
    [
        Options(auth=Auth.HLS2),
        Options(auth=Auth.HLS_SHA256),
        Options(auth=Auth.HLS_ECDSA),
        Options(auth=Auth.HLS_ECDSA, suite=1),
        Options(physical=17),
        Options(auth=Auth.LOW),
        Options(auth=Auth.HLS_GMAC),
    ],
)
def test_what_is_not_built_or_lacks_its_secret_is_refused_before_anything_is_sent(options: Options) -> None:
    with pytest.raises(RequestError):
        resolve("dlms+tcp://h", options, Path("none"))


def test_keys_file_never_shows_its_keys(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "ab" * 15
    keys.write_text(f'encryption_key = "{secret}"\n')

    with pytest.raises(ConfigError, match="15 octets") as wrong:
        resolve("dlms+tcp://h", Options(keys=keys), Path("none"))

    assert secret not in str(wrong.value) + capsys.readouterr().err


def test_registered_meter_has_the_stores_counters(run: Run, head_end: Path, tmp_path: Path) -> None:
    (tmp_path / "fleet.csv").write_text(FLEET)
    run("meters", "import", tmp_path / "fleet.csv", "--config", head_end)

    target = resolve("oak street 2", Options(), head_end)

    assert (target.host, target.port, target.auth) == ("192.0.2.2", 4060, "hls-gmac")
    first, second = target.reserve(), target.reserve()
    assert first[1] <= second[0]
    target.keep_peer_counter(77)
    assert resolve("oak street 2", Options(), head_end).peer_counter == 77
    with pytest.raises(UnknownMeter, match="oak street 2"):
        resolve("oak street 22", Options(), head_end)
    with pytest.raises(RequestError, match="--client"):
        resolve("oak street 2", Options(client=3), head_end)


def test_registered_meter_is_the_running_head_ends(run: Run, head_end: Path, tmp_path: Path) -> None:
    (tmp_path / "fleet.csv").write_text(FLEET)
    run("meters", "import", tmp_path / "fleet.csv", "--config", head_end)

    with (
        Database(head_end.parent / "data" / "head_end.sqlite", own=True, reserve_bytes=0),
        pytest.raises(StoreInUse, match="readings query"),
    ):
        resolve("oak street 2", Options(), head_end)


def test_hdlc_url_carries_its_physical_address_and_client_16_bits_do_not_fit() -> None:
    target = resolve("dlms+hdlc+tcp://h:1", Options(physical=5481), Path("none"))

    assert (target.transport, target.physical, target.port) == ("hdlc+tcp", 5481, 1)
    with pytest.raises(RequestError, match="--client 128"):
        resolve("dlms+hdlc+tcp://h", Options(client=128), Path("none"))


@pytest.mark.parametrize(
    ("url", "transport", "line"),
    [
        ("dlms+udp://192.0.2.7", "udp", ""),
        ("dlms+hdlc+serial:///dev/ttyUSB0?baud=19200", "hdlc+serial", "serial:///dev/ttyUSB0?baud=19200"),
        ("dlms+optical:///dev/ttyUSB0", "optical", "serial:///dev/ttyUSB0"),
    ],
)
def test_url_names_its_transport(url: str, transport: str, line: str) -> None:
    target = resolve(url, Options(), Path("none"))

    assert (target.transport, target.line) == (transport, line)


@pytest.mark.parametrize("url", ["dlms+optical://ttyUSB0", "dlms+hdlc+serial:///", "dlms+optical:///dev/a#b"])
def test_serial_url_without_a_device_file_is_refused(url: str) -> None:
    with pytest.raises(RequestError, match="/dev/ttyUSB0"):
        resolve(url, Options(), Path("none"))


@pytest.mark.parametrize("referencing", list(Referencing))
def test_referencing_reaches_the_profile(referencing: Referencing) -> None:
    assert resolve("dlms+tcp://h", Options(referencing=referencing), Path("none")).referencing == referencing.value
