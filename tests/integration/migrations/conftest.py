"""The databases of the matrix."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.engine import URL

from ragstore.driver import connect
from tests.matrix.databases import Bench


@pytest.fixture(scope="module")
def bench(server_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Yield a maker of databases.

    A server that this run has made, and throws away, need not wait for the disk.
    """
    with connect(server_url, autocommit=True) as connection:
        (directory,) = connection.execute("SHOW data_directory").fetchall()[0]
        if str(directory).startswith(str(tmp_path_factory.getbasetemp().resolve())):
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
    bench = Bench(server_url)
    yield bench
    bench.close()
