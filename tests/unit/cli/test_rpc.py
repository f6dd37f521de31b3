"""What is typed becomes what the method takes; what cannot be reached is told with what to do."""

import ssl
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.support import Run

from ipss_headend import client
from ipss_headend.cli.rpc import texts
from ipss_headend.errors import RequestError

SCHEMA: dict[str, Any] = {
    "$ref": "#/$defs/Put",
    "$defs": {
        "Put": {
            "properties": {
                "key": {"type": "string"},
                "node": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "limit": {"type": "integer"},
                "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            }
        }
    },
}


def test_digits_are_text_where_the_method_takes_text_alone() -> None:
    written = {"key": "007", "node": "17", "limit": "5", "either": "6", "unknown": "1"}

    assert texts(SCHEMA, list(written), written) == {"key": "007", "node": "17"}
    assert texts(SCHEMA, ["node", "key"], {"node": "null", "key": "null"}) == {"key": "null"}


def test_files_that_are_not_there_are_named(run: Run, tmp_path: Path) -> None:
    ran = run("rpc", "rpc.ping", "--address", "tls://localhost:1", "--certificate", tmp_path / "no.pem")

    assert (ran.status, ran.out) == (3, "")
    assert f"--certificate: {tmp_path}/no.pem: no such file" in ran.err


def test_addresses_without_a_scheme_are_told_how_to_be_written() -> None:
    with pytest.raises(RequestError, match="localhost:4060: write tls://localhost:4060"):
        client.Address("localhost:4060")
    assert client.Address("data/rpc.sock").path == "data/rpc.sock"


def test_what_cannot_be_reached_is_told_by_its_cause() -> None:
    where = client.Address("unix:data/rpc.sock")
    alert = ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] x")
    alert.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"

    assert "the user that the head-end runs as" in client._hint(where, PermissionError(13, "Permission denied"))
    assert "the head-end says certificate required" in client._hint(where, alert)
    assert client._hint(where, FileNotFoundError(2, "No such file or directory")) == (
        "unix:data/rpc.sock: No such file or directory; is the head-end running, and is this where it answers "
        "(its [rpc])?"
    )


def test_a_device_by_its_bare_address_is_told_how_to_be_written(run: Run) -> None:
    ran = run("read", "127.0.0.1:4059", "1.0.1.8.0.255")

    assert ran.status == 2
    assert "127.0.0.1:4059: an address without a transport; write dlms+tcp://127.0.0.1:4059" in ran.err
