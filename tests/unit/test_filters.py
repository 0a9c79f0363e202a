"""Filters as they are read: what is refused, what is one look into the index, what is a value."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import bindparam, exists, select

from ragstore.exceptions import InvalidFilter
from ragstore.execution import compiled
from ragstore.models import Chunk, Document
from ragstore.search import condition, path
from ragstore.search.filter import read
from ragstore.search.operators import MAX_CONDITIONS, MAX_NESTING, _keys
from ragstore.search.values import MAX_VALUES

NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone.utc)


def deep(levels: int) -> dict[str, Any]:
    """Return a filter nested so deeply."""
    where: dict[str, Any] = {"a": 1}
    for _ in range(levels):
        where = {"$not": where}
    return where


def beneath(levels: int) -> dict[str, Any]:
    """Return operators nested so deeply."""
    operators: dict[str, Any] = {"$eq": "x"}
    for _ in range(levels):
        operators = {"$not": operators}
    return operators


class Nowhere(tzinfo):
    """A time zone that does not say what it is."""

    def utcoffset(self, _: datetime | None) -> timedelta | None:
        """Return nothing."""
        return None


EAST = timezone(timedelta(hours=14))

REFUSED: list[tuple[str, Any, str]] = [
    ("unknown operator", {"a": {"$near": 1}}, r"no operator '\$near': there are \$gt"),
    ("operator at the top", {"$gte": 1}, r"no operator '\$gte' that stands beside keys"),
    ("mixed", {"a": {"$gt": 1, "b": 2}}, "mixes operators with keys"),
    ("gt of a list", {"a": {"$gt": [1]}}, r"\$gt compares numbers, strings and dates, not list"),
    ("gt of a bool", {"a": {"$lt": True}}, "not bool"),
    ("gt of None", {"a": {"$lte": None}}, "not NoneType"),
    ("gt of NaN", {"a": {"$gt": float("nan")}}, "NaN"),
    ("gt of infinity", {"a": {"$gt": Decimal("inf")}}, "Infinity"),
    ("naive datetime", {"a": {"$gt": datetime(2024, 1, 1)}}, "naive"),  # noqa: DTZ001 - the point
    ("in of text", {"a": {"$in": "abc"}}, r"\$in and \$nin take a list of values, not str"),
    ("in of a number", {"a": {"$nin": 5}}, "not int"),
    ("in of too many", {"a": {"$in": range(MAX_VALUES + 1)}}, "at most 10,000 values, not 10,001"),
    ("in of NaN", {"a": {"$in": [float("nan")]}}, "nan"),
    ("exists of a number", {"a": {"$exists": 1}}, r"\$exists takes True or False, not int"),
    ("like of a number", {"a": {"$like": 3}}, "a value is int"),
    ("like with a loose backslash", {"a": {"$like": "x\\"}}, "escapes nothing"),
    ("and of a mapping", {"$and": {"a": 1}}, r"\$and takes a list of filters"),
    ("or of text", {"$or": "a"}, r"\$or takes a list of filters"),
    ("or of numbers", {"$or": [1]}, "int stands where a mapping"),
    ("not of a value", {"$not": 1}, "int stands where a mapping"),
    ("not beneath a key", {"a": {"$not": 3}}, "takes operators"),
    ("document of text", {"$document": "a"}, r"\$document takes a mapping"),
    ("document twice", {"$document": {"meta": {"$document": {}}}}, "no operator"),
    ("unknown field", {"$document": {"id": 3}}, "no field 'id' to filter by: there are meta, key"),
    ("field of a number", {"$document": {"key": 3}}, "a value is int"),
    ("field like a date", {"$document": {"created_at": {"$like": "2%"}}}, "no operator"),
    ("field of a string date", {"$document": {"created_at": "2024-01-01"}}, "with a datetime"),
    ("field not of a value", {"$document": {"key": {"$not": 3}}}, "takes operators"),
    ("field exists of a number", {"$document": {"title": {"$exists": 3}}}, "True or False"),
    ("NUL in a path", {"a\0": {"$gt": 3}}, "NUL"),
    ("NUL in a path of exists", {"a\0": {"$exists": True}}, "NUL"),
    ("NUL in a pattern", {"a": {"$like": "\0"}}, "NUL"),
    ("surrogate", {"a": {"$gte": "\ud800"}}, "surrogate"),
    ("a number as key", {3: {"$gt": 1}}, "key 3, which is not a string"),
    ("too many conditions", {"$or": [{"a": {"$gt": 1}}] * (MAX_CONDITIONS + 1)}, "257 conditions"),
    ("too deep", deep(MAX_NESTING + 1), "more than 32 levels"),
    ("too deep beneath a key", {"a": beneath(3_000)}, "more than 32 levels"),
    ("too deep beneath a field", {"$document": {"key": beneath(3_000)}}, "more than 32 levels"),
    ("too long a path", {"a." * 32 + "a": {"$exists": True}}, "path of 33 keys"),
    ("lists in one in", {"a": {"$in": [[1]] * (MAX_CONDITIONS + 1)}}, "257 conditions"),
    ("nothing too often", {"$or": [{"$or": []}] * (MAX_CONDITIONS + 1)}, "257 conditions"),
    ("before the year 1", {"a": {"$gt": datetime(1, 1, 1, tzinfo=EAST)}}, "beyond the years"),
    ("beyond numeric", {"a": {"$gt": Decimal("1E+131072")}}, "no metadata is equal to"),
    ("integer beyond numeric", {"a": {"$lt": 10**131_072}}, "no metadata is equal to"),
    ("finer than numeric", {"a": {"$gt": Decimal("1E-16384")}}, "no metadata is equal to"),
    ("exists of all there is",
     exists().where(Document.id == Chunk.document_id), "is not a filter: .*auto-correlation"),
    ("zone without offset", {"a": {"$gt": datetime(2024, 1, 1, tzinfo=Nowhere())}}, "naive"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "part"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_what_is_no_filter_is_refused(where: Any, part: str) -> None:
    """What an operator cannot take is refused in words that name it."""
    with pytest.raises(InvalidFilter, match=part):
        condition(where)


def test_float_of_numpy_is_a_number() -> None:
    """It is a float, though its repr is another."""
    assert read({"a": {"$gt": np.float64(2.5)}}).values[-1] == Decimal("2.5")


def test_parameter_of_the_callers_keeps_to_itself() -> None:
    """A name that a search has too names another parameter, which keeps its value."""
    theirs = read(Document.title == bindparam("text", "x"))
    assert [each.value for each in theirs.parameters] == list(theirs.values) == ["x"]
    assert all(each.key != "text" for each in theirs.parameters)


def sql_of(where: Any) -> str:
    """Return the WHERE clause of a filter."""
    statement = compiled(select(Chunk.id).where(condition(where))).statement  # type: ignore[call-overload]
    assert isinstance(statement, bytes)
    return statement.decode().partition("WHERE")[2]


ONE_LOOK: list[tuple[str, Any]] = [
    ("plain", {"lang": "en"}),
    ("several keys", {"lang": "en", "author.name": "Ann", "author.age": 3}),
    ("equal", {"lang": {"$eq": "en"}}),
    ("in", {"lang": {"$in": ["en", "de", None, 3]}}),
    ("contains", {"tags": {"$contains": "x"}}),
    ("contains all", {"tags": {"$contains": ["x", "y"]}}),
    ("of a path", {"a.b.c": {"$eq": 3}}),
]


@pytest.mark.parametrize("where", [case[1] for case in ONE_LOOK], ids=[c[0] for c in ONE_LOOK])
def test_equality_is_one_containment(where: Any) -> None:
    """Equality, in any of its forms, is one ``@>`` and nothing else, so that one index answers."""
    sql = sql_of(where)
    assert sql.count("@>") == 1
    assert "AND" not in sql
    assert "->" not in sql


def test_keys_that_collide_are_asked_for_apart() -> None:
    """``{"a": {…}, "a.b": …}`` does not change the mapping that was given."""
    given_: dict[str, Any] = {"x": 1}
    assert sql_of({"a": given_, "a.b": 2}).count("@>") == 2
    assert sql_of({"a.b": 1, "a": 2}).count("@>") == 2
    assert given_ == {"x": 1}


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), min_size=1))
def test_path_names_keys_whatever_they_hold(keys: list[str]) -> None:
    """A path that ``path()`` wrote is read as the keys it was given, and begins no operator."""
    written = path(*keys)
    assert _keys(written) == tuple(keys)
    assert not written.startswith("$")


SAME_SHAPE: list[tuple[str, Any, Any]] = [
    ("values", {"a": 1}, {"b": "x", "c": None}),
    ("members of a list", {"a": {"$in": [1, 2]}}, {"b": {"$in": ["x", "y", "z"]}}),
    ("numbers", {"a": {"$gt": 1}}, {"b": {"$gt": 2.5}}),
    ("document", {"$document": {"key": "a"}}, {"$document": {"key": "b"}}),
    ("an expression", Document.title == "x", Document.title == "y"),
]


@pytest.mark.parametrize(
    ("one", "other"), [case[1:] for case in SAME_SHAPE], ids=[case[0] for case in SAME_SHAPE]
)
def test_filters_of_one_shape_share_a_statement(one: Any, other: Any) -> None:
    """Keys and values are no part of the shape, by which compiled statements are kept."""
    first, second = read(one), read(other)
    assert first.shape == second.shape
    assert first.identity != second.identity
    assert sql_of(one) == sql_of(other)


OTHER_SHAPE: list[tuple[str, Any, Any]] = [
    ("operator", {"a": {"$gt": 1}}, {"a": {"$lt": 1}}),
    ("type", {"a": {"$gt": 1}}, {"a": {"$gt": "1"}}),
    ("date or moment", {"a": {"$gt": date(2024, 1, 1)}}, {"a": {"$gt": NOW}}),
    ("depth", {"a": {"$gt": 1}}, {"a.b": {"$gt": 1}}),
    ("one or several", {"a": {"$in": [1]}}, {"a": {"$in": [1, 2]}}),
    ("negation", {"a": 1}, {"$not": {"a": 1}}),
    ("any or all", {"$or": [{"a": 1}, {"b": 1}]}, {"$and": [{"a": 1}, {"b": 1}]}),
    ("whose metadata", {"a": 1}, {"$document": {"meta": {"a": 1}}}),
    ("field", {"$document": {"key": "x"}}, {"$document": {"title": "x"}}),
    ("length of a written list", Chunk.ordinal.in_([1]), Chunk.ordinal.in_([1, 2])),  # type: ignore[union-attr]
]  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other"), [case[1:] for case in OTHER_SHAPE], ids=[case[0] for case in OTHER_SHAPE]
)
def test_filters_of_another_shape_do_not(one: Any, other: Any) -> None:
    """Whatever changes the SQL changes the shape."""
    assert read(one).shape != read(other).shape


def test_only_filters_about_documents_read_them() -> None:
    """The document is joined when the filter speaks of it, however deep inside."""
    assert read({"$or": [{"a": 1}, {"$not": {"$document": {"key": "x"}}}]}).is_about_documents
    assert read({"$document": {"meta": {"a": 1}}}).is_about_documents
    assert read(Document.title == "x").is_about_documents  # type: ignore[arg-type]
    assert not read({"$or": [{"a": 1}, {"$not": {"b": {"$like": "x"}}}]}).is_about_documents
