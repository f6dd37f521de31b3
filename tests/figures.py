"""Figures that tests measure: printed, and kept by `make trust` with the run's result."""

import os
from pathlib import Path


def figure(text: str) -> None:
    """Say what was measured."""
    print(text)
    if path := os.environ.get("IPSS_FIGURES"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")
