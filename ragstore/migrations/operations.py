"""Operations for revision files, beside Alembic's own: ``op.ensure_extension`` and so on.

Importing this module registers them. They work online and with ``--sql``.
"""

from __future__ import annotations

import re
import warnings

from alembic.operations import MigrateOperation, Operations
from psycopg import errors
from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from ragstore.exceptions import (
    ExtensionMissing,
    ExtensionNotPermitted,
    ExtensionTooOld,
    OldExtensionWarning,
)
from ragstore.types import Function, verbatim

PGVECTOR_REFUSED_BELOW = "0.8.2"
"""CVE-2026-3172: a parallel HNSW build could overflow a buffer."""

PGVECTOR_WARNED_BELOW = "0.8.4"
"""Vacuum could corrupt an HNSW index before."""


@Operations.register_operation("ensure_extension")
class EnsureExtensionOp(MigrateOperation):
    """Make sure that an extension is there, and new enough."""

    def __init__(self, name: str, minimum: str, warn_below: str) -> None:
        self.name = name
        self.minimum = minimum
        self.warn_below = warn_below

    @classmethod
    def ensure_extension(
        cls,
        operations: Operations,
        name: str,
        *,
        minimum: str = PGVECTOR_REFUSED_BELOW,
        warn_below: str = PGVECTOR_WARNED_BELOW,
    ) -> None:
        """Create the extension unless it is there, and check its version.

        A role without the right to create it passes if somebody else has. There is no opposite:
        a downgrade leaves the extension, which others may use.

        Raises:
            ExtensionMissing: the server does not have it.
            ExtensionNotPermitted: it is not created and this role may not.
            ExtensionTooOld: its version is below ``minimum``.
        """
        operations.invoke(cls(name, minimum, warn_below))


@Operations.register_operation("create_function")
class CreateFunctionOp(MigrateOperation):
    """Create an SQL function, or replace its body."""

    def __init__(self, function: Function) -> None:
        self.function = function

    @classmethod
    def create_function(
        cls,
        operations: Operations,
        name: str,
        arguments: list[tuple[str, str]],
        returns: str,
        body: str,
        *,
        language: str = "sql",
        options: str = "IMMUTABLE PARALLEL SAFE",
    ) -> None:
        """Create the function ``name(arguments)``; see ``ragstore.types.function``."""
        function = Function(name, tuple(arguments), returns, body, language, options)
        operations.invoke(cls(function))


@Operations.register_operation("drop_function")
class DropFunctionOp(MigrateOperation):
    """Drop an SQL function."""

    def __init__(self, name: str, argument_types: list[str]) -> None:
        self.signature = f"{name}({', '.join(argument_types)})"

    @classmethod
    def drop_function(cls, operations: Operations, name: str, argument_types: list[str]) -> None:
        """Drop the function ``name(argument_types)``."""
        operations.invoke(cls(name, argument_types))


@Operations.implementation_for(EnsureExtensionOp)
def _ensure_extension(operations: Operations, operation: EnsureExtensionOp) -> None:
    if operations.migration_context.as_sql:
        operations.execute(f"CREATE EXTENSION IF NOT EXISTS {operation.name}")
        return
    connection = operations.get_bind()
    if _installed_version(connection, operation.name) is None:
        _create_extension(connection, operation.name)
    check_extension_version(
        connection, operation.name, minimum=operation.minimum, warn_below=operation.warn_below
    )


@Operations.implementation_for(CreateFunctionOp)
def _create_function(operations: Operations, operation: CreateFunctionOp) -> None:
    operations.execute(verbatim(operation.function.create_sql()))


@Operations.implementation_for(DropFunctionOp)
def _drop_function(operations: Operations, operation: DropFunctionOp) -> None:
    operations.execute(verbatim(f"DROP FUNCTION {operation.signature}"))


def check_extension_version(
    connection: Connection,
    name: str = "vector",
    *,
    minimum: str = PGVECTOR_REFUSED_BELOW,
    warn_below: str = PGVECTOR_WARNED_BELOW,
) -> str:
    """Return the extension's version in the connection's database.

    Warns (OldExtensionWarning) below ``warn_below``.

    Raises:
        ExtensionMissing: it is not created in this database, or in a schema that is not searched.
        ExtensionTooOld: it is below ``minimum``.
    """
    found = _installed_version(connection, name)
    if found is None:
        raise ExtensionMissing(
            f"The extension {name} is not in this database: run `ragstore migrate upgrade`"
        )
    _check_reachable(connection, name)
    remedy = f"install a newer {name} on the server, then run ALTER EXTENSION {name} UPDATE"
    if _number(found) < _number(minimum):
        raise ExtensionTooOld(
            f"{name} {found} is older than {minimum}, the oldest that ragstore accepts: {remedy}",
            found=found,
            needed=minimum,
        )
    if _number(found) < _number(warn_below):
        warnings.warn(
            f"{name} {found} has defects that {warn_below} mends: {remedy}",
            OldExtensionWarning,
            stacklevel=2,
        )
    return found


def _check_reachable(connection: Connection, name: str) -> None:
    """Refuse an extension whose types and operators would not be found."""
    schema = connection.scalar(
        text(
            "SELECT nspname FROM pg_extension JOIN pg_namespace AS n ON n.oid = extnamespace"
            " WHERE extname = :name AND nspname <> ALL (current_schemas(true))"
        ),
        {"name": name},
    )
    if schema is not None:
        raise ExtensionMissing(
            f"The extension {name} is in the schema {schema}, which is not searched:"
            f" ALTER ROLE {_role(connection)} SET search_path = public, {schema};"
        )


def _create_extension(connection: Connection, name: str) -> None:
    available = connection.scalar(
        text("SELECT default_version FROM pg_available_extensions WHERE name = :name"),
        {"name": name},
    )
    if available is None:
        raise ExtensionMissing(
            f"The server does not have the extension {name}: install the package pgvector on it"
            " (https://github.com/pgvector/pgvector#installation)"
        )
    try:
        connection.execute(text(f"CREATE EXTENSION IF NOT EXISTS {name}"))
    except ProgrammingError as exc:
        if not isinstance(exc.orig, errors.InsufficientPrivilege):
            raise
        statement = f"CREATE EXTENSION {name};"
        raise ExtensionNotPermitted(
            f"The role {_role(connection)} may not create the"
            f" extension {name} in this database. A superuser must run in it, once: {statement}",
            statement=statement,
        ) from exc


def _role(connection: Connection) -> str:
    return connection.engine.url.username or "of this connection"


def _installed_version(connection: Connection, name: str) -> str | None:
    version: str | None = connection.scalar(
        text("SELECT extversion FROM pg_extension WHERE extname = :name"), {"name": name}
    )
    return version


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
