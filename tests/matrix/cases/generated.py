"""Generated columns: their expression, stored or virtual, and what depends on them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, CheckConstraint, Column, Computed, Index, Integer, MetaData, Text, func
from sqlalchemy.dialects.postgresql import TSVECTOR

from tests.matrix.case import Case, change, control, decision
from tests.matrix.models import item


def total(expression: str | None = None, *more: Any, persisted: bool = True) -> MetaData:
    """Return items with a price, and a total that is generated if there is an expression."""
    made = [Computed(expression, persisted=persisted)] if expression else []
    return item(
        Column("price", Integer, nullable=False),
        Column("tax", Integer, nullable=False),
        Column("total", Integer, *made),
        *more,
    )


def plain() -> MetaData:
    """Return items without any total."""
    return item(Column("price", Integer, nullable=False), Column("tax", Integer, nullable=False))


def words(expression: str, *more: Any) -> MetaData:
    """Return items with the words of their title, searched through a GIN index."""
    return item(
        Column("body", Text),
        Column("words", TSVECTOR, Computed(expression, persisted=True)),
        Index("item_words", "words", postgresql_using="gin"),
        *more,
    )


def guarded(expression: str) -> MetaData:
    """Return items whose total stands in an index and a check."""
    return total(
        expression,
        Index("item_total", "total", postgresql_where=Column("total", Integer) > 5),
        CheckConstraint("total >= 0", name="item_total_positive"),
        Index("item_double", func.abs(Column("total", Integer))),
    )


TITLE = "to_tsvector('english', title)"
BOTH = "to_tsvector('english', title || ' ' || coalesce(body, ''))"

CASES: list[Case] = [
    change("generated-added", plain, lambda: total("price + tax")),
    change("generated-dropped", lambda: total("price + tax"), plain),
    change(
        "generated-expression-changed",
        lambda: total("price + tax"),
        lambda: total("price + tax * 2"),
        holds="SELECT count(*) = 3 FROM item WHERE total = price + tax * 2",
    ),
    change(
        "generated-expression-changed-with-dependants",
        lambda: guarded("price + tax"),
        lambda: guarded("price + tax * 2"),
    ),
    change("generated-words-changed", lambda: words(TITLE), lambda: words(BOTH)),
    change(
        "generated-language-changed",
        lambda: words(TITLE),
        lambda: words("to_tsvector('simple', title)"),
    ),
    change(
        "generated-to-plain",
        lambda: total("price + tax"),
        total,
        holds="SELECT count(*) = 3 FROM item WHERE total = price + tax",
    ),
    change(
        "generated-to-plain-with-dependants",
        lambda: guarded("price + tax"),
        lambda: total(
            None,
            Index("item_total", "total", postgresql_where=Column("total", Integer) > 5),
            CheckConstraint("total >= 0", name="item_total_positive"),
            Index("item_double", func.abs(Column("total", Integer))),
        ),
    ),
    change(
        "generated-source-dropped",
        lambda: item(
            Column("a", Integer),
            Column("b", Integer),
            Column("c", Integer, Computed("a + b", True)),
        ),
        lambda: item(Column("a", Integer)),
    ),
    change(
        "generated-source-changes-type",
        lambda: item(Column("a", Integer), Column("b", Text, Computed("a::text", persisted=True))),
        lambda: item(Column("a", Text), Column("b", Text, Computed("a::text", persisted=True))),
    ),
    change(
        "generated-changes-type",
        lambda: item(Column("a", Integer), Column("b", Integer, Computed("a", persisted=True))),
        lambda: item(Column("a", Integer), Column("b", Text, Computed("a::text", persisted=True))),
    ),
    change(
        "generated-made-not-null",
        lambda: total("price + tax"),
        lambda: item(
            Column("price", Integer, nullable=False),
            Column("tax", Integer, nullable=False),
            Column("total", Integer, Computed("price + tax", persisted=True), nullable=False),
        ),
    ),
    change(
        "generated-stored-to-virtual",
        lambda: total("price + tax"),
        lambda: total("price + tax", persisted=False),
        needs="pg18",
    ),
    change(
        "generated-virtual-to-stored",
        lambda: total("price + tax", persisted=False),
        lambda: total("price + tax"),
        needs="pg18",
    ),
    change(
        "generated-virtual-added",
        plain,
        lambda: total("price + tax", persisted=False),
        needs="pg18",
    ),
    change(
        "generated-virtual-changed",
        lambda: total("price + tax", persisted=False),
        lambda: total("price - tax", persisted=False),
        needs="pg18",
    ),
    change(
        "generated-virtual-dropped",
        lambda: total("price + tax", persisted=False),
        plain,
        needs="pg18",
    ),
    control("generated-whitespace", lambda: total("price + tax"), lambda: total("(price+ tax)")),
    control(
        "generated-cast-spelling",
        lambda: words(TITLE),
        lambda: words("to_tsvector('english'::regconfig, (title)::text)"),
    ),
    control(
        "generated-qualified",
        lambda: words(TITLE),
        lambda: words("pg_catalog.to_tsvector('english', title)"),
    ),
    control(
        "generated-virtual-rebuilt",
        lambda: total("price + tax", persisted=False),
        needs="pg18",
    ),
    decision(
        "generated-from-plain", total, lambda: total("price * 100 + tax"), holds="SELECT false"
    ),
    decision(
        "generated-from-plain-with-dependants",
        lambda: total(None, Index("item_total", "total")),
        lambda: total("price * 100 + tax", Index("item_total", "total")),
        holds="SELECT false",
    ),
    decision(
        "generated-from-plain-of-another-type",
        lambda: item(Column("price", Integer), Column("total", JSON)),
        lambda: item(
            Column("price", Integer),
            Column("total", Integer, Computed("price * 2", persisted=True)),
        ),
        holds="SELECT false",
    ),
    decision(
        "generated-virtual-to-plain",
        lambda: total("price + tax", persisted=False),
        total,
        needs="pg18",
    ),
]
