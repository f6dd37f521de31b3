"""A software token for the tests: SoftHSM 2 in a directory of its own."""

import os
import subprocess
from pathlib import Path

import pkcs11

from ipss_headend.config import KeystoreConfig, Pkcs11Config

PIN = "73519264"
LIBRARIES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm.so", "/usr/lib64/libsofthsm2.so")


def module() -> Path:
    """Where the library is.

    Raises:
        FileNotFoundError: it is not installed; `make system` does that.
    """
    for path in map(Path, LIBRARIES):
        if path.is_file():
            return path
    raise FileNotFoundError(f"SoftHSM 2 is in none of {LIBRARIES}; scripts/system-packages installs it")


def prepare(directory: Path) -> Path:
    """Have SoftHSM keep its tokens in this directory from now on; returns its configuration, for other processes."""
    tokens = directory / "tokens"
    tokens.mkdir(parents=True)
    conf = directory / "softhsm2.conf"
    conf.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(conf)
    return conf


def make_token(name: str, directory: Path) -> KeystoreConfig:
    """A new empty token, and the configuration to use it."""
    command = ["softhsm2-util", "--init-token", "--free", "--label", name, "--so-pin", "12345678", "--pin", PIN]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    pkcs11.lib(str(module())).reinitialize()  # sees the new token
    pin_file = directory / f"{name}.pin"
    pin_file.touch(0o600)
    pin_file.write_text(PIN + "\n")
    return KeystoreConfig(pkcs11=Pkcs11Config(module(), name, pin_file))
