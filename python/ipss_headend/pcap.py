"""Payloads out of captures: pcap and pcapng with Ethernet, Linux cooked, raw IP or user-defined link layers.

Only what a decoder needs: the payloads of TCP and UDP in the order of the capture, each with its two ends; of other
link layers the packets themselves. Damaged packets are left out; TCP segments that were seen already are too.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

PCAP_MAGICS = {b"\xd4\xc3\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">", b"\x4d\x3c\xb2\xa1": "<", b"\xa1\xb2\x3c\x4d": ">"}
PCAPNG_MAGIC = b"\x0a\x0d\x0d\x0a"

_ETHERNET, _RAW_IP, _COOKED, _COOKED_2 = 1, frozenset({12, 14, 101, 228, 229}), 113, 276
_TCP, _UDP = 6, 17


@dataclass(frozen=True, slots=True)
class Payload:
    """What one end sent: `source` and `destination` are (address, port); None for link layers without addresses."""

    source: tuple[bytes, int] | None
    destination: tuple[bytes, int] | None
    octets: bytes


def is_capture(content: bytes) -> bool:
    """Whether a file's first octets are those of a capture."""
    return content[:4] in PCAP_MAGICS or content[:4] == PCAPNG_MAGIC


def payloads(content: bytes) -> Iterator[Payload]:
    """The payloads of a capture in order; whatever the octets are, it ends."""
    reached: dict[tuple[bytes, int, bytes, int], int] = {}
    for link, packet in _packets(content):
        network = _network(link, packet)
        if network is None:
            if packet and link not in {_ETHERNET, _COOKED, _COOKED_2} and link not in _RAW_IP:
                yield Payload(None, None, packet)
            continue
        found = _transport(network, reached)
        if found is not None and found.octets:
            yield found


def _packets(content: bytes) -> Iterator[tuple[int, bytes]]:
    if content[:4] == PCAPNG_MAGIC:
        yield from _pcapng(content)
        return
    order = PCAP_MAGICS.get(content[:4])
    if order is None or len(content) < 24:
        return
    (link,) = struct.unpack_from(order + "I", content, 20)
    place = 24
    while place + 16 <= len(content):
        (length,) = struct.unpack_from(order + "I", content, place + 8)
        yield link & 0xFFFF, content[place + 16 : place + 16 + length]
        place += 16 + length


def _pcapng(content: bytes) -> Iterator[tuple[int, bytes]]:
    order, place = "<", 0
    links: list[int] = []
    while place + 12 <= len(content):
        if content[place : place + 4] == PCAPNG_MAGIC:
            order = "<" if content[place + 8 : place + 12] == b"\x4d\x3c\x2b\x1a" else ">"
            links = []
        kind, length = struct.unpack_from(order + "II", content, place)
        if length < 12:
            return
        body = content[place + 8 : place + length - 4]
        if kind == 1 and len(body) >= 2:
            links.append(struct.unpack_from(order + "H", body)[0])
        elif kind == 6 and len(body) >= 20:
            interface, _, _, captured = struct.unpack_from(order + "IIII", body)
            if interface < len(links):
                yield links[interface], body[20 : 20 + captured]
        elif kind == 3 and len(body) >= 4 and links:
            yield links[0], body[4:]
        place += length


def _network(link: int, packet: bytes) -> bytes | None:
    """The IP packet."""
    if link == _ETHERNET:
        start, kind = 14, packet[12:14]
        while kind in {b"\x81\x00", b"\x88\xa8"}:
            kind = packet[start + 2 : start + 4]
            start += 4
        return packet[start:] if kind in {b"\x08\x00", b"\x86\xdd"} else None
    if link in _RAW_IP:
        return packet
    if link == _COOKED:
        return packet[16:] if packet[14:16] in {b"\x08\x00", b"\x86\xdd"} else None
    if link == _COOKED_2:
        return packet[20:] if packet[0:2] in {b"\x08\x00", b"\x86\xdd"} else None
    return None


def _transport(packet: bytes, reached: dict[tuple[bytes, int, bytes, int], int]) -> Payload | None:
    if not packet:
        return None
    if packet[0] >> 4 == 4 and len(packet) >= 20:
        start = (packet[0] & 15) * 4
        (total,) = struct.unpack_from(">H", packet, 2)
        protocol, source, destination = packet[9], packet[12:16], packet[16:20]
        segment = packet[start : total or None]
    elif packet[0] >> 4 == 6 and len(packet) >= 40:
        (total,) = struct.unpack_from(">H", packet, 4)
        protocol, source, destination = packet[6], packet[8:24], packet[24:40]
        segment = packet[40 : 40 + total]
    else:
        return None
    if protocol == _UDP and len(segment) >= 8:
        here, there = struct.unpack_from(">HH", segment)
        return Payload((source, here), (destination, there), segment[8:])
    if protocol == _TCP and len(segment) >= 20:
        here, there, number = struct.unpack_from(">HHI", segment)
        octets = segment[(segment[12] >> 4) * 4 :]
        flow = (source, here, destination, there)
        if segment[13] & 2:  # SYN: what comes next has this number
            reached[flow] = (number + 1) & 0xFFFFFFFF
            return None
        seen = (reached.get(flow, number) - number) & 0xFFFFFFFF
        if 0 < seen < 1 << 31:
            octets = octets[seen:]  # sent again
            number = (number + seen) & 0xFFFFFFFF
        if octets:
            reached[flow] = (number + len(octets)) & 0xFFFFFFFF
        return Payload((source, here), (destination, there), octets)
    return None
