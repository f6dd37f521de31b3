"""How people write the name of a COSEM object: `1-0:1.8.0*255`, `1.0.1.8.0.255`, `3/1.0.1.8.0.255:2`."""

import re
from dataclasses import dataclass

from ipss_headend.errors import UnknownLogicalName

_OBJECT = re.compile(r"(?:(?P<class_id>\d{1,5})/)?(?P<name>[^/]*?)(?::(?P<attribute>-?\d{1,3}))?")
_DOTTED = re.compile(r"(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})")
_OBIS = re.compile(r"(\d{1,3})-(\d{1,3}):(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:[*&](\d{1,3}))?")


def logical_name(text: str) -> str:
    """The six numbers with dots between, from either way of writing; the last is 255 where it is left out.

    Raises:
        UnknownLogicalName: not six numbers from 0 to 255.
    """
    match = _DOTTED.fullmatch(text.strip()) or _OBIS.fullmatch(text.strip())
    if match is None:
        raise UnknownLogicalName(f'"{text}" is not a logical name; write 1.0.1.8.0.255 or 1-0:1.8.0*255')
    numbers = [int(group) if group is not None else 255 for group in match.groups()]
    if max(numbers) > 255:
        raise UnknownLogicalName(f'"{text}" is not a logical name; each of its six numbers is at most 255')
    return ".".join(map(str, numbers))


@dataclass(frozen=True, slots=True)
class ObjectName:
    """An object, as far as whoever wrote it said: the class and the attribute may be left to the catalogue."""

    logical_name: str
    class_id: int | None = None
    attribute: int | None = None

    @classmethod
    def parse(cls, text: str) -> "ObjectName":
        """Read `1.0.1.8.0.255`, `3/1.0.1.8.0.255`, `3/1.0.1.8.0.255:2`, or the same with `1-0:1.8.0*255`.

        Raises:
            UnknownLogicalName: with words for the operator.
        """
        text = text.strip()
        if _OBIS.fullmatch(text):
            return cls(logical_name(text))  # its own colon is no attribute's
        match = _OBJECT.fullmatch(text)
        if match is None:
            raise UnknownLogicalName(
                f'"{text}" is not an object; write CLASS/LOGICAL-NAME:ATTRIBUTE as in 3/1.0.1.8.0.255:2'
            )
        class_id = None if match["class_id"] is None else int(match["class_id"])
        attribute = None if match["attribute"] is None else int(match["attribute"])
        if class_id is not None and class_id > 0xFFFF:
            raise UnknownLogicalName(f'"{text}": {class_id} is not an interface class; it has 16 bits')
        if attribute is not None and not -128 <= attribute <= 127:
            raise UnknownLogicalName(f'"{text}": {attribute} is not an attribute; it is from -128 to 127')
        return cls(logical_name(match["name"]), class_id, attribute)

    def __str__(self) -> str:
        head = "" if self.class_id is None else f"{self.class_id}/"
        tail = "" if self.attribute is None else f":{self.attribute}"
        return f"{head}{self.logical_name}{tail}"
