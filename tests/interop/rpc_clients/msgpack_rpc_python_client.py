"""Calls a head-end with msgpack-rpc-python 0.4.1: HOST PORT. Runs in that package's environment."""

import json
import sys

import msgpackrpc

client = msgpackrpc.Client(msgpackrpc.Address(sys.argv[1], int(sys.argv[2])), timeout=20, unpack_encoding="utf-8")
found = {
    "ping": client.call("rpc.ping", {}),
    "devices": client.call("device.list", {"limit": 10}),
    "last": client.call("read.last", {"points": ["virtual-00001"], "items": ["1.0.1.8.0.255"]}),
}
try:
    client.call("read.last", {"points": ["nobody"], "items": ["1.0.1.8.0.255"]})
except msgpackrpc.error.RPCError as error:
    found["failure"] = str(error)
print(json.dumps(found))
