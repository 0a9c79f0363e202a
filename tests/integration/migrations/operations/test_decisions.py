"""What stops a revision, or leaves something alone: decisions, schemas in use, extensions."""

from __future__ import annotations

from typing import Any

import pytest

from ragstore.exceptions import DecisionNeeded, ExtensionMissing, QueryFailed
from ragstore.migrations.operations import (
    DropSchemaIfEmptyOp,
    EnsureExtensionOp,
    EnsureSchemaOp,
    RequireDecisionOp,
)

QUESTION = "item.status loses 'it''s': what do its rows get?"
ADVICE = "op.execute(\"UPDATE item SET status = '%' WHERE status = ':a'\")"
SETUP = (
    'CREATE SCHEMA "My-Rag"',
    'CREATE TABLE "My-Rag"."Order" (id int, status text)',
    """INSERT INTO "My-Rag"."Order" VALUES (1, '100% :a'), (2, '100% :b')""",
)


def decision(where: str, advice: str | None = None) -> RequireDecisionOp:
    """Return a decision about the rows of the table."""
    return RequireDecisionOp(QUESTION, "Order", where, schema="My-Rag", advice=advice)


@pytest.fixture
def table(workbench: Any) -> Any:
    """Return the workbench with a table of two rows."""
    workbench.reset(*SETUP)
    return workbench


@pytest.mark.parametrize("way", ["online", "written", "script"])
def test_goes_on_without_rows(table: Any, way: str) -> None:
    """Where no row satisfies the condition, a revision goes on."""
    getattr(table, way)(decision("status LIKE '$do$%:c' OR id % 5 = 3"), EnsureSchemaOp("next"))

    assert "schema next" in table.catalog()


DECIDE = "Decide it in the revision: write"
STOPPED = {
    "escapes": (
        r"status LIKE '100\%% :%'",
        None,
        (
            r"My-Rag.Order where status LIKE '100\%% :%': 2). "
            f"{DECIDE} before this line what makes the values, then run it again."
        ),
    ),
    "advice": (
        "id = 2",
        ADVICE,
        (
            f"My-Rag.Order where id = 2: 1). {DECIDE} before this line what makes the values,"
            f" for example:\n{ADVICE}\nThen run it again."
        ),
    ),
    "always": (
        "",
        None,
        f"My-Rag.Order: 2). {DECIDE} in place of this line what is to be done, then run it again.",
    ),
}


@pytest.mark.parametrize(("where", "advice", "words"), STOPPED.values(), ids=STOPPED)
def test_rows_stop_it(table: Any, where: str, advice: str | None, words: str) -> None:
    """Rows end the revision with the question, their number and the remedy; it is rolled back."""
    message = f"{QUESTION} (rows of {words} Nothing was changed."
    before = table.catalog()
    operations = (EnsureSchemaOp("before"), decision(where, advice), EnsureSchemaOp("after"))

    for run in (table.online, table.written):
        with pytest.raises(DecisionNeeded) as caught:
            run(*operations)
        assert str(caught.value) == message
        assert (caught.value.question, caught.value.table) == (QUESTION, "My-Rag.Order")
    assert table.catalog() == before
    with pytest.raises(QueryFailed) as failed:
        table.script(*operations)
    assert message in str(failed.value)


def test_empty_condition_stops_without_rows(table: Any) -> None:
    """A decision without a condition does not depend on rows."""
    table.run('DELETE FROM "My-Rag"."Order"')

    with pytest.raises(DecisionNeeded, match=r"Order: 0\)"):
        table.online(decision(""))
    with pytest.raises(QueryFailed, match=r"Order: 0\)"):
        table.script(decision(""))


def test_locks_nobody_out(table: Any) -> None:
    """Nothing stronger than the lock of a reader is taken."""
    modes: list[Any] = []

    def upgrade(op: Any) -> None:
        op.invoke(decision("id > 5"))
        locks = 'SELECT mode FROM pg_locks WHERE relation = \'"My-Rag"."Order"\'::regclass'
        modes.extend(op.get_bind().exec_driver_sql(locks).scalars())

    table.within(upgrade)

    assert modes == ["AccessShareLock"]


def test_reverse_does_nothing(table: Any) -> None:
    """A downgrade asks nothing, and its function is a whole one."""
    before = table.catalog()

    for run in (table.online, table.written, table.script):
        run(decision("").reverse(), EnsureExtensionOp("vector").reverse())

    assert table.catalog() == before


@pytest.mark.parametrize("way", ["online", "written", "script"])
def test_schema_in_use_stays(table: Any, way: str) -> None:
    """A schema with something in it is not dropped; ensuring it twice is no error."""
    before = table.catalog()

    getattr(table, way)(DropSchemaIfEmptyOp("My-Rag"), DropSchemaIfEmptyOp("none"))
    assert table.catalog() == before
    getattr(table, way)(EnsureSchemaOp("My-Rag"))

    assert table.catalog() == before


def test_schema_of_somebody_else(table: Any) -> None:
    """A role that may not create schemas passes where the schema is there."""
    table.run("CREATE ROLE may_not_create")
    try:
        table.within(
            lambda op: [op.execute("SET ROLE may_not_create"), op.invoke(EnsureSchemaOp("My-Rag"))]
        )
    finally:
        table.run("DROP ROLE may_not_create")


@pytest.mark.parametrize("way", ["online", "written", "script"])
@pytest.mark.parametrize("name", ["unaccent", "uuid-ossp"])
def test_extension_of_any_version(table: Any, way: str, name: str) -> None:
    """An extension other than pgvector is made as it is, under a name that must be quoted too."""
    table.run(f'DROP EXTENSION IF EXISTS "{name}"')
    if not table.run(f"SELECT 1 FROM pg_available_extensions WHERE name = '{name}'"):
        pytest.skip(f"the server does not have {name}")

    getattr(table, way)(EnsureExtensionOp(name))
    table.online(EnsureExtensionOp(name))

    assert table.run(f"SELECT 1 FROM pg_extension WHERE extname = '{name}'") == [(1,)]


def test_extension_that_the_server_lacks(table: Any) -> None:
    """The message names what brings extensions of PostgreSQL's own."""
    with pytest.raises(ExtensionMissing, match=r"extension no_such: install .*postgresql-contrib"):
        table.online(EnsureExtensionOp("no_such"))
