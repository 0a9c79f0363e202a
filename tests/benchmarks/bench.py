"""What the benchmarks of the store run on: a server of their own, and the store on it."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL

from ragstore.collection import CollectionInfo
from ragstore.connection import DatabaseConnection
from ragstore.driver import connect
from ragstore.embedded import EmbeddedServer
from ragstore.migrations import upgrade
from ragstore.space import Space
from ragstore.store import Store
from ragstore.testing.server import TestServer
from tests.benchmarks.machine import SHOWN, described, forget_settings

DATABASE = "ragstore_bench_test"

TUNED = {
    "shared_buffers": "2GB",  # all that is measured stays in memory
    "max_wal_size": "16GB",  # a checkpoint in one arm and not in the other would count for it
    "maintenance_work_mem": "1GB",
    "autovacuum": "off",  # it would run beside whichever arm comes next
    "jit": "off",
}
"""What the server of the benchmarks is told, as a production server of its size would be."""


@dataclass(frozen=True)
class Bench:
    """The server, the store on it, and a directory to write to.

    ``exact_limit`` is that of every space with an index, ragstore's own unless given.
    """

    url: URL
    connection: DatabaseConnection
    store: Store
    directory: Path
    header: list[str]
    exact_limit: int | None

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        """Open a psycopg connection as one writes it by hand: prepared statements, autocommit."""
        settled = {"autocommit": True, "prepare_threshold": 0, **options}
        return connect(self.url, **settled)

    async def connect_async(self) -> psycopg.AsyncConnection[Any]:
        """Open an async connection of the same kind."""
        from ragstore.driver import connect_async

        return await connect_async(self.url, autocommit=True, prepare_threshold=0)

    @property
    def libpq_url(self) -> str:
        """Return the URL with its password, for other processes."""
        return self.url.render_as_string(hide_password=False)

    def space(self, name: str, dimensions: int, *, has_index: bool = True) -> Space:
        """Make a space."""
        options: dict[str, Any] = {} if has_index else {"index": "none"}
        if has_index and self.exact_limit is not None:
            options["exact_limit"] = self.exact_limit
        options = known_options(self.store.create_space, **options)
        return self.store.create_space(name, model=name, dimensions=dimensions, **options)

    def collection(self, name: str, space: Space) -> CollectionInfo:
        """Make a collection."""
        return self.store.create_collection(name, space=space.name)

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement on a connection of its own, and return its rows."""
        with closing(self.connect()) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


def known_options(of: Callable[..., object], **options: Any) -> dict[str, Any]:
    """Return those options that this version of ragstore has."""
    known = inspect.signature(of).parameters
    return {name: value for name, value in options.items() if name in known}


@contextmanager
def prepared(exact_limit: int | None = None) -> Iterator[Bench]:
    """Yield a migrated database on a server in a temporary directory; it stops at the end."""
    with tempfile.TemporaryDirectory(prefix="ragstore-bench-") as directory:
        root = Path(directory)
        forget_settings(root)
        with EmbeddedServer(root / "data") as server:
            _tune(server.url("postgres"))
        with EmbeddedServer(root / "data") as server:
            at = TestServer.at(server.url(DATABASE))
            with closing(connect(at.url, autocommit=True)) as admin:
                admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
            url = server.url(DATABASE)
            upgrade(url)
            header = described(url, root / "data", at.versions, (*SHOWN, "max_wal_size"))
            with DatabaseConnection(url) as connection:
                yield Bench(url, connection, Store(connection), root, header, exact_limit)


def _tune(url: URL) -> None:
    with closing(connect(url, autocommit=True)) as admin:
        for name, value in TUNED.items():
            statement = sql.SQL("ALTER SYSTEM SET {} = {}")
            admin.execute(statement.format(sql.Identifier(name), sql.Literal(value)))
