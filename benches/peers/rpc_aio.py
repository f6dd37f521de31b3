"""aio-msgpack-rpc's server (asyncio) for `rpc.py`, on the unix socket that is named; until its input ends."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from importlib.metadata import version

import aio_msgpack_rpc
from benches.peers import rpc_values


class Handler:
    """Its methods are found by their names."""


setattr(Handler, "rpc.ping", staticmethod(rpc_values.ping))
setattr(Handler, "read.last", staticmethod(rpc_values.last))


async def main() -> None:
    server = await asyncio.start_unix_server(aio_msgpack_rpc.Server(Handler()), sys.argv[1], backlog=1024)
    print(json.dumps({"pid": os.getpid(), "version": version("aio-msgpack-rpc")}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()
    os._exit(0)  # connections that are still open end with it


asyncio.run(main())
