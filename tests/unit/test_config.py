"""Each file in `config/` is one: `*.good.toml` loads, `*.bad.toml` has the one mistake of its first line."""

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from ipss_headend.config import KeystoreConfig, PlanConfig, load, parse
from ipss_headend.errors import BAD_INPUT, ConfigError
from ipss_headend.names import ObjectName
from ipss_headend.schedule import Every

FILES = Path(__file__).parent / "config"


def _files(pattern: str) -> list[Path]:
    files = sorted(FILES.glob(pattern))
    assert files, f"no {pattern} beside this test"
    return files


@pytest.mark.parametrize("path", _files("*.good.toml"), ids=lambda path: path.name)
def test_good_file_loads(path: Path) -> None:
    assert load(path).keystore != KeystoreConfig()


@pytest.mark.parametrize("path", _files("*.bad.toml"), ids=lambda path: path.name)
def test_bad_file_says_its_one_mistake(path: Path) -> None:
    text = path.read_text()

    with pytest.raises(ConfigError) as caught:
        parse(text, Path("/etc/head_end.toml"))

    assert caught.value.mistakes == (text.splitlines()[0].removeprefix("# "),)
    assert caught.value.exit_status == BAD_INPUT


def test_every_mistake_of_a_file_is_reported_at_once() -> None:
    text = '[keystore]\nkey_file = "k"\n[reactor]\nthreads = -1\nbatch_rows = 0\n[[listeners]]\nport = 0\n'

    with pytest.raises(ConfigError) as caught:
        parse(text, Path("head_end.toml"))

    assert len(caught.value.mistakes) == 3


def test_whole_file_means_what_it_says() -> None:
    config = load(FILES / "whole.good.toml")

    assert config.database.address == Path("/var/lib/ipss-headend/readings.sqlite")
    assert config.database.scrub_kib_per_second == 512
    assert config.database.scrub_every_s == 7 * 86_400
    assert config.time_zone == ZoneInfo("Europe/Prague")
    assert config.client_system_title == bytes.fromhex("4950530000000002")
    assert config.reactor.request_s == 600.0
    assert [listener.port for listener in config.listeners] == [4060, 4059, 4059]
    assert config.plans[0] == PlanConfig(
        name="billing registers",
        every=Every(86_400, 600),
        objects=(ObjectName("1.0.1.8.0.255"), ObjectName("1.0.2.8.0.255", 3, 2)),
        window_s=1800,
        groups=("east", "west"),
    )
    assert config.plans[1].profile == "1.0.99.1.0.255"
    assert config.plans[1].backfill_days == 40
    assert config.log.json is True


def test_paths_are_relative_to_the_file() -> None:
    config = load(FILES / "minimal.good.toml")

    assert config.data_directory == FILES / "data"
    assert config.database.address == FILES / "data" / "head_end.sqlite"
    assert config.keystore.key_file == FILES / "kek.key"


def test_missing_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent.toml: No such file or directory; expected a configuration file"):
        load(tmp_path / "absent.toml")


def test_file_that_is_no_text_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "binary.toml"
    path.write_bytes(b"ab\xff")

    with pytest.raises(ConfigError, match=r"binary.toml: octet 2 is no UTF-8"):
        load(path)


def test_plan_without_groups_takes_every_meter() -> None:
    everybody = PlanConfig("all", Every(3600))
    east = PlanConfig("east", Every(3600), groups=("east",))

    assert everybody.selects("")
    assert everybody.selects("west")
    assert east.selects("east")
    assert not east.selects("west")
