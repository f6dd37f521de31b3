"""msgpack-RPC for other systems: the server, its methods, and the client that plugins and users import.

`docs/rpc.md` has the wire rules and every method. Nothing in here talks to a meter: it asks `field/` and the store.
"""
