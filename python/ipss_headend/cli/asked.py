"""What `read` is asked for: objects, and what belongs to each by its interface class (Blue Book)."""

from dataclasses import dataclass, replace
from typing import Any

from ipss_headend.errors import NotAuthorised, RequestError
from ipss_headend.names import ObjectName, logical_name

ASSOCIATION = (15, "0.0.40.0.0.255", 2)
"""The current association's object list."""

PROFILE_CLASS = 7
CLOCK_CLASS = 8

SCALER_UNIT = {3: 3, 4: 3, 5: 4}
"""The attribute with scaler and unit, of Register, Extended register, Demand register."""

SCALED = {(3, 2), (4, 2), (5, 2), (5, 3)}
"""The attributes that scaler and unit belong to."""

CAPTURE_TIME = {(4, 2): 5, (5, 3): 6}
"""The attribute with the time at which another one was captured."""

CRITICAL_CLASSES = {
    9: "script table",
    10: "schedule",
    15: "association",
    18: "image transfer",
    20: "activity calendar",
    22: "single action schedule",
    30: "data protection",
    64: "security setup",
    68: "arbitrator",
    70: "disconnect control",
    71: "limiter",
    111: "account",
    112: "credit",
    113: "charge",
    115: "token gateway",
}
"""Classes through which supply is switched or limited, money moves, keys change, or firmware is replaced."""

CRITICAL_NAMES = ("96.3.10", "17.0.0", "40.0.0", "43.0.0", "44.0.0", "10.0.106", "19.")
"""Beginnings of the numbers C, D, E of logical names that have these meanings, whatever class is claimed."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One object that was asked for."""

    text: str
    """As the operator wrote it."""
    logical_name: str
    class_id: int | None
    attribute: int
    guessed: bool = False
    """The class is the catalogue's: the device may know better."""

    @classmethod
    def parse(cls, text: str) -> "Wanted":
        """Read an OBJECT.

        Raises:
            UnknownLogicalName, RequestError: with words for the operator.
        """
        if text.strip() == "objects":
            class_id, name, attribute = ASSOCIATION
            return cls(text, name, class_id, attribute)
        if text.startswith(("holding/", "input/", "coil/", "discrete/")) or text == "sunspec":
            raise RequestError(
                f"{text}: a Modbus object; a Modbus device has a URL such as modbus+tcp://HOST:PORT/UNIT"
            )
        parsed = ObjectName.parse(text)
        attribute = 2 if parsed.attribute is None else parsed.attribute
        if attribute < 1:
            raise RequestError(f"{text}: attribute {attribute} is none; attributes count from 1")
        return cls(text, parsed.logical_name, parsed.class_id, attribute)

    @property
    def octets(self) -> bytes:
        """The logical name on the wire."""
        return bytes(map(int, self.logical_name.split(".")))

    @property
    def descriptor(self) -> tuple[int, bytes, int]:
        """Class, logical name, attribute; once the class is known."""
        assert self.class_id is not None
        return self.class_id, self.octets, self.attribute

    @property
    def is_buffer(self) -> bool:
        """Whether it is a profile's buffer, which is read as rows."""
        return self.class_id == PROFILE_CLASS and self.attribute == 2

    @property
    def is_object_list(self) -> bool:
        """Whether it is the association's object list."""
        return self.class_id == ASSOCIATION[0] and self.attribute == ASSOCIATION[2]

    def of_class(self, class_id: int, *, guessed: bool) -> "Wanted":
        """The same with its class."""
        return replace(self, class_id=class_id, guessed=guessed)

    def beside(self) -> tuple[int | None, int | None]:
        """The attributes with scaler and unit and with the capture time that belong to this one, None for none."""
        assert self.class_id is not None
        key = (self.class_id, self.attribute)
        return (SCALER_UNIT[self.class_id] if key in SCALED else None), CAPTURE_TIME.get(key)

    def __str__(self) -> str:
        head = "" if self.class_id is None else f"{self.class_id}/"
        return f"{head}{self.logical_name}:{self.attribute}"


def check_harmless(wanted: Wanted, catalogued_class: int | None) -> None:
    """Refuse to write or invoke what switches supply, moves money or changes keys: that is the command path's.

    Raises:
        NotAuthorised: it is such an object.
    """
    critical = CRITICAL_CLASSES.get(wanted.class_id or 0) or CRITICAL_CLASSES.get(catalogued_class or 0)
    if critical is None:
        c_d_e = ".".join(wanted.logical_name.split(".")[2:5])
        if any(c_d_e.startswith(beginning) for beginning in CRITICAL_NAMES):
            critical = "an object of this kind"
    if critical is not None:
        raise NotAuthorised(
            f"{wanted}: {critical}: switching, limits, payment, keys and firmware go through the command path, with "
            "approval, budget and read-back; it is not built yet, so this is refused"
        )


@dataclass(frozen=True, slots=True)
class ListedObject:
    """One object of an association's object list."""

    class_id: int
    version: int
    logical_name: str
    attributes: dict[int, str]
    """Attribute to access: no-access, read-only, write-only, read-and-write, and authenticated ones."""
    methods: dict[int, str]


ATTRIBUTE_ACCESS = (
    "no-access",
    "read-only",
    "write-only",
    "read-and-write",
    "authenticated-read-only",
    "authenticated-write-only",
    "authenticated-read-and-write",
)
METHOD_ACCESS = ("no-access", "access", "authenticated-access")


def object_list(value: list[Any]) -> list[ListedObject]:
    """The association's object list from its value (Blue Book, "Association LN", object_list_type).

    Raises:
        ValueError: it is no object list.
    """
    try:
        return [_listed(element) for element in value[1]]
    except (TypeError, IndexError, KeyError) as error:
        raise ValueError("the object list does not have the shape of one") from error


def _listed(element: list[Any]) -> ListedObject:
    class_id, version, name, rights = (part[1] for part in element[1])
    attributes, methods = (part[1] for part in rights)
    return ListedObject(
        class_id,
        version,
        logical_name(".".join(map(str, bytes.fromhex(name)))),
        {right[1][0][1]: _access(ATTRIBUTE_ACCESS, right[1][1][1]) for right in attributes},
        {right[1][0][1]: _access(METHOD_ACCESS, int(right[1][1][1])) for right in methods},
    )


def _access(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else f"access-{number}"
