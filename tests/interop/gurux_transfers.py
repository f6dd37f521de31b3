"""SET and ACTION in blocks and lists, and ACCESS, for the gurux-dlms meter. Runs in `.venv-gurux` only.

gurux-dlms decodes the values and encodes the answers; its own server's handlers of these services do not run (see
differences.md), so what joins blocks and lists is written here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gurux_dlms.enums import Command
from gurux_dlms.GXByteBuffer import GXByteBuffer
from gurux_dlms.GXDLMSLNParameters import GXDLMSLNParameters
from gurux_dlms.internal._GXCommon import _GXCommon
from gurux_dlms.internal._GXDataInfo import _GXDataInfo
from tests.interop.gurux_octets import buffer, descriptor, octets_of, reply_with

if TYPE_CHECKING:
    from tests.interop.gurux_meter import Association

Target = tuple[int, str, int]


class Transfer:
    """A request on its way in blocks: what it is to be done to, and the octets so far."""

    def __init__(self, targets: list[Target], *, listed: bool) -> None:
        self.targets = targets
        self.listed = listed
        self.octets = b""
        self.number = 0

    def take(self, request: GXByteBuffer) -> bool:
        """Add a block; whether it was the last."""
        last, number = request.getUInt8(), request.getUInt32()
        count = _GXCommon.getObjectCount(request)
        octets = rest(request)
        if number != self.number + 1 or len(octets) != count:
            raise ValueError(f"block {number} of {count} octets behind block {self.number}")
        self.number, self.octets = number, self.octets + octets
        return bool(last)


def rest(request: GXByteBuffer) -> bytes:
    """What has not been read yet."""
    return octets_of(request)[request.position :]


def targets_of(request: GXByteBuffer, *, selections: bool) -> list[Target]:
    """A list of descriptors, those of attributes each with a selection, which is empty."""
    found = []
    for _ in range(_GXCommon.getObjectCount(request)):
        found.append(descriptor(request))
        if selections:
            request.getUInt8()
    return found


def values_of(association: Association, request: GXByteBuffer, count: int | None) -> list[Any]:
    """Values as gurux-dlms decodes them: a list, or `count` without its length."""
    number = _GXCommon.getObjectCount(request) if count is None else count
    return [_GXCommon.getData(association.settings, request, _GXDataInfo()) for _ in range(number)]


def tell(association: Association, invoke_id: int, command: int, choice: int, body: bytes, reply: GXByteBuffer) -> None:
    """An answer with this body."""
    parameters = GXDLMSLNParameters(association.settings, invoke_id, command, choice, buffer(body), None, 0xFF)
    reply_with(association.settings, reply, parameters)


def set_(association: Association, choice: int, invoke_id: int, request: GXByteBuffer, reply: GXByteBuffer) -> None:
    """SET with list (4), in blocks (2, 3), with list and in blocks (5, 3)."""
    log, response = association.log["requests"], Command.SET_RESPONSE
    if choice == 4:
        targets = targets_of(request, selections=True)
        log.append("set-with-list")
        done = [association.write(*pair) for pair in zip(targets, values_of(association, request, None), strict=True)]
        tell(association, invoke_id, response, 5, bytes([len(done), *done]), reply)
        return
    if choice == 2:
        association.transfer = Transfer([descriptor(request)], listed=False)
        request.getUInt8()
    elif choice == 5:
        association.transfer = Transfer(targets_of(request, selections=True), listed=True)
    transfer = association.transfer
    log.append("set-block")
    last = transfer.take(request)
    number = transfer.number.to_bytes(4, "big")
    if not last:
        tell(association, invoke_id, response, 2, number, reply)
        return
    values = values_of(association, buffer(transfer.octets), None if transfer.listed else 1)
    done = [association.write(*pair) for pair in zip(transfer.targets, values, strict=True)]
    body = bytes([len(done), *done]) if transfer.listed else bytes(done)
    tell(association, invoke_id, response, 4 if transfer.listed else 3, body + number, reply)


def act(association: Association, choice: int, invoke_id: int, request: GXByteBuffer, reply: GXByteBuffer) -> None:
    """ACTION with list (3), and with the parameters in blocks (4, 6)."""
    log, response = association.log["requests"], Command.METHOD_RESPONSE
    if choice == 3:
        targets = targets_of(request, selections=False)
        log.append("action-with-list")
        done = [association.invoke(*pair) for pair in zip(targets, values_of(association, request, None), strict=True)]
        body = bytes([len(done)]) + b"".join(bytes([status, 0]) for status in done)
        tell(association, invoke_id, response, 3, body, reply)
        return
    if choice == 4:
        association.transfer = Transfer([descriptor(request)], listed=False)
    transfer = association.transfer
    log.append("action-block")
    if not transfer.take(request):
        tell(association, invoke_id, response, 4, transfer.number.to_bytes(4, "big"), reply)
        return
    [value] = values_of(association, buffer(transfer.octets), 1)
    tell(association, invoke_id, response, 1, bytes([association.invoke(transfer.targets[0], value), 0]), reply)


def access(association: Association, request: GXByteBuffer, reply: GXByteBuffer) -> None:
    """ACCESS: read, write and invoke, in order."""
    association.log["requests"].append("access")
    request.getUInt8()
    invoke_id = request.getUInt32()
    for _ in range(request.getUInt8()):
        request.getUInt8()  # the time, which means nothing here
    asked = [(request.getUInt8(), descriptor(request)) for _ in range(_GXCommon.getObjectCount(request))]
    values = values_of(association, request, None)
    told, results = b"", b""
    for (kind, target), value in zip(asked, values, strict=True):
        octets = b"\0"
        if kind == 1:
            octets, status = association.value(target)
        else:
            status = (association.write if kind == 2 else association.invoke)(target, value)
        told += octets
        results += bytes([kind, status])
    count = bytes([len(asked)])
    body = b"\0" + count + told + count + results
    settings = association.settings
    parameters = GXDLMSLNParameters(settings, invoke_id, Command.ACCESS_RESPONSE, 0xFF, None, buffer(body), 0xFF)
    reply_with(settings, reply, parameters)
