"""Work on the database as plain generators, and the two ways to run them.

An *operation* yields statements and is sent their rows. It opens nothing, waits for nothing and
knows nothing of async: ``run`` and ``run_async`` do that, so every operation is written once.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from psycopg import AsyncConnection, Connection, sql
from sqlalchemy import Select
from sqlalchemy.dialects.postgresql import psycopg as psycopg_dialect

T = TypeVar("T")
Row = tuple[Any, ...]
Statement = bytes | sql.SQL | sql.Composed

_DIALECT = psycopg_dialect.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own


@dataclass(frozen=True)
class Query:
    """A statement and its parameters; its rows are sent back."""

    statement: Statement
    parameters: dict[str, Any] | Sequence[Any] = ()


@dataclass(frozen=True)
class Copy:
    """A ``COPY … FROM STDIN (FORMAT BINARY)``, its column types and rows; no rows come back.

    A column of type ``bytea`` takes what the server's binary input of its own type expects.
    """

    statement: Statement
    types: Sequence[str]
    rows: Iterable[Sequence[Any]]


_PREFER_INDEXES = sql.SQL("SELECT set_config('enable_seqscan', 'off', true)")

Operation = Generator[Query | Copy, list[Row], T]


def prefer_indexes() -> Operation[None]:
    """Keep the rest of the transaction from reading whole tables, the foreign keys' checks too.

    A session plans those once, and soon the prepared statements too. Planned while a table was
    small they read all of it, for each row, from then on: 2,000 chunks into new tables read 4
    million rows.
    """
    yield Query(_PREFER_INDEXES)


def compiled(statement: Select[Any]) -> Query:
    """Return a SQLAlchemy statement as one for psycopg, its parameters bound.

    Raises:
        StatementError, CompileError, ValueError: SQLAlchemy's; a value or a part has no SQL.
    """
    text = statement.compile(dialect=_DIALECT)
    expanded = text.construct_expanded_state(escape_names=False)
    # The compiler gives the raw values only; those of an IN list have their binders apart.
    binders: dict[str, Any] = {**text._bind_processors, **expanded.processors}  # noqa: SLF001 - see above
    names = text.escaped_bind_names
    parameters = {
        names.get(name, name): binders[name](value) if name in binders else value
        for name, value in expanded.parameters.items()
    }
    return Query(expanded.statement.encode(), parameters)


def run(connection: Connection[Row], operation: Operation[T]) -> T:
    """Run an operation on a connection, inside whatever transaction the caller has."""
    rows: list[Row] = []
    try:
        step = next(operation)
        while True:
            rows = _execute(connection, step)
            step = operation.send(rows)
    except StopIteration as done:
        result: T = done.value
        return result


async def run_async(connection: AsyncConnection[Row], operation: Operation[T]) -> T:
    """Run an operation on an async connection, inside whatever transaction the caller has."""
    try:
        step = next(operation)
        while True:
            rows = await _execute_async(connection, step)
            step = operation.send(rows)
    except StopIteration as done:
        result: T = done.value
        return result


def _execute(connection: Connection[Row], step: Query | Copy) -> list[Row]:
    if isinstance(step, Query):
        cursor = connection.execute(step.statement, step.parameters or None)
        return cursor.fetchall() if cursor.description else []
    with connection.cursor() as cursor, cursor.copy(step.statement) as copy:
        copy.set_types(step.types)
        for row in step.rows:
            copy.write_row(row)
    return []


async def _execute_async(connection: AsyncConnection[Row], step: Query | Copy) -> list[Row]:
    if isinstance(step, Query):
        cursor = await connection.execute(step.statement, step.parameters or None)
        return await cursor.fetchall() if cursor.description else []
    async with connection.cursor() as cursor, cursor.copy(step.statement) as copy:
        copy.set_types(step.types)
        for row in step.rows:
            await copy.write_row(row)
    return []
