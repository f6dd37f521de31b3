"""The log's and the meters' numbers stand in a table, not in SQLite's own `sqlite_sequence`."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From the form before."""
    numbers = op.create_table(
        "numbers",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("last", sa.BigInteger, nullable=False),
    )
    rows = op.get_bind().execute(sa.text("SELECT name, seq FROM sqlite_sequence"))
    known = {row.name: row.seq for row in rows}
    op.bulk_insert(numbers, [{"name": name, "last": known.get(name, 0)} for name in ("log", "meters")])


def downgrade() -> None:
    """Back to the form before."""
    # SQLite kept its own count beside ours: the highest number of each table.
    op.drop_table("numbers")
