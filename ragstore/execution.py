"""Work on the database as plain generators, and the two ways to run them.

An *operation* yields statements and is sent their rows. It opens nothing, waits for nothing and
knows nothing of async: ``run`` and ``run_async`` do that, so every operation is written once.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from psycopg import AsyncConnection, AsyncRawCursor, Connection, RawCursor, sql
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


class Numbered(NamedTuple):
    """A statement whose parameters are ``$1``, ``$2``, …, as the server takes them.

    It is sent without being read again, so it is as fast as the driver can be. With ``prepare``
    False the server plans it anew each time, for the values it is given.
    """

    statement: bytes
    parameters: Sequence[Any]
    prepare: bool | None = None


@dataclass(frozen=True)
class Copy:
    """A ``COPY … FROM STDIN (FORMAT BINARY)`` and its rows in that format; no rows come back.

    Text in them is UTF-8.

    The driver would pack them value by value, which costs the client as much as all the rest of a
    load: see ``ragstore.copying``.
    """

    statement: Statement
    rows: Iterable[bytes]


@dataclass(frozen=True)
class Call:
    """A function that takes long, or is the caller's; its result is sent back.

    In an operation it is called while the transaction is open. asyncio calls it in a thread.
    """

    function: Callable[..., Any]
    arguments: Sequence[Any] = ()


Step = Query | Numbered | Copy | Call
Operation = Generator[Step, Any, T]

_PREFER_INDEXES = sql.SQL("SELECT set_config('enable_seqscan', 'off', true)")


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
    rows: Any = []
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


def run_together(connection: Connection[Row], operations: Sequence[Operation[T]]) -> list[T]:
    """Run operations side by side: what each does next is sent together, in one round trip.

    None of them copies. Outside a transaction, those of a round trip are one transaction.
    """
    crowd = _Crowd(operations)
    while crowd.waiting:
        with connection.pipeline():
            cursors = [
                RawCursor(connection).execute(step.statement, step.parameters, prepare=step.prepare)
                for step in crowd.steps()
            ]
        crowd.send([cursor.fetchall() for cursor in cursors])
    return crowd.results()


async def run_together_async(
    connection: AsyncConnection[Row], operations: Sequence[Operation[T]]
) -> list[T]:
    """Run operations side by side on an async connection, as ``run_together`` does."""
    crowd = _Crowd(operations)
    while crowd.waiting:
        async with connection.pipeline():
            cursors = [
                await AsyncRawCursor(connection).execute(
                    step.statement, step.parameters, prepare=step.prepare
                )
                for step in crowd.steps()
            ]
        crowd.send([await cursor.fetchall() for cursor in cursors])
    return crowd.results()


class _Crowd(Generic[T]):
    """Operations that wait for their rows, each at a step of its own."""

    def __init__(self, operations: Sequence[Operation[T]]) -> None:
        self._operations = operations
        self._results: dict[int, T] = {}
        self.waiting: dict[int, Step] = {}
        for at in range(len(operations)):
            self._advance(at, None)

    def steps(self) -> list[Numbered]:
        return [_numbered(step) for step in self.waiting.values()]

    def send(self, rows: list[list[Row]]) -> None:
        for at, found in zip(list(self.waiting), rows, strict=True):
            self._advance(at, found)

    def results(self) -> list[T]:
        return [self._results[at] for at in range(len(self._operations))]

    def _advance(self, at: int, rows: list[Row] | None) -> None:
        operation = self._operations[at]
        try:
            self.waiting[at] = next(operation) if rows is None else operation.send(rows)
        except StopIteration as done:
            self.waiting.pop(at, None)
            self._results[at] = done.value


def _numbered(step: Step) -> Numbered:
    if not isinstance(step, Numbered):
        raise TypeError(f"only numbered statements run together, not {type(step).__name__}")
    return step


def call(step: Call) -> Any:
    """Call a function, and return what it returns."""
    return step.function(*step.arguments)


async def call_async(step: Call) -> Any:
    """Call a function of either kind; a plain one in a thread, so that the loop goes on."""
    if inspect.iscoroutinefunction(step.function):
        return await step.function(*step.arguments)
    made = await asyncio.to_thread(step.function, *step.arguments)
    return await made if inspect.isawaitable(made) else made


def _execute(connection: Connection[Row], step: Step) -> Any:
    if isinstance(step, Numbered):
        raw = RawCursor(connection)
        return raw.execute(step.statement, step.parameters, prepare=step.prepare).fetchall()
    if isinstance(step, Call):
        return call(step)
    if isinstance(step, Query):
        cursor = connection.execute(step.statement, step.parameters or None)
        return cursor.fetchall() if cursor.description else []
    if connection.info.encoding != _ENCODING:
        connection.execute(_USE_UTF8)
    with connection.cursor() as cursor, cursor.copy(step.statement) as copy:
        for piece in _pieces(step.rows):
            copy.write(piece)
    return []


async def _execute_async(connection: AsyncConnection[Row], step: Step) -> Any:
    if isinstance(step, Numbered):
        numbered = AsyncRawCursor(connection)
        await numbered.execute(step.statement, step.parameters, prepare=step.prepare)
        return await numbered.fetchall()
    if isinstance(step, Call):
        return await call_async(step)
    if isinstance(step, Query):
        cursor = await connection.execute(step.statement, step.parameters or None)
        return await cursor.fetchall() if cursor.description else []
    if connection.info.encoding != _ENCODING:
        await connection.execute(_USE_UTF8)
    async with connection.cursor() as cursor, cursor.copy(step.statement) as copy:
        for piece in _pieces(step.rows):
            await copy.write(piece)
    return []


# What a URL may say otherwise; rows are packed in this one.
_ENCODING, _USE_UTF8 = "utf-8", "SET LOCAL client_encoding TO utf8"
_COPY_HEAD, _COPY_END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
_PIECE = 2**17  # bytes of a message


def _pieces(rows: Iterable[bytes]) -> Iterator[bytes]:
    """Return rows as messages of a COPY in binary."""
    piece = bytearray(_COPY_HEAD)
    for row in rows:
        piece += row
        if len(piece) > _PIECE:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece + _COPY_END)
