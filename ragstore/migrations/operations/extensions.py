"""Extensions: made where they are missing, checked for their version, and never dropped."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

from alembic.operations import Operations
from psycopg import errors
from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from ragstore.exceptions import (
    ExtensionMissing,
    ExtensionNotPermitted,
    ExtensionTooOld,
    OldExtensionWarning,
)
from ragstore.migrations.operations.base import Operation, quoted, run
from ragstore.migrations.operations.remark import Remark

PGVECTOR_REFUSED_BELOW = "0.8.2"
"""CVE-2026-3172: a parallel HNSW build could overflow a buffer."""

PGVECTOR_WARNED_BELOW = "0.8.4"
"""Vacuum could corrupt an HNSW index before."""

_ANY = "0"


@Operations.register_operation("ensure_extension")
class EnsureExtensionOp(Operation):
    """Make sure that an extension is there, and new enough."""

    verb = "ensure_extension"

    def __init__(
        self, name: str, minimum: str | None = None, warn_below: str | None = None
    ) -> None:
        is_vector = name == "vector"
        self.name = name
        self.minimum = minimum or (PGVECTOR_REFUSED_BELOW if is_vector else None)
        self.warn_below = warn_below or (PGVECTOR_WARNED_BELOW if is_vector else None)

    @classmethod
    def ensure_extension(
        cls,
        operations: Operations,
        name: str,
        *,
        minimum: str | None = None,
        warn_below: str | None = None,
    ) -> None:
        """Create the extension unless it is there, and check its version.

        Without versions, those of pgvector are what ragstore needs, and any other will do. A role
        without the right to create it passes if somebody else has. There is no opposite: a
        downgrade leaves the extension, which others may use.

        Raises:
            ExtensionMissing: the server does not have it.
            ExtensionNotPermitted: it is not created and this role may not.
            ExtensionTooOld: its version is below ``minimum``.
        """
        operations.invoke(cls(name, minimum, warn_below))

    def facts(self) -> tuple[str]:
        """Return the name."""
        return (self.name,)

    def options(self) -> Mapping[str, Any]:
        """Return the versions: a file goes on asking for those it was written with."""
        return {"minimum": self.minimum, "warn_below": self.warn_below}

    def reverse(self) -> Remark:
        """Return nothing to do: others may use the extension."""
        return Remark()


@Operations.implementation_for(EnsureExtensionOp)
def _ensure_extension(operations: Operations, operation: EnsureExtensionOp) -> None:
    if operations.migration_context.as_sql:
        run(operations, f"CREATE EXTENSION IF NOT EXISTS {quoted(operation.name)}")
        return
    connection = operations.get_bind()
    if _installed_version(connection, operation.name) is None:
        _create_extension(connection, operation.name)
    check_extension_version(
        connection,
        operation.name,
        minimum=operation.minimum or _ANY,
        warn_below=operation.warn_below or _ANY,
    )


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
    remedy = f"install a newer {name} on the server, then run ALTER EXTENSION {quoted(name)} UPDATE"
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
            f"The server does not have the extension {name}: install {_package(name)}"
        )
    statement = f"CREATE EXTENSION {quoted(name)};"
    try:
        connection.execute(text(f"CREATE EXTENSION IF NOT EXISTS {quoted(name)}"))
    except ProgrammingError as exc:
        if not isinstance(exc.orig, errors.InsufficientPrivilege):
            raise
        raise ExtensionNotPermitted(
            f"The role {_role(connection)} may not create the"
            f" extension {name} in this database. A superuser must run in it, once: {statement}",
            statement=statement,
        ) from exc


def _package(name: str) -> str:
    if name == "vector":
        return "the package pgvector on it (https://github.com/pgvector/pgvector#installation)"
    return "the package that brings it, postgresql-contrib for those of PostgreSQL itself"


def _role(connection: Connection) -> str:
    return connection.engine.url.username or "of this connection"


def _installed_version(connection: Connection, name: str) -> str | None:
    version: str | None = connection.scalar(
        text("SELECT extversion FROM pg_extension WHERE extname = :name"), {"name": name}
    )
    return version


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
