"""Tests of a history of migrations, to import into a test module of yours.

One line for all of them, or for each::

    from ragstore.testing.migrations import *

They test the histories that the ini option ``ragstore_migrations`` names, on databases in which
ragstore's own migrations ran before; without one, ragstore's own history. Each may be imported by
itself, and the two fixtures be overridden in a conftest.py: ``migration_seed`` for rows in tables
of yours, ``migration_histories`` for others (``ragstore.testing.revisions.MigrationHistory``).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.engine import URL

    from ragstore.testing.plugin import NewDatabase
    from ragstore.testing.revisions import Catalog, MigrationHistory, Revision

# The fixtures are not among them: imported into a module, they would hide those of a conftest.py.
__all__ = [
    "test_every_revision_goes_up_and_down",
    "test_every_revision_goes_up_and_down_with_data",
    "test_every_revision_has_a_docstring",
    "test_every_revision_has_a_downgrade",
    "test_models_equal_migrations",
    "test_offline_sql_equals_online",
    "test_there_is_one_head",
]

_SHOWN = 12  # differences that a message names


# --- fixtures ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def migration_histories(pytestconfig: pytest.Config) -> Sequence[MigrationHistory]:
    """Return the histories that the tests of migrations test."""
    from ragstore.testing.revisions import histories_of

    return histories_of(pytestconfig.getini("ragstore_migrations"), pytestconfig.rootpath)


@pytest.fixture(scope="session")
def migration_seed() -> Callable[[Connection, str], object]:
    """Return what inserts rows after each upgrade: ``seed(connection, revision)``.

    It is called twice at each revision, in a transaction that is committed. This one
    fills ragstore's own tables; one of yours that fills other tables may call it too.
    """
    return seed_ragstore


def seed_ragstore(connection: Connection, revision: str) -> None:
    """Insert a row into each of ragstore's tables, if they are there, with a partition."""
    from sqlalchemy import text

    if connection.scalar(text("SELECT to_regclass('ragstore_embedding')")) is None:
        return
    name = f"{revision} {uuid4().hex[:8]}"
    space = connection.scalar(text(_SPACE), {"name": name})
    connection.execute(
        text(
            f"CREATE TABLE ragstore_embedding_{space} PARTITION OF ragstore_embedding"
            f" (CHECK (vector_dims(vector) = 3)) FOR VALUES IN ({space})"
        )
    )
    connection.execute(text(_ROWS), {"name": name, "space": space})


# Written out, with as few columns as it takes: the models of today do not fit an older revision.
_SPACE = """
INSERT INTO ragstore_embedding_space (name, model, dimensions)
VALUES (:name, 'a model', 3) RETURNING id
"""
_ROWS = """
WITH collection AS (
  INSERT INTO ragstore_collection (name, space_id) VALUES (:name, :space) RETURNING id
), document AS (
  INSERT INTO ragstore_document (collection_id, key) SELECT id, 'a page' FROM collection
  RETURNING collection_id, id
), chunk AS (
  INSERT INTO ragstore_chunk (collection_id, document_id, ordinal, text)
  SELECT collection_id, id, 0, 'a passage' FROM document RETURNING collection_id, id
)
INSERT INTO ragstore_embedding (collection_id, chunk_id, space_id, vector)
SELECT collection_id, id, :space, '[1,2,3]' FROM chunk
"""


# --- the files ---------------------------------------------------------------------------------


def test_there_is_one_head(migration_histories: Sequence[MigrationHistory]) -> None:
    """Exactly one revision has no child: ``alembic upgrade head`` knows where to go."""
    for history in migration_histories:
        heads = history.heads()
        if len(heads) != 1:
            _fail(
                f"{history.name} has {len(heads)} newest revisions ({', '.join(heads)}), not one:"
                " merge them with `alembic merge heads`, or rebase one on the other"
            )


def test_every_revision_has_a_docstring(migration_histories: Sequence[MigrationHistory]) -> None:
    """Each revision says what it does, beside the ids that Alembic writes."""
    for history in migration_histories:
        bare = [revision.path.name for revision in history.revisions() if not revision.docstring()]
        if bare:
            _fail(f"{history.name}: no docstring says what these do: {', '.join(bare)}")


def test_every_revision_has_a_downgrade(migration_histories: Sequence[MigrationHistory]) -> None:
    """Each revision that upgrades something also downgrades something."""
    for history in migration_histories:
        one_way = [
            revision.path.name
            for revision in history.revisions()
            if revision.does("upgrade") and not revision.does("downgrade")
        ]
        if one_way:
            _fail(f"{history.name}: the downgrade of these does nothing: {', '.join(one_way)}")


# --- up and down -------------------------------------------------------------------------------


def test_every_revision_goes_up_and_down(
    migration_histories: Sequence[MigrationHistory], ragstore_new_database: NewDatabase
) -> None:
    """Each revision goes up, down to the schema before, and up again, in an empty database."""
    for history in migration_histories:
        with _prepared(history, ragstore_new_database) as url:
            _Walk(history, url).run()


def test_every_revision_goes_up_and_down_with_data(
    migration_histories: Sequence[MigrationHistory],
    ragstore_new_database: NewDatabase,
    migration_seed: Callable[[Connection, str], object],
) -> None:
    """Each revision goes up, down to the schema before, and up again, its tables having rows."""
    for history in migration_histories:
        with _prepared(history, ragstore_new_database) as url:
            _Walk(history, url, migration_seed).run()


