"""Alembic's way into the caller's transaction: see `store/formats.py`."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    transactional_ddl=True,  # SQLite's too, within a BEGIN of ours
    on_version_apply=context.config.attributes["applied"],
)
context.run_migrations()
