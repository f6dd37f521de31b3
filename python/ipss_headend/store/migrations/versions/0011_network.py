"""The network that meters stand in, areas of incidents in it, and the weather."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """From the form before."""
    op.create_table(
        "network_nodes",
        sa.Column("name", Text, primary_key=True),
        sa.Column("kind", Text, nullable=False),
        sa.Column("parent", Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "meter_places",
        sa.Column("meter_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("node", Text, nullable=False),
        sa.Column("phases", Text, nullable=False),
    )
    op.create_index("ix_meter_places_node", "meter_places", ["node"])
    op.create_table(
        "weather",
        sa.Column("area_kind", Text, primary_key=True),
        sa.Column("area", Text, primary_key=True),
        sa.Column("kind", Text, primary_key=True),
        sa.Column("at_us", sa.BigInteger, primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("source", Text, nullable=False),
        sa.Column("received_us", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.add_column("incidents", sa.Column("area_kind", Text, nullable=False, server_default="group"))
    op.add_column("incidents", sa.Column("part_of", sa.BigInteger))
    op.execute("INSERT INTO numbers (name, last) VALUES ('network', 0)")


def downgrade() -> None:
    """Back to the form before: the network, the weather and incidents whose area is no group are forgotten."""
    op.execute("DELETE FROM numbers WHERE name = 'network'")
    op.execute("DELETE FROM incidents WHERE area_kind <> 'group'")
    op.drop_column("incidents", "part_of")
    op.drop_column("incidents", "area_kind")
    op.drop_table("weather")
    op.drop_table("meter_places")
    op.drop_table("network_nodes")
