"""What went over the line, both ways, decoded: `read --trace`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ipss_headend.cli.decode import explain, tree
from ipss_headend.cli.output import Node
from ipss_headend.cli.targets import Auth, Target

SENT = 1
"""The number of an event with octets that we sent; 0: received."""


@dataclass(frozen=True, slots=True)
class Transmission:
    """Octets of one direction, up to the next of the other."""

    sent: bool
    octets: str
    """Hexadecimal."""

    @property
    def sender(self) -> str:
        """As `decode` names it."""
        return "head-end" if self.sent else "meter"


def joined(events: Sequence[tuple[int, str]]) -> list[Transmission]:
    """The transmissions of (number, hexadecimal digits) events; TCP may have cut one into several."""
    found: list[Transmission] = []
    for number, octets in events:
        sent = number == SENT
        if found and found[-1].sent == sent:
            found[-1] = Transmission(sent, found[-1].octets + octets)
        else:
            found.append(Transmission(sent, octets))
    return found


def documents(target: Target, events: Sequence[tuple[int, str]]) -> list[dict[str, Any]]:
    """Each transmission with what `decode` says of it. A password is shown as asterisks."""
    keys = {
        name: octets.hex()
        for name, octets in (
            ("encryption_key", target.keys.encryption_key),
            ("authentication_key", target.keys.authentication_key),
            ("client_system_title", target.client_title),
            ("server_system_title", target.server_title),
        )
        if octets
    }
    found = []
    for one in joined(events):
        octets = _without_password(one, target)
        request = {
            "layer": "hdlc" if "hdlc" in target.transport or target.line else "wrapper",
            "hex": [{"from": one.sender, "hex": octets}],
            "keys": keys,
        }
        answer = json.loads("".join(explain(json.dumps(request))))
        answer.pop("id", None)
        found.append({"from": one.sender, "hex": octets, **answer})
    return found


def as_tree(document: dict[str, Any]) -> Node:
    """One transmission for people."""
    node = tree(document)
    node.label = f"{document['from']}, {len(document['hex']) // 2} octets: {node.label}"
    return node


def _without_password(one: Transmission, target: Target) -> str:
    password = target.keys.password
    if not one.sent or target.auth != Auth.LOW or not password:
        return one.octets
    return bytes.fromhex(one.octets).replace(password, b"*" * len(password)).hex()
