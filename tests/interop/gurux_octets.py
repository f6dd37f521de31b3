"""Octets in and out of gurux-dlms' buffers, and its values as JSON. Runs in `.venv-gurux` only."""

from __future__ import annotations

from typing import Any

from gurux_dlms.GXByteBuffer import GXByteBuffer
from gurux_dlms.GXDLMS import GXDLMS
from gurux_dlms.GXDLMSLNParameters import GXDLMSLNParameters
from gurux_dlms.GXDLMSSettings import GXDLMSSettings


def shown(value: Any) -> Any:
    """A JSON form of what gurux-dlms made of a value."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    if isinstance(value, (list, tuple)):
        return [shown(item) for item in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


def buffer(octets: bytes) -> GXByteBuffer:
    """A gurux buffer holding `octets`, read from its beginning."""
    made = GXByteBuffer()
    made.set(bytearray(octets))
    made.position = 0
    return made


def octets_of(value: Any) -> bytes:
    """The octets of whatever gurux-dlms uses for octets."""
    return bytes(value.array()) if isinstance(value, GXByteBuffer) else bytes(value)


def descriptor(request: GXByteBuffer) -> tuple[int, str, int]:
    """Take a COSEM attribute or method descriptor: class, logical name, number."""
    class_id = request.getUInt16()
    name = bytearray(6)
    request.get(name)
    return class_id, ".".join(str(octet) for octet in name), request.getInt8()


def reply_with(settings: GXDLMSSettings, reply: GXByteBuffer, parameters: GXDLMSLNParameters) -> None:
    """Let gurux-dlms encode, cut into blocks, and cipher the answer."""
    settings.setCount(0)
    settings.setIndex(0)
    GXDLMS.getLNPdu(parameters, reply)
