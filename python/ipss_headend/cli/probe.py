"""`ipss-headend probe`: what a meter can do, found out by asking, and written as a companion profile."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import trio
import typer

from ipss_headend.cli import places
from ipss_headend.cli.app import JSON, app, command
from ipss_headend.cli.conversation import Conversation, Reply, converse
from ipss_headend.cli.output import Output, say
from ipss_headend.cli.targets import Auth, Options, Protection, Target, resolve
from ipss_headend.cli.trace import documents
from ipss_headend.errors import ConfigError, MeterError, MeterGone, MeterTimeout, RequestError, words
from ipss_headend.field.results import result_name
from ipss_headend.names import ObjectName
from ipss_headend.store.database import now_us

NAME = (1, bytes((0, 0, 42, 0, 0, 255)), 2)
"""The logical device name: every client may read it."""

LOAD_PROFILE = "1.0.99.1.0.255"

LISTS = (2, 4, 8, 16, 32)
"""Attributes in one question, asked in turn until the meter does not answer them in one."""

ROUNDS = 5
"""Questions that the timing is taken from."""

RANGE_S = 3600
"""How much of a profile is asked for."""

Quirks = dict[str, bool | int | str]


@dataclass
class Found:
    """What a meter can do. None: not found out, `notes` say why."""

    max_pdu: int | None = None
    """Octets of the largest APDU that the meter takes."""
    conformance: tuple[str, ...] = ()
    with_list: int | None = None
    """Attributes that it answers in one exchange; 1: one by one."""
    selective_access: str | None = None
    """`both`, `range`, `entry`, `none`."""
    deviation: str | None = None
    """Of the moments of a range: `either`, `set` or `unset`."""
    answer_ms: int | None = None
    """The middle of the times from question to answer."""
    notes: list[str] = field(default_factory=list)

    def can(self, service: str) -> bool:
        """Whether it was agreed on."""
        return service in self.conformance

    def quirks(self) -> Quirks:
        """The quirks of a companion profile that say so; what is the standard's way is left out."""
        found: Quirks = {}
        if self.with_list == 1:
            found["with_list_allowed"] = False
        elif self.with_list is not None and self.with_list < LISTS[-1]:
            found["with_list_limit"] = self.with_list
        if self.selective_access not in {None, "both"}:
            found["selective_access"] = str(self.selective_access)
        if self.deviation in {"set", "unset"}:
            found["deviation_in_ranges"] = str(self.deviation)
        if not self.can("general-block-transfer"):
            found["general_block_transfer"] = False
        return found

    def document(self) -> dict[str, Any]:
        """As JSON answers carry it."""
        return {
            "max_pdu": self.max_pdu,
            "with_list_limit": self.with_list,
            "selective_access": self.selective_access,
            "deviation_in_ranges": self.deviation,
            "block_transfer": {
                "get": self.can("block-transfer-with-get-or-read"),
                "set": self.can("block-transfer-with-set-or-write"),
                "action": self.can("block-transfer-with-action"),
                "general": self.can("general-block-transfer"),
            },
            "conformance": self.conformance,
            "answer_ms": self.answer_ms,
            "quirks": self.quirks(),
            "notes": self.notes,
        }

    def profile(self, device: str, on: str) -> str:
        """As a companion profile (TOML)."""
        quoted = json.dumps
        lines = [
            'inherits = "generic"',
            f"about = {quoted(f'as {device} answered')}",
            f"source = {quoted(f'ipss-headend probe {device}, {on}')}",
            "",
            f"# largest APDU {self.max_pdu} octets; answers within about {self.answer_ms} ms",
            *(f"# {' '.join(note.split())}" for note in self.notes),
            "",
            "[quirks]",
            *(f"{name} = {quoted(value)}" for name, value in sorted(self.quirks().items())),
        ]
        return "\n".join(lines) + "\n"


