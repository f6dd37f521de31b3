"""The methods, a module a name space. Importing this package fills the table."""

from ipss_headend.rpc.methods import (  # noqa: F401
    admin,
    anomaly,
    audit,
    auth,
    control,
    control_status,
    der,
    device,
    event,
    job,
    param,
    plugin,
    plugin_trial,
    read,
    rpc,
    sales,
    stream,
    topology,
    vee,
    weather,
)
