"""Where the models cannot be built, and what is said of it."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError
from sqlmodel import SQLModel

from ragstore.migrations import scratch
from ragstore.models import TABLES
from ragstore.types import Function, function
from tests.integration.migrations import rich
from tests.integration.migrations.support import (
    ITEM,
    Unknown,
    broken,
    comparable,
    compared,
    connected,
    differences,
    left_behind,
    placed,
    problems,
    role,
    without_given,
)

# --- rights ------------------------------------------------------------------------------------


def test_a_role_that_may_make_no_schema(empty_database: URL) -> None:
    """The copy stands in the session's temporary schema, and is compared as exactly."""
    metadata = rich.models()[0]
    for name in ("vectors", "heir", "parents", "passing"):
        metadata.remove(metadata.tables[name])
    for index in metadata.tables["item"].indexes:
        index.dialect_options["postgresql"]["concurrently"] = False
    preparation = "CREATE EXTENSION btree_gist; CREATE TYPE given AS ENUM ('x')"
    with (
        connected(empty_database, preparation),
        role(empty_database, "TEMPORARY") as url,
        connected(url, "CREATE TEMPORARY TABLE another (id int)") as connection,
    ):
        metadata.create_all(connection)
        wanted, found, *forms = compared(connection, [metadata])
        assert left_behind(connection) == ["another"]

    assert differences(comparable(wanted), without_given(found)) == []
    assert differences(*forms) == []
    assert wanted.tables[None, "fast"].unlogged
    assert wanted.routines


def test_a_temporary_copy_of_a_named_schema(empty_database: URL) -> None:
    """Tables of a schema with a name are compared as well: their keys are printed with it."""
    first, second = sa.MetaData(), sa.MetaData(schema="rag")
    target = sa.Table("target", second, sa.Column("id", sa.Integer, primary_key=True))
    sa.Table("item", first, sa.Column("id", sa.ForeignKey(target.c.id)))
    sa.Table("part", second, sa.Column("id", sa.ForeignKey("rag.target.id")), sa.Index("ix", "id"))
    with role(empty_database, "TEMPORARY") as url:
        with connected(empty_database, f"CREATE SCHEMA rag AUTHORIZATION {url.username}"):
            pass
        with connected(url) as connection:
            second.create_all(connection)
            first.create_all(connection)
            wanted, found, *forms = compared(connection, [first, second])

    assert set(wanted.tables) == {ITEM, ("rag", "target"), ("rag", "part")}
    assert differences(comparable(wanted), comparable(found)) == []
    assert differences(*forms) == []


def test_what_the_temporary_schema_cannot_hold(empty_database: URL) -> None:
    """One schema cannot hold a type of another, nor two tables of one name."""
    models = [placed("rag"), placed(None)]
    with role(empty_database, "TEMPORARY") as url, connected(url) as connection:
        told = problems(connection, models)

    assert [problem.partition(":")[0] for problem in told] == ["rag.kind", "rag.number", "item"]
    assert all("GRANT CREATE ON DATABASE" in problem for problem in told)


def test_a_function_that_only_the_models_have(empty_database: URL) -> None:
    """No function is found in the temporary schema: the message says what it takes."""
    metadata = sa.MetaData()
    table = sa.Table("item", metadata, sa.Column("a", sa.Text, sa.Computed("fold('x')")))
    function(table, "fold", [("t", "text")], "text", "SELECT t")
    with role(empty_database, "TEMPORARY") as url, connected(url) as connection:
        (problem,) = problems(connection, [metadata])

    assert "function fold(unknown) does not exist" in problem
    assert problem.endswith("ask for GRANT CREATE ON DATABASE, or compare with a role that has it")


def test_a_role_that_may_make_nothing(empty_database: URL) -> None:
    """Without the right to temporary tables, too, the message names the grant."""
    with role(empty_database) as url, connected(url) as connection:
        (problem,) = problems(connection, [placed(None)])

    assert problem.endswith(f"GRANT TEMPORARY ON DATABASE {url.database} TO {url.username}")


def test_a_transaction_that_may_only_read(empty_database: URL) -> None:
    """A standby or read-only session is told so."""
    with connected(empty_database) as connection:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        (problem,) = problems(connection, [placed(None)])

    assert "cannot execute CREATE SCHEMA in a read-only transaction" in problem
    assert "connect to the primary server" in problem


# --- what cannot be built ----------------------------------------------------------------------