@command(app, "probe")
def probe(
    url: Annotated[str, typer.Argument(help="dlms+tcp://HOST:PORT, or the name of a meter in the registry.")],
    *,
    client: Annotated[int | None, typer.Option(min=1, max=0xFFFF, help="Our address.  [default: 16]")] = None,
    server: Annotated[int | None, typer.Option(min=1, max=0xFFFF, help="The device's address.  [default: 1]")] = None,
    auth: Annotated[Auth | None, typer.Option(help="How both ends prove who they are.")] = None,
    password_file: Annotated[Path | None, typer.Option(help="File with the password, one line.")] = None,
    keys: Annotated[Path | None, typer.Option(help="TOML file with keys, a table per system title.")] = None,
    suite: Annotated[int, typer.Option(min=0, max=2, help="Security suite.")] = 0,
    protection: Annotated[Protection | None, typer.Option(help="How APDUs are protected.")] = None,
    profile: Annotated[
        str, typer.Option(help="The load profile that selective access is tried on.")
    ] = "1.0.99.1.0.255",
    out: Annotated[Path | None, typer.Option(help="Write what was found as a companion profile, TOML.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="S", help="Seconds for each trial.")] = 10.0,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> int:
    r"""Find a meter's limits by asking: APDU size, lists, selective access, blocks, timing. Nothing is written.

    Each trial is an association of its own. The companion profile that --out writes goes into `profiles/` of the data
    directory; meters whose model is its name are then spoken to so.

    \b
    Examples:
      ipss-headend probe dlms+tcp://192.0.2.7 --client 1 --keys keys.toml
      ipss-headend probe virtual-00001 --out data/profiles/our-model.toml --json
    """
    options = Options(
        client=client,
        server=server,
        auth=auth,
        password_file=password_file,
        keys=keys,
        suite=suite,
        protection=protection,
    )
    target = resolve(url, options, config)
    found = trio.run(Prober(target, ObjectName.parse(profile), timeout).run)
    output = Output(json_output=json_output)
    if out is not None:
        try:
            out.write_text(found.profile(target.name, f"{datetime.now(UTC):%Y-%m-%d}"), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{out}: {words(error)}") from error
    if json_output:
        output.document({"device": target.name, **found.document()})
    else:
        shown = {**found.document(), "notes": "; ".join(found.notes), "conformance": ", ".join(found.conformance)}
        output.table(("property", "value"), [(name.replace("_", " "), _plain(value)) for name, value in shown.items()])
    if out is not None:
        say(f"written to {out}")
    return 0


class Prober:
    """Tries one thing after the other, each in an association of its own."""

    def __init__(self, target: Target, profile: ObjectName, timeout_s: float) -> None:
        self._target = target
        self._profile = bytes(map(int, profile.logical_name.split(".")))
        self._timeout_s = timeout_s
        self.found = Found()

    async def run(self) -> Found:
        """Try all.

        Raises:
            MeterError: the meter cannot be spoken to at all.
        """
        await self._associate()
        if self.found.can("multiple-references"):
            await self._lists()
        else:
            self.found.with_list = 1
        if self.found.can("selective-access"):
            await self._selective_access()
        else:
            self.found.selective_access = "none"
        return self.found

    async def _associate(self) -> None:
        async with converse(self._target, timeout_s=self._timeout_s, trace=True) as conversation:
            times = []
            for _ in range(ROUNDS):
                started = time.monotonic()
                await conversation.ask([conversation.core.Item.attributes(0, [NAME])])
                times.append(time.monotonic() - started)
            traced = list(conversation.traced)
        # The first time holds the connection and the association.
        self.found.answer_ms = math.ceil(sorted(times[1:])[len(times[1:]) // 2] * 1000)
        for said in _named(documents(self._target, traced), "initiate-response"):
            self.found.max_pdu = said.get("max_receive_pdu_size")
            self.found.conformance = tuple(said.get("conformance", ()))
        if self.found.max_pdu is None:
            self.found.notes.append("what the meter agreed to could not be read")

    async def _lists(self) -> None:
        self.found.with_list = 1
        for count in LISTS:
            reply = await self._try(
                lambda conversation, count=count: conversation.ask(
                    [conversation.core.Item.attributes(0, [NAME] * count)]
                ),
                {"with_list_limit": count},
                f"a list of {count}",
            )
            # A list that is answered by garbage is asked again one by one.
            if reply is None or reply.exchanges != 1 or not reply.answered(0):
                return
            self.found.with_list = count

    async def _selective_access(self) -> None:
        ranges = {word: await self._buffer("range", {"deviation_in_ranges": word}) for word in ("set", "unset")}
        served = [word for word, answer in ranges.items() if answer]
        entries = await self._buffer("entries", {})
        if served:
            refused = [word for word, answer in ranges.items() if answer is False]
            self.found.deviation = served[0] if refused else "either" if len(served) == len(ranges) else None
        uncertain = (not served and None in ranges.values()) or entries is None
        if uncertain:
            self.found.notes.append("which selective access the meter serves is not certain")
            return
        kinds = {(True, True): "both", (True, False): "range", (False, True): "entry", (False, False): "none"}
        self.found.selective_access = kinds[bool(served), bool(entries)]

    async def _buffer(self, select: str, quirks: Mapping[str, bool | int | str]) -> bool | None:
        """Whether the meter serves a buffer selected so; None if nothing can be said."""
        until_us = now_us()

        async def ask(conversation: Conversation) -> Reply:
            item = conversation.core.Item
            # The rows are not wanted, only whether there are any: the value stays as it is.
            captured = await conversation.ask([item.attributes(0, [(7, self._profile, 3)])])
            columns = captured.cell(0)
            if columns is None:
                code = captured.refusals.get(0)
                why = "" if code is None else f": {result_name(code)}"
                raise RequestError(f"the profile's columns are not readable{why}")
            count = len(conversation.core.decode_data(columns)[1])
            return await conversation.ask(
                [item.buffer(0, self._profile, count, select=select, entries=(1, 1, 1, 0))],
                from_us=until_us - RANGE_S * 1_000_000,
                to_us=until_us,
            )

        reply = await self._try(ask, quirks, f"{select} {quirks or ''}".strip())
        return None if reply is None else 0 not in reply.refusals

    async def _try(self, ask: Any, quirks: Mapping[str, bool | int | str], what: str) -> Reply | None:
        try:
            async with converse(self._target, timeout_s=self._timeout_s, quirks=tuple(quirks.items())) as conversation:
                reply: Reply = await ask(conversation)
                return reply
        except (MeterGone, MeterTimeout, MeterError, RequestError) as error:
            self.found.notes.append(f"{what}: {error}")
            return None


def _named(value: Any, apdu: str) -> Iterator[dict[str, Any]]:
    """The APDUs of this name anywhere in what `decode` says."""
    if isinstance(value, dict):
        if value.get("apdu") == apdu:
            yield value
        for part in value.values():
            yield from _named(part, apdu)
    elif isinstance(value, list):
        for part in value:
            yield from _named(part, apdu)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_plain(part)}" for name, part in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unknown" if value is None else str(value)
