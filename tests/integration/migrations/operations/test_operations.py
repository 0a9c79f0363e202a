"""The operations: each does what its statement does, in a file and in a script too, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.operations import MigrateOperation
from sqlalchemy.sql.elements import conv

from ragstore.migrations import facts
from ragstore.migrations.operations import (
    AddEnumValueOp,
    AlterSequenceOp,
    CreateEnumOp,
    CreateFunctionOp,
    CreateIndexOnlineOp,
    CreateSequenceOp,
    DefineFunctionOp,
    DropEnumOp,
    DropFunctionOp,
    DropGeneratedOp,
    DropIndexOnlineOp,
    DropSchemaIfEmptyOp,
    DropSequenceOp,
    EnsureSchemaOp,
    RenameColumnOp,
    RenameConstraintOp,
    RenameEnumValueOp,
    RenameIndexOp,
    RenameTableOp,
    ReplaceEnumOp,
    ResetTableOptionsOp,
    SetGeneratedOp,
    SetLoggedOp,
    SetTableOptionsOp,
)
from ragstore.types import Function


@dataclass(frozen=True)
class Case:
    """An operation, and the statements that do the same by hand."""

    id: str
    operation: MigrateOperation
    by_hand: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    """What is there afterwards, where no statement leads to it: instead of ``before``."""
    script_since: int = 0  # the version of PostgreSQL that the script is for


STATUS = "CREATE TYPE status AS ENUM ('draft', 'done')"
ODD = """CREATE TYPE "my-type" AS ENUM ('draft', 'it''s 100% :a')"""
ORDER = """CREATE TABLE "Order" (id int, "My-Status" "my-type" DEFAULT 'draft' NOT NULL)"""
ITEM = (
    "CREATE TABLE item (a int CONSTRAINT item_a UNIQUE, b int CHECK (b > 0), t text,"
    " g int GENERATED ALWAYS AS (a + b) STORED)"
)
INDEX = "CREATE INDEX item_t ON item (t)"
RAG = "CREATE SCHEMA rag"
BODY = "\n  -- it's 100% :a \\d \t\n\n   \n  SELECT 'x''' || a;  \n"
SQL = Function("f", [("a", "text")], "text", "SELECT a || '1'")
OTHER = Function("f", [("a", "text")], "text", "SELECT a || '2'", options="STABLE")
HEAD = "CREATE OR REPLACE FUNCTION public.f(a text)\n RETURNS text\n LANGUAGE sql\n"
DEFINITION = f"{HEAD}AS $f${BODY}$f$\n"
PLAIN = f"{HEAD}AS $f$\n  SELECT a\n\n$f$"
SEQUENCE = facts.Sequence("integer", 5, 2, 1, 1000, 3, cycle=True)
COMPUTED: Any = sa.Column("g", sa.Integer(), sa.Computed("a + b", persisted=True))

CASES = [
    # --- enumerated types
    Case("create_enum", CreateEnumOp("my-type", ["draft", "it's 100% :a"]), (ODD,)),
    Case("create_enum_empty", CreateEnumOp("status", []), ("CREATE TYPE status AS ENUM ()",)),
    Case(
        "create_enum_in_schema",
        CreateEnumOp("status", ["a"], schema="rag"),
        ("CREATE TYPE rag.status AS ENUM ('a')",),
        (RAG,),
    ),
    Case(
        "drop_enum",
        DropEnumOp("my-type", values=["draft", "it's 100% :a"]),
        ('DROP TYPE "my-type"',),
        (ODD,),
    ),
    Case(
        "add_enum_value",
        AddEnumValueOp(
            "my-type",
            "new",
            existing_values=["draft", "it's 100% :a"],
            columns=[("Order", "My-Status")],
        ),
        ("""ALTER TYPE "my-type" ADD VALUE 'new'""",),
        (ODD, ORDER),
    ),
    Case(
        "add_enum_value_before",
        AddEnumValueOp(
            "status", "it's", before="done", existing_values=["draft", "done"], schema="public"
        ),
        ("ALTER TYPE status ADD VALUE 'it''s' BEFORE 'done'",),
        (STATUS,),
    ),
    Case(
        "add_enum_value_after",
        AddEnumValueOp("status", "new", after="draft", existing_values=["draft", "done"]),
        ("ALTER TYPE status ADD VALUE 'new' AFTER 'draft'",),
        (STATUS,),
    ),
    Case(
        "rename_enum_value",
        RenameEnumValueOp("my-type", "it's 100% :a", "it was"),
        ("""ALTER TYPE "my-type" RENAME VALUE 'it''s 100% :a' TO 'it was'""",),
        (ODD, ORDER),
    ),
    Case(
        "replace_enum",
        ReplaceEnumOp(
            "my-type",
            ["more", "draft"],
            [("Order", "My-Status"), ("many", "them"), ("many", "bare", "rag")],
            existing_values=["draft", "it's 100% :a"],
        ),
        before=(
            ODD,
            ORDER,
            RAG,
            """CREATE TABLE many (them "my-type"[] DEFAULT '{draft}')""",
            'CREATE TABLE rag.many (bare "my-type")',
            """INSERT INTO "Order" (id) VALUES (1)""",
            """INSERT INTO many VALUES ('{draft,draft}')""",
        ),
        after=(
            """CREATE TYPE "my-type" AS ENUM ('more', 'draft')""",
            ORDER,
            RAG,
            """CREATE TABLE many (them "my-type"[] DEFAULT '{draft}')""",
            'CREATE TABLE rag.many (bare "my-type")',
        ),
    ),
    Case(
        "replace_enum_in_schema",
        ReplaceEnumOp(
            "status", ["a"], [("t", "s", "rag")], schema="rag", existing_values=["a", "b"]
        ),
        before=(
            RAG,
            "CREATE TYPE rag.status AS ENUM ('a', 'b')",
            "CREATE TABLE rag.t (s rag.status DEFAULT 'a')",
        ),
        after=(
            RAG,
            "CREATE TYPE rag.status AS ENUM ('a')",
            "CREATE TABLE rag.t (s rag.status DEFAULT 'a')",
        ),
    ),
    Case(
        "replace_enum_unused",
        ReplaceEnumOp("status", ["done"], [], existing_values=["draft", "done"]),
        before=(STATUS,),
        after=("CREATE TYPE status AS ENUM ('done')",),
    ),
    # --- sequences
    Case(
        "create_sequence",
        CreateSequenceOp(
            "Numbers", data_type="integer", start=5, increment=2, maxvalue=99, cache=3, cycle=True
        ),
        ('CREATE SEQUENCE "Numbers" AS integer START 5 INCREMENT 2 MAXVALUE 99 CACHE 3 CYCLE',),
    ),
    Case(
        "create_sequence_plain",
        CreateSequenceOp("numbers", schema="rag"),
        ("CREATE SEQUENCE rag.numbers",),
        (RAG,),
    ),
    Case(
        "drop_sequence",
        DropSequenceOp("numbers", existing=SEQUENCE),
        ("DROP SEQUENCE numbers",),
        ("CREATE SEQUENCE numbers AS int START 5 INCREMENT 2 MAXVALUE 1000 CACHE 3 CYCLE",),
    ),
    Case(
        "alter_sequence",
        AlterSequenceOp("numbers", {"increment": 7, "cycle": False, "start": 5}, existing=SEQUENCE),
        ("ALTER SEQUENCE numbers INCREMENT 7 NO CYCLE",),
        ("CREATE SEQUENCE numbers AS int START 5 INCREMENT 2 MAXVALUE 1000 CACHE 3 CYCLE",),
    ),
    Case(
        "alter_sequence_type",
        AlterSequenceOp(
            "numbers",
            facts.Sequence("bigint", 1, 1, 1, 2**63 - 1, 1, cycle=False),
            existing=facts.Sequence("integer", 1, 1, 1, 2**31 - 1, 1, cycle=False),
        ),
        ("ALTER SEQUENCE numbers AS bigint",),
        ("CREATE SEQUENCE numbers AS int",),
    ),
    # --- functions
    Case("create_function", CreateFunctionOp(SQL), (SQL.create_sql(),)),
    Case(
        "create_function_in_schema",
        CreateFunctionOp(Function("F", [("a", "text")], "text", BODY), schema="my-rag"),
        (
            f"""CREATE FUNCTION "my-rag".f(a text) RETURNS text IMMUTABLE PARALLEL SAFE
            LANGUAGE sql AS $${BODY}$$""",
        ),
        ('CREATE SCHEMA "my-rag"',),
    ),
    Case(
        "replace_function",
        CreateFunctionOp(OTHER, existing=SQL),
        (OTHER.create_sql(),),
        (SQL.create_sql(),),
    ),
    Case(
        "replace_function_by_text",
        CreateFunctionOp(SQL, existing=DEFINITION),
        (SQL.create_sql(),),
        (DEFINITION,),
    ),
    Case(
        "drop_function",
        DropFunctionOp("f", ["text"], existing=SQL),
        ("DROP FUNCTION f(text)",),
        (SQL.create_sql(),),
    ),
    Case(
        "drop_function_by_text",
        DropFunctionOp("f", ["text"], schema="public", existing=DEFINITION),
        ("DROP FUNCTION f(text)",),
        (DEFINITION,),
    ),
    Case(
        "drop_function_odd",
        DropFunctionOp(
            "My-F",
            [],
            existing=PLAIN.replace("public.f(a text)", '"My-F"()').replace(
                "SELECT a", "SELECT 'a'"
            ),
        ),
        ('DROP FUNCTION "My-F"()',),
        (PLAIN.replace("public.f(a text)", '"My-F"()').replace("SELECT a", "SELECT 'a'"),),
    ),
    Case(
        "define_function",
        DefineFunctionOp(PLAIN, back=DropFunctionOp("f", ["text"], existing=PLAIN)),
        (PLAIN,),
    ),
    # --- names
    Case(
        "rename_table",
        RenameTableOp("item", "Order", schema="public"),
        ('ALTER TABLE item RENAME TO "Order"',),
        (ITEM,),
    ),
    Case(
        "rename_column",
        RenameColumnOp("item", "a", "it's"),
        ("""ALTER TABLE item RENAME a TO "it's" """,),
        (ITEM,),
    ),
    Case(
        "rename_index",
        RenameIndexOp("item_t", "My-Index", schema="public"),
        ('ALTER INDEX item_t RENAME TO "My-Index"',),
        (ITEM, INDEX),
    ),
    Case(
        "rename_constraint",
        RenameConstraintOp("item", "item_a", "it's"),
        ("""ALTER TABLE item RENAME CONSTRAINT item_a TO "it's" """,),
        (ITEM,),
    ),
    # --- generated columns
    Case(
        "set_generated",
        SetGeneratedOp("item", "g", "a % b", existing="a + b"),
        script_since=170000,
        before=(ITEM, "CREATE INDEX item_g ON item (g)", "COMMENT ON COLUMN item.g IS 'sum'"),
        after=(
            ITEM.replace("a + b", "a % b"),
            "CREATE INDEX item_g ON item (g)",
            "COMMENT ON COLUMN item.g IS 'sum'",
        ),
    ),
    Case(
        "drop_generated",
        DropGeneratedOp("item", COMPUTED),
        ("ALTER TABLE item ALTER g DROP EXPRESSION",),
        (ITEM,),
    ),
    # --- options of tables
    Case(
        "set_table_options",
        SetTableOptionsOp(
            "item",
            {"fillfactor": 70, "toast.autovacuum_enabled": False, "parallel_workers": "2"},
            existing={"autovacuum_enabled": "false", "parallel_workers": "2"},
        ),
        (
            "ALTER TABLE item RESET (autovacuum_enabled)",
            "ALTER TABLE item SET (fillfactor=70, toast.autovacuum_enabled=false)",
        ),
        (ITEM, "ALTER TABLE item SET (parallel_workers=2, autovacuum_enabled=false)"),
    ),
    Case(
        "reset_table_options",
        ResetTableOptionsOp("item", ["fillfactor"], schema="public", existing={"fillfactor": "70"}),
        ("ALTER TABLE item RESET (fillfactor)",),
        (ITEM, "ALTER TABLE item SET (fillfactor=70)"),
    ),
    Case(
        "set_unlogged",
        SetLoggedOp("item", logged=False),
        ("ALTER TABLE item SET UNLOGGED",),
        (ITEM,),
    ),
    Case(
        "set_logged",
        SetLoggedOp("item", schema="public"),
        ("ALTER TABLE item SET LOGGED",),
        (ITEM.replace("TABLE", "UNLOGGED TABLE"),),
    ),
    # --- schemas
    Case("ensure_schema", EnsureSchemaOp("my-rag"), ('CREATE SCHEMA "my-rag"',)),
    Case("drop_schema_if_empty", DropSchemaIfEmptyOp("rag"), ("DROP SCHEMA rag",), (RAG,)),
    # --- indexes
    Case(
        "create_index_online",
        CreateIndexOnlineOp("My-Index", "item", ["t"]),
        ('CREATE INDEX "My-Index" ON item (t)',),
        (ITEM,),
    ),
    Case(
        "create_index_online_with_all",
        CreateIndexOnlineOp(
            conv("it's"),
            "item",
            [sa.text("lower(t)"), "a"],
            schema="public",
            unique=True,
            postgresql_where=sa.text("b > 0"),
            postgresql_include=["b"],
            postgresql_concurrently=True,
        ),
        ("""CREATE UNIQUE INDEX "it's" ON item (lower(t), a) INCLUDE (b) WHERE b > 0""",),
        (ITEM,),
    ),
    Case(
        "drop_index_online",
        DropIndexOnlineOp.from_index(
            sa.Index("item_t", sa.Table("item", sa.MetaData(), sa.Column("t")).c.t)
        ),
        ("DROP INDEX item_t",),
        (ITEM, INDEX),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_forth_and_back(case: Case, shared_workbench: Any) -> None:
    """An operation does what the statements do, and its reverse undoes it, in each way to run it.

    It is invoked, written into a file as autogenerate does, and made a script with --sql.
    """
    workbench, back = shared_workbench, case.operation.reverse()
    again: Any = back.reverse()
    expected = by_hand(case, workbench)
    workbench.reset(*case.before)
    before = workbench.catalog()
    assert before != expected

    [(version,)] = workbench.run("SELECT current_setting('server_version_num')::int")
    script = workbench.script if version >= case.script_since else workbench.online
    for forth_by, back_by, operation in (
        (workbench.written, workbench.online, case.operation),
        (script, workbench.written, case.operation),
        (workbench.online, script, again),
    ):
        forth_by(operation)
        assert workbench.catalog() == expected
        back_by(back)
        assert workbench.catalog() == before


def by_hand(case: Case, workbench: Any) -> dict[str, str]:
    """Return the catalog that a case's statements lead to."""
    if case.by_hand:
        workbench.reset(*case.before, *case.by_hand)
    else:
        workbench.reset(*case.after)
    catalog: dict[str, str] = workbench.catalog()
    return catalog
