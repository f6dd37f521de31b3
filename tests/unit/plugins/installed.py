"""Plugins for tests, installed as packages are: a module and its entry point in a directory on sys.path."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def installed(directory: Path, **plugins: str) -> Iterator[None]:
    """Modules by name, with their source; each is the plugin of its name."""
    information = directory / "test_plugins-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: test-plugins\nVersion: 1\n")
    lines = ["[ipss_headend.plugins]"]
    for name, source in plugins.items():
        (directory / f"plugin_{name}.py").write_text(source)
        lines.append(f"{name} = plugin_{name}")
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n")
    sys.path.insert(0, str(directory))
    try:
        yield
    finally:
        sys.path.remove(str(directory))
