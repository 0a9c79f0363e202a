"""What the settings make of a connection, as the server sees it."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL

from ragstore.conf import override_settings
from ragstore.connection import DatabaseConnection


def one(connection: DatabaseConnection, query: str) -> object:
    """Return the first value of a query."""
    with connection.transaction() as driver:
        row = driver.execute(query).fetchone()
    assert row is not None
    return row[0]


@override_settings(APPLICATION_NAME="mine", STATEMENT_TIMEOUT=1.5, POOLER="none")
def test_settings_reach_the_server(empty_database: URL) -> None:
    """Name and statement timeout hold for the session, and dead peers are noticed."""
    with DatabaseConnection(empty_database) as connection, connection.transaction() as driver:
        assert driver.info.get_parameters()["keepalives_idle"] == "30"
        assert driver.info.get_parameters()["connect_timeout"] == "10"
        query = "SELECT current_setting('application_name'), current_setting('statement_timeout')"
        assert driver.execute(query).fetchone() == ("mine", "1500ms")


@override_settings(APPLICATION_NAME="mine", STATEMENT_TIMEOUT=1.5, POOLER="none")
def test_the_url_wins_over_the_settings(empty_database: URL) -> None:
    """What the URL says itself is kept, and its options are added to."""
    options = {"application_name": "url", "options": "-c statement_timeout=7s -c work_mem=5MB"}
    with DatabaseConnection(empty_database.update_query_dict(options)) as connection:
        query = "SELECT concat_ws(' ', current_setting('application_name'),"
        query += " current_setting('statement_timeout'), current_setting('work_mem'))"
        assert one(connection, query) == "url 7s 5MB"


def test_the_callers_connect_args_win(empty_database: URL) -> None:
    """connect_args are merged over ours."""
    args = {"application_name": "caller"}
    with DatabaseConnection(empty_database, connect_args=args) as connection:
        assert one(connection, "SELECT current_setting('application_name')") == "caller"


@pytest.mark.parametrize(("pooler", "prepared"), [("none", True), ("transaction", False)])
def test_statements_are_prepared_only_without_a_pooler(
    empty_database: URL, pooler: str, prepared: bool
) -> None:
    """Behind a transaction pooler nothing is left in a session."""
    with override_settings(POOLER=pooler), DatabaseConnection(empty_database) as connection:
        for _ in range(3):
            with connection.transaction() as driver:
                for _ in range(5):
                    driver.execute("SELECT %s::int", (1,))
        count = one(connection, "SELECT count(*) FROM pg_prepared_statements")
        assert bool(count) is prepared


@override_settings(POOLER="transaction", STATEMENT_TIMEOUT=1.5)
def test_behind_a_pooler_the_timeout_is_the_transactions(empty_database: URL) -> None:
    """The timeout holds in sessions and transactions, and is not in the session after them."""
    show = "SELECT current_setting('statement_timeout')"
    with DatabaseConnection(empty_database) as connection:
        assert one(connection, show) == "1500ms"
        with connection.session() as session:
            assert session.connection().execute(text(show)).one() == ("1500ms",)
        with connection.transaction() as driver:
            assert "options" not in driver.info.get_parameters()
        with connection.engine.connect() as pooled:
            raw: Any = pooled.connection.driver_connection
            assert raw.execute(show).fetchone() == ("0",)


@override_settings(POOLER="transaction", STATEMENT_TIMEOUT=1.5)
async def test_behind_a_pooler_the_timeout_is_the_async_transactions(empty_database: URL) -> None:
    """The async engine limits its transactions too."""
    show = "SELECT current_setting('statement_timeout')"
    async with DatabaseConnection(empty_database) as connection:
        async with connection.async_transaction() as driver:
            assert await (await driver.execute(show)).fetchone() == ("1500ms",)
        async with connection.async_session() as session:
            assert (await (await session.connection()).execute(text(show))).scalar_one() == "1500ms"
