"""The methods, a module a name space. Importing this package fills the table."""

from ipss_headend.rpc.methods import admin, audit, auth, control, der, device, event, job, read, rpc, stream  # noqa: F401
