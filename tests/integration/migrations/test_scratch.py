"""The copy of the models that they are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError
from sqlmodel import SQLModel

from ragstore.exceptions import CouldNotCompare
from ragstore.migrations import rebuild, scratch
from ragstore.models import TABLES
from ragstore.testing.plugin import NewDatabase
from tests.integration.migrations import rich
from tests.integration.migrations.support import (
    ITEM,
    Unknown,
    comparable,
    connected,
    differences,
    engine_of,
    left_behind,
    placed,
    without_given,
)


def settings(connection: sa.Connection) -> dict[str, str]:
    """Return every setting of the session."""
    rows = connection.exec_driver_sql("SELECT name, setting FROM pg_settings")
    return {row.name: row.setting for row in rows}


@pytest.fixture(scope="module")
def rich_models() -> list[sa.MetaData]:
    """Return models with one of everything, and ragstore's own."""
    return [*rich.models(), SQLModel.metadata]


@pytest.fixture(scope="module")
def rich_database(
    ragstore_new_database: NewDatabase, rich_models: list[sa.MetaData]
) -> Iterator[URL]:
    """Yield the URL of a database that create_all has made from the rich models."""
    url = ragstore_new_database(empty=True)
    rich.create(engine_of(url), rich_models)
    yield url
    ragstore_new_database.drop(url)


# --- the models and the database agree ---------------------------------------------------------


def test_create_all_and_the_copy_agree(rich_database: URL, rich_models: list[sa.MetaData]) -> None:
    """What create_all has made is read as what the models are: no difference anywhere."""
    with connected(rich_database) as connection, scratch.opened(connection) as bench:
        wanted = bench.build(rich_models)
        found = bench.read()

    assert differences(comparable(wanted), without_given(found)) == []
    assert len(wanted.tables) == 16
    assert wanted.schemas == {"rag", "Mixed Case"}
    assert wanted.extensions == {"vector", "btree_gist"}
    assert found.extensions == {"vector", "btree_gist", "plpgsql"}
    assert wanted.others == found.others == ()
    assert not any("ragstore_scratch" in repr(each) for each in (wanted, found))


def test_text_read_once_more_agrees(rich_database: URL, rich_models: list[sa.MetaData]) -> None:
    """Rebuilt from their own text, both are still equal, and nothing but text has changed."""
    with connected(rich_database) as connection, scratch.opened(connection) as bench:
        wanted = bench.build(rich_models)
        found = bench.read()
        of_models = bench.rebuild_models(wanted.tables)
        of_database = bench.rebuild(found, found.tables)

    assert differences(of_models, of_database) == []
    changed = differences(found.tables, of_database)
    assert len(changed) == 4
    assert all("character varying" in line and "_check]" in line for line in changed)


@pytest.mark.parametrize("setup", ["nothing", "transaction", "savepoint", "autocommit"])
def test_the_connection_is_left_as_it_was(
    setup: str, rich_database: URL, rich_models: list[sa.MetaData]
) -> None:
    """Work of the caller's transaction is kept, its settings too, and nothing else is there."""
    level = "AUTOCOMMIT" if setup == "autocommit" else "READ COMMITTED"
    with engine_of(rich_database).connect().execution_options(isolation_level=level) as connection:
        if setup in ("transaction", "savepoint"):
            connection.exec_driver_sql("CREATE TABLE mine (id int)")
            connection.exec_driver_sql("SET LOCAL lock_timeout = '7s'")
        if setup == "savepoint":
            connection.begin_nested()
        before = settings(connection)
        if setup in ("nothing", "autocommit"):
            connection.rollback()
        state = connection.in_transaction(), connection.in_nested_transaction()

        with scratch.opened(connection) as bench:
            bench.build(rich_models)
            bench.rebuild(bench.read(), [ITEM])
            assert left_behind(connection) != []

        assert (connection.in_transaction(), connection.in_nested_transaction()) == state
        after = settings(connection)
        assert {name: after[name] for name in before} == before  # an extension adds its own
        assert left_behind(connection) == []
        kept = connection.exec_driver_sql("SELECT to_regclass('mine')").scalar()
        assert kept == ("mine" if setup in ("transaction", "savepoint") else None)


def test_events_are_not_fired(empty_database: URL) -> None:
    """What listens to the tables' creation is not called, and the models are not changed."""
    metadata = sa.MetaData()
    key = sa.ForeignKeyConstraint(["other_id"], ["item.id"], name="key", use_alter=True)
    table = sa.Table(
        "item",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("other_id", sa.Integer),
        sa.Column("kind", sa.Enum("a", name="kind")),
        key,
    )
    fired: list[str] = []
    for name in ("before_create", "after_create"):
        sa.event.listen(table, name, lambda *_, **__: fired.append("table"))
        sa.event.listen(metadata, name, lambda *_, **__: fired.append("metadata"))
    before = {name: vars(key)[name] for name in vars(key)}

    with connected(empty_database) as connection, scratch.opened(connection) as bench:
        wanted = bench.build([metadata])

    assert fired == []
    assert {name: vars(key)[name] for name in vars(key)} == before
    assert set(wanted.tables[ITEM].constraints) == {"item_pkey", "key"}


