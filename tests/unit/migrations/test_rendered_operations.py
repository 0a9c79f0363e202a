"""How the operations are written into a file, and how they are told as differences."""

from __future__ import annotations

import ast
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import render_op_text
from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import _render_cmd_body
from alembic.operations import MigrateOperation
from alembic.operations.ops import UpgradeOps
from alembic.runtime.migration import MigrationContext
from sqlalchemy.sql.elements import conv

from ragstore.migrations.operations import (
    IMPORT,
    AddEnumValueOp,
    AlterDomainOp,
    AlterSequenceOp,
    CreateDomainOp,
    CreateEnumOp,
    CreateFunctionOp,
    CreateIndexOnlineOp,
    CreateSequenceOp,
    DefineFunctionOp,
    DropDomainOp,
    DropEnumOp,
    DropFunctionOp,
    DropGeneratedOp,
    DropIndexOnlineOp,
    DropSchemaIfEmptyOp,
    DropSequenceOp,
    EnsureExtensionOp,
    EnsureSchemaOp,
    Remark,
    RenameColumnOp,
    RenameConstraintOp,
    RenameEnumValueOp,
    RenameIndexOp,
    RenameTableOp,
    ReplaceEnumOp,
    RequireDecisionOp,
    ResetTableOptionsOp,
    SetGeneratedOp,
    SetLoggedOp,
    SetTableOptionsOp,
)
from ragstore.types import Function

COLUMN: Any = sa.Column("g", sa.Integer(), sa.Computed("a + b", persisted=True))
SQL = Function("f", [("a", "text")], "text", "SELECT a")
LONG = Function("f", (("a", "text"),), "text", "\n  SELECT a;\n", "plpgsql", "STABLE")
VALUES = [f"the_value_number_{number}" for number in range(4)]

