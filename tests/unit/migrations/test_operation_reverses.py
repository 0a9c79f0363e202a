"""What an operation needs for its reverse, and how text becomes a part of SQL."""

from __future__ import annotations

import pytest

from ragstore.migrations.operations import (
    AddEnumValueOp,
    AlterDomainOp,
    AlterSequenceOp,
    CreateFunctionOp,
    DefineFunctionOp,
    DropDomainOp,
    DropEnumOp,
    DropFunctionOp,
    DropGeneratedOp,
    DropSequenceOp,
    Operation,
    ReplaceEnumOp,
    ResetTableOptionsOp,
    SetGeneratedOp,
)
from ragstore.migrations.operations.base import dollar_quoted, literal, quoted
from ragstore.migrations.operations.writing import unblocked
from ragstore.types import Function


@pytest.mark.parametrize(
    "operation",
    [
        AlterDomainOp("x", "SET NOT NULL"),
        DropDomainOp("x"),
        DropEnumOp("x"),
        AddEnumValueOp("x", "a"),
        ReplaceEnumOp("x", ["a"], []),
        DropSequenceOp("x"),
        AlterSequenceOp("x", {"start": 1}),
        DropFunctionOp("x", []),
        DefineFunctionOp("x"),
        SetGeneratedOp("x", "c", "1"),
        DropGeneratedOp("x", "c"),
        ResetTableOptionsOp("x", ["fillfactor"]),
    ],
    ids=lambda operation: operation.verb,
)
def test_reverse_of_what_a_file_has(operation: Operation) -> None:
    """An operation that does not know what was before says so, as Alembic's own do."""
    with pytest.raises(NotImplementedError, match=f"{operation.verb} of x does not know"):
        operation.reverse()


def test_reverse_of_a_function_in_quotes() -> None:
    """A function is dropped by the name that Postgres has made of the written one."""
    folded = CreateFunctionOp(Function("MyName", [], "int", "SELECT 1")).reverse()
    kept = CreateFunctionOp(Function('"MyName"', [], "int", "SELECT 1"), schema="Rag").reverse()

    assert isinstance(folded, DropFunctionOp)
    assert isinstance(kept, DropFunctionOp)
    assert folded.signature == "myname()"
    assert kept.signature == '"Rag"."MyName"()'


# --- SQL --------------------------------------------------------------------------------------


def test_quoting() -> None:
    """Names and values are quoted for text that is sent as it is."""
    assert quoted("item") == "item"
    assert quoted("Order", "my-rag") == '"my-rag"."Order"'
    assert quoted('100% "x"') == '"100% ""x"""'
    assert literal("it's 100%") == "'it''s 100%'"
    assert dollar_quoted("$do$ $do_$") == "$do__$$do$ $do_$$do__$"


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("\n    CREATE\n      a\n\n    b\n    ", "CREATE\n  a\n\nb"),
        ("CREATE\n   \n  a  \n b", "CREATE\n   \n  a  \n b"),
        ("  CREATE\na", "CREATE\na"),
    ],
)
def test_unblocked(text: str, result: str) -> None:
    """A text loses the indentation of its first line, and nothing else."""
    assert unblocked(text) == result
