"""An open head-end for electricity meters and inverters.

What this package exports is what plugins may use; everything below it may move.
"""

from importlib import metadata

from ipss_headend.explain import decode

try:
    __version__ = metadata.version("ipss-headend")
except metadata.PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__", "decode"]
