"""Databases on a server whose settings a test may change: passwords, sockets, no ``postgres``."""

from __future__ import annotations

import shutil
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from time import sleep

import pytest
from sqlalchemy.engine import URL, make_url

from ragstore import exceptions
from ragstore.connection import DatabaseConnection, connect, resolve_url
from ragstore.database import clone_database, create_database, database_exists, drop_database
from ragstore.embedded import EmbeddedServer

# They open connections to a server that the test kit does not know.
pytestmark = pytest.mark.usefixtures("ragstore_server")


@pytest.fixture(scope="module")
def embedded_url() -> Iterator[str]:
    """Give the embedded:// URL of a new server that may hold prepared transactions."""
    directory = Path(tempfile.mkdtemp(prefix="ragstore"))
    server = EmbeddedServer(directory / "data")
    with server:
        run(server.url("postgres"), "ALTER SYSTEM SET max_prepared_transactions = 1")
        server.shutdown()
        yield f"embedded://{directory}/data?database=named"
        server.shutdown()
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def own_server(embedded_url: str) -> URL:
    """Give a superuser's URL of that server; it asks the role bob for a password."""
    resolved = resolve_url(embedded_url)
    rule = "local all bob scram-sha-256"
    count = "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'scram-sha-256'"
    with connect(resolved, autocommit=True) as connection:
        connection.execute("CREATE ROLE bob LOGIN CREATEDB PASSWORD 'a@b:c/d%e$ #='")
        rules = Path(connection.execute("SHOW hba_file").fetchall()[0][0])
        rules.write_text(f"{rule}\n{rules.read_text()}")
        assert connection.execute(count).fetchone() == (1,)
        connection.execute("SELECT pg_reload_conf()")
    for _ in range(100):  # the postmaster reads it when it gets the signal
        if not lets_in(resolved.set(username="bob")):
            return resolved
        sleep(0.02)
    raise AssertionError("the server never asked for the password")


def lets_in(url: URL) -> bool:
    """Tell whether the server lets the URL's user in."""
    try:
        connect(url).close()
    except exceptions.AuthenticationFailed:
        return False
    return True


def run(url: URL, *statements: str) -> None:
    """Run statements in a database, each in its own transaction."""
    with connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def test_the_password_decides(own_server: URL) -> None:
    """The right password is let in, whatever is in it; a wrong one or none is reported as that."""
    right = own_server.set(username="bob", password="a@b:c/d%e$ #=")
    with DatabaseConnection(right) as connection:
        connection.ping()
    assert database_exists(right.render_as_string(hide_password=False))
    for wrong in (
        own_server.set(username="bob", password="s3cret"),
        own_server.set(username="bob"),
    ):
        for ask in (DatabaseConnection(wrong).ping, lambda url=wrong: database_exists(url)):
            with pytest.raises(exceptions.AuthenticationFailed) as caught:
                ask()
            assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_socket_urls(own_server: URL) -> None:
    """The server's socket directory is taken as ?host= and, as libpq has it, for the host."""
    directory = str(own_server.query["host"])
    port = own_server.query["port"]
    for text in (
        f"postgresql://postgres@/named?host={directory}&port={port}",
        f"postgresql://postgres@{directory.replace('/', '%2F')}:{port}/named",
    ):
        assert database_exists(text) is True
        assert database_exists(text.replace("named", "other")) is False


def test_embedded_urls(own_server: URL, embedded_url: str) -> None:
    """The verbs take embedded:// URLs, ask about the named database, and make only that."""
    other = embedded_url.replace("named", "other")
    assert database_exists(embedded_url) is True
    assert database_exists(other) is False
    assert create_database(other) is True
    assert clone_database(other, "third").database == "third"
    assert drop_database(embedded_url.replace("named", "third")) is True
    assert drop_database(other) is True
    assert database_exists(other) is False


def test_a_server_without_postgres(own_server: URL) -> None:
    """Where postgres is missing or closed, template1 or the one named serves; then the target."""
    bob = make_url(own_server).set(username="bob", password="a@b:c/d%e$ #=")
    missing, named = bob.set(database="missing"), bob
    run(own_server, "DROP DATABASE postgres")
    assert database_exists(named) is True
    assert create_database(missing) is True
    assert drop_database(missing) is True
    with pytest.raises(exceptions.DatabaseNotFound) as caught:
        database_exists(named, maintenance_database="postgres")
    assert caught.value.database == "postgres"

    run(own_server, "REVOKE CONNECT ON DATABASE template1 FROM PUBLIC")
    assert database_exists(named) is True
    assert database_exists(missing) is False
    with pytest.raises(exceptions.PermissionDenied):
        create_database(missing)
    assert create_database(missing, maintenance_database="named") is True
    assert drop_database(missing, maintenance_database="named") is True

    run(own_server, "REVOKE CONNECT ON DATABASE named FROM PUBLIC")
    assert database_exists(named) is True  # closed to the role, so it is there
    with pytest.raises(exceptions.PermissionDenied):
        database_exists(missing, maintenance_database="named")


def test_a_prepared_transaction_is_in_the_way(own_server: URL) -> None:
    """What no one can end is named, after the five seconds that the server itself waits."""
    used = own_server.set(database="used")
    create_database(used, maintenance_database="named")
    run(used, "BEGIN", "CREATE TABLE t ()", "PREPARE TRANSACTION 'x'")
    try:
        with pytest.raises(exceptions.LockTimeout, match="prepared transaction"):
            drop_database(used, maintenance_database="named")
        with pytest.raises(exceptions.LockTimeout, match="prepared transaction"):
            clone_database(used, "copy", wait=0, maintenance_database="named")
    finally:
        run(used, "ROLLBACK PREPARED 'x'")
    assert drop_database(used, maintenance_database="named") is True
