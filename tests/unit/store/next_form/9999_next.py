"""A form after the newest, for the tests: a column with content made of the old, and a table."""

import sqlalchemy as sa
from alembic import op

from ipss_headend.store.schema import SCHEMA_VERSION

revision = f"{SCHEMA_VERSION + 1:04}"
down_revision = f"{SCHEMA_VERSION:04}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("commands", sa.Column("told_us", sa.BigInteger, nullable=False, server_default="0"))
    op.execute("UPDATE commands SET told_us = changed_us + 1")
    noted = op.create_table(
        "noted", sa.Column("meter_id", sa.Integer, primary_key=True), sa.Column("lines", sa.Integer)
    )
    rows = op.get_bind().execute(sa.text("SELECT meter_id, count(*) AS lines FROM readings GROUP BY meter_id"))
    op.bulk_insert(noted, [row._asdict() for row in rows])


def downgrade() -> None:
    op.drop_table("noted")
    op.drop_column("commands", "told_us")
