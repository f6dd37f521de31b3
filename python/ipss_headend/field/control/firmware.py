"""Firmware: an image brought to a meter block by block, verified there, activated by an order that people approved.

What people sign names the image: its identifier, size and SHA-256. The file is looked at before each transfer; the
meter has to show the same identifier and size before the activation leaves. Only the activation changes a meter
(Blue Book, "Image transfer"), so it alone is sent once and through the gate; blocks may come twice. A transfer that
broke off, or whose head-end ended, goes on with the blocks that the meter does not have. Where the order says when to
activate, meters that have verified the image wait for that moment, and hold up no other command.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import trio

from ipss_headend.errors import HeadEndError, MeterRefused, RequestError
from ipss_headend.field.control import orders
from ipss_headend.field.control.orders import Effect, Order
from ipss_headend.field.control.readback import Decoder, Seen
from ipss_headend.field.questions import Action, Attributes
from ipss_headend.store import Store
from ipss_headend.store import commands as rows
from ipss_headend.store.commands import CommandRow
from ipss_headend.store.database import now_us

if TYPE_CHECKING:
    from ipss_headend.field.fleet import FleetMeter
    from ipss_headend.field.requests import Answer, Requests

IMAGE_TRANSFER = bytes((0, 0, 44, 0, 0, 255))
VERSION = bytes((1, 0, 0, 2, 0, 255))
"""Active firmware identifier."""

LARGEST = 64 << 20
MOST_IDENTIFIER = 64
AT_ONCE = 16
"""Blocks of one request."""
MOST_BLOCKS = 100_000
"""Of an image: a meter that wants more, octet by octet, is not served."""
ROUNDS = 8
"""How often blocks that a meter lost are sent again."""
ANSWER_S = 60.0
VERIFY_S = 600.0
"""How long a meter may look at an image."""
THROUGH_S = 24 * 3600.0
"""How long a transfer may take, all breaks together."""
TOLD_S = 2.0
"""Between two words of its progress."""

BLOCK_SIZE, BLOCKS, FIRST_MISSING, ENABLED, STATUS, TO_ACTIVATE = 2, 3, 4, 5, 6, 7
INITIATED, VERIFYING, VERIFIED, NOT_VERIFIED, ACTIVATED, NOT_ACTIVATED = 1, 2, 3, 4, 6, 7
TEMPORARY_FAILURE = 2

_FORM = re.compile(
    r"image ([0-9a-f]{2,128}) ([0-9]{1,9}) ([0-9a-f]{64})"
    r"(?: at ([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z))?"
)

GoesOn = Callable[[], Awaitable[bool]]
"""Whether the command may still go on: not stopped, cancelled or expired."""


@dataclass(frozen=True, slots=True)
class Image:
    """What an order says of an image."""

    identifier: bytes
    """As the meter is told, and shows it."""
    size: int
    digest: bytes
    """SHA-256."""
    at_us: int = 0
    """It is activated at this moment (UTC, whole seconds) or later; 0: as soon as it is verified."""

    @classmethod
    def of_octets(cls, identifier: bytes, octets: bytes, at_us: int = 0) -> Self:
        """The image with these octets, to be activated at `at_us` or later.

        Raises:
            RequestError: it is none.
        """
        if not 1 <= len(identifier) <= MOST_IDENTIFIER:
            raise RequestError(f"an image's identifier has 1 to {MOST_IDENTIFIER} octets, not {len(identifier)}")
        if not 1 <= len(octets) <= LARGEST:
            raise RequestError(f"an image has 1 to {LARGEST:,} octets, not {len(octets):,}")
        return cls(identifier, len(octets), sha256(octets).digest(), at_us // 1_000_000 * 1_000_000)

    @classmethod
    def of(cls, text: str) -> Self:
        """The image that an order expects.

        Raises:
            RequestError: these are no words of an order for firmware.
        """
        found = _FORM.fullmatch(text)
        if found is None or len(found[1]) % 2:
            raise RequestError(f'"{text[:80]}" names no image')
        try:
            at_us = 0 if found[4] is None else int(datetime.fromisoformat(found[4]).timestamp()) * 1_000_000
        except ValueError:
            raise RequestError(f'"{found[4]}" is no moment') from None
        return cls(bytes.fromhex(found[1]), int(found[2]), bytes.fromhex(found[3]), at_us)

    def text(self) -> str:
        """What stands in the order as `expected`."""
        at = f" at {shown_moment(self.at_us)}" if self.at_us else ""
        return f"image {self.identifier.hex()} {self.size} {self.digest.hex()}{at}"

    def order(self, meters: Sequence[tuple[int, bytes]], **common: Any) -> Order:
        """An order to activate it on these meters.

        Raises:
            RequestError: it could not be activated before the order is too old, or another mistake of orders.
        """
        effect = Effect("action", 18, IMAGE_TRANSFER, 4, orders.NO_PARAMETER)
        made = orders.order("firmware", effect, self.text(), meters, **common)
        if self.at_us >= made.not_after_us:
            raise RequestError(
                f"to be activated at {shown_moment(self.at_us)}, but not-after is {shown_moment(made.not_after_us)}"
            )
        return made

    def path(self, directory: Path) -> Path:
        """Where the head-end keeps its octets."""
        return directory / f"{self.digest.hex()}.image"


class Withdrawn(Exception):
    """The command may not go on."""


class Firmware:
    """Brings images to meters, and looks what runs there."""

    def __init__(
        self,
        store: Store,
        requests: Requests,
        native: Decoder,
        meters: Mapping[int, FleetMeter],
        directory: Path,
        wall_us: Callable[[], int] = now_us,
    ) -> None:
        self._store = store
        self._requests = requests
        self._native = native
        self._meters = meters
        self._directory = directory
        self._wall_us = wall_us
        self._told: dict[bytes, float] = {}

    async def prepare(self, one: CommandRow, order: Order, goes_on: GoesOn) -> str | None:
        """Bring the image to a meter and have it verified: empty if it may be activated, else why not.

        None: the command may not go on, or not yet.
        """
        try:
            image = Image.of(order.expected)
            octets = await trio.to_thread.run_sync(self._octets, image)
        except RequestError as error:
            return str(error)
        begun, pause_s, resumes = trio.current_time(), 1.0, one.detail.startswith(f"image {image.digest.hex()[:8]}")
        while True:
            try:
                if not await goes_on():
                    return None
                why = await self._bring(one, image, octets, goes_on, resumes=resumes)
                return why if why or not await self._waits(one, image) else None
            except Withdrawn:
                return None
            except HeadEndError as error:
                if trio.current_time() - begun >= THROUGH_S:
                    return f"the image did not get through: {error}"
            resumes = True
            await trio.sleep(pause_s)
            pause_s = min(pause_s * 2, 60.0)

    async def look(self, meter: int, order: Order) -> Seen:
        """Whether a meter runs an order's image."""
        try:
            image = Image.of(order.expected)
            status, shown = await self._values(meter, STATUS, TO_ACTIVATE)
            [version] = await self._cells(meter, [(1, VERSION, 2)])
        except HeadEndError:
            return Seen.NOTHING
        if isinstance(version, str) and version.lower() == image.identifier.hex():
            return Seen.AS_WANTED
        if status == ACTIVATED:
            return Seen.AS_WANTED if named(shown, image) else Seen.OTHERWISE
        # Neither done nor failed: it is being done, or its word was not kept, which time tells.
        return Seen.OTHERWISE if status in (VERIFIED, NOT_VERIFIED, NOT_ACTIVATED) else Seen.NOTHING

    def _octets(self, image: Image) -> bytes:
        path = image.path(self._directory)
        try:
            octets = path.read_bytes()
        except OSError as error:
            raise RequestError(f"{path}: {error.strerror or error}; the image was proposed elsewhere?") from error
        if len(octets) != image.size or sha256(octets).digest() != image.digest:
            raise RequestError(f"{path}: not the image that was approved")
        return octets

    async def _bring(self, one: CommandRow, image: Image, octets: bytes, goes_on: GoesOn, *, resumes: bool) -> str:
        meter = one.meter_id
        size, come, first_missing, enabled, status, shown = await self._values(
            meter, BLOCK_SIZE, BLOCKS, FIRST_MISSING, ENABLED, STATUS, TO_ACTIVATE
        )
        if status == VERIFIED and named(shown, image):
            return ""
        if not enabled:
            return "the meter takes no images: image_transfer_enabled is false"
        if not isinstance(size, int) or size <= 0:
            return "the meter tells no image_block_size"
        count = -(-image.size // size)
        if count > MOST_BLOCKS:
            return f"the meter wants {count:,} blocks of {size} octets; at most {MOST_BLOCKS:,} are sent"
        come = transferred(come, first_missing, count)
        if not (resumes and status in (INITIATED, VERIFYING) and come):
            await self._do(meter, 1, bytes((2, 2)) + octet_string(image.identifier) + unsigned(image.size))
            come = "0" * count
        for _ in range(ROUNDS):
            missing = [number for number, bit in enumerate(come) if bit != "1"]
            for first in range(0, len(missing), AT_ONCE):
                await self._tell(one, image, count - len(missing) + first, count)
                if not await goes_on():
                    raise Withdrawn
                await self._blocks(meter, octets, size, missing[first : first + AT_ONCE])
            if not missing:
                break
            come, first_missing = await self._values(meter, BLOCKS, FIRST_MISSING)
            come = transferred(come, first_missing, count) or "0" * count
        else:
            return "blocks are lost again and again"
        return await self._verify(meter, image)

    async def _waits(self, one: CommandRow, image: Image) -> bool:
        """Whether its moment is still to come: then the command is due again at that moment."""
        if self._wall_us() >= image.at_us:
            return False
        text = f"image {image.digest.hex()[:8]}: verified, to be activated at {shown_moment(image.at_us)}"
        await self._store.change(lambda connection: rows.progress(connection, one.command_id, text, image.at_us))
        return True

    async def _verify(self, meter: int, image: Image) -> str:
        """Have it verified, which may take its time."""
        answer = await self._ask(meter, (Action((18, IMAGE_TRANSFER, 3), orders.NO_PARAMETER),))
        code = answer.refusals.get(0)
        if code not in {None, TEMPORARY_FAILURE}:
            return f"the meter does not verify the image: action-result {code}"
        with trio.move_on_after(VERIFY_S):
            while True:
                status, shown = await self._values(meter, STATUS, TO_ACTIVATE)
                if status == NOT_VERIFIED:
                    return "the meter found the image bad"
                if status == VERIFIED:
                    return "" if named(shown, image) else "the meter shows another image than was approved"
                await trio.sleep(1.0)
        return "the meter did not come to an end with verifying the image"

    async def _blocks(self, meter: int, octets: bytes, size: int, numbers: Sequence[int]) -> None:
        actions = tuple(
            Action(
                (18, IMAGE_TRANSFER, 2),
                bytes((2, 2)) + unsigned(number) + octet_string(octets[number * size : (number + 1) * size]),
            )
            for number in numbers
        )
        answer = await self._ask(meter, actions)
        if answer.refusals:
            place, code = next(iter(answer.refusals.items()))
            raise MeterRefused(f"image block {numbers[place]}: action-result {code}")

    async def _do(self, meter: int, method: int, parameters: bytes) -> None:
        answer = await self._ask(meter, (Action((18, IMAGE_TRANSFER, method), parameters),))
        if answer.refusals:
            raise MeterRefused(f"image transfer, method {method}: action-result {answer.refusals[0]}")

    async def _values(self, meter: int, *attributes: int) -> list[Any]:
        """Attributes of the image transfer, as `decode_data` has them; None: not told."""
        return await self._cells(meter, [(18, IMAGE_TRANSFER, attribute) for attribute in attributes])

    async def _cells(self, meter: int, attributes: Sequence[tuple[int, bytes, int]]) -> list[Any]:
        answer = await self._ask(meter, (Attributes(0, tuple(attributes)),))
        line = answer.line(0)
        cells = [None] * len(attributes) if line is None else line[6]
        return [self._value(cell) if isinstance(cell, bytes) else None for cell in cells]

    def _value(self, cell: bytes) -> Any:
        # A meter may say anything: what is no value tells nothing.
        with suppress(ValueError):
            return self._native.decode_data(cell)[1]
        return None

    async def _ask(self, meter: int, questions: tuple[Action, ...] | tuple[Attributes]) -> Answer:
        known = self._meters.get(meter)
        return await self._requests.ask(
            questions, meter, timeout_s=ANSWER_S, attempts=1, name="" if known is None else known.name
        )

    async def _tell(self, one: CommandRow, image: Image, done: int, count: int) -> None:
        """Its progress, for `control list` and `firmware status`; it tells a later life, too, what was begun."""
        now = trio.current_time()
        if done and now - self._told.get(one.command_id, -TOLD_S) < TOLD_S:
            return
        self._told[one.command_id] = now
        text = f"image {image.digest.hex()[:8]}: {done} of {count} blocks"
        await self._store.change(lambda connection: rows.progress(connection, one.command_id, text))


def transferred(bits: Any, first_missing: Any, count: int) -> str:
    """A bit for each of `count` blocks, 1 for those that the meter has; empty if it does not tell.

    A meter that does not show each block (image_transferred_blocks_status) tells how far it got
    (image_first_not_transferred_block_number): those behind are counted as missing.
    """
    if len(str(bits)) == count:
        return str(bits)
    if isinstance(first_missing, int) and first_missing > 0:
        return ("1" * min(first_missing, count)).ljust(count, "0")
    return ""


def shown_moment(moment_us: int) -> str:
    """As it stands in an order, whole seconds of UTC: `2026-12-01T02:00:00Z`."""
    return datetime.fromtimestamp(moment_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def named(shown: Any, image: Image) -> bool:
    """Whether a meter's list of images to activate has this one, by size and identifier."""
    wanted = [image.size, image.identifier]
    with suppress(ValueError, TypeError):  # whatever else it shows is not this image
        for _, parts in shown or ():
            (_, size), (kind, identifier), *_ = parts
            octets = bytes.fromhex(identifier) if kind == "octet-string" else str(identifier).encode()
            if [size, octets] == wanted:
                return True
    return False


def octet_string(octets: bytes) -> bytes:
    """A-XDR."""
    count = len(octets)
    if count < 128:
        return bytes((9, count)) + octets
    return (bytes((9, 0x81, count)) if count < 256 else b"\x09\x82" + count.to_bytes(2)) + octets


def unsigned(number: int) -> bytes:
    """A-XDR, double-long-unsigned."""
    return b"\x06" + number.to_bytes(4)
