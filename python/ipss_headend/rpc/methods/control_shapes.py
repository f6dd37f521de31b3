"""Params and results of `control.*`."""

from __future__ import annotations

from typing import Literal

import msgspec

from ipss_headend.rpc.catalogue import Change, Params, Result


class Asking(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every order has."""

    targets: list[str]
    """Meters by name, and `group:NAME` for all of a group; meters alone, or inverters and storage alone."""
    reason: str
    """Why; stands in the audit trail."""
    not_after_s: int | None = None
    """How long it may wait; None: as configured."""
    signer: str = ""
    """The `[[principals]]` of the configuration who signs. Left out: the caller's own, and it has to be, unless the
    call comes by the unix socket."""
    order: str | None = None
    """The order's number, a UUID; None: a new one is made."""
    created_ms: int | None = None
    """When the order was made; None: now."""


class WantedSupply(Asking, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What supply is to be."""

    to: Literal["on", "off", "arm"]
    """`arm`: ready, and the customer closes the switch. An inverter or a storage is on the grid or off it."""
    revert_s: int | None = None
    """Of an inverter or a storage, needed for `off`: after so long it goes back by itself; 0: it does not."""


class WantedLimit(Asking, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much may be drawn, or fed in: one of watts, percent and release."""

    watts: int | None = None
    """What a meter's limiter lets through."""
    scaler: int = 0
    """Power of ten of the register that the limiter monitors."""
    percent: str | None = None
    """Of an inverter's or a storage's rating, a decimal number."""
    release: bool = False
    """The limit ends."""
    revert_s: int | None = None
    """With percent, needed: after so long it goes back by itself; 0: it does not."""


class WantedTariff(Asking, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The passive activity calendar becomes the active one, now."""


class WantedKeys(Asking, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """New encryption and authentication keys. More than 25 meters have a week for it, unless not_after_s says less."""


class Wanted(WantedLimit, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is to be: one of `to`, a limit, `tariff` and `new_keys`."""

    to: Literal["on", "off", "arm"] | None = None
    """As in control.switch."""
    tariff: bool = False
    """The passive activity calendar becomes the active one, now."""
    new_keys: bool = False
    """As in control.keys."""


class Preview(msgspec.Struct, frozen=True):
    """What an order would do."""

    kind: str
    effect: str
    """The one thing that is sent to each, as on the wire."""
    expected: str
    """What is read afterwards; of an inverter, what its registers mean."""
    meters: int
    groups: dict[str, int]
    protected: list[str]
    """Never cut: an order with one of these is refused."""
    over_budget: int
    """How many would be quarantined."""
    approvers: int
    """How many other people must approve."""
    spread_s: int
    not_after_ms: int
    rings: list[int] = []
    """Of what goes out in rings: after how many meters each of them ends."""


class Draft(Result, frozen=True):
    """An order that nobody has asked for yet, and what it would do."""

    order: str
    created_ms: int
    signer: str
    octets: str
    """The canonical octets that `signer` signs, purpose `propose`, generation 0, in hexadecimal digits."""
    preview: Preview


class Switch(WantedSupply, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An order, signed: `order` and `created_ms` as control.preview gave them."""

    key: str
    """Idempotency key, as `Change` has it; a struct has one base."""
    signature: str = ""
    """Ed25519, hexadecimal digits."""
    dry_run: bool = False
    """Only say what it would do; the signature is not looked at."""


class Limit(WantedLimit, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An order, signed: `order` and `created_ms` as control.preview gave them."""

    key: str
    """Idempotency key, as `Change` has it; a struct has one base."""
    signature: str = ""
    """Ed25519, hexadecimal digits."""
    dry_run: bool = False
    """Only say what it would do; the signature is not looked at."""


class Tariff(WantedTariff, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An order, signed: `order` and `created_ms` as control.preview gave them."""

    key: str
    """Idempotency key, as `Change` has it; a struct has one base."""
    signature: str = ""
    """Ed25519, hexadecimal digits."""
    dry_run: bool = False
    """Only say what it would do; the signature is not looked at."""


class Keys(WantedKeys, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An order, signed: `order` and `created_ms` as control.preview gave them."""

    key: str
    """Idempotency key, as `Change` has it; a struct has one base."""
    signature: str = ""
    """Ed25519, hexadecimal digits."""
    dry_run: bool = False
    """Only say what it would do; the signature is not looked at."""


class Switched(Result, frozen=True):
    """An order that waits for approval."""

    order: str
    commands: dict[str, str]
    """The command of each meter, for at most 1000; control.get has all."""
    approvers: int
    preview: Preview


class OrderNamed(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An order."""

    order: str


class ToSign(Result, frozen=True):
    """What people sign, and what it would do."""

    order: str
    kind: str
    requester: str
    reason: str
    octets: str
    """Canonical octets, hexadecimal digits."""
    generation: int
    """Of the stop switch: stands in each approval."""
    approved_by: list[str]
    needed: int
    preview: Preview


class Signed(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An order, and what somebody says of it."""

    order: str
    signature: str
    """Ed25519, hexadecimal digits, made with the octets and the generation of control.order."""
    signer: str = ""


class Approval(Result, frozen=True):
    """How far it is."""

    order: str
    approved_by: list[str]
    needed: int
    complete: bool
    """It goes now."""


class OrderChanged(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An order."""

    order: str


class Count(Result, frozen=True):
    """How many commands it was about."""

    commands: int


class Asked(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An order, or one command."""

    order: str | None = None
    command: str | None = None
    cursor: int = 0
    """The number after which to go on."""
    limit: int = 1000


class Command(msgspec.Struct, frozen=True):
    """One meter's part of an order."""

    command: str
    point: str | None
    state: str
    """`proposed`, `approved`, `released`, `sent`, `confirmed`, `failed`, `unknown`, `expired` or `cancelled`."""
    detail: str
    changed_ms: int
    quarantined: bool
    alarmed: bool


class OrderTold(msgspec.Struct, frozen=True):
    """An order, as far as the caller may see its meters."""

    order: str
    kind: str
    requester: str
    reason: str
    created_ms: int
    not_after_ms: int
    states: dict[str, int]
    """How many commands are in each state."""


class Whole(Result, frozen=True):
    """An order with a page of its commands; `cursor` gives the next, None: that was the last."""

    order: OrderTold
    approved_by: list[str]
    commands: list[Command]
    cursor: int | None


class Query(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A page."""

    cursor: str = ""
    limit: int = 100


class Orders(Result, frozen=True):
    """The newest first; `cursor` gives the next page, None: that was the last."""

    orders: list[OrderTold]
    cursor: str | None


class Meters(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which meters."""

    targets: list[str]


class Output(msgspec.Struct, frozen=True):
    """A meter's supply."""

    point: str
    output: bool | None
    """Whether it has supply; None: not told."""
    control_state: int | None
    """0 disconnected, 1 connected, 2 ready for reconnection."""
    control_mode: int | None
    error: str | None
    """Why it could not be read."""
    open: list[Command]
    """What of it is under way."""


class Outputs(Result, frozen=True):
    """In the order of the names."""

    meters: list[Output]


class Halt(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Stop. Takes no key: it works while the store does not, and a repeat changes nothing."""

    reason: str


class Halted(Result, frozen=True):
    """It is stopped."""

    held: int
    """Commands whose approvals are void now."""
    generation: int


class Resume(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Take the stop switch back."""

    signature: str
    """Of the octets `ipss-headend resume, form 1`, purpose `resume`, with the generation of control.status."""
    signer: str = ""


class HeldMeter(Result, frozen=True):
    """A meter that two have proved to be."""

    point: str
    why: str
    since_ms: int
    generation: int
    octets: str
    """What is signed to clear it, purpose `clear`, with that generation; hexadecimal digits."""


class Held(Result, frozen=True):
    """Nothing critical goes to these."""

    meters: list[HeldMeter]


class Clearance(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """It is settled which one the meter is."""

    point: str
    reason: str
    signature: str
    """Ed25519, hexadecimal digits, of the octets and the generation of control.held, purpose `clear`."""
    signer: str = ""


class Cleared(Result, frozen=True):
    """Critical commands go to it again."""

    pushes: int
    """Pushes from elsewhere that were thrown away."""


class Status(Result, frozen=True):
    """The stop switch, and what is under way."""

    stopped: bool
    generation: int
    commands: dict[str, int]
    """How many are open, by state."""
