"""The tests of migrations that the kit ships, on histories that are right, or wrong somewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event
from sqlalchemy.engine import URL

from ragstore.database import create_database, drop_database
from ragstore.models import SPACES
from ragstore.testing import migrations, revisions
from ragstore.types import verbatim

pytest_plugins = ["pytester"]

MODELS = """
from sqlalchemy import BigInteger, Column, Enum, ForeignKey, Index, MetaData, String, Table, func
from ragstore.models import COLLECTIONS

metadata = MetaData()
note = Table(
    "note",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("title", String(40)),
    Column("kind", Enum("short", "long", name="note_kind")),
)
Index("note_title_idx", note.c.title)
"""
ENV = """
from alembic import context
from sqlalchemy import create_engine, pool

import models
from ragstore.migrations import configure_options

url = context.config.get_main_option("sqlalchemy.url")
options = configure_options(models.metadata, include_schemas=True)
if context.is_offline_mode():
    context.configure(url=url, literal_binds=True, **options)
    with context.begin_transaction():
        context.run_migrations()
else:
    with create_engine(url, poolclass=pool.NullPool).connect() as connection:
        context.configure(connection=connection, **options)
        with context.begin_transaction():
            context.run_migrations()
"""
HEADER = "import sqlalchemy as sa\nfrom alembic import context, op\n"
# Revisions by id: the parent, the docstring, and the bodies of the two functions.
History = dict[str, tuple[object, str, str, str]]
SHORT: History = {
    "1_note": (
        None,
        "Make the notes.",
        """op.create_table("note", sa.Column("id", sa.BigInteger, primary_key=True),
            sa.Column("title", sa.String(40)),
            sa.Column("kind", sa.Enum("short", "long", name="note_kind")))""",
        'op.drop_table("note"); op.execute("DROP TYPE note_kind")',
    ),
    "2_index": (
        "1_note",
        "Index the titles.\n\nRevises: 1_note",
        'op.create_index("note_title_idx", "note", ["title"])',
        'op.drop_index("note_title_idx", "note")',
    ),
}
LONG: History = {
    "1_note": SHORT["1_note"],
    "2_index": (
        "1_note",
        "Index the titles, concurrently.",
        """with op.get_context().autocommit_block():
        op.create_index("note_title_idx", "note", ["title"], postgresql_concurrently=True)""",
        'op.drop_index("note_title_idx", "note")',
    ),
    "3_side": (
        "1_note",
        "Make the tags, in a schema of their own.",
        """op.execute("CREATE SCHEMA side")
    op.create_table("tag", sa.Column("id", sa.BigInteger, primary_key=True), schema="side")
    op.execute("COMMENT ON TABLE side.tag IS 'it''s; $$quoted'")""",
        'op.drop_table("tag", schema="side"); op.execute("DROP SCHEMA side")',
    ),
    "4_merge": (("2_index", "3_side"), "Bring both together.", "pass", "pass"),
    "5_link": (
        "4_merge",
        "Refer to the collections.",
        'op.execute("CREATE TABLE link (collection bigint REFERENCES ragstore_collection (id))")',
        'op.drop_table("link")',
    ),
}
MORE_MODELS = """
Table("tag", metadata, Column("id", BigInteger, primary_key=True), schema="side",
    comment="it's; $$quoted")
Table("link", metadata, Column("collection", ForeignKey(COLLECTIONS.c.id)))
"""
TESTS = "from ragstore.testing.migrations import *\n"
# Two databases for all runs, emptied each time: making one takes longer than testing in it.
QUICK = """
from pathlib import Path
import pytest
from sqlalchemy import make_url, text
from ragstore.driver import connect
from ragstore.testing.revisions import MigrationHistory

@pytest.fixture(scope="session")
def ragstore_new_database():
    class Make:
        free = [make_url(url) for url in {urls!r}]
        def __call__(self, *, empty=False):
            return self.free.pop()
        def drop(self, url):
            with connect(url, autocommit=True) as connection:
                connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
            self.free.append(url)
    make = Make()
    yield make
    assert len(make.free) == 2, "a database was not given back"

