import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.support import Run

import ipss_headend

ANSWER: dict[str, Any] = {
    "id": "x",
    "outcome": "decoded",
    "frames": [{"layer": "wrapper", "length": 13, "source": 1, "destination": 16}],
    "apdus": [{"apdu": "get-response-normal", "data": ["structure", [["double-long-unsigned", 12345]]]}],
    "readings": [{"logical_name": "1.0.1.7.0.255", "class_id": 3, "attribute": 2, "value": "4117", "unit": "W"}],
    "warnings": ["odd"],
}


@pytest.fixture
def asked(native: Any) -> list[dict[str, Any]]:
    """What the native module was asked; it decodes all but what has `bad` in it."""
    requests: list[dict[str, Any]] = []

    def decode(request: str) -> Iterator[str]:
        if "bad" in request:
            raise ValueError("no request")
        requests.append(json.loads(request))
        text = json.dumps({**ANSWER, "id": requests[-1].get("id")})
        yield text[:10]
        yield text[10:]

    native.set("decode", decode)
    return requests


def test_hexadecimal_with_spaces_and_comments_is_asked_as_digits(run: Run, asked: list[dict[str, Any]]) -> None:
    ran = run(
        "decode", "-", "--layer", "wrapper", "--json", stdin="0001 0001 # version, source\n00 10\n\n000D # length\n"
    )

    assert ran.status == 0
    assert asked == [{"id": "standard input", "layer": "wrapper", "hex": "000100010010000d"}]
    assert json.loads(ran.out)["outcome"] == "decoded"


def test_binary_file_is_asked_as_digits(run: Run, asked: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "frame.bin").write_bytes(bytes((0x7E, 0xA0, 0x27, 0x01, 0x7E)))

    assert run("decode", tmp_path / "frame.bin").status == 0

    assert asked[0]["hex"] == "7ea027017e"
    assert asked[0]["layer"] == "auto"


@pytest.mark.parametrize(
    ("text", "said"), [("7E A0 ZZ", 'column 7: "Z"'), ("7EA", "one is missing"), ("", "empty"), ("# only\n", "")]
)
def test_text_that_is_no_hexadecimal_is_told_with_its_place(
    run: Run, asked: list[dict[str, Any]], text: str, said: str
) -> None:
    ran = run("decode", stdin=text)

    if said:
        assert (ran.status, ran.out, asked) == (3, "", [])
        assert said in ran.err


def test_jsonl_answers_each_line_in_order_and_stops_at_none(run: Run, asked: list[dict[str, Any]]) -> None:
    lines = ['{"id": 1, "hex": "00"}', "bad {", "", '{"id": 2, "hex": "01"}']

    ran = run("decode", "--jsonl", stdin="\n".join(lines))

    answers = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.status == 0
    assert [answer["id"] for answer in answers] == [1, None, 2]
    assert [answer["outcome"] for answer in answers] == ["decoded", "error", "decoded"]


def test_jsonl_takes_keys_by_the_title_in_the_frame_unless_the_request_has_its_own(
    run: Run, asked: list[dict[str, Any]], tmp_path: Path
) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(
        f'[4d4d4d0000000001]\nencryption_key = "{"1a" * 16}"\n[4d4d4d0000000002]\nencryption_key = "{"2b" * 16}"\n'
    )
    keys.chmod(0o600)
    requests = [{"id": 1, "hex": "DB084D4D4D0000000002"}, {"id": 2, "hex": "DB08", "keys": {}}]

    run("decode", "--jsonl", "--keys", keys, stdin="\n".join(map(json.dumps, requests)))

    assert asked[0]["keys"] == {"server_system_title": "4d4d4d0000000002", "encryption_key": "2b" * 16}
    assert asked[1]["keys"] == {}


