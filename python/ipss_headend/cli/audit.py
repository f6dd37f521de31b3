"""`ipss-headend audit`: is the audit trail what was written, and what does it say."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ipss_headend.cli import places
from ipss_headend.cli.app import JSON, app, command
from ipss_headend.cli.output import Output
from ipss_headend.errors import DONE, SECURITY, ConfigError
from ipss_headend.security import audit as trail
from ipss_headend.security import principals

audit = typer.Typer(name="audit", help="The audit trail.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(audit)


@command(audit, "verify")
def verify(
    *,
    checkpoints: Annotated[Path | None, typer.Option("--checkpoints", help="The copies in the second place.")] = None,
    public_key: Annotated[str, typer.Option("--public-key", help="Hexadecimal; default: that of the key file.")] = "",
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> int:
    r"""Compare every record with the chain, and the chain with the signed checkpoints of the second place.

    Ends with 0, or with 5 and the first record that is not what was written. Before a head-end has served the store
    nothing is signed yet, and it says so.

    \b
    Example:
      ipss-headend audit verify --checkpoints /mnt/witness/checkpoints.jsonl
    """
    loaded = places.load_config(config)
    try:
        key = bytes.fromhex(public_key)
    except ValueError as error:
        raise ConfigError("--public-key: not hexadecimal") from error
    with places.open_store(loaded) as database, database.reading() as connection:
        # Only a head-end that serves makes the key and the second place; where one did, both have to be there.
        signed = bool(checkpoints or key) or trail.was_served(connection)
        signed = signed or loaded.audit.key_file.exists() or loaded.audit.checkpoints.exists()
        copies = trail.load_checkpoints(checkpoints or loaded.audit.checkpoints) if signed else []
        if not key and signed:
            key = principals.public_key_of(principals.load_key_file(loaded.audit.key_file))
        verdict = trail.verify(trail.records(connection), copies, key)
    output = Output(json_output=json_output)
    if json_output:
        output.document(
            {
                "ok": verdict.first_bad is None,
                "records": verdict.records,
                "checkpoints": verdict.checkpoints,
                "first_bad": verdict.first_bad,
                "problem": verdict.problem or None,
                "signed": signed,
                "public_key": key.hex(),
            }
        )
    elif verdict.first_bad is None and not signed:
        output.line(
            f"{verdict.records} records agree with each other; none is signed: no head-end has served this store"
        )
    elif verdict.first_bad is None:
        output.line(f"{verdict.records} records are what was written; {verdict.checkpoints} checkpoints agree")
    else:
        output.line(f"record {verdict.first_bad}: {verdict.problem}")
    return DONE if verdict.first_bad is None else SECURITY


@command(audit, "export")
def export(
    *,
    after: Annotated[int, typer.Option("--after", help="Only records behind this number.")] = 0,
    config: places.CONFIG = places.DEFAULT_CONFIG,
) -> None:
    r"""Write the records as lines of JSON, with their hashes, so that others can verify the chain.

    \b
    Example:
      ipss-headend audit export > audit.jsonl
    """
    loaded = places.load_config(config)
    with places.open_store(loaded) as database, database.reading() as connection:
        for record in trail.records(connection, after):
            shown = {**record._asdict(), "detail": json.loads(record.detail), "hash": record.hash.hex()}
            sys.stdout.write(json.dumps(shown, ensure_ascii=False, separators=(",", ":")) + "\n")
