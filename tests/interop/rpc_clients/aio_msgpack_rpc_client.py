"""Calls a head-end over TLS with aio-msgpack-rpc 0.2.0: PORT AUTHORITY CERTIFICATE KEY. Runs in its environment."""

import asyncio
import json
import ssl
import sys

import aio_msgpack_rpc


async def main(port: int, authority: str, certificate: str, key: str) -> None:
    """Make the calls."""
    context = ssl.create_default_context(cafile=authority)
    context.load_cert_chain(certificate, key)
    client = aio_msgpack_rpc.Client(*await asyncio.open_connection("localhost", port, ssl=context))
    found = {
        "ping": await client.call("rpc.ping", {}),
        "devices": await client.call("device.list", {"limit": 10}),
        "last": await client.call("read.last", {"points": ["virtual-00001"], "items": ["1.0.1.8.0.255"]}),
    }
    try:
        await client.call("read.last", {"points": ["nobody"], "items": ["1.0.1.8.0.255"]})
    except aio_msgpack_rpc.error.RPCResponseError as error:
        found["failure"] = str(error)
    client.close()
    print(json.dumps(found))


asyncio.run(main(int(sys.argv[1]), *sys.argv[2:5]))
