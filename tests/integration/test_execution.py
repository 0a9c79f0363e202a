"""Operations: one generator, run on a connection of either kind."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import literal, select
from sqlalchemy.engine import URL

from ragstore import DatabaseConnection
from ragstore.copying import NULL, packed
from ragstore.driver import connect, connect_async
from ragstore.execution import (
    Call,
    Copy,
    Operation,
    Query,
    compiled,
    run,
    run_async,
    run_together,
)

TABLE = sql.SQL("CREATE TEMP TABLE sample (id int, meta jsonb, body text)")
COPY = sql.SQL("COPY sample FROM STDIN (FORMAT BINARY)")
COUNT = sql.SQL("SELECT count(*) FROM sample")
TEXT = "tab\tand\nline \\N é 漢"
ROWS = [
    b"".join((b"\0\3", packed(id_.to_bytes(4, "big")), packed(b"\1" + meta), packed(body.encode())))
    for id_, meta, body in ((1, b'{"a": 1}', TEXT), (2, b"{}", "x" * 300_000))
]
ROWS.append(b"\0\3" + packed(b"\0\0\0\3") + packed(b"\1{}") + NULL)


def answers() -> Operation[list[Any]]:
    """Send one of each kind and return what came back."""
    got: list[Any] = [(yield Query(TABLE))]
    got.append((yield Copy(COPY, ROWS)))
    got.append((yield Query(sql.SQL("SELECT id, meta, body FROM sample ORDER BY id"))))
    got.append((yield Query(sql.SQL("SELECT %s::int + 1, 5 %% 3"), [1])))
    got.append((yield Query(sql.SQL("SELECT %(a)s::int, 5 %% 3"), {"a": 2})))
    got.append((yield Query(sql.SQL("SELECT 5 % 3"))))
    percent: Any = select(literal("50%"), literal(5) % 3)
    got.append((yield compiled(percent)))
    return got


EXPECTED: list[Any] = [
    [],
    [],
    [(1, {"a": 1}, TEXT), (2, {}, "x" * 300_000), (3, {}, None)],
    [(2, 2)],
    [(2, 2)],
    [(2,)],
    [("50%", 2)],
]


def test_operation_runs_on_a_connection(server_url: URL) -> None:
    """Rows come back to the operation, and its result to the caller."""
    with connect(server_url) as connection:
        assert run(connection, answers()) == EXPECTED


async def test_operation_runs_on_an_async_connection(server_url: URL) -> None:
    """The same operation gives the same result, awaited."""
    async with await connect_async(server_url) as connection:
        assert await run_async(connection, answers()) == EXPECTED


def calls(function: Any) -> Operation[list[Any]]:
    """Call a function between two statements of one transaction."""
    first = yield Query(sql.SQL("SELECT txid_current()"))
    made = yield Call(function, [20, 22])
    second = yield Query(sql.SQL("SELECT txid_current()"))
    return [made, first == second]


async def add_later(one: int, other: int) -> int:
    """Add two numbers, awaited."""
    return one + other


def test_function_is_called_in_the_transaction(server_url: URL) -> None:
    """What it returns is sent back, and the transaction is the same before and after."""
    with connect(server_url) as connection:
        assert run(connection, calls(operator.add)) == [42, True]


def awaitable(one: int, other: int) -> Any:
    """Return what is to be awaited, as a wrapper does that is no coroutine function."""
    return add_later(one, other)


@pytest.mark.parametrize("function", [operator.add, add_later, awaitable])
async def test_function_of_either_kind_is_called(server_url: URL, function: Any) -> None:
    """A coroutine function, a plain one, and a plain one that returns an awaitable."""
    async with await connect_async(server_url) as connection:
        assert await run_async(connection, calls(function)) == [42, True]


def nothing() -> Operation[str]:
    """Decide without asking."""
    yield from ()
    return "done"


async def test_operation_may_send_nothing(server_url: URL) -> None:
    """An operation that yields no statement still has a result."""
    with connect(server_url) as connection:
        assert run(connection, nothing()) == "done"
    async with await connect_async(server_url) as async_connection:
        assert await run_async(async_connection, nothing()) == "done"


def failing_rows() -> Iterator[bytes]:
    """Give one row, then fail."""
    yield ROWS[0]
    raise KeyError("rows")


def interrupted() -> Operation[None]:
    """Begin a COPY that its rows end."""
    yield Query(TABLE)
    yield Copy(COPY, failing_rows())


async def test_error_in_the_rows_ends_the_copy(server_url: URL) -> None:
    """The error arrives as it is, and the transaction is over: nothing is half written."""
    with connect(server_url) as connection:
        with pytest.raises(KeyError, match="rows"):
            run(connection, interrupted())
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            connection.execute(COUNT)
    async with await connect_async(server_url) as async_connection:
        with pytest.raises(KeyError, match="rows"):
            await run_async(async_connection, interrupted())
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            await async_connection.execute(COUNT)


def test_only_numbered_statements_run_together(connection: DatabaseConnection) -> None:
    """A statement that the driver must read first is refused, before any is sent."""

    def operation() -> Operation[int]:
        yield Query(sql.SQL("SELECT 1"))
        return 1

    with connection.reading() as lent, pytest.raises(TypeError, match="numbered statements"):
        run_together(lent, [operation()])