# Each with its text and what it is as a difference.
WRITTEN: dict[str, tuple[MigrateOperation, str, tuple[Any, ...]]] = {
    "create_domain": (
        CreateDomainOp("word", "text CHECK (VALUE <> '')", schema="rag"),
        """op.create_domain("word", "text CHECK (VALUE <> '')", schema="rag")""",
        ("create_domain", "rag", "word", "text CHECK (VALUE <> '')"),
    ),
    "alter_domain": (
        AlterDomainOp("word", "SET NOT NULL", existing="DROP NOT NULL"),
        """op.alter_domain("word", "SET NOT NULL")""",
        ("alter_domain", None, "word", "SET NOT NULL"),
    ),
    "drop_domain": (
        DropDomainOp("word", existing="text"),
        """op.drop_domain("word")""",
        ("drop_domain", None, "word"),
    ),
    "create_enum": (
        CreateEnumOp("status", ["draft", "it's"]),
        """op.create_enum("status", ["draft", "it's"])""",
        ("create_enum", None, "status", ["draft", "it's"]),
    ),
    "long_list": (
        CreateEnumOp("status", VALUES, schema="rag"),
        "op.create_enum(\n"
        '    "status",\n'
        "    [\n"
        + "".join(f'        "{value}",\n' for value in VALUES)
        + '    ],\n    schema="rag",\n)',
        ("create_enum", "rag", "status", VALUES),
    ),
    "drop_enum": (
        DropEnumOp('"', schema="rag", values=["a"]),
        """op.drop_enum('"', schema="rag")""",
        ("drop_enum", "rag", '"'),
    ),
    "add_enum_value": (
        AddEnumValueOp("status", "new", after="draft", existing_values=["draft"]),
        'op.add_enum_value("status", "new", after="draft")',
        ("add_enum_value", None, "status", "new", {"after": "draft"}),
    ),
    "rename_enum_value": (
        RenameEnumValueOp("status", "a", "b"),
        'op.rename_enum_value("status", "a", "b")',
        ("rename_enum_value", None, "status", "a", "b"),
    ),
    "replace_enum": (
        ReplaceEnumOp("status", ("a",), [["t", "c"], ("t", "d", "rag")], existing_values=["b"]),
        'op.replace_enum("status", ["a"], [("t", "c"), ("t", "d", "rag")])',
        ("replace_enum", None, "status", ["a"], [("t", "c"), ("t", "d", "rag")]),
    ),
    "create_sequence": (
        CreateSequenceOp("s", schema="rag", start=5, cycle=False),
        'op.create_sequence("s", start=5, cycle=False, schema="rag")',
        ("create_sequence", "rag", "s", {"start": 5, "cycle": False}),
    ),
    "drop_sequence": (DropSequenceOp("s"), 'op.drop_sequence("s")', ("drop_sequence", None, "s")),
    "alter_sequence": (
        AlterSequenceOp("s", {"increment": 2, "start": 1}, existing={"increment": 1, "start": 1}),
        'op.alter_sequence("s", increment=2)',
        ("alter_sequence", None, "s", {"increment": 2}),
    ),
    "create_function": (
        CreateFunctionOp(SQL),
        'op.create_function("f", [("a", "text")], "text", "SELECT a")',
        ("create_function", None, "f", [("a", "text")], "text", "SELECT a"),
    ),
    "create_function_with_all": (
        CreateFunctionOp(LONG, schema="rag"),
        (
            "op.create_function(\n"
            '    "f",\n    [("a", "text")],\n    "text",\n    "\\n  SELECT a;\\n",\n'
            '    language="plpgsql",\n    options="STABLE",\n    schema="rag",\n)'
        ),
        (
            *("create_function", "rag", "f", [("a", "text")], "text", "\n  SELECT a;\n"),
            {"language": "plpgsql", "options": "STABLE"},
        ),
    ),
    "drop_function": (
        DropFunctionOp("f", ["text", "int"]),
        'op.drop_function("f", ["text", "int"])',
        ("drop_function", None, "f", ["text", "int"]),
    ),
    "define_function": (
        DefineFunctionOp("CREATE FUNCTION f()\n\n  RETURNS int\n\n"),
        'op.define_function("""\n    CREATE FUNCTION f()\n\n      RETURNS int\n""")',
        ("define_function", None, "CREATE FUNCTION f()\n\n  RETURNS int"),
    ),
    "define_function_with_blanks": (
        DefineFunctionOp("CREATE FUNCTION f() RETURNS text AS $$ \n" + "  SELECT 'one' ||\n" * 3),
        "op.define_function(\n"
        '    "CREATE FUNCTION f() RETURNS text AS $$ \\n"\n'
        + "    \"  SELECT 'one' ||\\n\"\n" * 2
        + "    \"  SELECT 'one' ||\",\n)",
        (
            *("define_function", None),
            "CREATE FUNCTION f() RETURNS text AS $$ \n"
            + "  SELECT 'one' ||\n" * 2
            + "  SELECT 'one' ||",
        ),
    ),
    "set_generated": (
        SetGeneratedOp("t", "c", "a || '\"'", existing="b"),
        'op.set_generated("t", "c", \'a || \\\'"\\\'\')',
        ("set_generated", None, "t", "c", "a || '\"'"),
    ),
    "drop_generated": (
        DropGeneratedOp("t", COLUMN),
        'op.drop_generated("t", "g")',
        ("drop_generated", None, "t", "g"),
    ),
    "rename_table": (
        RenameTableOp("a", "b", schema="rag"),
        'op.rename_table("a", "b", schema="rag")',
        ("rename_table", "rag", "a", "b"),
    ),
    "rename_column": (
        RenameColumnOp("t", "a", "b"),
        "op.alter_column('t', 'a',\n           new_column_name='b')",
        ("rename_column", None, "t", "a", "b"),
    ),
    "rename_index": (
        RenameIndexOp("a", conv("b")),
        'op.rename_index("a", op.f("b"))',
        ("rename_index", None, "a", "b"),
    ),
    "rename_constraint": (
        RenameConstraintOp("t", "a", "b"),
        'op.rename_constraint("t", "a", "b")',
        ("rename_constraint", None, "t", "a", "b"),
    ),
    "set_table_options": (
        SetTableOptionsOp("t", {"fillfactor": 70}, existing={"user_catalog_table": "true"}),
        'op.set_table_options("t", {"user_catalog_table": None, "fillfactor": 70})',
        ("set_table_options", None, "t", {"user_catalog_table": None, "fillfactor": 70}),
    ),
    "set_many_options": (
        SetTableOptionsOp("t", dict.fromkeys(VALUES, 1)),
        'op.set_table_options(\n    "t",\n    {\n'
        + "".join(f'        "{value}": 1,\n' for value in VALUES)
        + "    },\n)",
        ("set_table_options", None, "t", dict.fromkeys(VALUES, 1)),
    ),
    "reset_table_options": (
        ResetTableOptionsOp("t", ("fillfactor",)),
        'op.reset_table_options("t", ["fillfactor"])',
        ("reset_table_options", None, "t", ["fillfactor"]),
    ),
    "set_logged": (SetLoggedOp("t"), 'op.set_logged("t")', ("set_logged", None, "t")),
    "set_unlogged": (
        SetLoggedOp("t", logged=False, schema="rag"),
        'op.set_unlogged("t", schema="rag")',
        ("set_unlogged", "rag", "t"),
    ),
    "ensure_extension": (
        EnsureExtensionOp("vector"),
        'op.ensure_extension("vector", minimum="0.8.2", warn_below="0.8.4")',
        ("ensure_extension", None, "vector", {"minimum": "0.8.2", "warn_below": "0.8.4"}),
    ),
    "ensure_other_extension": (
        EnsureExtensionOp("pg_trgm"),
        'op.ensure_extension("pg_trgm")',
        ("ensure_extension", None, "pg_trgm"),
    ),
    "ensure_schema": (
        EnsureSchemaOp("rag"),
        'op.ensure_schema("rag")',
        ("ensure_schema", None, "rag"),
    ),
    "drop_schema_if_empty": (
        DropSchemaIfEmptyOp("rag"),
        'op.drop_schema_if_empty("rag")',
        ("drop_schema_if_empty", None, "rag"),
    ),
    "require_decision": (
        RequireDecisionOp("which?", "t", "c IS NULL"),
        'op.require_decision("which?", "t", "c IS NULL")',
        ("require_decision", None, "which?", "t", "c IS NULL"),
    ),
    "long_text": (
        RequireDecisionOp("one two " * 20, "t", "c IS NULL", advice="first\nsecond " + "x" * 80),
        (
            "op.require_decision(\n"
            '    "one two one two one two one two one two one two one two one two one two"\n'
            '    " one two one two one two one two one two one two one two one two one two"\n'
            '    " one two one two ",\n'
            '    "t",\n'
            '    "c IS NULL",\n'
            '    advice="first\\n"\n'
            '    "second"\n'
            f'    " {"x" * 80}",\n'
            ")"
        ),
        (
            *("require_decision", None, "one two " * 20, "t", "c IS NULL"),
            {"advice": "first\nsecond " + "x" * 80},
        ),
    ),
}
written = pytest.mark.parametrize(
    ("operation", "text", "difference"), WRITTEN.values(), ids=WRITTEN
)


