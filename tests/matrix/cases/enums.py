"""Enumerated types: their values, their names, and what uses them."""

from __future__ import annotations

import enum
from typing import Any

from sqlalchemy import ARRAY, Column, Enum, Index, MetaData, String, Table, text
from sqlalchemy.dialects.postgresql import ENUM

from tests.matrix.case import Case, change, control, decision
from tests.matrix.models import item, number


def state(*values: str, name: str = "item_state", **options: Any) -> MetaData:
    """Return items with a state."""
    return item(Column("state", Enum(*values, name=name), **options))


def abc(**options: Any) -> MetaData:
    """Return items in one of three states."""
    return state("a", "b", "c", **options)


def many(*values: str, **options: Any) -> MetaData:
    """Return items that are in several states at once."""
    return item(Column("states", ARRAY(Enum(*values, name="item_state")), **options))


def partial(*values: str) -> MetaData:
    """Return items with an index over some of the states, and a default."""
    return item(
        Column("state", Enum(*values, name="item_state"), nullable=False, server_default="a"),
        Index("item_open", "state", postgresql_where=text("state = 'a'")),
    )


def two(*values: str) -> MetaData:
    """Return two tables with one type."""
    metadata = item()
    kind = Enum(*values, name="item_state", metadata=metadata)
    metadata.tables["item"].append_column(Column("state", kind))
    Table("note", metadata, number(), Column("state", kind, server_default="a"))
    return metadata


class State(enum.Enum):
    """A state by name and value."""

    OPEN = "open"
    DONE = "done"


def typed(**options: Any) -> MetaData:
    """Return items whose state is of a Python enumeration."""
    return item(Column("state", Enum(State, name="item_state", **options)))


def _values(kind: Any) -> list[str]:
    return [member.value for member in kind]


CASES: list[Case] = [
    change("enum-with-its-column-added", item, abc),
    change("enum-with-its-column-dropped", abc, item),
    change("enum-value-added-at-end", abc, lambda: state("a", "b", "c", "d")),
    change("enum-value-added-at-start", abc, lambda: state("z", "a", "b", "c")),
    change("enum-value-added-in-the-middle", abc, lambda: state("a", "b", "x", "c")),
    change("enum-values-added", abc, lambda: state("1", "a", "2", "3", "b", "c", "4")),
    change("enum-value-with-quotes-added", abc, lambda: state("a", "b", "c", "it's :50% off")),
    change(
        "enum-value-renamed",
        abc,
        lambda: state("a", "bee", "c"),
        seed="INSERT INTO item (title, state) VALUES ('1', 'a'), ('2', 'a'), ('3', 'c')",
    ),
    change(
        "enum-value-removed-that-no-row-has",
        lambda: state("a", "b", "c", "d"),
        abc,
    ),
    change("enum-values-reordered", abc, lambda: state("c", "b", "a")),
    change("enum-type-renamed", abc, lambda: abc(name="item_status")),
    change("enum-in-array-value-added", lambda: many("a", "b"), lambda: many("a", "b", "c")),
    change("enum-in-array-values-reordered", lambda: many("a", "b"), lambda: many("b", "a")),
    change(
        "enum-in-array-with-default",
        lambda: many("a", "b"),
        lambda: many("a", "b", nullable=False, server_default="{}"),
    ),
    change(
        "enum-with-default-values-reordered",
        lambda: abc(server_default="a", nullable=False),
        lambda: state("c", "a", "b", server_default="a", nullable=False),
    ),
    change(
        "enum-value-added-and-made-default",
        lambda: abc(server_default="a"),
        lambda: state("a", "b", "c", "d", server_default="d"),
    ),
    change(
        "enum-default-changed", lambda: abc(server_default="a"), lambda: abc(server_default="b")
    ),
    change(
        "enum-with-partial-index-value-added",
        lambda: partial("a", "b"),
        lambda: partial("a", "b", "c"),
    ),
    change(
        "enum-with-partial-index-values-reordered",
        lambda: partial("a", "b"),
        lambda: partial("b", "a"),
    ),
    change("enum-of-two-tables-value-added", lambda: two("a", "b"), lambda: two("a", "b", "c")),
    change("enum-of-two-tables-reordered", lambda: two("a", "b"), lambda: two("b", "a")),
    change("enum-of-two-tables-added", item, lambda: two("a", "b")),
    change(
        "enum-values-reordered-and-a-table-dropped", lambda: two("a", "b"), lambda: state("b", "a")
    ),
    change(
        "enum-value-added-and-a-table-dropped", lambda: two("a", "b"), lambda: state("a", "b", "c")
    ),
    change("enum-to-text", abc, lambda: item(Column("state", String))),
    change(
        "enum-to-text-with-a-default",
        abc,
        lambda: item(Column("state", String, server_default="none of them")),
    ),
    change(
        "text-to-enum",
        lambda: item(Column("state", String)),
        abc,
        seed="INSERT INTO item (title, state) VALUES ('1', 'a'), ('2', 'b'), ('3', 'c')",
    ),
    change(
        "enum-of-a-dropped-table",
        lambda: two("a", "b"),
        item,
    ),
    control("enum-rebuilt", abc),
    control("enum-of-two-tables-rebuilt", lambda: two("a", "b")),
    control("enum-in-array-rebuilt", lambda: many("a", "b", server_default="{}")),
    control("enum-with-partial-index-rebuilt", lambda: partial("a", "b")),
    control(
        "enum-default-spelling",
        lambda: abc(server_default="a"),
        lambda: abc(server_default=text("'a'::item_state")),
    ),
    control(
        "enum-dialect-spelling",
        abc,
        lambda: item(Column("state", ENUM("a", "b", "c", name="item_state"))),
    ),
    control(
        "enum-python-names",
        typed,
        lambda: item(Column("state", Enum("OPEN", "DONE", name="item_state"))),
    ),
    control(
        "enum-python-values",
        lambda: typed(values_callable=_values),
        lambda: item(Column("state", Enum("open", "done", name="item_state"))),
    ),
    decision("enum-value-removed", abc, lambda: state("a", "b")),
    decision("enum-value-replaced-by-two", abc, lambda: state("a", "b", "x", "y")),
    decision("enum-in-array-value-removed", lambda: many("a", "b", "c"), lambda: many("a", "b")),
    decision("enum-of-two-tables-value-removed", lambda: two("a", "b", "c"), lambda: two("a", "b")),
    decision(
        "enum-value-removed-and-a-table-dropped",
        lambda: two("a", "b", "c"),
        lambda: state("a", "b"),
    ),
    decision(
        "enum-value-removed-that-is-the-default",
        lambda: abc(server_default="c"),
        lambda: state("a", "b", server_default="a"),
    ),
    decision(
        "text-to-enum-with-other-values",
        lambda: item(Column("state", String)),
        abc,
        seed="INSERT INTO item (title, state) VALUES ('1', 'a'), ('2', 'b'), ('3', 'other')",
    ),
    decision("enum-to-another-enum", abc, lambda: state("x", "y", name="item_level")),
]
