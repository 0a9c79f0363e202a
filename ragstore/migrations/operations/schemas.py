"""Schemas: made where they are missing, dropped where nothing is in them."""

from __future__ import annotations

from alembic.operations import Operations

from ragstore.migrations.operations.base import (
    Operation,
    dollar_quoted,
    literal,
    quoted,
    run,
    select,
)


@Operations.register_operation("ensure_schema")
class EnsureSchemaOp(Operation):
    """Make sure that a schema is there."""

    verb = "ensure_schema"

    def __init__(self, name: str) -> None:
        self.name = name

    @classmethod
    def ensure_schema(cls, operations: Operations, name: str) -> None:
        """Create the schema ``name`` unless it is there.

        A role without the right to create it passes if somebody else has.
        """
        operations.invoke(cls(name))

    def facts(self) -> tuple[str]:
        """Return the name."""
        return (self.name,)

    def reverse(self) -> DropSchemaIfEmptyOp:
        """Return the operation that drops the schema, unless others use it."""
        return DropSchemaIfEmptyOp(self.name)


@Operations.register_operation("drop_schema_if_empty")
class DropSchemaIfEmptyOp(Operation):
    """Drop a schema that nothing is left in."""

    verb = "drop_schema_if_empty"

    def __init__(self, name: str) -> None:
        self.name = name

    @classmethod
    def drop_schema_if_empty(cls, operations: Operations, name: str) -> None:
        """Drop the schema ``name``; leave it, with a notice, if anything is in it."""
        operations.invoke(cls(name))

    def facts(self) -> tuple[str]:
        """Return the name."""
        return (self.name,)

    def reverse(self) -> EnsureSchemaOp:
        """Return the operation that makes the schema again."""
        return EnsureSchemaOp(self.name)


@Operations.implementation_for(EnsureSchemaOp)
def _ensure_schema(operations: Operations, operation: EnsureSchemaOp) -> None:
    # CREATE SCHEMA IF NOT EXISTS asks for the right to create before it looks.
    if not operations.migration_context.as_sql and _is_there(operations, operation.name):
        return
    run(operations, f"CREATE SCHEMA IF NOT EXISTS {quoted(operation.name)}")


def _is_there(operations: Operations, name: str) -> bool:
    query = "SELECT FROM pg_namespace WHERE nspname = %s"
    return bool(select(operations.get_bind(), query, name))


@Operations.implementation_for(DropSchemaIfEmptyOp)
def _drop_schema_if_empty(operations: Operations, operation: DropSchemaIfEmptyOp) -> None:
    # The server is the one to ask what is in it: a count of the catalogs would forget some kind.
    body = f"""
BEGIN
  DROP SCHEMA IF EXISTS {quoted(operation.name)};
EXCEPTION WHEN dependent_objects_still_exist THEN
  RAISE NOTICE 'the schema % stays: others use it', {literal(operation.name)};
END
"""
    run(operations, f"DO {dollar_quoted(body)}")
