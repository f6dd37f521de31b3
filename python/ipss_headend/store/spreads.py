"""Where what goes out in rings stands (`ipss_headend.rings`), a row each, named by whoever owns it."""

from sqlalchemy import Connection, delete, insert, select

from ipss_headend.rings import FIRST, Standing
from ipss_headend.store.database import now_us
from ipss_headend.store.schema import spreads


def load(connection: Connection, subject: bytes) -> Standing:
    """Where it stands; at its beginning if nothing is stored."""
    columns = spreads.c
    query = select(columns.ring, columns.failed_before, columns.halted).where(columns.subject == subject)
    row = connection.execute(query).one_or_none()
    return FIRST if row is None else Standing(row.ring, row.failed_before, row.halted)


def save(connection: Connection, subject: bytes, standing: Standing) -> None:
    """Store where it stands. Needs a writing transaction."""
    connection.execute(delete(spreads).where(spreads.c.subject == subject))
    values = {"ring": standing.ring, "failed_before": standing.failed_before, "halted": standing.halted}
    connection.execute(insert(spreads).values(subject=subject, changed_us=now_us(), **values))
