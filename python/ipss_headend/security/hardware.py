"""The key-encryption key in a hardware module, through PKCS#11: it is made there and never leaves.

The key in the token (AES-256, sensitive, not extractable) wraps one thing: this store's master key, which wraps the
meters' keys. So a start costs one call to the token whatever the size of the fleet (SoftHSM unwraps and reads some
7,500 keys a second, a module in the network far fewer), and the token may be away while the head-end runs. One master
key a store rather than one a group: every wrapped key is bound to its meter, meters move between groups, and a process
that serves all groups holds all group keys anyway.

Without the token nothing is opened: there is no way back to a key in a file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ipss_headend.config import Pkcs11Config
from ipss_headend.errors import ConfigError, KeyTampered, TokenError
from ipss_headend.security.private_file import private_text

MASTER_KEY_OCTETS = 32


@contextmanager
def token(config: Pkcs11Config) -> Iterator["Token"]:
    """A session with the token, logged in.

    Raises:
        ConfigError: the module is not installed or the PIN's file cannot be used.
        TokenError: the token is not there, is broken, or refuses the PIN.
    """
    pkcs11 = _library()
    pin = private_text(config.pin_file, "pin_file")
    with _words(config):
        session = _loaded(config).get_token(token_label=config.token).open(user_pin=pin, rw=True)
    try:
        yield Token(config, pkcs11, session)
    finally:
        session.close()


class Token:
    """The key-encryption key, where it is. Use `token` to open it."""

    def __init__(self, config: Pkcs11Config, pkcs11: Any, session: Any) -> None:
        self._config = config
        self._pkcs11 = pkcs11
        self._session = session

    def make_key(self) -> None:
        """Make the key-encryption key in the token.

        Raises:
            TokenError: there is one of this label already, or the token cannot make it.
        """
        if self._keys():
            raise TokenError(f'token "{self._config.token}" has a key "{self._config.label}" already; it is kept')
        pkcs11 = self._pkcs11
        never = {pkcs11.Attribute.EXTRACTABLE: False, pkcs11.Attribute.SENSITIVE: True}
        with _words(self._config):
            self._session.generate_key(
                pkcs11.KeyType.AES,
                256,
                label=self._config.label,
                store=True,
                capabilities=pkcs11.MechanismFlag.WRAP | pkcs11.MechanismFlag.UNWRAP,
                template=never,
            )

    def has_key(self) -> bool:
        """Whether the key-encryption key is there."""
        return bool(self._keys())

    def wrap(self, master_key: bytes) -> bytes:
        """The master key under the key-encryption key (AES key wrap, RFC 3394).

        Raises:
            TokenError: no key of this label, or one that could leave the token.
        """
        pkcs11, attribute = self._pkcs11, self._pkcs11.Attribute
        with _words(self._config):
            passing = self._session.create_object(
                {
                    attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
                    attribute.KEY_TYPE: pkcs11.KeyType.AES,
                    attribute.VALUE: master_key,
                    attribute.TOKEN: False,
                    attribute.EXTRACTABLE: True,
                    attribute.SENSITIVE: False,
                }
            )
            try:
                return bytes(self._key().wrap_key(passing, mechanism=pkcs11.Mechanism.AES_KEY_WRAP))
            finally:
                passing.destroy()

    def unwrap(self, wrapped: bytes) -> bytearray:
        """The master key again; the caller zeroises it.

        Raises:
            KeyTampered: it was changed, or wrapped under another key.
            TokenError: no key of this label, or one that could leave the token.
        """
        pkcs11, attribute = self._pkcs11, self._pkcs11.Attribute
        key = self._key()
        with _words(self._config):
            try:
                passing = key.unwrap_key(
                    pkcs11.ObjectClass.SECRET_KEY,
                    pkcs11.KeyType.AES,
                    wrapped,
                    mechanism=pkcs11.Mechanism.AES_KEY_WRAP,
                    store=False,
                    template={attribute.EXTRACTABLE: True, attribute.SENSITIVE: False},
                )
            except _wrapped_wrongly(pkcs11):
                raise KeyTampered(
                    f'keystore: the master key was tampered with, or "{self._config.label}" of token '
                    f'"{self._config.token}" is not the key that it was wrapped with; restore the store from a backup, '
                    "or the key from its shares"
                ) from None
            try:
                found = bytearray(passing[attribute.VALUE])
            finally:
                passing.destroy()
        if len(found) != MASTER_KEY_OCTETS:
            raise KeyTampered("keystore: what is wrapped in the store is no master key; restore the store")
        return found

    def _keys(self) -> list[Any]:
        attribute = self._pkcs11.Attribute
        with _words(self._config):
            wanted = {attribute.CLASS: self._pkcs11.ObjectClass.SECRET_KEY, attribute.LABEL: self._config.label}
            return list(self._session.get_objects(wanted))

    def _key(self) -> Any:
        found = self._keys()
        place = f'token "{self._config.token}"'
        if len(found) != 1:
            what = "no" if not found else str(len(found))
            raise TokenError(
                f'{place} has {what} keys "{self._config.label}"; exactly one is needed. '
                "`ipss-headend keys ceremony`, `migrate` and `restore` make it"
            )
        attribute = self._pkcs11.Attribute
        with _words(self._config):
            leaves = found[0][attribute.EXTRACTABLE] or not found[0][attribute.SENSITIVE]
            octets = found[0][attribute.VALUE_LEN]
        if leaves or octets != 32:
            raise TokenError(
                f'{place}: "{self._config.label}" is no AES-256 key that stays in the token (sensitive, not '
                "extractable); make one with `ipss-headend keys ceremony`"
            )
        return found[0]


def _library() -> Any:
    try:
        import pkcs11
    except ImportError:
        raise ConfigError(
            "keystore.pkcs11_module: python-pkcs11 is not installed; install ipss-headend[pkcs11]"
        ) from None
    return pkcs11


def _loaded(config: Pkcs11Config) -> Any:
    if not config.module.is_file():
        raise ConfigError(f"keystore.pkcs11_module: {config.module} is not there; name the module's library")
    return _library().lib(str(config.module))


def _wrapped_wrongly(pkcs11: Any) -> tuple[type[Exception], ...]:
    # What modules answer to a wrapped key that does not open; SoftHSM says "general error" or "function failed".
    names = ("WrappedKeyInvalid", "WrappedKeyLenRange", "EncryptedDataInvalid", "EncryptedDataLenRange")
    also = ("GeneralError", "FunctionFailed", "ArgumentsBad")
    return tuple(getattr(pkcs11.exceptions, name) for name in (*names, *also) if hasattr(pkcs11.exceptions, name))


@contextmanager
def _words(config: Pkcs11Config) -> Iterator[None]:
    """The module's errors in words. None of them carries what was asked with."""
    exceptions = _library().exceptions
    place = f'keystore: token "{config.token}" of {config.module.name}'
    try:
        yield
    except exceptions.PinLocked:
        raise TokenError(f"{place}: the PIN is locked after wrong tries; its security officer unlocks it") from None
    except (exceptions.PinIncorrect, exceptions.PinInvalid, exceptions.PinLenRange):
        raise TokenError(
            f"{place}: the PIN in {config.pin_file} is wrong; not tried again, because wrong tries lock the token"
        ) from None
    except exceptions.PinExpired:
        raise TokenError(f"{place}: the PIN has expired; set a new one") from None
    except (exceptions.NoSuchToken, exceptions.TokenNotPresent, exceptions.SlotIDInvalid):
        raise TokenError(f"{place} is not there; plug it in, or start its service. Nothing takes its place") from None
    except exceptions.MultipleTokensReturned:
        raise TokenError(f"{place}: several tokens have this name; give each its own") from None
    except exceptions.PKCS11Error as error:
        raise TokenError(
            f"{place}: {type(error).__name__}; the module cannot be used now, and nothing takes its place"
        ) from None
    except RuntimeError as error:  # the library cannot be loaded
        raise TokenError(f"{place}: {error}") from None


__all__ = ["Token", "token"]
