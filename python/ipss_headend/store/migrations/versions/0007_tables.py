"""The tables as they were when only SQLite had them; a store of form 1 to 6 lacks some, and gets them."""

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = Path(__file__).parent.parent / "form_7.sqlite.sql"


def upgrade() -> None:
    """From the form before."""
    for statement in _TABLES.read_text(encoding="ascii").split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Back to the form before."""
    raise NotImplementedError("no older form is known")
