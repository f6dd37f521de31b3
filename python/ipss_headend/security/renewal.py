"""A new master key for a store: when a custodian has left, a share is lost, or a key in software was seen by others.

One transaction wraps every key anew and notes it in the audit trail. Before its commit the old master key opens the
store, after it the new one does: with a hardware module the new one lies in the same transaction, a key file's lies
beside the file and takes its place afterwards, by this process or by whichever opens the store next.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from ipss_headend.config import KeystoreConfig
from ipss_headend.errors import ConfigError
from ipss_headend.security import audit, ceremony, wrapped_keys
from ipss_headend.security.ceremony import Roles
from ipss_headend.security.keystore import PKCS11, Keystore, kind_of
from ipss_headend.store import registry
from ipss_headend.store.schema import keystore_secrets, meter_keys, pending_keys, transport_keys

TABLES = tuple(table.name for table in (meter_keys, pending_keys, transport_keys, keystore_secrets))
"""Where something of the old master key was: `Database.sweep` leaves nothing of it in their files."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """What a renewal leaves behind."""

    done: ceremony.Done
    old_check_value: str
    meters: int


def renew(
    connection: Connection,
    old_config: KeystoreConfig,
    config: KeystoreConfig,
    roles: Roles,
    reason: str,
    *,
    need: int,
    directories: Sequence[Path],
    confirm: Callable[[str], bool],
    tell: Callable[[str], None] = lambda _: None,
) -> Renewed:
    """Put all keys of the store under a new master key, shared anew. Needs a writing transaction of the store's owner.

    `old_config` opens the keys as they are, `config` says where the new key goes: the same place as a rule. The caller
    ends it with `keystore.settle` behind the commit, or `keystore.discard` where it was undone.

    Raises:
        NotAuthorised: somebody has two roles, or the auditor did not confirm.
        ConfigError: no reason, out of a hardware module, or something cannot be written.
        TokenError: the hardware module cannot be used.
        KeyTampered: some key does not open; nothing was changed.
        WrongKeyEncryptionKey: `old_config` is not what this store's keys are under.
    """
    roles.check()
    if not reason.strip():
        raise ConfigError("keys renew: say why, with --reason; it goes into the audit trail")
    old = Keystore.open(connection, old_config)
    titles = {meter.meter_id: meter.system_title for meter in registry.all_meters(connection)}
    found = wrapped_keys.opened(connection, old, titles)
    meters = len({one.meter_id for one in found if one.transport is None})
    tell("1. a new master key")
    made = ceremony.make(config) if config.pkcs11 is not None else f"{config.key_file}: in software"
    new = old.renewed(connection, config)
    tell(f"   {made}; the keys of {meters} meters go under it")
    tell(f"2. {len(roles.custodians)} shares, {need} needed")
    with ceremony.handed_out(new, roles, need, directories, confirm=confirm, tell=tell) as handed:
        wrapped_keys.replace(connection, new, found)
        detail = {**handed.detail(roles), "from": old.check_value, "kind": kind_of(config), "reason": reason}
        detail["meters"] = meters
        audit.append(connection, "master key renewed", roles.operator, new.check_value, detail)
    said = [
        f"a master key made now, under {made}" if kind_of(config) == PKCS11 else made,
        f"reason: {reason}",
        f"check value of the old key, which opens nothing of this store any more: {old.check_value}",
        f"meters whose keys were wrapped anew: {meters}",
    ]
    protocol = ceremony.protocol("a renewal of the master key", roles, handed, said)
    return Renewed(ceremony.Done(new.check_value, handed.files, protocol), old.check_value, meters)
