"""The command line. See README.md in this folder."""

from ipss_headend.cli.app import main

__all__ = ["main"]