@pytest.fixture(scope="session")
def migration_histories(pytestconfig):
    return [MigrationHistory("the notes", pytestconfig.rootpath / "alembic.ini")]

@pytest.fixture
def migration_seed(migration_seed):
    def seed(connection, revision):
        migration_seed(connection, revision)  # the kit's: it does nothing without our tables
        if connection.scalar(text("SELECT to_regclass('note')")):
            connection.execute(text("INSERT INTO note (title) VALUES (NULL), ('x'), ('x')"))
    return seed
"""
EMPTY, DATA = "goes_up_and_down", "goes_up_and_down_with_data"


def write_history(root: Path, history: History, models: str = MODELS) -> None:
    """Write a host's Alembic project."""
    versions = root / "migrations" / "versions"
    versions.mkdir(parents=True)
    (root / "alembic.ini").write_text(
        "[alembic]\nscript_location = %(here)s/migrations\nprepend_sys_path = %(here)s\n"
        "path_separator = os\n"
    )
    (root / "models.py").write_text(models)
    (root / "migrations" / "env.py").write_text(ENV)
    for name, (parent, said, up, down) in history.items():
        (versions / f"{name}.py").write_text(
            f"'''{said}'''\n{HEADER}revision = {name!r}\ndown_revision = {parent!r}\n"
            f"def upgrade():\n    {up}\ndef downgrade():\n    {down}\n"
        )


def shown(url: URL) -> str:
    """Return a URL as an option takes it."""
    return url.render_as_string(hide_password=False)


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run the project's tests, every warning an error."""
    quiet = [f"-pno:{name}" for name in ("cacheprovider", "asyncio", "anyio", "hypothesispytest")]
    return pytester.runpytest_inprocess("-W", "error", "-rA", "--tb=native", *quiet, *arguments)


def failed(result: pytest.RunResult) -> set[str]:
    """Return the tests that failed, by what they say of revisions."""
    lines = [line for line in result.outlines if line.startswith("FAILED ")]
    names = {line.split(" - ")[0].rpartition("::")[2] for line in lines}
    return {name.removeprefix("test_").removeprefix("every_revision_") for name in names}


def test_a_good_host_passes_all(pytester: pytest.Pytester, rag_test: URL) -> None:
    """A branch and a merge, a type, a schema, a concurrent index, a reference to our tables."""
    write_history(pytester.path, LONG, MODELS + MORE_MODELS)
    pytester.makeini("[pytest]\nragstore_migrations = alembic.ini\n")
    pytester.makepyfile(TESTS)

    run(pytester, f"--ragstore-db={shown(rag_test)}").assert_outcomes(passed=7)


