"""Indexes that are built and dropped while the table is in use.

``CREATE INDEX CONCURRENTLY`` runs outside of transactions, so it can leave something behind: a
build that failed, or whose server went down, leaves an INVALID index of that name. Both operations
begin by looking, so that a revision that failed is simply run again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import Operations
from alembic.operations import ops as alembic_ops
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, PendingRollbackError

from ragstore.exceptions import MigrationError
from ragstore.migrations.operations.base import IMPORT, quoted, run, select

logger = logging.getLogger(__name__)

POLL_INTERVAL = 0.5
"""Seconds between two looks at an index that somebody else is building."""

_CONCURRENTLY = "postgresql_concurrently"


@Operations.register_operation("create_index_online")
class CreateIndexOnlineOp(alembic_ops.CreateIndexOp):
    """Alembic's ``create_index`` for a table in use."""

    def __init__(self, index_name: str, table_name: str, columns: Any, **options: Any) -> None:
        options.pop(_CONCURRENTLY, None)
        super().__init__(index_name, table_name, columns, **options)

    @classmethod
    def create_index_online(
        cls,
        operations: Operations,
        index_name: str,
        table_name: str,
        columns: list[Any],
        *,
        schema: str | None = None,
        unique: bool = False,
        **options: Any,
    ) -> None:
        """Build an index while others write to the table: ``CREATE INDEX CONCURRENTLY``.

        The arguments are those of ``create_index``. It commits what the revision did before, so
        let it be the only thing in its revision. It waits for every older transaction, without a
        time limit. If it fails or is interrupted, run the revision again: an INVALID index of that
        name is dropped first, and one that is valid and the same is kept.

        Raises:
            MigrationError: there is another index of that name, or the new one is not valid, or
                the connection was given with a transaction of its own.
        """
        operations.invoke(
            cls(index_name, table_name, columns, schema=schema, unique=unique, **options)
        )

    def reverse(self) -> DropIndexOnlineOp:
        """Return the operation that drops the index."""
        return DropIndexOnlineOp.from_index(self.to_index())  # type: ignore[return-value]  # Alembic names its own class


@Operations.register_operation("drop_index_online")
class DropIndexOnlineOp(alembic_ops.DropIndexOp):
    """Alembic's ``drop_index`` for a table in use."""

    def __init__(self, index_name: str, table_name: str | None = None, **options: Any) -> None:
        options.pop(_CONCURRENTLY, None)
        super().__init__(index_name, table_name, **options)

    @classmethod
    def drop_index_online(
        cls,
        operations: Operations,
        index_name: str,
        table_name: str | None = None,
        *,
        schema: str | None = None,
        **options: Any,
    ) -> None:
        """Drop an index while others use the table: ``DROP INDEX CONCURRENTLY``.

        The arguments are those of ``drop_index``. It commits what the revision did before. An
        index that is not there counts as dropped, so that the revision can be run again.

        Raises:
            MigrationError: the connection was given with a transaction of its own.
        """
        operations.invoke(cls(index_name, table_name, schema=schema, **options))

    def reverse(self) -> CreateIndexOnlineOp:
        """Return the operation that builds the index again."""
        return CreateIndexOnlineOp.from_index(self.to_index())  # type: ignore[return-value]  # Alembic names its own class


@renderers.dispatch_for(CreateIndexOnlineOp)
def _render_create(context: AutogenContext, operation: CreateIndexOnlineOp) -> str:
    context.imports.add(IMPORT)
    written: str = renderers.dispatch(alembic_ops.CreateIndexOp)(context, operation)
    return written.replace("create_index(", "create_index_online(", 1)


@renderers.dispatch_for(DropIndexOnlineOp)
def _render_drop(context: AutogenContext, operation: DropIndexOnlineOp) -> str:
    context.imports.add(IMPORT)
    written: str = renderers.dispatch(alembic_ops.DropIndexOp)(context, operation)
    return written.replace("drop_index(", "drop_index_online(", 1)


@Operations.implementation_for(CreateIndexOnlineOp)
def _create_index_online(operations: Operations, operation: CreateIndexOnlineOp) -> None:
    index = operation.to_index(operations.migration_context)
    index.dialect_options["postgresql"]["concurrently"] = True
    with _outside_of_transactions(operations, operation.index_name):
        if operations.migration_context.as_sql:
            operations.impl.create_index(index)
            return
        connection = operations.get_bind()
        with _without_time_limits(connection):
            if _is_there(operations, operation):
                logger.info("the index %s is there already", index.name)
                return
            operations.impl.create_index(index)
            _check_valid(connection, operation)


