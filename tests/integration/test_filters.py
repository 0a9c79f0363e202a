"""Filters on the real server, against what they mean in Python, and their plans."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import bindparam, select

from ragstore import NewChunk, NewDocument, Store
from ragstore.models import CHUNKS, DOCUMENTS
from ragstore.search import condition, path
from ragstore.testing.plans import assert_uses_index

MISSING = object()
UTC = timezone.utc


# --- what a filter means -----------------------------------------------------------------------


def at(meta: Any, keys: list[str]) -> Any:
    """Return the value at a path, or MISSING."""
    for key in keys:
        if not isinstance(meta, dict) or key not in meta:
            return MISSING
        meta = meta[key]
    return meta


def kind_of(value: Any) -> str:
    """Return the JSON type of a value."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return {type(None): "null", str: "text", list: "list", dict: "object"}[type(value)]


def same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are equal as Postgres has it: 1 is 1.0, but not true."""
    if kind_of(one) != kind_of(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if kind_of(one) == "number":
        return Decimal(repr(one)) == Decimal(repr(other))
    return bool(one == other)


def contains(value: Any, wanted: Any) -> bool:
    """Tell whether a JSON value contains another as Postgres's ``@>`` has it, below the top."""
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(
            key in value and contains(value[key], wanted[key]) for key in wanted
        )
    if isinstance(wanted, list):
        return isinstance(value, list) and all(
            any(contains(each, member) for each in value) for member in wanted
        )
    return value is not MISSING and same(value, wanted)


def operated(value: Any, operator: str, wanted: Any) -> bool:
    """Tell whether an operator is true of a value."""
    if operator in ("$ne", "$nin"):
        return not operated(value, {"$ne": "$eq", "$nin": "$in"}[operator], wanted)
    if operator == "$not":
        return not all(operated(value, name, inside) for name, inside in wanted.items())
    if operator == "$exists":
        return (value is not MISSING) == wanted
    if value is MISSING:
        return False
    if operator == "$eq":
        return same(value, wanted)
    if operator == "$in":
        return any(same(value, each) for each in wanted)
    if operator == "$contains":
        return contains(value, wanted if isinstance(wanted, list) else [wanted])
    if operator == "$like":
        parts = [{"%": ".*", "_": "."}.get(letter, re.escape(letter)) for letter in wanted]
        return isinstance(value, str) and bool(re.fullmatch("".join(parts), value, re.DOTALL))
    if kind_of(value) != kind_of(wanted):
        return False
    one, other = (
        (Decimal(repr(value)), Decimal(repr(wanted)))
        if kind_of(value) == "number"
        else (value, wanted)
    )
    return bool(
        {"$gt": one > other, "$gte": one >= other, "$lt": one < other, "$lte": one <= other}[
            operator
        ]
    )


# A filter is drawn as (keys, operators) at its leaves, so that its keys need not be parsed here.
def is_true(meta: Any, node: Any) -> bool:
    """Tell whether a drawn filter keeps a chunk."""
    name, inside = node
    if name == "leaf":
        keys, operators = inside
        return all(operated(at(meta, keys), each, wanted) for each, wanted in operators.items())
    if name == "plain":
        keys, wanted = inside
        value = at(meta, keys)
        return value is not MISSING and contains(value, wanted)
    if name == "$not":
        return not is_true(meta, inside)
    return (all if name == "$and" else any)(is_true(meta, each) for each in inside)


def written(node: Any) -> dict[str, Any]:
    """Return a drawn filter as it is given to a search."""
    name, inside = node
    if name in ("leaf", "plain"):
        keys, wanted = inside
        return {path(*keys): wanted}
    if name == "$not":
        return {"$not": written(inside)}
    return {name: [written(each) for each in inside]}


