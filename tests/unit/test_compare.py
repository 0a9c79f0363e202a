"""What autogenerate found, in words."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Column, DefaultClause, Integer, MetaData, Table, Text, text

from ragstore.migrations.compare import describe

NULLABLE = "items.c: nullable is True, the models have False"
TABLE = Table("items", MetaData(), Column("id", Integer))


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (("add_table", TABLE), "table items is not in the database"),
        (("remove_table", TABLE), "table items is not in the models"),
        (("add_column", None, "items", Column("c", Text)), "column items.c is not in the database"),
        (("remove_table_comment", TABLE, None), "table comment items is not in the models"),
        (("rename_thing", "items"), "thing items rename"),
        (
            [
                ("modify_nullable", None, "items", "c", {}, True, False),
                ("modify_type", None, "items", "c", {}, Text(), Integer()),
            ],
            f"{NULLABLE}; items.c: type is TEXT, the models have INTEGER",
        ),
        (
            ("modify_default", None, "items", "c", {}, DefaultClause(text("now()")), None),
            "items.c: default is now(), the models have None",
        ),
    ],
)
def test_describe(difference: Any, words: str) -> None:
    """A difference names the table, the thing, and which side has it."""
    assert describe(difference) == words
