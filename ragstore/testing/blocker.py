"""Keeps a test that asked for no database from opening one.

Registered as a plugin where the ini option ``ragstore_block_database`` is on. It watches the
engines of every DatabaseConnection made from then on; engines of other origin are not its affair.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

DATABASE_FIXTURES = (
    "ragstore_server",
    "ragstore_database",
    "ragstore_new_database",
    "ragstore_engine",
    "db_connection",
    "db_session",
    "db_async_session",
    "db_service",
    "db_fresh",
    "assert_uses_index",
)
"""The fixtures of the kit that reach a database; one that depends on one of them counts too."""

_MESSAGE = (
    "this test opens a DatabaseConnection but asked for no database fixture: ask for db_connection,"
    " db_session, db_async_session or db_service (rolled back after the test), or for db_fresh (a"
    " database of its own)"
)


class Blocker:
    """The pytest plugin; between two tests nothing is blocked."""

    def __init__(self) -> None:
        self._is_blocked = False
        self._patches = pytest.MonkeyPatch()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        """Watch the engines that are made from now on, as by the modules to be collected."""
        from ragstore import connection

        self._patches.setattr(
            connection.DatabaseConnection,
            "_watch",
            self._watching(connection.DatabaseConnection._watch),  # noqa: SLF001 - ours
        )
        for name in ("connect", "connect_async"):  # what it opens outside of its pools
            self._patches.setattr(connection, name, self._checking(getattr(connection, name)))

    def pytest_unconfigure(self) -> None:
        """Leave DatabaseConnection as it was."""
        self._patches.undo()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Block while a test without a database fixture is set up, run and torn down."""
        self._is_blocked = not _has_database(getattr(item, "fixturenames", ()))
        try:
            return (yield)
        finally:
            self._is_blocked = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """Let a test go on that asks for a database by ``request.getfixturevalue()``."""
        if _has_database([fixturedef.argname]):
            self._is_blocked = False

    def _watching(self, watch: Callable[..., None]) -> Callable[..., None]:
        def watch_and_check(connection: Any, engine: Engine) -> None:
            from sqlalchemy import event

            watch(connection, engine)
            # "checkout" too: the pool of an engine may be full from an earlier test.
            for moment in ("do_connect", "checkout"):
                event.listen(engine, moment, self._check)

        return watch_and_check

    def _checking(self, connect: Callable[..., Any]) -> Callable[..., Any]:
        def check_and_connect(*arguments: Any, **options: Any) -> Any:
            self._check()
            return connect(*arguments, **options)

        return check_and_connect

    def _check(self, *_: object) -> None:
        if self._is_blocked:
            pytest.fail(_MESSAGE)  # not an Exception: the code under test may catch those


def _has_database(names: Iterable[str]) -> bool:
    return not set(DATABASE_FIXTURES).isdisjoint(names)
