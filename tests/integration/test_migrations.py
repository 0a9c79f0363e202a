"""The migrations as functions: where they lead, and which database they change."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel

from ragstore import migrations
from ragstore.conf import override_settings
from ragstore.connection import VERSION_TABLE, connect
from ragstore.exceptions import (
    MigrationNotApplied,
    MultipleHeads,
    QueryFailed,
    SchemaBehind,
    UnknownRevision,
)
from ragstore.models import DEFAULT_EXACT_LIMIT, TABLES
from ragstore.testing.catalog import read_catalog

HEAD = migrations.history()[0].id
INI = Path(__file__).parents[2] / "alembic.ini"
COLUMNS = text(
    "SELECT attrelid::regclass::text, array_agg(attname ORDER BY attnum) FROM pg_attribute"
    " WHERE attrelid::regclass::text LIKE 'ragstore%' AND attnum > 0 AND NOT attisdropped"
    " AND attrelid IN (SELECT oid FROM pg_class WHERE relkind IN ('r', 'p'))"
    " AND attrelid::regclass::text <> 'ragstore_alembic_version' GROUP BY 1 ORDER BY 1"
)


def opened(url: URL) -> Connection:
    """Open a connection outside every pool; it rolls back when it is closed."""
    return create_engine(url, poolclass=NullPool).connect()


def catalog(url: URL) -> dict[str, str]:
    """Return the definitions in a database, but for Alembic's own table."""
    with opened(url) as connection:
        found = read_catalog(connection)
    return {name: text for name, text in found.items() if VERSION_TABLE not in name}


def run(url: URL, *statements: str) -> list[Any]:
    """Run statements and return the last one's rows."""
    with connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def tables(url: URL) -> set[str]:
    """Return the names of the tables of a database."""
    return {
        name for (name,) in run(url, "SELECT tablename FROM pg_tables WHERE schemaname='public'")
    }


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a copy of the migrations that the functions then use."""
    copy = tmp_path / "alembic"
    shutil.copytree(migrations.script_location(), copy, ignore=shutil.ignore_patterns("__pyc*"))
    monkeypatch.setattr(migrations, "script_location", lambda: copy)
    return copy


def add_revision(checkout: Path, name: str, body: str = "pass") -> None:
    """Add a revision after the first one."""
    (checkout / "versions" / f"{name}_x.py").write_text(
        f'"""X.\n\nRevision: {name}\nRevises: {HEAD}\n"""\n\nfrom alembic import op\n\n'
        f'revision = "{name}"\ndown_revision = "{HEAD}"\n\n\n'
        f"def upgrade() -> None:\n    {body}\n\n\ndef downgrade() -> None:\n    pass\n"
    )


# --- there and back ---------------------------------------------------------------------------


def test_up_down_up(empty_database: URL) -> None:
    """Up, down and up again: the same catalog; what others own stays, the extension too."""
    run(
        empty_database,
        "CREATE TABLE host (id int PRIMARY KEY)",
        "CREATE TABLE alembic_version (version_num text)",
    )
    before = catalog(empty_database)

    migrations.upgrade(empty_database)
    first = catalog(empty_database)
    assert migrations.current(empty_database) == (HEAD,)
    migrations.downgrade(empty_database, "base")
    assert catalog(empty_database) == before
    assert migrations.current(empty_database) == ()
    assert run(empty_database, "SELECT 1 FROM pg_extension WHERE extname = 'vector'") == [(1,)]
    migrations.upgrade(empty_database)

    assert catalog(empty_database) == first
    assert first.keys() > before.keys()


def test_downgrade_takes_rows_and_partitions(database: URL) -> None:
    """Going to base drops what is in the tables; one step back is the default."""
    run(
        database,
        "CREATE TABLE ragstore_embedding_7 PARTITION OF ragstore_embedding FOR VALUES IN (7)",
        "INSERT INTO ragstore_collection (name) VALUES ('c')",
    )

    migrations.downgrade(database)
    assert "ragstore_embedding_7" in tables(database)
    migrations.downgrade(database, "base")

    assert tables(database) == {VERSION_TABLE}


def test_spaces_beyond_the_index_are_given_none(database: URL) -> None:
    """Upgrading spaces of an earlier release leaves none with an index that cannot be built."""
    migrations.downgrade(database, "0001_67eb18")
    run(
        database,
        "INSERT INTO ragstore_embedding_space (name, model, dimensions)"
        " VALUES ('wide', 'm', 4001), ('usual', 'm', 4000)",
    )

    migrations.upgrade(database)

    assert run(
        database, "SELECT name, index_type, exact_limit FROM ragstore_embedding_space ORDER BY id"
    ) == [("wide", "none", DEFAULT_EXACT_LIMIT), ("usual", "halfvec", DEFAULT_EXACT_LIMIT)]


def test_migrated_is_created(database: URL, empty_database: URL) -> None:
    """The migrations and create_all make the same catalog, down to the order of columns."""
    engine = create_engine(empty_database, poolclass=NullPool)
    SQLModel.metadata.create_all(engine, tables=list(TABLES))

    assert catalog(database) == catalog(empty_database)
    assert len(catalog(database)) > 60
    with opened(database) as migrated, opened(empty_database) as created:
        assert migrated.execute(COLUMNS).all() == created.execute(COLUMNS).all()


def test_offline_is_online(database: URL, empty_database: URL) -> None:
    """The SQL of an upgrade, applied by hand, makes what the upgrade makes; and back."""
    script, back = io.StringIO(), io.StringIO()
    migrations.upgrade(sql=script)
    migrations.downgrade(revision=f"{HEAD}:base", sql=back)

    run(empty_database, script.getvalue())
    assert catalog(empty_database) == catalog(database)
    migrations.check(empty_database)
    run(empty_database, back.getvalue())
    assert tables(empty_database) == {VERSION_TABLE}


def test_upgrade_at_head_changes_nothing(database: URL) -> None:
    """Upgrading again does nothing."""
    before = catalog(database)

    migrations.upgrade(database)

    assert catalog(database) == before


# --- which database ---------------------------------------------------------------------------


@pytest.fixture
def other(server_url: URL) -> URL:
    """Give the URL of a database that must not be asked: it does not exist."""
    return server_url.set(database="ragstore_no_such_database")


SOURCES = ["argument", "text", "ini", "migration setting", "setting"]


@pytest.mark.parametrize("source", SOURCES)
def test_url_precedence(empty_database: URL, other: URL, source: str) -> None:
    """The nearest URL names the database: what stands behind it is not asked."""
    chosen = SOURCES.index(source)
    urls = [empty_database if n == chosen else other for n in range(len(SOURCES))]
    with override_settings(
        DATABASE_URL=urls[4], MIGRATION_DATABASE_URL=urls[3] if chosen < 4 else None
    ):
        if source == "argument":
            migrations.upgrade(urls[0])
        elif source == "text":
            migrations.upgrade(urls[1].render_as_string(hide_password=False))
        elif source == "ini":
            config = Config(str(INI))
            shown = urls[2].render_as_string(hide_password=False)
            config.set_main_option("sqlalchemy.url", shown.replace("%", "%%"))
            command.upgrade(config, "head")
        else:
            migrations.upgrade()

    assert migrations.current(empty_database) == (HEAD,)


def test_url_with_percent_in_password(empty_database: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password with every awkward character survives an argument and the ini text."""
    url = empty_database.set(password="p%40@:/$=# %%")
    monkeypatch.setenv("DB_DATABASE_URL", "postgresql://nobody@localhost:1/nowhere")
    config = Config(str(INI))
    shown = url.render_as_string(hide_password=False)
    config.set_main_option("sqlalchemy.url", shown.replace("%", "%%"))

    command.upgrade(config, "head")
    migrations.check(url)