@Operations.implementation_for(DropIndexOnlineOp)
def _drop_index_online(operations: Operations, operation: DropIndexOnlineOp) -> None:
    name = quoted(str(operation.index_name), operation.schema)
    as_sql = operations.migration_context.as_sql
    with _outside_of_transactions(operations, operation.index_name):
        if as_sql:
            run(operations, f"DROP INDEX CONCURRENTLY {name}")
            return
        with _without_time_limits(operations.get_bind()):
            run(operations, f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


@contextmanager
def _outside_of_transactions(operations: Operations, name: str | None) -> Iterator[None]:
    context = operations.migration_context
    if context._in_external_transaction:  # noqa: SLF001 - Alembic would fail an assertion of its own
        raise MigrationError(
            f"The index {name} is built or dropped outside of transactions, but the connection that"
            " was given is in one: commit it before, or give the URL of the database"
        )
    lost: DBAPIError | None = None
    try:
        with context.autocommit_block():
            try:
                yield
            except DBAPIError as exc:
                lost = exc
                raise
    except PendingRollbackError as exc:
        # Alembic ends its block on a connection that is gone, and that error hides the reason.
        raise (lost or exc) from None


@contextmanager
def _without_time_limits(connection: Connection) -> Iterator[None]:
    """Wait as long as it takes: a build that gives up leaves an INVALID index."""
    settings = ("lock_timeout", "statement_timeout")
    before = {name: select(connection, f"SHOW {name}")[0][0] for name in settings}
    _set(connection, dict.fromkeys(settings, "0"))
    try:
        yield
    finally:
        if not connection.invalidated:
            _set(connection, before)


def _set(connection: Connection, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        select(connection, "SELECT set_config(%s, %s, false)", name, value)


# --- what is there -----------------------------------------------------------------------------

# Whoever builds an index has a row in the view of progress, where every role sees the backend, and
# holds a lock on the table.
_FIND = """
SELECT x.indrelid::regclass::text, x.indrelid = t.oid, x.indisvalid, EXISTS (
    SELECT FROM pg_stat_progress_create_index p JOIN pg_locks l USING (pid)
    WHERE l.locktype = 'relation' AND l.relation = x.indrelid AND pid <> pg_backend_pid()
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())),
  format('%%I.%%I', n.nspname, i.relname), x.indexrelid
FROM pg_class t JOIN pg_class i ON i.relnamespace = t.relnamespace AND i.relname = %s
JOIN pg_index x ON x.indexrelid = i.oid JOIN pg_namespace n ON n.oid = i.relnamespace
WHERE t.oid = to_regclass(%s)
"""
# What follows the names of the index and of its table.
_DEFINITION = """
SELECT CASE WHEN x.indisunique THEN 'UNIQUE ' ELSE '' END
  || substr(d.text, strpos(d.text, ends) + length(ends))
FROM pg_index x, format('.%%I USING ', %s::text) ends, pg_get_indexdef(x.indexrelid) AS d (text)
WHERE x.indexrelid = %s::regclass
"""


@dataclass(frozen=True)
class _Found:
    """An index of the name, in the schema of the table."""

    table: str
    is_on_table: bool
    is_valid: bool
    is_being_built: bool
    name: str
    oid: int


def _is_there(operations: Operations, operation: CreateIndexOnlineOp) -> bool:
    """Tell whether the index is there and valid, after what is left of a failure is dropped."""
    connection = operations.get_bind()
    found = _settled(connection, operation)
    if found is None:
        return False
    if found.is_on_table and not found.is_valid:
        logger.info("the index %s is INVALID: it is dropped and built again", found.name)
        run(operations, f"DROP INDEX CONCURRENTLY {found.name}")
        return False
    if found.is_on_table and _is_same(operations, operation, found):
        return True
    raise MigrationError(
        f"There is another index of the name {found.name}, on the table {found.table}: drop it, or"
        " rename it, and run the revision again"
    )


def _settled(connection: Connection, operation: CreateIndexOnlineOp) -> _Found | None:
    """Return the index of that name when nobody is building it."""
    found = _find(connection, operation)
    if found is not None and not found.is_valid and found.is_being_built:
        # The client of that backend is dead, or it is another's: whatever it makes is looked at.
        logger.info("waiting for another session to build the index %s", found.name)
        while found is not None and not found.is_valid and found.is_being_built:
            time.sleep(POLL_INTERVAL)
            found = _find(connection, operation)
    return found


def _find(connection: Connection, operation: CreateIndexOnlineOp) -> _Found | None:
    table = quoted(operation.table_name, operation.schema)
    rows = select(connection, _FIND, str(operation.index_name), table)
    return _Found(*rows[0]) if rows else None


def _is_same(operations: Operations, operation: CreateIndexOnlineOp, found: _Found) -> bool:
    """Build the index on an empty copy of the table, and let the server print both.

    What is asked for and what is there are two spellings until the server has read both.
    """
    connection = operations.get_bind()
    name, table = str(operation.index_name), operation.table_name
    options = {**operation.kw, "unique": operation.unique}
    copy = alembic_ops.CreateIndexOp(name, table, operation.columns, schema="pg_temp", **options)
    with _rolled_back(connection):
        like = quoted(table, operation.schema)
        run(operations, f"CREATE TEMP TABLE {quoted(table)} (LIKE {like})")
        operations.impl.create_index(copy.to_index(operations.migration_context))
        made = select(connection, _DEFINITION, table, f"pg_temp.{quoted(name)}")
        return bool(made == select(connection, _DEFINITION, table, str(found.oid)))


@contextmanager
def _rolled_back(connection: Connection) -> Iterator[None]:
    """Open a transaction on a connection that has none of its own, and take all of it back."""
    connection.exec_driver_sql("BEGIN")
    try:
        yield
    finally:
        if not connection.invalidated:
            connection.exec_driver_sql("ROLLBACK")


def _check_valid(connection: Connection, operation: CreateIndexOnlineOp) -> None:
    found = _find(connection, operation)
    if found is None or not found.is_valid:
        raise MigrationError(
            f"The index {operation.index_name} is not valid after it was built: run the revision"
            " again"
        )