def context(prefix: str = "op.") -> AutogenContext:
    """Return what renderers are given."""
    options = {
        "alembic_module_prefix": prefix,
        "sqlalchemy_module_prefix": "sa.",
        "user_module_prefix": None,
        "render_item": None,
        "render_as_batch": False,
    }
    migration = MigrationContext.configure(dialect_name="postgresql")
    return AutogenContext(migration, opts=options, autogenerate=False)


@written
def test_text(operation: MigrateOperation, text: str, difference: tuple[Any, ...]) -> None:
    """The text is a call in Python that a formatter leaves alone, and brings its import."""
    autogen = context()

    assert render_op_text(autogen, operation) == text
    ast.parse(text)
    if not isinstance(operation, (RenameTableOp, RenameColumnOp)):
        assert autogen.imports == {IMPORT}


@written
def test_difference(operation: MigrateOperation, text: str, difference: tuple[Any, ...]) -> None:
    """The difference is the verb, the schema, and what the operation is about."""
    assert operation.to_diff_tuple() == difference
    assert UpgradeOps([operation]).as_diffs() == [difference]


def test_prefix_of_the_environment() -> None:
    """An env.py that calls ``op`` otherwise is followed."""
    assert render_op_text(context(""), RenameIndexOp("a", conv("b"))) == (
        'rename_index("a", f("b"))'
    )


INDEX = sa.Index(
    conv("t_c"),
    sa.Table("t", sa.MetaData(), sa.Column("c", sa.Integer()), schema="rag").c.c,
    unique=True,
    postgresql_using="btree",
    postgresql_concurrently=True,
)


def test_online_indexes() -> None:
    """They are written as Alembic's own are, without the option that their names say."""
    create, drop = CreateIndexOnlineOp.from_index(INDEX), DropIndexOnlineOp.from_index(INDEX)
    autogen = context()

    for operation in (create, drop.reverse()):
        assert isinstance(operation, CreateIndexOnlineOp)
        assert render_op_text(autogen, operation) == (
            "op.create_index_online(op.f('t_c'), 't', ['c'], unique=True, schema='rag',"
            " postgresql_using='btree')"
        )
        assert operation.to_diff_tuple()[0] == "add_index"
    for back in (drop, create.reverse()):
        assert isinstance(back, DropIndexOnlineOp)
        assert render_op_text(autogen, back) == (
            "op.drop_index_online(op.f('t_c'), table_name='t', schema='rag',"
            " postgresql_using='btree')"
        )
        assert back.to_diff_tuple()[0] == "remove_index"
    assert autogen.imports == {IMPORT}


def test_rename_of_a_column_is_a_change() -> None:
    """Alembic leaves out alterations without a change, and counts no name."""
    assert RenameColumnOp("t", "a", "b").has_changes()


# --- remarks ----------------------------------------------------------------------------------


def test_remark_is_comment_lines() -> None:
    """Words are wrapped to lines that fit when the file indents them; empty lines stay."""
    words = "It locks the table for a while: " * 8
    autogen = context()

    lines = render_op_text(autogen, Remark(f"{words}\n\nThe end:")).split("\n")

    assert " ".join(line.removeprefix("# ") for line in lines[:-2]) == words.strip()
    assert lines[-2:] == ["#", "# The end:"]
    assert max(map(len, lines)) <= 96 < max(map(len, lines)) + 8
    assert autogen.imports == set()


def test_remark_is_no_difference() -> None:
    """A remark stands before an operation in a file, and in no list of differences."""
    steps = UpgradeOps([Remark("a: b:"), EnsureSchemaOp("rag"), Remark()])

    body = _render_cmd_body(steps, context())
    back = _render_cmd_body(steps.reverse(), context())

    assert '# a: b:\nop.ensure_schema("rag")\n' in body
    assert steps.as_diffs() == [("ensure_schema", None, "rag")]
    assert "a: b:" not in back
    assert 'op.drop_schema_if_empty("rag")' in back


def test_nothing_to_do_is_a_whole_function() -> None:
    """What has no opposite leaves a function with ``pass`` in it."""
    steps = UpgradeOps([EnsureExtensionOp("vector"), RequireDecisionOp("which?", "t", "")])

    assert "pass" in _render_cmd_body(steps.reverse(), context())
