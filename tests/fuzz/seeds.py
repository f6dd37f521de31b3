"""Write the octets that fuzzing starts from: the standard's examples, captured pushes, scripts for the sessions.

    python tests/fuzz/seeds.py DIRECTORY

One directory a target is made below DIRECTORY. What coverage finds in them goes to `corpus/` when it is minimised.
"""

import hashlib
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "protocols/dlms/vectors"
# As `dlms::translated` numbers them.
LAYERS = ["auto", "hdlc", "wrapper", "mbus", "wmbus", "llc", "llc-61334", "apdu", "data"]


def vectors() -> Iterator[tuple[str, bytes]]:
    """Layer and octets of every vector and every captured push."""
    for file in [*VECTORS.glob("*.toml"), *VECTORS.glob("pushes/*.toml")]:
        content = tomllib.loads(file.read_text())
        for vector in [*content.get("vector", []), *content.get("push", [])]:
            texts = vector["bytes"] if isinstance(vector["bytes"], list) else [vector["bytes"]]
            lines = [line.split("#")[0] for text in texts for line in text.splitlines()]
            yield vector.get("layer", "auto"), bytes.fromhex("".join("".join(lines).split()))


def piece(octets: bytes) -> bytes:
    """Octets as a script has them: their length in front."""
    if len(octets) < 255:
        return bytes([len(octets)]) + octets
    return b"\xff" + len(octets).to_bytes(2, "big") + octets


def main(directory: Path) -> None:
    seeds: dict[str, set[bytes]] = defaultdict(set)
    plain = {"hdlc": "dlms_hdlc", "wrapper": "dlms_wrapper", "mbus": "dlms_mbus", "wmbus": "dlms_mbus"}
    for layer, octets in vectors():
        seeds["dlms_translate"].add(bytes([LAYERS.index(layer), 0]) + octets)
        match layer:
            case "hdlc":
                seeds["dlms_hdlc"].add(b"\x07" + octets)
                seeds["dlms_link"].add(b"\x00\x00\x00" + piece(octets))
            case "apdu":
                seeds["dlms_apdu"].add(octets)
                seeds["dlms_acse"].add(octets)
                seeds["dlms_ciphering"].add(octets)
                seeds["dlms_push"].add(b"\x00" + octets)
                for session in ("dlms_head_end", "dlms_meter"):
                    for profile in range(4):
                        script = bytes([profile, 0, 0, 3, 12, 0, 0x13]) + b"\x06\x10" + piece(octets) + b"\x03"
                        seeds[session].add(script)
            case "llc":
                seeds["dlms_push"].add(b"\x00" + octets.removeprefix(b"\xe6\xe7\x00"))
            case "data":
                seeds["dlms_data"].add(octets)
                for columns in (1, 2, 5):
                    seeds["dlms_buffer"].add(bytes([columns, 1, 0, 0]) + octets)
            case _ if layer in plain:
                seeds[plain[layer]].add(octets)
        if layer == "wrapper":
            seeds["dlms_link"].add(b"\x01\x00\x00" + piece(octets))
            seeds["dlms_head_end"].add(b"\xff\x01" + piece(octets))
    for profile in range(64):
        for item in range(12):
            script = bytes([profile, item % 5, item % 3, 3, 12, item, 0x12, 9, item * 20, 1, 3, 12, item, 3])
            seeds["dlms_head_end"].add(script)
            seeds["dlms_meter"].add(script)
    for control in range(0, 256, 5):
        seeds["dlms_ciphering"].add(
            bytes([control % 64, control | 1, control, control & 3]) + b"\x01\xc1\x00\x06\0\0\0\x01"
        )
    row = b"\x02\x02\x09\x0c\x07\xea\x01\x01\x04\x00\x0f\x00\x00\xff\xc4\x00\x06\x00\x00\x00\x01"
    seeds["dlms_buffer"].add(b"\x02\x01\x00\x00\x01\x03" + row + b"\x02\x02\x00\x12\x00\x07" + row)
    for window in (0, 1, 5):
        seeds["dlms_blocks"].add(bytes([window, 20, 10]) + bytes([0, 2, 1, 3] * 8) + b"\x07\x05hello\x01\x03\x00\x02")
    for text in (
        b"/ISK5ME372\r\n",
        b"/?!\r\n\x06252\r\n",
        b"\x021.8.0(0001.2*kWh)\r\n!\r\n\x03\x10",
        b"/KFM5\\2MA\r\n\x06",
    ):
        seeds["dlms_optical"].add(text)
    for file in (ROOT / "protocols/modbus/corpus").iterdir():
        octets = file.read_bytes()
        framing = {"tcp": 0, "rtu": 2, "ascii": 3}.get(file.name.split("-")[0])
        seeds["modbus_pdu"].add(octets)
        seeds["modbus_sunspec"].add(octets)
        for target, prefix in (("tcp", b""), ("rtu", b"\xff"), ("ascii", b"")):
            seeds[f"modbus_{target}"].add(prefix + octets)
        for number in range(4):
            seeds["modbus_translate"].add(bytes([number]) + octets)
        if framing is not None:
            for target in ("modbus_head_end", "modbus_device"):
                seeds[target].add(bytes([framing, 0x10, 2]) + piece(octets) + bytes([0xF1, 0x14, 2]) + piece(octets))
    seeds["modbus_sunspec"].add(
        bytes.fromhex("00010042")
        + b"Make".ljust(32, b"\0")
        + bytes(100)
        + bytes.fromhex("00670032")
        + bytes(100)
        + b"\xff\xff\0\0"
    )
    for message in (
        b"\x94\x00\x07\xa8rpc.ping\x91\x80",
        b"\x93\x02\xa5event\x92\x81\xa1a\xcb?\xf0\0\0\0\0\0\0\xc4\x03abc",
        b"\x94\x01\x01\xc0\xc0",
    ):
        seeds["rpc_msgpack"].update((b"\xff" + message, b"\x00" + message * 3))
    for target, several in seeds.items():
        folder = directory / target
        folder.mkdir(parents=True, exist_ok=True)
        for octets in several:
            (folder / hashlib.sha256(octets).hexdigest()[:16]).write_bytes(octets)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