KEYS = st.one_of(
    st.sampled_from(["a", "b", "0", "a.b", "$gt", "$or", "", "'", '"', "%s", "{}", "\\", "é"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4),
)
TEXTS = st.one_of(
    st.sampled_from(["", "a", "A", "ab", "é", "z", "10", "9", "null", "%", "_", "' OR 1=1 --"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.5, 1.0, -0.0, 1e-7, 10**20, 1e300]),
    TEXTS,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=4,
)
# No `$` at the start of the first key of a plain value: that would be an operator.
PLAIN = VALUES.filter(
    lambda value: not (isinstance(value, dict) and any(key.startswith("$") for key in value))
)
ORDERED = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, 1e-7, 1e300]), TEXTS)
OPERATORS = st.one_of(
    st.tuples(st.sampled_from(["$eq", "$ne", "$contains"]), VALUES),
    st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(VALUES, max_size=3)),
    st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), ORDERED),
    st.tuples(st.just("$exists"), st.booleans()),
    st.tuples(st.just("$like"), TEXTS.filter(lambda text: "\\" not in text)),
)
PATHS = st.lists(KEYS, min_size=1, max_size=3)
MANY = st.lists(OPERATORS, min_size=1, max_size=2).map(dict)
LEAVES = st.one_of(
    st.tuples(
        st.just("leaf"),
        st.tuples(PATHS, st.one_of(MANY, MANY.map(lambda inside: {"$not": inside}))),
    ),
    st.tuples(st.just("plain"), st.tuples(PATHS, PLAIN)),
)
NODES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["$and", "$or"]), st.lists(inner, max_size=3)),
        st.tuples(st.just("$not"), inner),
    ),
    max_leaves=4,
)
METAS = st.lists(st.dictionaries(KEYS, VALUES, max_size=3), min_size=1, max_size=5)

_COMPARED = select(CHUNKS.c.id).select_from(CHUNKS)


@settings(max_examples=150, deadline=None)
@given(metas=METAS, node=NODES)
@example(metas=[{"a": ["x"]}, {"a": {"0": "x"}}], node=("leaf", (["a", "0"], {"$exists": True})))
@example(metas=[{"a": True}, {"a": 1}, {"a": 1.0}], node=("leaf", (["a"], {"$in": [1]})))
@example(metas=[{"a": None}, {}], node=("leaf", (["a"], {"$ne": None})))
@example(
    metas=[{}],
    node=("$and", [("leaf", (["a"], {"$in": []})), ("leaf", (["a"], {"$exists": False}))]),
)
@example(metas=[{"a": [[1, 2]]}], node=("leaf", (["a"], {"$contains": [[1]]})))
def test_filter_means_what_it_says(shared: Store, metas: list[Any], node: Any) -> None:
    """Every filter keeps what it means, and hostile keys and values are only that: data."""
    name = f"filters {next(NUMBERS)}"
    made = shared.create_collection(name, language="simple")
    chunks = [NewChunk("x", meta=meta) for meta in metas]
    shared.ingest(name, [NewDocument("d", chunks)])
    statement = select(CHUNKS.c.ordinal).where(
        CHUNKS.c.collection_id == made.id, condition(written(node))
    )
    with shared.connection.session() as session:
        found = set(session.execute(statement).scalars())
    assert found == {place for place, meta in enumerate(metas) if is_true(meta, node)}
    hits = shared.search(name, text="x", where=written(node), k=10)
    assert {hit.ordinal for hit in hits} == found


NUMBERS = iter(range(10_000))


# --- dates and documents -----------------------------------------------------------------------

MOMENTS = [
    "2024-03-01",
    "2024-03-01T00:00:00Z",
    "2024-03-01T09:30:00+02:00",
    "2024-03-01 12:00:00.5",
    "2024-03-02T00:00:00+00:00",
    "2023-12-31T23:59:59Z",
    "2024-13-45",
    "2024-02-30T00:00:00Z",
    "not a date",
    20240301,
    None,
]
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def dated(shared: Store) -> str:
    """Return a collection whose chunks have all kinds of dates."""
    shared.create_collection("dated", language="simple")
    for number, moment in enumerate(MOMENTS):
        document = NewDocument(
            f"doc {number}",
            [NewChunk("x", meta={"at": moment})],
            title=f"T{number}" if number else None,
            meta={"team": "a" if number % 2 else "b", "n": number},
        )
        shared.ingest("dated", [document])
    return "dated"


