"""How far what is stored was compared with its checksums, and what was found damaged."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From the form before."""
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "scrub",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("began_us", sa.BigInteger, nullable=False),
        sa.Column("records", sa.BigInteger, nullable=False),
        sa.Column("beyond", sa.BigInteger, nullable=False),
        sa.Column("place", sa.LargeBinary, nullable=False),
        sa.Column("ended_us", sa.BigInteger, nullable=False),
        sa.Column("ended_records", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "damage",
        sa.Column("what", text, primary_key=True),
        sa.Column("detail", text, nullable=False),
        sa.Column("found_us", sa.BigInteger, nullable=False),
        sa.Column("seen_us", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Back to the form before: the turn begins again, and what is damaged is found again."""
    op.drop_table("damage")
    op.drop_table("scrub")
