"""Indexes that are built in use: what is left of a failure, and what is in the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

from ragstore.driver import connect
from ragstore.exceptions import MigrationError
from ragstore.migrations.lock import migration_lock
from ragstore.migrations.operations import CreateIndexOnlineOp, DropIndexOnlineOp

SETUP = (
    "CREATE TABLE item (a int, t text)",
    "INSERT INTO item SELECT n, n FROM generate_series(1, 100) n",
)
ONLINE = CreateIndexOnlineOp("item_a", "item", ["a"])
UNIQUE = CreateIndexOnlineOp("item_a", "item", ["a"], unique=True)
STATE = (
    "SELECT indexrelid, indisvalid FROM pg_index WHERE indexrelid = to_regclass('public.item_a')"
)
WAITING = (
    "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    " AND query ILIKE '%CONCURRENTLY%' AND datname = current_database() AND pid <> pg_backend_pid()"
)


@contextmanager
def old_snapshot(workbench: Any) -> Iterator[None]:
    """Keep a transaction open that a concurrent build must wait for."""
    with connect(workbench.url) as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT 1 FROM item")
        yield


class Background:
    """A function on a thread, and the error that it ends with."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.error: Exception | None = None
        self._function = function
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._function()
        except Exception as exc:  # noqa: BLE001 - the test looks at it
            self.error = exc

    def join(self) -> Exception | None:
        """Wait for the end and return the error."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.error


def until(workbench: Any, query: str) -> Any:
    """Wait until a query has rows, and return the first value."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if rows := workbench.run(query):
            return rows[0][0]
        time.sleep(0.02)
    raise AssertionError(f"still no row: {query}")


@pytest.fixture
def table(workbench: Any) -> Any:
    """Return the workbench with a table of a hundred rows."""
    workbench.reset(*SETUP)
    return workbench


def test_failed_build_is_repeated(table: Any) -> None:
    """A build that fails leaves an INVALID index; the same operation drops it and builds it."""
    table.run("INSERT INTO item VALUES (1, 'again')")
    with pytest.raises(sa.exc.IntegrityError):
        table.online(UNIQUE)
    [(invalid, is_valid)] = table.run(STATE)
    assert not is_valid

    table.run("DELETE FROM item WHERE t = 'again'")
    table.online(UNIQUE)

    [(valid, is_valid)] = table.run(STATE)
    assert is_valid
    assert valid != invalid


def test_killed_build_is_repeated(table: Any) -> None:
    """A build whose backend is ended raises, and can be run again."""
    with old_snapshot(table):
        build = Background(lambda: table.online(ONLINE))
        backend = until(table, WAITING)
        table.run(f"SELECT pg_terminate_backend({backend})")
        error = build.join()
        assert isinstance(error, sa.exc.DBAPIError)
        assert "terminating connection" in str(error)
    assert [is_valid for _, is_valid in table.run(STATE)] == [False]

    table.online(ONLINE)

    assert [is_valid for _, is_valid in table.run(STATE)] == [True]


def test_build_of_another_session_is_awaited(table: Any, caplog: pytest.LogCaptureFixture) -> None:
    """While a backend builds the index, whose client may be dead, it is left to finish."""
    caplog.set_level("INFO", logger="ragstore")
    with old_snapshot(table):
        statement = "CREATE INDEX CONCURRENTLY item_a ON item (a)"
        orphan = Background(lambda: table.run(statement))
        until(table, WAITING)
        [(built, is_valid)] = table.run(STATE)
        assert not is_valid
        build = Background(lambda: table.online(ONLINE))
        until_logged(caplog, "waiting for another session to build")

    assert (orphan.join(), build.join()) == (None, None)
    assert table.run(STATE) == [(built, True)]


def until_logged(caplog: pytest.LogCaptureFixture, words: str) -> None:
    """Wait for a message."""
    deadline = time.monotonic() + 20
    while words not in caplog.text:
        assert time.monotonic() < deadline, caplog.text
        time.sleep(0.02)