DATES: list[tuple[str, Any, list[int]]] = [
    ("a day", {"at": date(2024, 3, 1)}, [0, 1, 2, 3]),
    ("a day by $eq", {"at": {"$eq": date(2024, 3, 1)}}, [0, 1, 2, 3]),
    ("not a day", {"at": {"$ne": date(2024, 3, 1)}}, [4, 5, 6, 7, 8, 9, 10]),
    ("up to a day", {"at": {"$lte": date(2024, 3, 1)}}, [0, 1, 2, 3, 5, 7]),
    ("between days", {"at": {"$gte": date(2024, 1, 1), "$lt": date(2024, 3, 2)}}, [0, 1, 2, 3, 7]),
    ("one of two days", {"at": {"$in": [date(2024, 3, 2), date(2023, 12, 31)]}}, [4, 5]),
    ("a moment", {"at": datetime(2024, 3, 1, tzinfo=UTC)}, [0, 1]),
    ("an offset is counted", {"at": datetime(2024, 3, 1, 7, 30, tzinfo=UTC)}, [2]),
    ("after a moment", {"at": {"$gt": NOON}}, [3, 4]),
    ("before, in another zone",
     {"at": {"$lt": datetime(2024, 3, 1, 1, tzinfo=timezone(timedelta(hours=1)))}}, [5]),
    ("as text", {"at": {"$gte": "2024-03-01T", "$lt": "2024-03-02"}}, [1, 2]),
    ("key", {"$document": {"key": "doc 3"}}, [3]),
    ("keys", {"$document": {"key": {"$in": ["doc 3", "doc 4", "x"]}}}, [3, 4]),
    ("no keys", {"$document": {"key": {"$nin": [f"doc {n}" for n in range(9)]}}}, [9, 10]),
    ("key by pattern", {"$document": {"key": {"$like": "%1_"}}}, [10]),
    ("keys in order", {"$document": {"key": {"$gt": "doc 8"}}}, [9]),
    ("no title", {"$document": {"title": {"$exists": False}}}, [0]),
    ("a null title", {"$document": {"title": None}}, [0]),
    ("another title", {"$document": {"title": {"$ne": "T3"}}}, [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]),
    ("title not above", {"$document": {"title": {"$not": {"$gt": "T1"}}}}, [0, 1]),
    ("metadata of the document", {"$document": {"meta": {"team": "a", "n": {"$lt": 6}}}},
     [1, 3, 5]),
    ("document and chunk", {"at": None, "$document": {"meta": {"team": "b"}}}, [10]),
    ("document or chunk", {"$or": [{"at": None}, {"$document": {"key": "doc 1"}}]}, [1, 10]),
    ("when it was stored", {"$document": {"created_at": {"$gte": NOON}}}, list(range(11))),
    ("when it was changed", {"$document": {"updated_at": {"$lt": NOON}}}, []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "kept"), [case[1:] for case in DATES], ids=[case[0] for case in DATES]
)
def test_dates_and_documents(shared: Store, dated: str, where: Any, kept: list[int]) -> None:
    """Dates are compared as such, strings that are none are left out, and documents are found."""
    found = shared.search(dated, text="x", where=where, k=50)
    assert sorted(int(hit.document_key[4:]) for hit in found) == kept


@pytest.mark.parametrize("name", ["text", "name", "language", "vector"])
def test_parameter_may_have_a_name_of_the_searchs_own(shared: Store, dated: str, name: str) -> None:
    """What is searched for is not what the condition compares with."""
    every = shared.search(dated, text="x", k=50)
    where = DOCUMENTS.c.key == bindparam(name, every[0].document_key)
    found = shared.search(dated, text="x", where=where, k=50)
    assert {hit.document_key for hit in found} == {every[0].document_key}


# --- plans -------------------------------------------------------------------------------------

