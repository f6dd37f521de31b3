"""The README's walks, as an outsider types them: two people, new keys, the ceremony, the audit trail."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.system.fleet import fleet
from tests.system.walks import walked
from tests.unit.security import softhsm

README = Path(__file__).parents[2] / "README.md"
TIMEOUT_S = 500
"""Thirty commands, each a process; on a machine that does other things as well."""

SECTIONS = (
    "Switch a meter with two people",
    "Change a meter's keys",
    "Keep the master key in a module, and in three people's hands",
)


def block(section: str) -> str:
    """The commands of a section: one block."""
    text = README.read_text(encoding="utf-8").partition(f"## {section}\n")[2].partition("\n## ")[0]
    [commands] = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return str(commands)


@pytest.mark.timeout(TIMEOUT_S + 60)
def test_readme_switches_a_meter_changes_keys_and_holds_the_ceremony(tmp_path: Path) -> None:
    """And at every place where the README says that one person cannot, one person cannot."""
    first, second, third = map(block, SECTIONS)
    own = "ipss-headend control approve $order --key ada.key && exit 77 || [ $? = 5 ]\n"
    own_keys = own.replace("$order", "$change")
    script = "\n".join(
        (
            "ipss-headend init utility --accept-software-key",
            "sed -i 's/port = 9466/port = 0/' utility/head_end.toml",
            "ipss-headend meters import fleet.csv --config utility/head_end.toml",
            first.replace("ipss-headend control approve", own + "ipss-headend control approve", 1),
            second.replace("ipss-headend control approve", own_keys + "ipss-headend control approve", 1),
            third.replace("/usr/lib/softhsm/libsofthsm2.so", str(softhsm.module())),
        )
    )
    (tmp_path / "tokens").mkdir()
    conf = tmp_path / "softhsm2.conf"
    conf.write_text(f"directories.tokendir = {tmp_path / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")

    with fleet(3, "127.54.0.1") as running:
        (tmp_path / "fleet.csv").write_text(running.meters.csv())
        ran = walked(script, tmp_path, environment={"SOFTHSM2_CONF": str(conf)}, timeout_s=TIMEOUT_S)

    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said
    lines = ran.stdout.splitlines()
    assert sum("approved by bob; goes now" in line for line in lines) == 2
    assert lines.count("states: confirmed 1") == 2
    assert "virtual-00001\tconfirmed\t" in lines
    assert sum("records are what was written" in line for line in lines) == 2
    assert ran.stderr.count("ada asked for it and cannot approve it") == 2
    assert any(re.search(r"1 of 1\t1\t0\t0\t1\tover", line) for line in lines), lines
    assert "the key-encryption key is in software" not in said
    assert "made there: AES-256, sensitive, not extractable" in (tmp_path / "safe" / "protocol.md").read_text()


def test_default_configuration_warns_of_a_key_in_software(tmp_path: Path) -> None:
    """Who has not accepted it is told at each start."""
    ipss = (sys.executable, "-m", "ipss_headend.cli")
    subprocess.run([*ipss, "init", "utility"], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    path = tmp_path / "utility" / "head_end.toml"
    path.write_text(path.read_text().replace("port = 9466", "port = 0").replace("json = false", "json = true"))

    server = subprocess.Popen([*ipss, "serve", str(path)], stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        logged = []
        for line in server.stderr:
            logged.append(json.loads(line))
            if logged[-1]["event"] == "started":
                break
        server.terminate()
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.wait()
        if server.stderr is not None:
            server.stderr.close()

    warned = [one for one in logged if "the key-encryption key is in software" in one["event"]]
    assert [one["level"] for one in warned] == ["warning"]
    assert "software_accepted" in warned[0]["remedy"]