SPELLINGS = {
    "plain": (["a"], {}, "(a)"),
    "expression": (
        [sa.text("lower( t )")],
        {"postgresql_where": sa.text("a>5 AND t!='%'")},
        "(lower(t)) WHERE a > 5 AND t <> '%'",
    ),
    "method": (
        [sa.text("to_tsvector('english', t)")],
        {"postgresql_using": "gin", "postgresql_with": {"fastupdate": "off"}},
        "USING gin (to_tsvector('english'::regconfig, t)) WITH (fastupdate=off)",
    ),
}


@pytest.mark.parametrize(("columns", "options", "by_hand"), SPELLINGS.values(), ids=SPELLINGS)
def test_same_index_is_kept(table: Any, columns: Any, options: Any, by_hand: str) -> None:
    """A valid index of the same definition, however it is written, is not built again."""
    table.run("CREATE INDEX item_a ON item " + by_hand)
    before = table.run(STATE)

    table.online(CreateIndexOnlineOp("item_a", "item", columns, **options))

    assert table.run(STATE) == before
    assert table.run("SELECT 1 FROM pg_class WHERE relname = 'item'") == [(1,)]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX item_a ON item (t)",
        "CREATE UNIQUE INDEX item_a ON item (a)",
        "CREATE INDEX item_a ON item (a) WHERE a > 1",
        "CREATE INDEX item_a ON other (a)",
    ],
)
def test_other_index_is_refused(table: Any, statement: str) -> None:
    """An index of that name that is another one is neither taken for it nor lost."""
    table.run("CREATE TABLE other (a int)", statement)
    before = table.catalog()

    with pytest.raises(MigrationError, match=r"another index of the name public\.item_a"):
        table.online(ONLINE)

    assert table.catalog() == before


def test_waits_without_limits_and_restores_them(table: Any) -> None:
    """The time limits of a session do not end a build, and hold again after it, failed or not."""
    found = []

    def upgrade(op: Operations) -> None:
        op.invoke(ONLINE)
        found.append(limits(op))
        op.execute("INSERT INTO item VALUES (1, '')")
        op.invoke(DropIndexOnlineOp("item_a"))
        found.append(limits(op))
        with pytest.raises(sa.exc.IntegrityError):
            op.invoke(UNIQUE)
        found.append(limits(op))

    with old_snapshot(table):
        options = "-c lock_timeout=300ms -c statement_timeout=5s"
        build = Background(lambda: table.within(upgrade, options))
        until(table, WAITING)
        time.sleep(0.5)

    assert build.join() is None
    assert found == [("300ms", "5s")] * 3


def limits(op: Operations) -> tuple[str, ...]:
    """Return the time limits of a session."""
    bind = op.get_bind()
    names = ("lock_timeout", "statement_timeout")
    return tuple(bind.exec_driver_sql(f"SHOW {name}").scalar_one() for name in names)


def test_drop_can_be_repeated(table: Any) -> None:
    """An index that is gone counts as dropped: the run before may have come that far."""
    table.online(ONLINE)

    table.online(DropIndexOnlineOp("item_a", "item", schema="public"))
    table.online(DropIndexOnlineOp("item_a", "item", schema="public"))

    assert table.run(STATE) == []


@pytest.mark.parametrize("operation", [ONLINE, DropIndexOnlineOp("item_a")], ids=["create", "drop"])
def test_transaction_of_the_caller(table: Any, operation: Any) -> None:
    """In a transaction that is not Alembic's to commit it is refused, and nothing is committed."""
    with table.engine().connect() as connection:
        connection.exec_driver_sql("INSERT INTO item VALUES (0, 'not committed')")
        context = MigrationContext.configure(connection)

        with (
            Operations.context(context) as op,
            pytest.raises(MigrationError, match="commit it before, or give the URL"),
        ):
            op.invoke(operation)

        connection.rollback()
    assert table.run("SELECT count(*) FROM item") == [(100,)]


def test_beside_the_migration_lock(table: Any) -> None:
    """A build ends while its migrator holds the lock and another one waits for it."""
    engine = table.engine()

    def migrate() -> None:
        with migration_lock(engine, "versions", wait=30):
            table.online(ONLINE)

    both = [Background(migrate), Background(migrate)]

    assert [each.join() for each in both] == [None, None]
    assert [is_valid for _, is_valid in table.run(STATE)] == [True]