METADATA = "ragstore_chunk_metadata_idx"
OF_COLLECTION = ("ragstore_chunk_pkey", "ragstore_chunk_ordinal_key")
PLANS: list[tuple[str, Any, Any]] = [
    ("plain", {"a": 1}, METADATA),
    ("path", {"a.b.c": "x"}, METADATA),
    ("$eq", {"a": {"$eq": 1}}, METADATA),
    ("$eq of a list", {"a": {"$eq": [1]}}, METADATA),
    ("$in", {"a": {"$in": [1, 2, 3]}}, METADATA),
    ("$contains", {"a": {"$contains": "x"}}, METADATA),
    ("$and", {"$and": [{"a": 1}, {"b": {"$gt": 3}}]}, METADATA),
    ("$or", {"$or": [{"a": 1}, {"b": {"$in": [1, 2]}}]}, METADATA),
    ("$gt", {"a": {"$gt": 1}}, OF_COLLECTION),
    ("$gte", {"a": {"$gte": "x"}}, OF_COLLECTION),
    ("$lt", {"a": {"$lt": date(2024, 1, 1)}}, OF_COLLECTION),
    ("$lte", {"a": {"$lte": NOON}}, OF_COLLECTION),
    ("$ne", {"a": {"$ne": 1}}, OF_COLLECTION),
    ("$nin", {"a": {"$nin": [1, 2]}}, OF_COLLECTION),
    ("$exists", {"a": {"$exists": True}}, OF_COLLECTION),
    ("$like", {"a": {"$like": "x%"}}, OF_COLLECTION),
    ("$not", {"$not": {"a": 1}}, OF_COLLECTION),
]


@pytest.fixture(scope="module")
def filled(shared: Store) -> int:
    """Return the id of one of two collections of 10,000 chunks, each of its own document."""
    made = [shared.create_collection(f"filled {number}", language="simple") for number in (1, 2)]
    with shared.connection.transaction() as connection:
        for each in made:
            connection.execute(
                "INSERT INTO ragstore_document (collection_id, id, key)"
                " SELECT %(id)s, 1000000 + n, 'k' || n FROM generate_series(1, 10000) n",
                {"id": each.id},
            )
            connection.execute(
                "INSERT INTO ragstore_chunk"
                " (collection_id, id, document_id, ordinal, text, metadata)"
                " SELECT %(id)s, 1000000 + n, 1000000 + n, 0, 'x',"
                "   jsonb_build_object('a', n, 'b', n, 'tags', jsonb_build_array(n))"
                " FROM generate_series(1, 10000) n",
                {"id": each.id},
            )
        # New rows wait in a list that is read whole, until a vacuum sorts them in.
        connection.execute("SELECT gin_clean_pending_list('ragstore_chunk_metadata_idx')")
        connection.execute("ANALYZE ragstore_chunk")
        connection.execute("ANALYZE ragstore_document")
    return made[0].id


@pytest.mark.parametrize(
    ("where", "indexes"), [case[1:] for case in PLANS], ids=[case[0] for case in PLANS]
)
def test_plan_of_an_operator(shared: Store, filled: int, where: Any, indexes: Any) -> None:
    """Equality is found in the metadata's index; the rest is read within the collection."""
    statement = _COMPARED.where(CHUNKS.c.collection_id == filled, condition(where))
    with shared.connection.session() as session:
        if indexes == METADATA:
            assert_uses_index(session, statement, METADATA)
            return
        with pytest.raises(AssertionError, match="metadata_idx"):
            assert_uses_index(session, statement, METADATA)
        with suppress(AssertionError):
            assert_uses_index(session, statement, OF_COLLECTION[0])
            return
        assert_uses_index(session, statement, OF_COLLECTION[1])


def test_plan_of_a_document_key(shared: Store, filled: int) -> None:
    """A filter by key finds the documents by their unique index."""
    statement = (
        select(CHUNKS.c.id)
        .join(
            DOCUMENTS,
            (DOCUMENTS.c.id == CHUNKS.c.document_id) & (DOCUMENTS.c.collection_id == filled),
        )
        .where(
            CHUNKS.c.collection_id == filled,
            condition({"$document": {"key": {"$in": ["k7", "k8"]}}}),
        )
    )
    with shared.connection.session() as session:
        assert_uses_index(session, statement, "ragstore_document_key_key")