# Revisions that are wrong, the tests that fail, and lines of their messages.
Defect = tuple[History, set[str], list[str]]
FILES = {"there_is_one_head", "has_a_docstring", "has_a_downgrade"}
DEFECTS: Mapping[str, Defect] = {
    "files": (
        {
            "2_other": ("1_note", "Revision ID: 2_other\nRevises: 1_note", "pass", "pass"),
            "3_data": ("2_index", "Fill in.", 'op.execute("UPDATE note SET title = id")', "'none'"),
        },
        FILES,
        [
            "the notes has 2 newest revisions (2_other, 3_data), not one: merge them*",
            "the notes: no docstring says what these do: 2_other.py",
            "the notes: the downgrade of these does nothing: 3_data.py",
        ],
    ),
    "forgetful downgrade": (
        {
            "2_index": (
                *SHORT["2_index"][:2],
                f"""{SHORT["2_index"][2]}; op.execute("CREATE TYPE mood AS ENUM ('sad', 'so')")""",
                'op.execute("SELECT 1")',
            )
        },
        {EMPTY, DATA},
        [
            "the notes: revision 2_index, downgrade from empty: the schema before it is not given*",
            "  - too much: enum mood (sad, so)",
            "  - too much: index note_title_idx (CREATE INDEX note_title_idx ON note *title*)",
            "the notes: revision 2_index, downgrade with data: the schema before it is not given*",
        ],
    ),
    "downgrade that fails on data": (
        {
            "3_null": (
                "2_index",
                "Let titles be missing.",
                'op.execute("SELECT 1")',
                """op.alter_column("note", "title", nullable=False)
    op.alter_column("note", "title", nullable=True)""",
            )
        },
        {DATA},
        [
            "*: revision 3_null, downgrade with data failed in line 9 of 3_null.py: *null values*",
        ],
    ),
    "upgrade that fails": (
        {"3_error": ("2_index", "Fail.", 'op.execute("SELECT 1/0")', 'op.execute("SELECT 1")')},
        {EMPTY, DATA, "models_equal_migrations", "offline_sql_equals_online"},
        [
            "*: revision 3_error, upgrade from empty failed in line 7 of 3_error.py: DataError: *",
        ],
    ),
    "another model": (
        {
            "3_more": (
                "2_index",
                "Add what no model has.",
                'op.add_column("note", sa.Column("extra", sa.Text))',
                'op.drop_column("note", "extra")',
            )
        },
        {"models_equal_migrations"},
        [
            "the notes: the migrations do not make what the models say",
            "  - column note.extra is not in the models",
        ],
    ),
    "offline is not online": (
        {
            "2_index": (
                *SHORT["2_index"][:2],
                'context.is_offline_mode() or op.create_index("note_title_idx", "note", ["title"])',
                SHORT["2_index"][3],
            )
        },
        {"offline_sql_equals_online"},
        [
            "the notes: the SQL of `upgrade --sql` makes another schema",
            "  - missing: index note_title_idx (*",
        ],
    ),
}


@pytest.fixture(scope="module")
def two_databases(server_url: URL) -> Iterator[list[str]]:
    """Yield the URLs of two databases without tables."""
    urls = [server_url.set(database=f"notes_{uuid4().hex[:8]}_test") for _ in range(2)]
    for url in urls:
        create_database(url)
    yield [shown(url) for url in urls]
    for url in urls:
        drop_database(url)


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_fails_the_right_test(
    pytester: pytest.Pytester, two_databases: list[str], defect: str
) -> None:
    """Each defect fails the tests that are about it and no other, and the message names it."""
    changes, expected, message = DEFECTS[defect]
    write_history(pytester.path, SHORT | changes)
    pytester.makeconftest(QUICK.format(urls=two_databases))
    pytester.makepyfile(TESTS)

    result = run(pytester)

    assert failed(result) == expected
    for line in message:
        result.stdout.fnmatch_lines([line.replace("[", "[[]")])


# --- ragstore's own history --------------------------------------------------------------------

OURS = revisions.MigrationHistory("ragstore")


def test_create_all_that_makes_more(ragstore_new_database: Any) -> None:
    """What create_all() makes beyond our migrations is named."""
    more = verbatim("CREATE TABLE more ()")
    event.listen(SPACES, "after_create", more)
    try:
        with pytest.raises(
            pytest.fail.Exception, match=r"create_all.. makes\n.*missing: table more"
        ):
            migrations.test_models_equal_migrations([OURS], ragstore_new_database)
    finally:
        event.remove(SPACES, "after_create", more)


def test_script_that_writes_no_version(ragstore_new_database: Any) -> None:
    """A script that makes the schema but not the version is told apart."""

    class Forgetful(revisions.MigrationHistory):
        def sql(self, url: URL, revision: str = "heads") -> str:
            return super().sql(url, revision).replace("INSERT INTO ragstore_alembic", "--")

    with pytest.raises(pytest.fail.Exception, match=r"- at revisions \[\], not \['0002_"):
        migrations.test_offline_sql_equals_online([Forgetful("ragstore")], ragstore_new_database)


def test_many_differences_are_counted(ragstore_new_database: Any) -> None:
    """A message names twelve differences, and says how many more there are."""

    class Empty(revisions.MigrationHistory):
        def check(self, url: URL) -> list[str]:
            return [f"difference {n}" for n in range(20)]

    with pytest.raises(pytest.fail.Exception, match=r"difference 11\n  ... and 8 more$"):
        migrations.test_models_equal_migrations([Empty("ragstore")], ragstore_new_database)