def test_people_get_a_tree(run: Run, asked: list[dict[str, Any]]) -> None:
    ran = run("decode", stdin="00")

    assert ran.out.splitlines() == [
        "decoded",
        "  wrapper  length 13  source 1  destination 16",
        "  get-response-normal",
        "    data structure of 1",
        "      double-long-unsigned 12345",
        "  readings",
        "    3/1.0.1.7.0.255:2  4117 W",
        "  warning: odd",
    ]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"fault": "remote", "layer": "hdlc", "offset": 1, "code": "bad-fcs", "message": "x"}, 7),
        ({"fault": "local", "layer": "request", "offset": 0, "code": "bad-hex", "message": "x"}, 3),
        ({"fault": "remote", "layer": "ciphering", "offset": 0, "code": "bad-tag", "message": "x"}, 5),
    ],
)
def test_exit_status_says_who_is_at_fault(run: Run, native: Any, error: dict[str, Any], status: int) -> None:
    native.set("decode", lambda _: iter([json.dumps({"id": 1, "outcome": "error", "error": error})]))

    assert run("decode", "--json", stdin="00").status == status


def test_what_a_meter_says_does_not_reach_the_terminal_as_control(run: Run, native: Any) -> None:
    apdu = {"apdu": "data-notification", "data": ["visible-string", "\x1b[2Jx"]}
    native.set("decode", lambda _: iter([json.dumps({"outcome": "decoded", "apdus": [apdu]})]))

    assert "\x1b" not in run("decode", stdin="00").out


def test_capture_is_asked_as_transmissions_of_its_two_ends(
    run: Run, asked: list[dict[str, Any]], tmp_path: Path
) -> None:
    def packet(source: int, here: int, destination: int, there: int, octets: bytes) -> bytes:
        head = bytes((0x45, 0)) + (28 + len(octets)).to_bytes(2, "big") + bytes(5) + b"\x11" + bytes(2)
        ends = bytes((10, 0, 0, source, 10, 0, 0, destination))
        ports = here.to_bytes(2, "big") + there.to_bytes(2, "big") + (8 + len(octets)).to_bytes(2, "big") + bytes(2)
        whole = head + ends + ports + octets
        return bytes(8) + len(whole).to_bytes(4, "little") * 2 + whole

    capture = bytes.fromhex("d4c3b2a1020004000000000000000000ffff000065000000")
    capture += packet(2, 50_000, 1, 4059, b"\xc0") + packet(1, 4059, 2, 50_000, b"\xc4")
    (tmp_path / "meter.pcap").write_bytes(capture)

    assert run("decode", tmp_path / "meter.pcap", "--json").status == 0

    assert asked[0]["hex"] == [{"from": "head-end", "hex": "c0"}, {"from": "meter", "hex": "c4"}]


def test_same_from_python_takes_bytes_digits_and_transmissions(asked: list[dict[str, Any]]) -> None:
    answer = ipss_headend.decode(b"\x7e", layer="hdlc", profile="kaifa-han")
    ipss_headend.decode([{"from": "meter", "hex": "7E"}, b"\x01"], keys={"encryption_key": "00"}, direction="to-meter")

    assert answer["outcome"] == "decoded"
    assert asked[0] == {"layer": "hdlc", "hex": "7e", "profile": "kaifa-han"}
    assert asked[1]["hex"] == [{"from": "meter", "hex": "7E"}, "01"]
    assert asked[1]["direction"] == "to-meter"


def test_push_learn_prints_a_layout_and_tells_what_is_no_label(run: Run, native: Any, tmp_path: Path) -> None:
    learnt: list[Any] = []

    def learn_push(name: str, octets: bytes, labels: list[tuple[str, str]] | None) -> str:
        learnt.append((name, octets, labels))
        return "[[push]]\n"

    native.set("learn_push", learn_push)
    (tmp_path / "body.hex").write_text("0201 06 # body\n00000005\n", encoding="ascii")

    ran = run("push", "learn", tmp_path / "body.hex", "--name", "l", "--label", "3/1.0.1.7.0.255 0 W = 5")
    wrong = run("push", "learn", tmp_path / "body.hex", "--label", "5")

    assert (ran.status, ran.out) == (0, "[[push]]\n")
    assert learnt == [("l", bytes.fromhex("02010600000005"), [("3/1.0.1.7.0.255 0 W", "5")])]
    assert wrong.status == 3
