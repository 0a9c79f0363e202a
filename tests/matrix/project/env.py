"""The env.py of the matrix: a host's of ours, or that of ``alembic init``."""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import MetaData

from ragstore.migrations import configure_options

given = context.config.attributes
target: MetaData = given["target_metadata"]


def capture(_context: Any, _revision: Any, directives: list[Any]) -> None:
    """Note what autogenerate found, last of all hooks."""
    given["found"] = [
        step for script in directives for steps in script.upgrade_ops_list for step in steps.ops
    ]


def options() -> dict[str, Any]:
    """Return the arguments for ``context.configure``."""
    if given["mode"] == "ours":
        return configure_options(target, process_revision_directives=capture)
    # Somebody with tables in other schemas has set this: without it they are never compared.
    schemas = {"include_schemas": True} if any(t.schema for t in target.tables.values()) else {}
    return {"target_metadata": target, "process_revision_directives": capture, **schemas}


with given["engine"].connect() as connection:
    if given["role"]:
        connection.exec_driver_sql(f"SET ROLE {given['role']}")
        connection.commit()
    context.configure(connection=connection, **options())
    with context.begin_transaction():
        context.run_migrations()
