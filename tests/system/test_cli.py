"""The commands as their users run them: processes of their own, real sockets, virtual meters."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_S = 60


@dataclass(frozen=True)
class Fleet:
    """Virtual meters that answer while a test runs."""

    csv: Path
    meters: list[dict[str, str]]

    def url(self, meter: int = 0) -> str:
        return f"dlms+tcp://{self.meters[meter]['address']}"


Ipss = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("fleet")
    path = directory / "fleet.csv"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "ipss_headend.cli", "simulate", "--meters", "4", "--port", "0", "--days", "3"),
            *("--first-address", "127.77.0.1", "--seed", "77", "--csv", str(path), "--faults", "wrong-tag=#3"),
        ],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while not path.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield Fleet(path, list(csv.DictReader(path.read_text().splitlines())))
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0, "Ctrl-C is how a simulation ends"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def ipss(tmp_path: Path) -> Ipss:
    environment = {**os.environ, "IPSS_HEADEND_DATA": str(tmp_path / "client"), "NO_COLOR": "1"}

    def run(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ipss_headend.cli", *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=environment,
            cwd=tmp_path,
            check=False,
        )

    return run


def keys_of(fleet: Fleet, meter: int, directory: Path, *, spoil: bool = False) -> Path:
    one = fleet.meters[meter]
    key = one["encryption_key"]
    path = directory / "keys.toml"
    path.write_text(
        f"[{one['system_title']}]\n"
        f'encryption_key = "{key[::-1] if spoil else key}"\n'
        f'authentication_key = "{one["authentication_key"]}"\n'
    )
    path.chmod(0o600)
    return path


def test_register_is_read_with_scaler_and_unit_over_a_secured_association(
    ipss: Ipss, fleet: Fleet, tmp_path: Path
) -> None:
    keys = keys_of(fleet, 0, tmp_path)

    ran = ipss("read", fleet.url(), "--client", 1, "--keys", keys, "1-0:1.8.0*255", "8/0.0.1.0.0.255:2", "--json")

    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    energy, clock = answer["items"]
    assert energy["object"] == "3/1.0.1.8.0.255:2"
    assert (energy["ok"], energy["scaler"], energy["unit"]) == (True, 0, "Wh")
    assert energy["raw"] == ["double-long-unsigned", int(energy["value"])]
    assert clock["value"].startswith("20")
    assert answer["exchanges"] >= 3
    assert answer["duration_s"] > 0


def test_profile_is_read_by_time_by_count_and_by_column(ipss: Ipss, fleet: Fleet, tmp_path: Path) -> None:
    to_meter = ("read", fleet.url(), "--client", 1, "--keys", keys_of(fleet, 0, tmp_path), "1.0.99.1.0.255", "--json")

    last = json.loads(ipss(*to_meter, "--last", 5).stdout)
    day = json.loads(ipss(*to_meter, "--from", "1d", "--columns", "1.0.1.8.0.255").stdout)

    assert [len(row["values"]) for row in last["rows"]] == [len(last["items"][0]["columns"])] * 5
    assert len(day["rows"]) in {95, 96, 97}
    assert [column["object"] for column in day["items"][0]["columns"]] == ["3/1.0.1.8.0.255:2"]
    times = [row["capture_time"] for row in day["rows"]]
    assert times == sorted(set(times))
    energies = [int(row["values"][0]) for row in day["rows"]]
    assert energies == sorted(energies)
    assert last["rows"][-1]["values"].count(None) == 0


def test_object_list_is_read(ipss: Ipss, fleet: Fleet, tmp_path: Path) -> None:
    ran = ipss("read", fleet.url(), "--client", 1, "--keys", keys_of(fleet, 0, tmp_path), "objects", "--json")

    listed = {one["logical_name"]: one["class_id"] for one in json.loads(ran.stdout)["items"][0]["value"]}
    assert listed["1.0.1.8.0.255"] == 3
    assert listed["1.0.99.1.0.255"] == 7


def test_wrong_key_ends_with_5_and_shows_no_key(ipss: Ipss, fleet: Fleet, tmp_path: Path) -> None:
    keys = keys_of(fleet, 0, tmp_path, spoil=True)

    ran = ipss("read", fleet.url(), "--client", 1, "--keys", keys, "1.0.1.8.0.255", "--json")

    assert ran.returncode == 5
    assert json.loads(ran.stdout)["items"][0]["error"]["code"] == "authentication-failed"
    assert fleet.meters[0]["encryption_key"][::-1] not in ran.stdout + ran.stderr


def test_one_answer_with_a_wrong_tag_ends_with_5_and_nothing_of_it_is_used(
    ipss: Ipss, fleet: Fleet, tmp_path: Path
) -> None:
    # This meter spoils some of its answers, so that many are asked for.
    objects = ["1.0.1.8.0.255"] * 20

    ran = ipss("read", fleet.url(3), "--client", 1, "--keys", keys_of(fleet, 3, tmp_path), *objects, "--json")

    assert ran.returncode == 5, ran.stdout
    items = json.loads(ran.stdout)["items"]
    assert {one["error"]["code"] for one in items} == {"authentication-failed"}


def test_no_listener_ends_with_4(ipss: Ipss) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]

        ran = ipss("read", f"dlms+tcp://127.0.0.1:{port}", "1.0.1.8.0.255", "--json")

    assert ran.returncode == 4
    assert json.loads(ran.stdout)["items"][0]["ok"] is False


def test_silent_listener_ends_with_4_in_time(ipss: Ipss) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()

        ran = ipss("read", f"dlms+tcp://127.0.0.1:{silent.getsockname()[1]}", "1.0.1.8.0.255", "--timeout", 1)

    assert ran.returncode == 4
    assert time.monotonic() - started < 20


def test_refused_attribute_ends_with_6_and_beside_a_value_with_8(ipss: Ipss, fleet: Fleet) -> None:
    refused = ipss("read", fleet.url(), "1.0.1.8.0.255", "--json")
    partly = ipss("read", fleet.url(), "0.0.42.0.0.255", "1.0.1.8.0.255", "--json")

    assert refused.returncode == 6
    assert json.loads(refused.stdout)["items"][0]["error"]["code"] == "read-write-denied"
    assert partly.returncode == 8
    assert [one["ok"] for one in json.loads(partly.stdout)["items"]] == [True, False]


def test_listener_that_speaks_something_else_ends_with_7(ipss: Ipss, tmp_path: Path) -> None:
    script = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True);"
        "c, _ = s.accept(); c.recv(1000); c.sendall(b'HTTP/1.1 400 Bad Request\\r\\n\\r\\n'); c.recv(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())

        ran = ipss("read", f"dlms+tcp://127.0.0.1:{port}", "1.0.1.8.0.255", "--timeout", 5)
        other.kill()

    assert ran.returncode == 7, ran.stderr


def test_clock_is_set_and_the_relay_is_not_touched(ipss: Ipss, fleet: Fleet, tmp_path: Path) -> None:
    to_meter = ("read", fleet.url(1), "--client", 1, "--keys", keys_of(fleet, 1, tmp_path))
    noon = "07ea0b16070c000000ffc400"

    unasked = ipss(*to_meter, "8/0.0.1.0.0.255", "--set", f"octet-string:{noon}")
    written = ipss(*to_meter, "8/0.0.1.0.0.255", "--set", f"octet-string:{noon}", "--yes", "--json")
    clock = ipss(*to_meter, "0.0.1.0.0.255", "--json")
    relay = ipss(*to_meter, "0.0.96.3.10.255", "--action", 1, "--yes")
    state = ipss(*to_meter, "70/0.0.96.3.10.255:2", "--json")

    assert unasked.returncode == 2
    assert (written.returncode, json.loads(written.stdout)["items"][0]["ok"]) == (0, True)
    assert json.loads(clock.stdout)["items"][0]["value"].startswith("2026-11-22T12:0")
    assert relay.returncode == 5
    assert "command path" in relay.stderr
    assert json.loads(state.stdout)["items"][0]["value"] is True


def test_registered_meter_is_read_by_its_name(ipss: Ipss, fleet: Fleet, tmp_path: Path) -> None:
    assert ipss("init", "he").returncode == 0
    config = ("--config", "he/head_end.toml")
    assert ipss("meters", "import", fleet.csv, *config).returncode == 0
    name = fleet.meters[2]["name"]

    counters = []
    for _ in range(2):
        ran = ipss("read", name, "1.0.1.8.0.255", "--json", *config)
        assert ran.returncode == 0, ran.stderr
        shown = json.loads(ipss("meters", "show", name, "--json", *config).stdout)
        counters.append((shown["next_invocation_counter"], shown["meter_invocation_counter"]))

    assert counters[0][0] < counters[1][0]
    assert counters[0][1] < counters[1][1]


def test_meter_that_dials_in_is_read_when_it_comes(ipss: Ipss, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = tmp_path / "dialling.csv"
    dialling = subprocess.Popen(
        [
            *(sys.executable, "-m", "ipss_headend.cli", "simulate", "--meters", "3", "--port", "0", "--days", "1"),
            *("--first-address", "127.78.0.1", "--seed", "78", "--csv", str(path), "--dial", f"127.0.0.1:{port}"),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        ipss("init", "utility")
        config = tmp_path / "utility/head_end.toml"
        deadline = time.monotonic() + TIMEOUT_S
        while not path.exists():
            assert dialling.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert ipss("meters", "import", path, "--config", config).returncode == 0
        before = ipss("read", "virtual-00002", "0.0.42.0.0.255", "--config", config)
        config.write_text(f'{config.read_text()}\n[[listeners]]\nhost = "127.0.0.1"\nport = {port}\n')
        ran = ipss("read", "virtual-00002", "0.0.42.0.0.255", "1.0.1.8.0.255", "--json", "--config", config)
    finally:
        dialling.kill()
        dialling.wait()

    device_name = list(csv.DictReader(path.read_text().splitlines()))[1]["logical_device_name"]
    assert (before.returncode, "has no [[listeners]] where it could arrive" in before.stderr) == (3, True)
    assert ran.returncode == 0, ran.stderr
    assert f"waiting for it at 127.0.0.1:{port}" in ran.stderr
    name, energy = json.loads(ran.stdout)["items"]
    assert bytes.fromhex(name["raw"][1]) == device_name.encode()
    assert energy["unit"] == "Wh"


def test_invocation_counters_outlive_the_process(ipss: Ipss, fleet: Fleet, tmp_path: Path) -> None:
    to_meter = ("read", fleet.url(2), "--client", 1, "--keys", keys_of(fleet, 2, tmp_path), "1.0.1.8.0.255")
    file = tmp_path / "client" / "invocation_counters.json"

    assert ipss(*to_meter).returncode == 0
    first = json.loads(file.read_text())
    assert ipss(*to_meter).returncode == 0
    second = json.loads(file.read_text())

    [name] = first["counters"]
    assert second["counters"][name] > first["counters"][name]
    assert second["client_title"] == first["client_title"]


def test_trace_shows_each_frame_both_ways_decoded(ipss: Ipss, fleet: Fleet, tmp_path: Path) -> None:
    keys = keys_of(fleet, 0, tmp_path)

    ran = ipss("read", fleet.url(), "--client", 1, "--keys", keys, "8/0.0.1.0.0.255:2", "--trace", "--json")

    trace = json.loads(ran.stdout)["trace"]
    assert [part["from"] for part in trace] == ["head-end", "meter"] * 4
    assert {part["outcome"] for part in trace} == {"decoded"}
    names = [part["apdus"][0]["apdu"] for part in trace]
    assert names[:2] == ["aarq", "aare"]
    assert names[4:6] == ["glo-get-request", "glo-get-response"]
    assert trace[5]["apdus"][0]["plain"]["apdu"] == "get-response-normal"
    assert fleet.meters[0]["encryption_key"] not in ran.stdout


GOLDEN: list[tuple[str, str, dict[str, Any]]] = [
    ("data", "0600003039", {"outcome": "decoded"}),
    ("apdu", "c401c1000600003039", {"outcome": "decoded"}),
    ("wrapper", "0001000100100009c401c1000600003039", {"outcome": "decoded"}),
    ("wrapper", "000100010010", {"outcome": "incomplete"}),
]


def test_probe_finds_a_meters_limits_and_writes_its_profile(ipss: Ipss, fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    done = ipss("probe", fleet.url(), "--client", "1", "--keys", keys_of(fleet, 0, tmp_path), "--json", "--out", path)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["max_pdu"] == 1024
    assert (found["with_list_limit"], found["selective_access"]) == (32, "both")
    assert found["block_transfer"]["get"]
    assert found["notes"] == []
    assert "ipss-headend probe" in path.read_text()


def test_decode_explains_a_wrapped_answer(ipss: Ipss) -> None:
    ran = ipss("decode", "--layer", "wrapper", "--json", stdin="0001 0001 0010 0009 # header\nc401c1000600003039\n")

    answer = json.loads(ran.stdout)
    assert ran.returncode == 0
    assert answer["frames"] == [{"layer": "wrapper", "length": 9, "source": 1, "destination": 16}]
    assert answer["apdus"][0]["apdu"] == "get-response-normal"
    assert answer["apdus"][0]["data"] == ["double-long-unsigned", 12345]


def test_decode_answers_every_line_in_order(ipss: Ipss) -> None:
    requests = [
        json.dumps({"id": place, "layer": layer, "hex": octets}) for place, (layer, octets, _) in enumerate(GOLDEN)
    ]
    requests.insert(2, "this is no request")

    ran = ipss("decode", "--jsonl", stdin="\n".join(requests) + "\n")

    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    assert ran.returncode == 0
    assert [answer["outcome"] for answer in answers] == ["decoded", "decoded", "error", "decoded", "incomplete"]
    assert [answer.get("id") for answer in answers] == [0, 1, None, 2, 3]


def test_reader_that_has_seen_enough_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"layer": "data", "hex": "0600003039"}\n' * 20_000)
    program = f"{sys.executable} -m ipss_headend.cli decode --jsonl r.jsonl | head -1"

    ran = subprocess.run(
        ["sh", "-c", program], capture_output=True, text=True, timeout=TIMEOUT_S, cwd=tmp_path, check=False
    )

    assert len(ran.stdout.splitlines()) == 1
    assert "Traceback" not in ran.stderr
    assert "BrokenPipe" not in ran.stderr


STORY = ["free", "limited", "let-go", "reverted"]


def test_demo_reads_every_meter_and_keeps_what_it_read(ipss: Ipss, tmp_path: Path) -> None:
    ran = ipss("demo", "--meters", 50, "--days", 2, "--seconds", 30, "--directory", "demo", "--json")

    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = json.loads(ran.stdout)
    assert (said["meters"], said["associated"], said["failed"], said["gaps"]) == (50, 50, 0, 0)
    assert said["success_percent"] == 100
    assert said["lines_stored"] >= 50 * (2 * 96 + 3 - 1)
    assert said["values_stored"] > said["lines_stored"]
    assert said["samples"][0]["unit"] == "Wh"
    assert [one["limit_percent"] for one in said["ders"]] == [40, 40, 40, 40, None]
    assert [one["set_by"] for one in said["ders"]] == [*["demo"] * 4, None]
    for one in said["ders"][:4]:
        assert list(dict.fromkeys(moment["state"] for moment in one["history"])) == STORY
        limited = [moment for moment in one["history"] if moment["state"] in {"limited", "let-go"}]
        assert {(moment["limit_percent"], moment["set_by"]) for moment in limited} == {(40, "demo")}
        assert all(moment["power_w"] is not None and moment["reverts_in_s"] is not None for moment in limited)
        assert one["reverted_after_s"] > 0
        for words in ("limit 40 %  set by demo  goes back in ", "limit -  set by -  goes back in -  went back"):
            assert any(one["device"] in line and words in line for line in ran.stderr.splitlines())
        assert 0 < one["power_limited_w"] <= one["power_w"]  # clouds may do more than the limit
    storage = said["ders"][3]
    assert storage["power_limited_w"] < storage["power_w"]
    assert said["p50_ms"] <= said["p99_ms"]
    stored = ipss(
        "readings",
        "query",
        "virtual-00001",
        "1.0.99.1.0.255",
        "--from",
        "1d",
        "--json",
        "--config",
        "demo/head_end.toml",
    )
    assert len(json.loads(stored.stdout)["readings"]) >= 90 * 4
    assert "started" not in ran.stdout


def test_demo_with_bad_meters_says_so(ipss: Ipss) -> None:
    ran = ipss(
        *("demo", "--meters", 12, "--days", 1, "--seconds", 24, "--directory", "bad", "--json"),
        *("--faults", "wrong-tag=#3"),
    )

    said = json.loads(ran.stdout)
    assert ran.returncode == 8, ran.stdout + ran.stderr
    assert said["meters_read"] == 11
    assert said["failed"] >= 1
    assert said["gaps"] > 0


def test_serve_drains_on_sigterm(ipss: Ipss, fleet: Fleet, tmp_path: Path) -> None:
    assert ipss("init", "he").returncode == 0
    config = tmp_path / "he" / "head_end.toml"
    config.write_text(config.read_text().replace("port = 9466", "port = 0"))
    assert ipss("meters", "import", fleet.csv, "--config", config).returncode == 0
    with subprocess.Popen(
        [sys.executable, "-m", "ipss_headend.cli", "serve", str(config)], stderr=subprocess.PIPE, text=True
    ) as head_end:
        try:
            assert head_end.stderr is not None
            for line in head_end.stderr:
                if "started" in line:
                    break
            beside = ipss("read", fleet.meters[0]["name"], "1.0.1.8.0.255", "--config", config)
            second = ipss("serve", config)
            head_end.terminate()
            assert head_end.wait(40) == 0
        finally:
            head_end.kill()
    assert (beside.returncode, second.returncode) == (3, 3)