def test_a_timeout_is_set_where_there_is_none(empty_database: URL) -> None:
    """A lock is waited for 5 s inside, or as long as the session says."""
    with connected(empty_database) as connection:
        for mine, inside in (("0", "5s"), ("9s", "9s")):
            connection.exec_driver_sql(f"SET lock_timeout = '{mine}'")
            with scratch.opened(connection):
                assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == inside
            assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == mine


# --- what is asked for -------------------------------------------------------------------------


def test_only_what_is_needed_is_in_the_result(
    rich_database: URL, rich_models: list[sa.MetaData]
) -> None:
    """A table asked for brings its types; those it refers to are made, and not in the result."""
    child = rich_models[0].tables["child"]
    other = rich_models[1].tables["rag.item"]

    with connected(rich_database) as connection, scratch.opened(connection) as bench:
        wanted = bench.build(rich_models, [child, other])
        found = bench.read()
        rebuilt = bench.rebuild_models([(None, "child")])

    names = [(None, "child"), ("rag", "item")]
    assert sorted(wanted.tables, key=str) == sorted(names, key=str)
    assert [differences(wanted.tables[name], found.tables[name]) for name in names] == [[], []]
    assert rebuilt == {names[0]: found.tables[names[0]]}
    # Those of no table are in it too; that of "item", which was made for the keys, is not.
    assert set(wanted.enums) == {(None, "unused"), ("rag", "status"), ("rag", "power")}
    assert set(wanted.domains) == set()
    assert set(wanted.sequences) == {("rag", "numbers"), (None, "item_number")}
    assert wanted.routines == {}


