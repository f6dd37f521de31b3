"""What is to be written to meters, as it was planned."""

from collections.abc import Mapping
from typing import Any

import msgpack
from sqlalchemy import Connection, delete, insert, select

from ipss_headend.store.database import now_us
from ipss_headend.store.schema import parameter_plans

KEPT_US = 400 * 86_400_000_000
"""A plan is known for more than a year: drift is asked about long after."""


def put(connection: Connection, plan: str, content: Mapping[str, Any], principal: str) -> None:
    """Keep a plan; the same plan again is the same plan."""
    connection.execute(delete(parameter_plans).where(parameter_plans.c.at_us < now_us() - KEPT_US))
    if get(connection, plan) is None:
        packed = msgpack.packb(dict(content))
        connection.execute(
            insert(parameter_plans).values(plan=plan, content=packed, principal=principal, at_us=now_us())
        )


def get(connection: Connection, plan: str) -> dict[str, Any] | None:
    """A plan; None: there is none of this number."""
    packed = connection.scalar(select(parameter_plans.c.content).where(parameter_plans.c.plan == plan))
    return None if packed is None else msgpack.unpackb(packed)
