"""Keys at rest, and who may do what."""

from ipss_headend.security.keystore import Keystore, MeterKeys, create_key_file

__all__ = ["Keystore", "MeterKeys", "create_key_file"]
