"""Domains: made, changed and dropped with the columns that have them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ARRAY, Column, Integer, MetaData, String, Text
from sqlalchemy.dialects.postgresql import DOMAIN

from tests.matrix.case import Case, change, control, decision
from tests.matrix.models import item


def word(check: str | None = "VALUE <> ''", kind: Any = Text, **options: Any) -> MetaData:
    """Return items with a word of a domain."""
    return item(Column("word", DOMAIN("word", kind, check=check, **options)))


CASES: list[Case] = [
    change("domain-with-its-column-added", item, word),
    change("domain-with-its-column-dropped", word, item),
    change("domain-with-all-added", item, lambda: word(default="x", not_null=True)),
    change(
        "domain-of-a-list-type-added",
        item,
        lambda: word("VALUE IN ('it''s', '100%', 'VALUE')", String(20)),
        seed="INSERT INTO item (title) VALUES ('x')",
    ),
    change(
        "domain-in-array-added",
        item,
        lambda: item(Column("words", ARRAY(DOMAIN("word", Text, check="VALUE <> ''")))),
    ),
    change("domain-takes-the-place-of-text", lambda: item(Column("word", Text)), word),
    change("domain-gives-place-to-text", word, lambda: item(Column("word", Text))),
    change("domain-default-added", word, lambda: word(default="x")),
    change("domain-default-changed", lambda: word(default="x"), lambda: word(default="y")),
    change("domain-default-removed", lambda: word(default="x"), word),
    change("domain-made-not-null", word, lambda: word(not_null=True)),
    change("domain-made-nullable", lambda: word(not_null=True), word),
    change("domain-check-added", lambda: word(None), word),
    change("domain-check-removed", word, lambda: word(None)),
    change("domain-check-changed", word, lambda: word("length(VALUE) < 50")),
    change("domain-check-name", word, lambda: word(constraint_name="not_empty")),
    control("domain-rebuilt", word),
    control(
        "domain-check-spelling",
        lambda: word("VALUE IN ('value 1', 'value 2', 'value 3')", String(20)),
        lambda: word("(VALUE  in ('value 1','value 2','value 3'))", String(20)),
    ),
    control(
        "domain-of-theirs",
        lambda: item(Column("word", DOMAIN("theirs", Text, create_type=False))),
        prepare="CREATE DOMAIN theirs AS text CHECK (VALUE <> 'theirs')",
    ),
    control("domain-beside", item, beside="CREATE DOMAIN theirs AS text CHECK (VALUE <> '')"),
    decision("domain-check-over-rows-that-fail-it", word, lambda: word("length(VALUE) < 3")),
    decision(
        "domain-not-null-over-nulls",
        lambda: word(None, Integer),
        lambda: word(None, Integer, not_null=True),
        seed="INSERT INTO item (title, word) VALUES ('1', 1), ('2', NULL)",
    ),
]
