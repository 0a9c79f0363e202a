"""Databases cloned on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy.engine import URL

from ragstore import exceptions
from ragstore.connection import connect
from ragstore.database import clone_database, create_database, drop_database


@pytest.fixture
def url(server_url: URL) -> Iterator[URL]:
    """Give the URL of a database that does not exist, and drop what a test made of it."""
    own = server_url.set(database=f"ragstore_database_{uuid4().hex[:8]}")
    yield own
    drop_database(own, missing_ok=True)


def run(url: URL, *statements: str) -> object:
    """Run statements in a database; return the first value of the last, if it gives rows."""
    with connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
    return row and row[0]


@pytest.mark.parametrize("strategy", [None, "file_copy", "wal_log"])
def test_clone_is_equal_to_its_source(url: URL, strategy: Any) -> None:
    """Rows, sequences and indexes are the source's, and what happens next is the clone's own."""
    create_database(url)
    run(
        url,
        "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, b text UNIQUE)",
        "INSERT INTO t (b) SELECT 'row ' || n FROM generate_series(1, 1000) AS n",
    )
    copy = clone_database(url, f"{url.database}_copy", strategy=strategy)
    try:
        digest = "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM t"
        catalog = "SELECT string_agg(indexdef, ';' ORDER BY 1) FROM pg_indexes WHERE tablename='t'"
        for query in (digest, catalog):
            assert run(copy, query) == run(url, query)
        assert run(copy, "INSERT INTO t (b) VALUES ('new') RETURNING id") == 1001
        assert run(url, "SELECT count(*) FROM t") == 1000
    finally:
        drop_database(copy)


def test_clone_takes_a_url_on_the_same_server(url: URL) -> None:
    """A target URL gives its database; another server or a strange strategy is refused."""
    create_database(url)
    target = url.set(database=f"{url.database}_copy")
    copy = clone_database(url, target.render_as_string(hide_password=False))
    assert copy == target
    with pytest.raises(exceptions.DatabaseExists):
        clone_database(url, copy)
    drop_database(copy)
    with pytest.raises(exceptions.InvalidInput, match="two servers"):
        clone_database(url, target.set(host="elsewhere"))
    with pytest.raises(exceptions.InvalidInput, match="strategy"):
        clone_database(url, "x", strategy="fast; DROP TABLE x")  # type: ignore[arg-type]  # wrong


def test_clone_of_a_missing_source(url: URL) -> None:
    """DatabaseNotFound names the source."""
    with pytest.raises(exceptions.DatabaseNotFound) as caught:
        clone_database(url, "ragstore_copy")
    assert caught.value.database == url.database


def test_clone_waits_for_sessions_or_ends_them_if_asked(url: URL) -> None:
    """A session on the source is waited for and named; terminate ends it."""
    create_database(url)
    copy = url.set(database=f"{url.database}_copy")
    with closing(connect(url, autocommit=True, application_name="holder")) as session:
        with pytest.raises(exceptions.LockTimeout, match="holder"):
            clone_database(url, copy, wait=0.05)
        session.execute("SELECT 1")
        with ThreadPoolExecutor(1) as thread:
            cloning = thread.submit(clone_database, url, copy)
            session.close()
            assert cloning.result() == copy
        drop_database(copy)
    with closing(connect(url, autocommit=True)) as session:
        assert clone_database(url, copy, wait=0, terminate=True) == copy
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    drop_database(copy)


def test_many_clone_one_source_at_once(url: URL) -> None:
    """Workers that clone the same template at once all get their copy."""
    create_database(url)
    names = [f"{url.database}_{number}" for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        copies = list(threads.map(lambda name: clone_database(url, name), names))
        assert all(threads.map(drop_database, copies))