BROKEN = [
    (
        broken(a=sa.Column("a", Unknown())),
        r"table item, at 'a unheard_of': type \"unheard_of\" does not exist \(a type of yours",
    ),
    (
        broken(a=sa.Column("a", sa.Text, sa.Computed("nothing(id)"))),
        r"table item, at .*: function nothing\(integer\) does not exist .*ragstore.types.function",
    ),
    (
        broken(a=sa.Index("ix", sa.text("nothing"))),
        r"index ix of table item: column \"nothing\" does not exist",
    ),
    (
        broken(a=sa.Column("a", sa.ForeignKey("nowhere.id"))),
        r"foreign key \(a\) of table item: .*nowhere.* import the models",
    ),
    (broken(a=sa.Column("a")), r"table item: .*can't compile|table item: .*NullType"),
    (
        broken(a=sa.Column("a", pg.ENUM("x", name="kind", schema="rag", create_type=False))),
        r"type rag.kind: ",
    ),
    (
        broken(a=sa.CheckConstraint("id > (SELECT 1)")),
        r"table item, at 'CHECK .*': cannot use subquery in check constraint",
    ),
]


@pytest.mark.parametrize(("metadata", "message"), BROKEN, ids=[row[1][:30] for row in BROKEN])
def test_what_cannot_be_built_is_named(
    metadata: sa.MetaData, message: str, empty_database: URL
) -> None:
    """The message names the object, has the server's words and, where known, the remedy.

    What uses the object cannot be built either, and is named after it.
    """
    with connected(empty_database) as connection:
        told = problems(connection, [metadata])

        assert left_behind(connection) == []
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    assert len([line for line in told if re.match(message, line)]) == 1


def test_an_unknown_extension(empty_database: URL) -> None:
    """An extension that the server does not have must be installed there."""
    metadata = sa.MetaData(info={"extensions": ["nothing"]})
    with connected(empty_database) as connection:
        (problem,) = problems(connection, [metadata])

    expected = 'the extension nothing is not in the database: extension "nothing" is not available'
    assert problem == f"{expected}: install it on the server"


def test_every_problem_is_named_once(empty_database: URL) -> None:
    """What only follows from another problem is left out; the rest of the models is tried."""
    metadata = sa.MetaData()
    key = sa.Column("id", Unknown(), primary_key=True, index=True, comment="c")
    sa.Table("item", metadata, key)
    sa.Table("part", metadata, sa.Column("id", sa.Integer, sa.ForeignKey("item.id")))
    sa.Table("third", metadata, sa.Column("id", sa.Integer, sa.CheckConstraint("nothing")))
    sa.Table("heir", metadata, postgresql_inherits="nobody")
    with connected(empty_database) as connection:
        told = problems(connection, [metadata])

    assert [re.match(r"\w+ \w+", problem)[0] for problem in told] == [
        "table item",
        "table third",
        "table heir",
    ]
    assert told[2].endswith("needs the table nobody, which is not in the models")


def test_two_tables_of_one_name(empty_database: URL) -> None:
    """Two MetaData with a table of one name cannot be told apart."""
    with connected(empty_database) as connection:
        told = problems(connection, [placed(None), placed(None)])

    assert told == ["table item: the models have two of that name: leave one out"]


def test_an_extension_that_the_role_may_not_create(empty_database: URL) -> None:
    """The message is the one statement that a superuser has to run."""
    with role(empty_database, "TEMPORARY", "CREATE") as url, connected(url) as connection:
        (problem,) = problems(connection, [SQLModel.metadata], TABLES)

    assert problem.startswith("table ragstore_embedding, at 'vector VECTOR NOT NULL'")
    assert problem.endswith("a superuser must run CREATE EXTENSION vector;")


def test_functions_in_any_order(empty_database: URL) -> None:
    """A function may return what is made after it, and be called by another table."""
    metadata = placed(None)
    other = sa.Table("other", metadata, sa.Column("id", sa.Integer, primary_key=True))
    for name, returns in (("rows_of", "SETOF item"), ("of_kind", "kind")):
        Function(name, [("k", "kind")], returns, "SELECT * FROM item").attach(other)

    with connected(empty_database) as connection, scratch.opened(connection) as bench:
        wanted = bench.build([metadata])

    assert sorted(name for _, name, _ in wanted.routines) == ["of_kind", "rows_of"]
    routine = wanted.routines[None, "rows_of", ("kind",)]
    assert routine.definition.startswith("CREATE OR REPLACE FUNCTION public.rows_of(k kind)")


def test_a_connection_that_is_lost_while_building(empty_database: URL) -> None:
    """That is no fault of the models, and is not reported as one."""
    metadata = broken(a=sa.CheckConstraint("pg_terminate_backend(pg_backend_pid()) AND id > 0"))
    metadata.tables["item"].info["functions"] = []
    function(
        metadata.tables["item"],
        "ends",
        [],
        "int",
        "BEGIN RETURN 1; END $function$; SELECT pg_terminate_backend(pg_backend_pid());"
        " SELECT $function$",
        language="plpgsql",
    )
    with connected(empty_database) as connection, connected(empty_database) as other:
        with pytest.raises(OperationalError), scratch.opened(connection) as bench:
            bench.build([metadata])
        assert left_behind(other) == []