def test_caller_owns_the_transaction(empty_database: URL) -> None:
    """On a connection of the caller's, everything is in his transaction: he may roll it back."""
    with opened(empty_database) as connection:
        with connection.begin() as transaction:
            migrations.upgrade(connection=connection)
            assert migrations.current(connection=connection) == (HEAD,)
            migrations.check(connection=connection)
            transaction.rollback()
        assert migrations.current(connection=connection) == ()
        assert not connection.in_transaction()
    assert tables(empty_database) == set()


def test_connection_comes_first(empty_database: URL, other: URL) -> None:
    """A connection wins over every URL, and what it commits stays."""
    with opened(empty_database) as connection, connection.begin():
        config = migrations.make_config(other, connection=connection)
        command.upgrade(config, "head")

    assert migrations.current(empty_database) == (HEAD,)


# --- revisions that are not there ----------------------------------------------------------------


@pytest.mark.parametrize("function", [migrations.upgrade, migrations.downgrade, migrations.check])
def test_database_of_a_newer_version(database: URL, function: Any) -> None:
    """A revision that the code does not have is named, with the remedy, by every function."""
    run(database, f"UPDATE {VERSION_TABLE} SET version_num = '9999_abcdef'")
    before = catalog(database)

    with pytest.raises(UnknownRevision, match=r"9999_abcdef.*pip install -U ragstore") as caught:
        function(database)

    assert caught.value.revision == "9999_abcdef"
    assert migrations.current(database) == ("9999_abcdef",)
    assert catalog(database) == before


