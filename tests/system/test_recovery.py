"""R1: what was acknowledged before kill -9 is there when the head-end is, however much was only in the log."""

import os
from pathlib import Path

import pytest
from tests.figures import figure
from tests.postgresql import PrivateServer
from tests.system import recovery

from ipss_headend.cli.serve import make_head_end

RECORDS = int(os.environ.get("IPSS_RECOVERY_RECORDS", "30000"))
"""R1 asks for 1,000,000 within 5 s; `benches/recovery.py` measures it on a machine that does nothing else."""


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.timeout(120 + RECORDS // 5000)
def test_r1_a_log_that_nothing_was_merged_from_is_taken_in_at_the_start(kind: str, tmp_path: Path) -> None:
    path, _ = make_head_end(tmp_path / "head-end")
    text = path.read_text(encoding="utf-8").replace("port = 9466", "port = 0")
    path.write_text(text, encoding="utf-8")
    if kind == "sqlite":
        told = recovery.killed(path, RECORDS)
        length = recovery.log_octets(path)
        seconds = recovery.ready(path)
        found = recovery.there(path)
    else:
        with PrivateServer() as server, server.store(path.parent / "data") as address:
            path.write_text(text.replace("sqlite:///head_end.sqlite", address.url), encoding="utf-8")
            told = recovery.killed(path, RECORDS, server)
            length = recovery.log_octets(path, server)
            seconds = recovery.ready(path, server)
            found = recovery.there(path)

    figure(f"{kind}: {told} records in a log of {length >> 20} MiB, from the start to ready {seconds:.2f} s")
    assert told == RECORDS
    assert length > 40 * RECORDS
    assert found == (RECORDS, RECORDS)
