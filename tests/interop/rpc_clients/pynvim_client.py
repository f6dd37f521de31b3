"""Calls a head-end over its unix socket with pynvim 0.6.0's session: PATH. Runs in that package's environment."""

import json
import sys

from pynvim.msgpack_rpc import socket_session

session = socket_session(sys.argv[1])
# Neovim's errors are [code, text].
session.request("rpc.hello", {"client": "pynvim", "errors": "array"})
found = {
    "ping": session.request("rpc.ping", {}),
    "devices": session.request("device.list", {"limit": 10}),
    "last": session.request("read.last", {"points": ["virtual-00001"], "items": ["1.0.1.8.0.255"]}),
}
try:
    session.request("read.last", {"points": ["nobody"], "items": ["1.0.1.8.0.255"]})
except Exception as error:  # noqa: BLE001 - what pynvim raises
    found["failure"] = str(error)
print(json.dumps(found))
