"""Our side of the codec bench as Python calls it, in the project's own environment: prints one JSON line.

The head-end itself never decodes so: its reactor does without Python. This is the like-for-like beside criterion.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from benches.timing import report

from ipss_headend import _core

FIXTURES = tomllib.loads((Path(__file__).parents[1] / "fixtures" / "codec.toml").read_text())


def main() -> None:
    keys = {name: bytes.fromhex(value) for name, value in FIXTURES["keys"].items()}
    decipher = _core.Decipher(keys["meter_title"], keys["encryption_key"], keys["authentication_key"])
    get_response = bytes.fromhex(FIXTURES["get-response"]["general_glo"])
    profile = bytes.fromhex(FIXTURES["profile"]["general_glo"])

    assert decipher.value(get_response) == 12345678
    assert decipher.buffer(profile, 5).lines == 96

    report(
        "ours, from Python",
        _core.__version__,
        {
            "GET response, decipher and decode": lambda: decipher.value(get_response),
            "96 x 4 profile, decipher and decode": lambda: decipher.buffer(profile, 5),
        },
    )


if __name__ == "__main__":
    main()
