"""`ipss-headend keys`: the key that wraps all keys, its custodians, and the ceremony that begins with them."""

import getpass
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import func, select

from ipss_headend.cli import places
from ipss_headend.cli.app import JSON, app, command
from ipss_headend.cli.output import Output, say
from ipss_headend.cli.simulate import write_private
from ipss_headend.config import KeystoreConfig
from ipss_headend.errors import ConfigError, RequestError, StoreError, words
from ipss_headend.schedule import duration_s
from ipss_headend.security import audit, ceremony, keystore, renewal, shares
from ipss_headend.security.ceremony import Roles
from ipss_headend.security.keystore import Keystore
from ipss_headend.store import restore as restoring
from ipss_headend.store.database import Database, is_there, now_us
from ipss_headend.store.schema import meter_keys

keys = typer.Typer(name="keys", help="Keys and their custodians.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(keys)

Custodians = Annotated[
    list[str] | None, typer.Option("--custodian", help="Who gets a share; once for each, in the order of --to.")
]
To = Annotated[
    list[Path] | None,
    typer.Option("--to", help="Directory for the shares; once for all, or once for each custodian (a stick each)."),
]
Answers = Annotated[
    Path | None,
    typer.Option("--answers", help="TOML with operator, auditor, custodians, and confirm = true; asks for nothing."),
]
Need = Annotated[int, typer.Option("--need", help="How many shares restore the key.")]
Operator = Annotated[str, typer.Option("--operator", help="Who runs the command; default: this user's name.")]


@command(keys, "status")
def status(*, config: places.CONFIG = places.DEFAULT_CONFIG, json_output: JSON = False) -> None:
    r"""Say where the key-encryption key is, its check value, and how many meters' keys are under it.

    \b
    Example:
      ipss-headend keys status
    """
    loaded = places.load_config(config)
    with places.open_store(loaded) as database, database.writing() as connection:
        opened = Keystore.open(connection, loaded.keystore)
        meters = connection.scalar(select(func.count()).select_from(meter_keys)) or 0
    found = {
        "kind": keystore.kind_of(loaded.keystore),
        "check_value": opened.check_value,
        "locked_in_memory": opened.locked,
        "meters": meters,
    }
    output = Output(json_output=json_output)
    if json_output:
        output.document(found)
    else:
        output.table(("property", "value"), [(name.replace("_", " "), str(value)) for name, value in found.items()])


@command(keys, "share")
def share(
    *,
    custodian: Custodians = None,
    to: To = None,
    need: Need = 2,
    of: Annotated[int, typer.Option("--of", help="How many shares there are.")] = 3,
    operator: Operator = "",
    auditor: Annotated[str, typer.Option("--auditor", help="Who watches.")] = "",
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Write the master key in shares for its custodians, a file each, mode 0600. The key itself is never shown.

    \b
    Example:
      ipss-headend keys share --of 3 --need 2 --custodian Anna --custodian Ben --custodian Cleo \
        --auditor Dora --to /media/anna --to /media/ben --to /media/cleo
    """
    loaded = places.load_config(config)
    people = tuple(custodian or ())
    if len(people) != of:
        raise RequestError(f"keys share: {of} shares need {of} custodians, {len(people)} are named; use --custodian")
    roles = Roles(operator or getpass.getuser(), auditor, people)
    with places.open_store(loaded) as database, database.writing(spend_reserve=True) as connection:
        opened = Keystore.open(connection, loaded.keystore)
        files = ceremony.share(connection, opened, roles, need=need, directories=_directories(to, of))
    output = Output(json_output=json_output)
    if json_output:
        output.document({"check_value": opened.check_value, "shares": [str(path) for path in files], "need": need})
        return
    for name, path in zip(people, files, strict=True):
        output.line(f"{path}: for {name}")
    output.line(f"check value: {opened.check_value}; {need} of {of} shares restore the key")
    say("hand the files to their custodians, then destroy them here, and older shares of this key, too")


@command(keys, "restore")
def restore(
    files: Annotated[list[Path], typer.Argument(metavar="SHARE...", help="The custodians' files.")],
    *,
    operator: Operator = "",
    check: Annotated[bool, typer.Option("--check", help="Only tell whether these shares make the key.")] = False,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Put the master key together from its custodians' shares, where the configuration wants it.

    A key file is written anew, and never over another. With a hardware module the master key is wrapped under the key
    that is in the module now: `keys ceremony` is for a store that begins, this for one whose module was lost.

    \b
    Examples:
      ipss-headend keys restore share-1.txt share-3.txt --check
      ipss-headend keys restore share-1.txt share-3.txt
    """
    loaded = places.load_config(config)
    found = [(str(path), shares.load(path)) for path in files]
    key = shares.combine(found)
    if not check:
        with places.open_store(loaded, create=True) as database, database.writing(spend_reserve=True) as connection:
            keystore.restore(connection, loaded.keystore, key)
            detail = {"shares": [one.digest() for _, one in found], "custodians": [one.custodian for _, one in found]}
            who = operator or getpass.getuser()
            audit.append(connection, "keys restored", who, shares.check_value(key), detail)
    output = Output(json_output=json_output)
    if json_output:
        output.document({"check_value": shares.check_value(key), "restored": not check})
    else:
        what = "these shares make the key" if check else "restored the key"
        output.line(f"{what} with check value {shares.check_value(key)}")


@command(keys, "migrate")
def migrate(
    *,
    from_key_file: Annotated[Path | None, typer.Option("--from-key-file", help="The old key file.")] = None,
    from_passphrase_file: Annotated[Path | None, typer.Option("--from-passphrase-file")] = None,
    operator: Operator = "",
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Move all keys under the key in the hardware module that the configuration names; there is no way back.

    Every key is wrapped anew under a new master key, in one transaction. The head-end must be stopped. Destroy the old
    key file and old copies of the store afterwards, and make new shares.

    \b
    Example:
      ipss-headend keys migrate --from-key-file key_encryption.key
    """
    loaded = places.load_config(config)
    if loaded.keystore.pkcs11 is None:
        raise ConfigError("keys migrate: keys move into a hardware module and not out of it; configure pkcs11_module")
    if (from_key_file is None) == (from_passphrase_file is None):
        raise RequestError("keys migrate: give one of --from-key-file and --from-passphrase-file")
    old_config = KeystoreConfig(key_file=from_key_file, passphrase_file=from_passphrase_file)
    store = loaded.database
    if not is_there(store.address):
        raise ConfigError(f"{store.name}: no store yet; `ipss-headend keys ceremony` begins one")
    with Database(store.address, own=True, reserve_bytes=0) as database, database.writing() as connection:
        old = Keystore.open(connection, old_config)
        who = operator or getpass.getuser()
        new, meters = ceremony.migrate(connection, old, loaded.keystore, who)
    output = Output(json_output=json_output)
    if json_output:
        output.document({"meters": meters, "check_value": new.check_value})
    else:
        output.line(f"the keys of {meters} meters are under the module's key now; check value {new.check_value}")
    say("destroy the old key and old copies of the store, and make new shares with `keys share`")


@command(keys, "ceremony")
def hold_ceremony(
    *,
    answers: Answers = None,
    to: To = None,
    protocol: Annotated[Path, typer.Option("--protocol", help="Where the protocol is written.")] = Path("ceremony.md"),
    need: Need = 2,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Begin a store with its key: made in the module or file, shared among custodians, proven, and written down.

    Operator, auditor and custodians are different people. The auditor confirms the check value, which every custodian
    reads from the share; no key is shown. `--answers` is for rehearsals.

    \b
    Examples:
      ipss-headend keys ceremony --to /media/anna --to /media/ben --to /media/cleo
      ipss-headend keys ceremony --answers rehearsal.toml --to shares --protocol rehearsal.md
    """
    loaded = places.load_config(config)
    given = _asked("keys ceremony", answers, protocol)
    roles = _roles(given)
    roles.check()
    with places.open_store(loaded, create=True) as database, database.writing(spend_reserve=True) as connection:
        done = ceremony.hold(
            connection,
            loaded.keystore,
            roles,
            need=need,
            directories=_directories(to, len(roles.custodians)),
            confirm=_confirmation(given, roles),
            tell=say,
        )
        write_private(protocol, done.protocol)
    output = Output(json_output=json_output)
    if json_output:
        files = [str(path) for path in done.share_files]
        output.document({"check_value": done.check_value, "shares": files, "protocol": str(protocol)})
        return
    output.line(f"check value: {done.check_value}")
    output.line(f"{protocol}: the protocol, to be printed and signed")
    say("hand the shares over and destroy the files here; next: `ipss-headend meters import`")


@command(keys, "renew")
def renew(
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the audit trail and the protocol.")] = "",
    answers: Answers = None,
    to: To = None,
    protocol: Annotated[Path, typer.Option("--protocol", help="Where the protocol is written.")] = Path("renewal.md"),
    need: Need = 2,
    old_config: Annotated[
        Path | None,
        typer.Option(
            "--old-config",
            help="A configuration whose [keystore] opens the keys as they are now, where the new key goes to another "
            "place: another token, another file, a file instead of a passphrase.",
        ),
    ] = None,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Make a new master key, put every key of the store under it in one transaction, and share it anew.

    For when a custodian has left, a share is lost, a key in software may have been seen, or a token was replaced. The
    head-end must be stopped. A process that is killed on the way leaves a store that opens with the old key or with
    the new one, by this same configuration; `keys status` says which. Old shares, old key files and old copies of the
    store still go together: destroy them.

    \b
    Examples:
      ipss-headend keys renew --reason "Ben left" --to /media/anna --to /media/cleo --to /media/dan
      ipss-headend keys renew --reason "rehearsal" --answers rehearsal.toml --to shares --protocol rehearsal.md
    """
    loaded = places.load_config(config)
    old = loaded.keystore if old_config is None else places.load_config(old_config).keystore
    given = _asked("keys renew", answers, protocol)
    roles = _roles(given)
    store = loaded.database
    if not is_there(store.address):
        raise ConfigError(f"{store.name}: no store yet; `ipss-headend keys ceremony` begins one")
    with Database(store.address, own=True, reserve_bytes=0) as database:
        made: renewal.Renewed | None = None
        whole = False
        try:
            with database.writing(spend_reserve=True) as connection:
                database.overwriting(connection)
                made = renewal.renew(
                    connection,
                    old,
                    loaded.keystore,
                    roles,
                    reason,
                    need=need,
                    directories=_directories(to, len(roles.custodians)),
                    confirm=_confirmation(given, roles),
                    tell=say,
                )
                write_private(protocol, made.done.protocol)
                whole = True
        except BaseException:
            if not whole:  # so nothing was committed
                keystore.discard(loaded.keystore)
                for path in (*(made.done.share_files if made else ()), protocol):
                    path.unlink(missing_ok=True)
            else:
                say(
                    "`keys status` says by its check value which key the store is under: keep all shares until you know"
                )
            raise
        with database.reading() as connection:
            keystore.settle(connection, loaded.keystore)
        try:
            database.sweep(renewal.TABLES)
        except StoreError as error:
            say(f"the database's files may still have keys under the old key: {error}")
    output = Output(json_output=json_output)
    if json_output:
        output.document(
            {
                "check_value": made.done.check_value,
                "old_check_value": made.old_check_value,
                "meters": made.meters,
                "shares": [str(path) for path in made.done.share_files],
                "protocol": str(protocol),
            }
        )
        return
    output.line(f"the keys of {made.meters} meters are under a new key; check value {made.done.check_value}")
    output.line(f"{protocol}: the protocol, to be printed and signed")
    say("hand the shares over and destroy the files here, and the old shares and old copies of the store and its key")


@command(keys, "accept-restore")
def accept_restore(
    *,
    age: Annotated[
        str, typer.Option("--age", help="How old the copy is, such as 1h; default: as old as its newest counters.")
    ] = "",
    frames_per_second: Annotated[
        int, typer.Option("--frames-per-second", help="The most that was ever sent to one meter in a second.")
    ] = restoring.FRAMES_PER_SECOND,
    operator: Operator = "",
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Let a store that was copied back send again: raise every meter's invocation counter by what may be used already.

    The margin is the age of the copy times the highest rate of frames. Frames of the meters that were seen since the
    copy could be played again to this store; change the keys where that matters.

    \b
    Example:
      ipss-headend keys accept-restore --age 1h
    """
    loaded = places.load_config(config)
    try:
        age_s = duration_s(age) if age else None
    except ValueError as error:
        raise RequestError(f"--age: {error}") from error
    with places.open_store(loaded) as database, database.writing(spend_reserve=True) as connection:
        why = restoring.state(connection)
        done = restoring.accept(
            connection, database.place(), now_us(), age_s=age_s, frames_per_second=frames_per_second
        )
        detail = {"meters": done.meters, "margin": done.margin, "age_s": done.age_s}
        audit.append(connection, "restore accepted", operator or getpass.getuser(), why, detail)
    output = Output(json_output=json_output)
    if json_output:
        output.document({"meters": done.meters, "margin": done.margin, "age_s": done.age_s, "why": why})
    else:
        output.line(f"the counters of {done.meters} meters raised by {done.margin}; the store may send again")


def _asked(what: str, answers: Path | None, protocol: Path) -> dict[str, object] | None:
    # The answers' file, if there is one; else people are asked.
    given = _answers(answers)
    if answers is None and not sys.stdin.isatty():
        raise RequestError(f"{what} asks people, and nobody is here to answer; add --answers FILE")
    if protocol.exists():
        raise ConfigError(f"{protocol}: is there already; a protocol is not written over another")
    return given


def _confirmation(given: dict[str, object] | None, roles: Roles) -> Callable[[str], bool]:
    def confirm(check_value: str) -> bool:
        if given is not None:
            return given.get("confirm") is True
        typed = str(typer.prompt(f"{roles.auditor}: the check value, as the custodians read it aloud", err=True))
        return typed.replace("-", "").replace(" ", "").upper() == check_value.replace("-", "")

    return confirm


def _answers(path: Path | None) -> dict[str, object] | None:
    if path is None:
        return None
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"{path}: {words(error)}; expected TOML with operator, auditor, custodians, confirm"
        ) from error


def _roles(given: dict[str, object] | None) -> Roles:
    if given is None:
        names = [str(typer.prompt(f"name of the {role}", err=True)) for role in ("operator", "auditor")]
        people = str(typer.prompt("names of the custodians, with commas between them", err=True))
        return Roles(names[0], names[1], tuple(name.strip() for name in people.split(",")))
    custodians = given.get("custodians")
    if unknown := given.keys() - {"operator", "auditor", "custodians", "confirm"}:
        raise ConfigError(f"--answers: {', '.join(sorted(unknown))}: unknown")
    if not isinstance(custodians, list) or not all(isinstance(name, str) for name in custodians):
        raise ConfigError("--answers: custodians: expected a list of names")
    return Roles(str(given.get("operator", "")), str(given.get("auditor", "")), tuple(custodians))


def _directories(to: list[Path] | None, count: int) -> list[Path]:
    chosen = to or [Path("shares")]
    if len(chosen) not in {1, count}:
        raise RequestError(f"--to: {len(chosen)} directories for {count} shares; give one, or one for each")
    return chosen * count if len(chosen) == 1 else chosen
