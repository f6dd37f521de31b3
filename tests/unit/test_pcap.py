import struct

from ipss_headend.pcap import Payload, is_capture, payloads

METER, HEAD_END = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))


def ip(protocol: int, source: bytes, destination: bytes, segment: bytes) -> bytes:
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, protocol, 0) + source + destination + segment


def udp(octets: bytes) -> bytes:
    return ip(17, METER, HEAD_END, struct.pack(">HHHH", 4061, 4059, 8 + len(octets), 0) + octets)


def tcp(number: int, octets: bytes, flags: int = 0x18) -> bytes:
    return ip(6, METER, HEAD_END, struct.pack(">HHIIBBHHH", 5000, 4059, number, 0, 0x50, flags, 0, 0, 0) + octets)


def capture(*packets: bytes, link: int = 101) -> bytes:
    records = b"".join(struct.pack("<IIII", 0, 0, len(packet), len(packet)) + packet for packet in packets)
    return struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link) + records


def pcapng(*packets: bytes) -> bytes:
    def block(kind: int, body: bytes) -> bytes:
        padded = body + bytes(-len(body) % 4)
        return struct.pack("<II", kind, len(padded) + 12) + padded + struct.pack("<I", len(padded) + 12)

    head = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)) + block(1, struct.pack("<HHI", 101, 0, 0))
    body = (block(6, struct.pack("<IIIII", 0, 0, 0, len(packet), len(packet)) + packet) for packet in packets)
    return head + b"".join(body)


def test_payloads_of_udp_come_with_their_ends_from_both_kinds_of_capture() -> None:
    expected = [Payload((METER, 4061), (HEAD_END, 4059), b"push")]

    assert list(payloads(capture(udp(b"push")))) == expected
    assert list(payloads(pcapng(udp(b"push")))) == expected
    assert list(payloads(capture(bytes(12) + b"\x08\x00" + udp(b"push"), link=1))) == expected


def test_segments_that_were_sent_again_are_taken_once() -> None:
    again = capture(tcp(99, b"", flags=2), tcp(100, b"abc"), tcp(100, b"abc"), tcp(102, b"cde"), tcp(105, b""))

    assert [payload.octets for payload in payloads(again)] == [b"abc", b"de"]


def test_packets_of_a_serial_capture_are_payloads_themselves() -> None:
    assert [payload.octets for payload in payloads(capture(b"\x7e\xa0", link=147))] == [b"\x7e\xa0"]


def test_a_damaged_capture_ends() -> None:
    for whole in (capture(udp(b"push"), tcp(1, b"abc")), pcapng(udp(b"push"))):
        assert is_capture(whole)
        for end in range(4, len(whole)):
            list(payloads(whole[:end]))
            list(payloads(whole[: end - 1] + bytes((whole[end - 1] ^ 0xFF,)) + whole[end:]))
    assert not is_capture(b"7e a0 27")
