"""`ipss-headend capacity` with real virtual meters, and with a kill in the middle."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

IPSS = (sys.executable, "-m", "ipss_headend.cli")


@pytest.mark.timeout(300)
def test_capacity_measures_ends_by_itself_and_leaves_nothing(tmp_path: Path) -> None:
    subprocess.run([*IPSS, "init", "utility"], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "utility").rglob("*") if path.is_file()}
    command = [*IPSS, "capacity", "--config", "utility/head_end.toml", "--meters", "20", "--seconds", "60", "--json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        data = tmp_path / "utility" / "data"
        while not list(data.glob(".capacity-*/fleet.csv")):
            assert killed.poll() is None
            time.sleep(0.01)
        killed.kill()

    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)

    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["measured"]["meters"] == 20
    assert all(value > 0 for value in found["measured"].values())
    assert found["meters"] == min(one["meters"] for one in found["limits"]) > 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "utility").rglob("*") if path.is_file()} == before
    assert not list(data.glob(".*"))