def test_a_table_of_another_metadata_is_reached(empty_database: URL) -> None:
    """A foreign key to a table of a MetaData that is not given is built and compared."""
    target = sa.Table("target", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
    metadata = sa.MetaData()
    sa.Table("item", metadata, sa.Column("target_id", sa.ForeignKey(target.c.id)))

    with connected(empty_database) as connection, scratch.opened(connection) as bench:
        wanted = bench.build([metadata])

    assert set(wanted.tables) == {ITEM}
    key = wanted.tables[ITEM].constraints["item_target_id_fkey"]
    assert (key.refers_to, key.rests_on) == ((None, "target"), "target_pkey")


def test_a_database_without_anything(empty_database: URL) -> None:
    """Before the first migration extensions are made, and are gone with the rest."""
    models = [*rich.models()[:1], SQLModel.metadata]
    item = models[0].tables["item"]
    needed = [*TABLES, models[0].tables["vectors"], models[0].tables["many"]]

    with connected(empty_database) as connection:
        with scratch.opened(connection) as bench:
            wanted = bench.build(models, needed)
            found = bench.read()
        left = connection.exec_driver_sql("SELECT extname FROM pg_extension").scalars().all()

    assert item not in needed
    assert wanted.extensions == {"vector", "btree_gist"}
    assert wanted.tables[None, "vectors"].columns["half"].type == "halfvec(3)"
    assert wanted.tables[None, "vectors"].columns["several"].type == "vector(2)[]"
    assert found.tables == {}
    assert found.extensions == {"plpgsql"}
    assert left == ["plpgsql"]


def test_extensions_that_the_models_name(empty_database: URL) -> None:
    """An extension in ``metadata.info`` is made before anything else, and is wanted."""
    metadata = sa.MetaData(info={"extensions": ["citext", "pg_trgm"]})
    sa.Table(
        "item",
        metadata,
        sa.Column("name", pg.CITEXT),
        sa.Index("ix", "name", postgresql_using="gin", postgresql_ops={"name": "gin_trgm_ops"}),
    )

    with connected(empty_database) as connection, scratch.opened(connection) as bench:
        wanted = bench.build([metadata])

    assert wanted.extensions == {"citext", "pg_trgm"}
    assert wanted.tables[ITEM].columns["name"].type == "citext"


# --- schemas and the search path ---------------------------------------------------------------


PATHS = [
    ("public", "public"),
    ("rag", "public"),
    ("rag", "public, rag"),
    ("rag", "rag, public"),
    (None, "rag, public"),
    ("public", "rag, public"),
    (None, "rag"),
]


@pytest.mark.parametrize(("schema", "path"), PATHS, ids=[f"{s} in {p}" for s, p in PATHS])
def test_any_search_path(schema: str | None, path: str, empty_database: URL) -> None:
    """The models' schema may be the default one, or anywhere on the search path, or not at all."""
    metadata = placed(schema)
    prepare = "CREATE SCHEMA IF NOT EXISTS rag"
    with connected(empty_database, prepare, f"SET search_path = {path}") as connection:
        metadata.create_all(connection)
        connection.commit()
        with scratch.opened(connection) as bench:
            wanted = bench.build([metadata])
            found = bench.read()
            key = bench.key(next(iter(metadata.tables.values())))
            forms = bench.rebuild_models([key]), bench.rebuild(found, [key])

    default = path.partition(",")[0]
    assert key == (None if schema in (None, default) else schema, "item")
    assert differences(comparable(wanted), comparable(found)) == []
    assert differences(*forms) == []


def test_an_extension_that_is_not_on_the_path(empty_database: URL) -> None:
    """Its types are found wherever it is, and printed without a schema on both sides."""
    metadata = rich.models()[0]
    vectors = metadata.tables["vectors"]
    statements = "CREATE SCHEMA extensions", "CREATE EXTENSION vector SCHEMA extensions"
    with connected(empty_database, *statements) as connection:
        connection.exec_driver_sql("SET LOCAL search_path = public, extensions")
        vectors.create(connection)
        connection.exec_driver_sql("SET search_path = public")
        connection.commit()
        with scratch.opened(connection) as bench:
            wanted = bench.build([metadata], [vectors])
            found = bench.read()

    assert differences(wanted.tables, found.tables) == []
    assert wanted.tables[None, "vectors"].columns["full"].type == "vector(3)"


def test_names_written_with_their_schema(empty_database: URL) -> None:
    """Text in a model may name its own schema, though nothing is in that schema yet."""
    metadata = placed("rag")
    table = metadata.tables["rag.item"]
    default = sa.text("'b'::rag.kind")
    table.append_column(
        sa.Column("other", sa.Enum("a", "b", name="kind", schema="rag"), server_default=default)
    )
    table.append_column(
        sa.Column("next", sa.Integer, server_default=sa.text("""nextval('"rag".number')"""))
    )
    with connected(empty_database) as connection:
        with scratch.opened(connection) as bench:
            first = bench.build([metadata])
        connection.exec_driver_sql("CREATE SCHEMA rag")
        metadata.create_all(connection)
        with scratch.opened(connection) as bench:
            second = bench.build([metadata])
            found = bench.read()

    assert first.tables["rag", "item"].columns["other"].default == "'b'::rag.kind"
    assert differences(comparable(first), comparable(found)) == []
    assert (
        differences(
            second.tables["rag", "item"].columns["other"],
            found.tables["rag", "item"].columns["other"],
        )
        == []
    )


# --- locks and accidents -----------------------------------------------------------------------


LOCKS = """
SELECT DISTINCT mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
WHERE c.relnamespace = 'public'::regnamespace AND l.pid <> pg_backend_pid()
"""


@pytest.mark.parametrize("is_broken", [False, True])
def test_no_lock_on_the_tables_of_others(
    is_broken: bool, rich_database: URL, rich_models: list[sa.MetaData]
) -> None:
    """Meanwhile others read and write, and change tables that are not being looked at.

    Even if a table cannot be made, its indexes and keys never reach the user's of that name.
    """
    models = rich.models()[:1] if is_broken else rich_models
    if is_broken:
        models[0].tables["item"].append_column(sa.Column("unknown", Unknown()))
    with (
        connected(rich_database) as connection,
        connected(rich_database) as watcher,
        scratch.opened(connection) as bench,
    ):
        with pytest.raises(CouldNotCompare) if is_broken else nullcontext():
            bench.build(models)
        found = bench.read()
        bench.rebuild(found, found.tables)
        held = set(watcher.exec_driver_sql(LOCKS).scalars())

    assert held <= {"AccessShareLock"}


def test_a_connection_that_is_lost(rich_database: URL, rich_models: list[sa.MetaData]) -> None:
    """The server forgets what a lost connection has built, and the error is the connection's."""
    with connected(rich_database) as connection, connected(rich_database) as other:
        with pytest.raises(OperationalError):
            _build_and_lose(connection, other, rich_models)

        assert left_behind(other) == []


def _build_and_lose(
    connection: sa.Connection, other: sa.Connection, models: list[sa.MetaData]
) -> None:
    with scratch.opened(connection) as bench:
        bench.build(models)
        backend = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        other.exec_driver_sql(f"SELECT pg_terminate_backend({backend}, 5000)")
        bench.read()


def test_an_error_of_the_caller(empty_database: URL) -> None:
    """Whatever is raised inside passes, and all is undone."""
    with connected(empty_database) as connection:
        with pytest.raises(KeyError, match="mine"), scratch.opened(connection) as bench:
            raise KeyError("mine", bench.build([placed(None)]))

        assert not connection.in_transaction()
        assert left_behind(connection) == []


def test_definitions_of_foreign_keys(rich_database: URL) -> None:
    """A definition put together from facts is the server's own."""
    more = (
        "ALTER TABLE child ADD CONSTRAINT late FOREIGN KEY (a) REFERENCES item (id) MATCH FULL"
        " ON DELETE SET DEFAULT (a) DEFERRABLE INITIALLY DEFERRED NOT VALID"
    )
    with connected(rich_database) as connection:
        connection.exec_driver_sql(more)
        with scratch.opened(connection) as bench:
            tables = bench.read([None, "rag", "Mixed Case"]).tables.values()
            names = rebuild.names_in(tables, [])
            quoted = scratch.catalog.quoted(connection, names)
        connection.rollback()

    keys = [key for table in tables for key in table.constraints.values() if key.kind == "f"]
    assert len(keys) > 15
    for key in keys:
        assert rebuild.definition(key, quoted.__getitem__) == key.definition