@pytest.mark.parametrize("target", ["nonsense", "ffff", "0002_abcdef"])
@pytest.mark.parametrize("function", [migrations.upgrade, migrations.downgrade])
def test_unknown_target(ragstore_database: URL, function: Any, target: str) -> None:
    """A target that does not exist is refused by its name."""
    with pytest.raises(UnknownRevision, match=f"no revision '{target}'.*migrate history") as caught:
        function(ragstore_database, target)

    assert caught.value.revision == target
    assert migrations.current(ragstore_database) == (HEAD,)


# --- other histories --------------------------------------------------------------------------


def test_two_heads(checkout: Path, empty_database: URL) -> None:
    """Two newest revisions are refused before anything is changed; either can be named."""
    add_revision(checkout, "0002_aaaaaa")
    add_revision(checkout, "0002_bbbbbb")

    with pytest.raises(MultipleHeads, match="alembic merge heads") as caught:
        migrations.upgrade(empty_database)
    assert set(caught.value.heads) == {"0002_aaaaaa", "0002_bbbbbb"}
    assert tables(empty_database) == set()

    migrations.upgrade(empty_database, "0002_aaaaaa")
    assert migrations.current(empty_database) == ("0002_aaaaaa",)
    migrations.upgrade(empty_database, "heads")
    assert set(migrations.current(empty_database)) == {"0002_aaaaaa", "0002_bbbbbb"}

    config = migrations.make_config(empty_database)
    command.merge(config, "heads", message="Both", rev_id="0003_cccccc")
    migrations.upgrade(empty_database)
    newest = migrations.history()[0]
    assert (newest.id, newest.is_head) == ("0003_cccccc", True)
    assert set(newest.parents) == {"0002_aaaaaa", "0002_bbbbbb"}


def test_failure_keeps_what_went_before(checkout: Path, empty_database: URL) -> None:
    """Each revision is a transaction: one that fails is undone, those before it stay."""
    add_revision(checkout, "0002_aaaaaa", 'op.execute("SELECT 1 FROM ragstore_no_such")')

    with pytest.raises(QueryFailed, match="ragstore_no_such"):
        migrations.upgrade(empty_database)

    assert migrations.current(empty_database) == (HEAD,)
    with pytest.raises(SchemaBehind):
        migrations.check(empty_database)


def test_lost_transaction_is_noticed(checkout: Path, empty_database: URL) -> None:
    """An env.py that loses the transaction does not pass for a success."""
    (checkout / "env.py").write_text(
        "from alembic import context\nfrom ragstore.migrations import runner\n"
        "url = runner.migration_url(context.config)\n"
        "with runner.connected(url) as connection:\n"
        "    connection.exec_driver_sql('SET lock_timeout = 1000')\n"
        "    options = runner._our_options(context.config)\n"
        "    context.configure(connection=connection, **options)\n"
        "    with context.begin_transaction():\n"
        "        context.run_migrations()\n"
    )

    with pytest.raises(MigrationNotApplied, match=f"is at none and not at {HEAD}"):
        migrations.upgrade(empty_database)


# --- new revisions ----------------------------------------------------------------------------


def test_revision_without_a_change(checkout: Path, ragstore_database: URL) -> None:
    """Autogenerate writes no file when the models and the database agree."""
    assert migrations.revision("nothing", url=ragstore_database) is None
    assert len(list((checkout / "versions").glob("*.py"))) == len(migrations.history())


def test_revision(checkout: Path, database: URL) -> None:
    """A difference becomes a numbered file that runs up and down."""
    run(
        database,
        "DROP INDEX ragstore_chunk_metadata_idx",
        "ALTER TABLE ragstore_document DROP COLUMN title",
        "CREATE TABLE ragstore_embedding_7 PARTITION OF ragstore_embedding FOR VALUES IN (7)",
        "CREATE TABLE host (id int)",
    )
    before = catalog(database)

    path = migrations.revision("Give it back", url=database)

    assert path is not None
    assert path.parent == checkout / "versions"
    assert re.fullmatch(r"0003_[0-9a-f]{6}_give_it_back\.py", path.name)
    assert "ragstore_embedding_7" not in path.read_text()
    assert "host" not in path.read_text()
    migrations.upgrade(database)
    migrations.check(database)
    migrations.downgrade(database)
    assert catalog(database) == before


def test_empty_revision(checkout: Path, ragstore_database: URL) -> None:
    """Without autogenerate an empty revision is written, numbered after numbered ones only."""
    add_revision(checkout, "9999ffffffff")

    path = migrations.revision("By hand", autogenerate=False, url=ragstore_database)

    assert path is not None
    assert re.fullmatch(r"0003_[0-9a-f]{6}_by_hand\.py", path.name)
    assert path.read_text().count("    pass\n") == 2
