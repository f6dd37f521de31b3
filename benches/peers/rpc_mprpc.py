"""mprpc's server (gevent, Cython) for `rpc.py`, on the unix socket that is named; until its input ends."""

from __future__ import annotations

import json
import os
import socket
import sys
from importlib.metadata import version

import gevent
import mprpc
from benches.peers import rpc_values
from gevent.fileobject import FileObject
from gevent.server import StreamServer


class Server(mprpc.RPCServer):  # type: ignore[misc] # it has no types
    """Its methods are found by their names."""


setattr(Server, "rpc.ping", lambda self, params: rpc_values.ping(params))
setattr(Server, "read.last", lambda self, params: rpc_values.last(params))


def main() -> None:
    server = Server()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.setblocking(False)
    listening.bind(sys.argv[1])
    listening.listen(1024)
    # It takes an address apart, which one of a unix socket is too short for.
    gevent.spawn(StreamServer(listening, lambda stream, _: server(stream, ("local", 0))).serve_forever)
    print(json.dumps({"pid": os.getpid(), "version": version("mprpc")}), flush=True)
    FileObject(sys.stdin, "r").read()


main()
