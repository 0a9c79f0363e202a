"""SQL functions, as a model declares them with ``ragstore.types.function``."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Column, Computed, Index, MetaData, Text, text

from ragstore.types import function
from tests.matrix.case import Case, change, control
from tests.matrix.models import item

UPPER, LOWER = "SELECT upper(word)", "SELECT lower(word)"


def declared(*bodies: str, column: Any = None, **options: Any) -> MetaData:
    """Return items and the functions ``shown``, ``shown_2`` and so on of these bodies."""
    metadata = item(*([column] if column is not None else []))
    for position, body in enumerate(bodies):
        name = "shown" if position == 0 else f"shown_{position + 1}"
        arguments = options.get("arguments", [("word", "text")])
        function(
            metadata.tables["item"],
            name,
            arguments,
            options.get("returns", "text"),
            body,
            language=options.get("language", "sql"),
            options=options.get("flags", "IMMUTABLE PARALLEL SAFE"),
        )
    return metadata


def generated(body: str) -> MetaData:
    """Return items with a column that a function makes."""
    return declared(body, column=Column("shown", Text, Computed("shown(title)", persisted=True)))


def checked(body: str) -> MetaData:
    """Return items with a check and an index that call a function."""
    metadata = declared(body)
    table = metadata.tables["item"]
    table.append_constraint(CheckConstraint("shown(title) <> ''", name="item_shown"))
    Index("item_by_shown", text("shown(title)"), _table=table)
    return metadata


def called(argument: str) -> MetaData:
    """Return items with all that may call a function, whose argument has that name."""
    metadata = declared(
        f"SELECT upper({argument})",
        column=Column("shown", Text, Computed("shown(title)", persisted=True), index=True),
        arguments=[(argument, "text")],
    )
    table = metadata.tables["item"]
    table.append_constraint(CheckConstraint("shown(title) <> ''", name="item_shown"))
    Index("item_by_shown", text("shown(title)"), _table=table)
    Index("item_where_shown", "title", postgresql_where=text("shown(title) <> 'x'"), _table=table)
    table.append_column(Column("loud", Text, server_default=text("shown('new')")))
    return metadata


PLPGSQL = "BEGIN RETURN upper(word) || ':100%'; END"

CASES: list[Case] = [
    change("function-added", item, lambda: declared(UPPER)),
    change("function-dropped", lambda: declared(UPPER), item),
    change("function-body", lambda: declared(UPPER), lambda: declared(LOWER)),
    change(
        "function-body-with-quotes",
        lambda: declared(UPPER),
        lambda: declared("SELECT word || '$x$ :a %s 100%'"),
    ),
    change(
        "function-arguments",
        lambda: declared(UPPER),
        lambda: declared(UPPER, arguments=[("word", "text"), ("more", "integer")]),
    ),
    change(
        "function-argument-name",
        lambda: declared(UPPER),
        lambda: declared("SELECT upper(body)", arguments=[("body", "text")]),
    ),
    change(
        "function-argument-type",
        lambda: declared(UPPER),
        lambda: declared(UPPER, arguments=[("word", "character varying")]),
    ),
    change(
        "function-result",
        lambda: declared(UPPER),
        lambda: declared("SELECT length(word)", returns="integer"),
    ),
    change("function-argument-name-of-what-is-used", lambda: called("a"), lambda: called("b")),
    change(
        "function-volatility",
        lambda: declared(UPPER),
        lambda: declared(UPPER, flags="STABLE PARALLEL SAFE"),
    ),
    change(
        "function-strict",
        lambda: declared(UPPER),
        lambda: declared(UPPER, flags="IMMUTABLE STRICT PARALLEL SAFE"),
    ),
    change(
        "function-language",
        lambda: declared(UPPER),
        lambda: declared(PLPGSQL, language="plpgsql"),
    ),
    change("function-second-added", lambda: declared(UPPER), lambda: declared(UPPER, LOWER)),
    change("function-second-dropped", lambda: declared(UPPER, LOWER), lambda: declared(UPPER)),
    change("function-with-its-column-added", item, lambda: generated(UPPER)),
    change("function-with-its-column-dropped", lambda: generated(UPPER), item),
    change(
        "function-of-a-generated-column-body",
        lambda: generated(UPPER),
        lambda: generated(LOWER),
        holds="SELECT count(*) = 3 FROM item WHERE shown(title) = lower(title)",
    ),
    change("function-with-check-and-index-added", item, lambda: checked(UPPER)),
    change("function-with-check-and-index-dropped", lambda: checked(UPPER), item),
    control("function-rebuilt", lambda: declared(UPPER)),
    control("function-of-a-generated-column-rebuilt", lambda: generated(UPPER)),
    control("function-plpgsql-rebuilt", lambda: declared(PLPGSQL, language="plpgsql")),
    control(
        "function-flags-order",
        lambda: declared(UPPER),
        lambda: declared(UPPER, flags="PARALLEL SAFE IMMUTABLE"),
    ),
    control(
        "function-of-somebody-else",
        lambda: declared(UPPER),
        beside="CREATE FUNCTION other(integer) RETURNS integer LANGUAGE sql AS 'SELECT 1';"
        "CREATE PROCEDURE act() LANGUAGE sql AS 'SELECT 1'",
    ),
]