class _Walk:
    """Takes a database through a history, each step up, down and up again."""

    def __init__(
        self,
        history: MigrationHistory,
        url: URL,
        seed: Callable[[Connection, str], object] | None = None,
    ) -> None:
        self._history, self._url, self._seed = history, url, seed
        self._state = "with data" if seed else "from empty"

    def run(self) -> None:
        """Fail at the first step that cannot be done, or gives another schema than it should."""
        from ragstore.testing.revisions import read_schemas

        before = read_schemas(self._url)
        for revision in self._history.revisions():
            self._up(revision, "upgrade")
            after = read_schemas(self._url)
            with self._told(revision, "downgrade"):
                self._history.downgrade(self._url, revision)
            self._compare(revision, before, "downgrade", "the schema before it is not given back")
            self._up(revision, "second upgrade")
            self._compare(revision, after, "second upgrade", "the schema is not the first one's")
            before = after

    def _up(self, revision: Revision, step: str) -> None:
        from ragstore.testing.revisions import opened

        with self._told(revision, step):
            self._history.upgrade(self._url, revision.id)
        if self._seed:
            with self._told(revision, f"seed after the {step}"), opened(self._url) as connection:
                self._seed(connection, revision.id)
                connection.commit()

    def _compare(self, revision: Revision, expected: Catalog, step: str, problem: str) -> None:
        from ragstore.testing.revisions import differences, read_schemas

        lines = differences(expected, read_schemas(self._url))
        if lines:
            _fail(f"{self._place(revision, step)}: {problem}", lines)

    @contextmanager
    def _told(self, revision: Revision, step: str) -> Iterator[None]:
        problem = ""
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - whatever a migration raises
            problem = f"{_line_of(exc, revision)}: {type(exc).__name__}: {exc}"
        if problem:  # outside of the except: pytest would show the error twice more
            _fail(f"{self._place(revision, step)} failed{problem}")

    def _place(self, revision: Revision, step: str) -> str:
        return f"{self._history.name}: revision {revision.id}, {step} {self._state}"


def _line_of(error: Exception, revision: Revision) -> str:
    frames = reversed(traceback.extract_tb(error.__traceback__))
    lines = [frame.lineno for frame in frames if Path(frame.filename) == revision.path]
    return f" in line {lines[0]} of {revision.path.name}" if lines else ""


# --- models and SQL ----------------------------------------------------------------------------


def test_models_equal_migrations(
    migration_histories: Sequence[MigrationHistory], ragstore_new_database: NewDatabase
) -> None:
    """``alembic check`` finds nothing after an upgrade to the newest revision.

    Of ragstore's own history, create_all() gives the same schema to the letter.
    """
    for history in migration_histories:
        with _prepared(history, ragstore_new_database) as url:
            history.upgrade(url)
            lines = history.check(url)
            if lines:
                _fail(f"{history.name}: the migrations do not make what the models say", lines)
            if history.ini is None:
                _compare_created(history, url, ragstore_new_database)


def _compare_created(history: MigrationHistory, url: URL, make: NewDatabase) -> None:
    from sqlmodel import SQLModel

    from ragstore.models import TABLES
    from ragstore.testing.revisions import differences, opened, read_schemas

    with _dropped(make) as other:
        with opened(other) as connection:
            SQLModel.metadata.create_all(connection, tables=list(TABLES))
            connection.commit()
        lines = differences(read_schemas(other), read_schemas(url))
    if lines:
        _fail(f"{history.name}: the migrations do not make what create_all() makes", lines)


def test_offline_sql_equals_online(
    migration_histories: Sequence[MigrationHistory], ragstore_new_database: NewDatabase
) -> None:
    """The script of ``alembic upgrade head --sql``, run by itself, makes the same schema."""
    from ragstore.testing.history import revisions_in
    from ragstore.testing.revisions import differences, read_schemas, run_script

    for history in migration_histories:
        with (
            _prepared(history, ragstore_new_database) as online,
            _prepared(history, ragstore_new_database) as offline,
        ):
            history.upgrade(online)
            run_script(offline, history.sql(offline))
            lines = differences(read_schemas(online), read_schemas(offline))
            if revisions_in(online) != revisions_in(offline):
                lines.append(f"at revisions {revisions_in(offline)}, not {revisions_in(online)}")
        if lines:
            _fail(f"{history.name}: the SQL of `upgrade --sql` makes another schema", lines)


# --- how ---------------------------------------------------------------------------------------


@contextmanager
def _prepared(history: MigrationHistory, make: NewDatabase) -> Iterator[URL]:
    """Lend an empty database in which ran what stands before the history."""
    with _dropped(make) as url:
        history.prepare(url)
        yield url


@contextmanager
def _dropped(make: NewDatabase) -> Iterator[URL]:
    url = make(empty=True)
    try:
        yield url
    finally:
        make.drop(url)


def _fail(message: str, lines: Sequence[str] = ()) -> None:
    shown = [f"  - {line}" for line in lines[:_SHOWN]]
    if len(lines) > _SHOWN:
        shown.append(f"  ... and {len(lines) - _SHOWN} more")
    pytest.fail("\n".join([message, *shown]), pytrace=False)
