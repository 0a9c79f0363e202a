"""Search as text: one statement, every value a parameter, the collection always named."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import ColumnElement, Select, bindparam, exists, select, true
from sqlalchemy.orm import aliased

from ragstore import exceptions
from ragstore.collection import CollectionInfo
from ragstore.execution import compiled
from ragstore.models import Chunk, Collection, Document, Embedding
from ragstore.search import condition, fused, hits, matching, nearest
from ragstore.search.answer import _Answer, answer
from ragstore.search.filter import Where
from ragstore.search.hits import of_matching, of_nearest
from ragstore.search.memory import Memory
from ragstore.search.query import Search
from ragstore.search.result import Hit, SearchResult
from ragstore.search.text import MAX_QUERY_BYTES, MAX_QUERY_WORDS, check_query
from ragstore.space import Space

COLLECTION, SPACE_ID = 4711, 815
SPACE = Space(SPACE_ID, "s", "m", 2, "cosine")
META: Any = Chunk.meta
DOCUMENT_ID: Any = Document.id
TITLE: Any = Document.title


def vector_arm(where: Where | None = None) -> Select[Any]:
    """Return the vector arm of every test."""
    return nearest(COLLECTION, SPACE, [1, 0], limit=5, where=where)


def text_arm(where: Where | None = None, text: str = "cat") -> Select[Any]:
    """Return the text arm of every test."""
    return matching(COLLECTION, "english", text, limit=5, where=where, any_word=True)


def statements(where: Where | None = None) -> dict[str, Select[Any]]:
    """Return the statement of each strategy."""
    ranked = {
        "vector": of_nearest(vector_arm(where), "cosine", limit=5, offset=0),
        "text": of_matching(text_arm(where), limit=5, offset=0),
        "hybrid": fused(vector_arm(where), text_arm(where), limit=5, offset=0),
    }
    return {name: hits(COLLECTION, each) for name, each in ranked.items()}


def sent(statement: Select[Any]) -> tuple[str, list[Any]]:
    """Return the text and the values that the driver is given."""
    query = compiled(statement)
    assert isinstance(query.statement, bytes)
    assert isinstance(query.parameters, dict)
    return query.statement.decode(), list(query.parameters.values())


@pytest.mark.parametrize("strategy", ["vector", "text", "hybrid"])
def test_search_is_one_statement_that_names_its_collection(strategy: str) -> None:
    """Every table is restricted to the collection by a parameter, never through a join alone."""
    text, values = sent(statements()[strategy])
    assert ";" not in text
    for table in ("chunk", "document", "embedding"):
        mentions = f"ragstore_{table}.collection_id = %("
        assert (f"ragstore_{table}." in text) == (mentions in text), table
    assert COLLECTION in values
    assert str(COLLECTION) not in text


@pytest.mark.parametrize("strategy", ["vector", "hybrid"])
def test_search_by_vector_names_its_space(strategy: str) -> None:
    """Without the space the partitions of other dimensions would be read, and fail."""
    text, values = sent(statements()[strategy])
    assert "ragstore_embedding.space_id = %(" in text
    assert SPACE_ID in values
    assert str(SPACE_ID) not in text


def test_collection_is_named_for_tables_that_a_filter_brings() -> None:
    """A filter on Document joins it within the collection."""
    where = (TITLE == "T") & META.contains({"a": 1})
    text, values = sent(vector_arm(where))
    assert "ragstore_chunk.collection_id = %(" in text
    assert "ragstore_document.collection_id = %(" in text
    assert COLLECTION in values


def test_tables_that_a_filter_does_not_need_are_not_joined() -> None:
    """A search without a filter reads the vectors alone."""
    assert "ragstore_chunk" not in sent(vector_arm())[0]
    assert "ragstore_document" not in sent(vector_arm({"a": 1}))[0]


HOSTILE = st.text(min_size=1).map(lambda text: f"ZZ'\";--%(x)s%s{{}}{text}ZZ")


@given(text=HOSTILE, key=HOSTILE, value=HOSTILE)
def test_user_text_is_never_in_the_statement(text: str, key: str, value: str) -> None:
    """Text, keys and values are parameters, whatever they hold."""
    try:
        arms = [text_arm({key: value}, text), vector_arm(META[key].astext == value)]
    except exceptions.InvalidInput:
        return  # a NUL character or half of a surrogate pair
    for arm in arms:
        assert "ZZ" not in sent(arm)[0]


ALIAS: Any = aliased(Chunk)
NOT_FILTERS: list[tuple[str, Any, str]] = [
    ("a string", "lang = 'en'", "not str"),
    ("a list", [("lang", "en")], "not list"),
    ("a truth value", True, "not bool"),
    ("an operator", {"$gt": 3}, r"no operator '\$gt'"),
    ("a date in a list", {"at": [datetime.now(timezone.utc)]}, r"meta.at\[0\] is datetime"),
    ("a number key", {1: 2}, "key 1"),
    ("NaN", {"a": float("nan")}, "meta.a is nan"),
    ("a NUL value", {"a": "\0"}, "meta.a has a NUL"),
    ("a NUL key", {"\0": 1}, "a key of meta has a NUL"),
    ("a surrogate", {"a": "\udc80"}, "meta.a has half"),
    ("a NUL in a condition", META["a"].astext == "x\0", "a value has a NUL"),
    ("a NUL in a list", META["a"].astext.in_(["x", "y\0"]), "a value has a NUL"),
    ("a surrogate in a condition", TITLE == "\ud800", "surrogate"),
    ("a naive date", Document.created_at > datetime(2020, 1, 1), "naive"),  # type: ignore[operator]  # noqa: DTZ001 - the point
    ("naive dates", Document.created_at.in_([datetime(2020, 1, 1)]), "naive"),  # type: ignore[union-attr]  # noqa: DTZ001 - the point
    ("a missing value", Chunk.ordinal == bindparam("x"), "bind parameter"),
    ("another table", Collection.name == "c", "ragstore_collection"),
    ("the embeddings", Embedding.space_id == 1, "ragstore_embedding"),
    ("an alias", ALIAS.ordinal == 1, "subquery"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "part"), [case[1:] for case in NOT_FILTERS], ids=[case[0] for case in NOT_FILTERS]
)
def test_what_is_no_filter_is_refused(where: Any, part: str) -> None:
    """A filter that would fail on the server, or mean something else, is refused by name."""
    with pytest.raises(exceptions.InvalidFilter, match=part):
        condition(where)


@pytest.mark.parametrize(
    "where",
    [
        true(),
        Chunk.ordinal == 0,
        META["a%b"].astext == "50%",
        META.in_([{"a": 1}]),
        Chunk.document_id.in_(select(DOCUMENT_ID).where(TITLE == "T")),  # type: ignore[union-attr]
        exists().where(ALIAS.document_id == Document.id, ALIAS.collection_id == 1),
    ],
    ids=map(str, range(6)),
)
def test_condition_is_taken_as_it_is(where: ColumnElement[bool]) -> None:
    """Other tables may stand in subqueries, and a percent sign is a percent sign."""
    assert condition(where) is where


def test_list_in_a_condition_is_bound_like_a_single_value() -> None:
    """The members of an IN list go through their column's type."""
    moment = datetime(2020, 1, 1, tzinfo=timezone.utc)
    where: Any = Document.created_at.in_([moment])  # type: ignore[union-attr]
    assert moment in sent(vector_arm(where))[1]
    kinds = {type(value).__name__ for value in sent(vector_arm(META.in_([{"a": 1}])))[1]}
    assert "Jsonb" in kinds


def test_odd_parameter_name_reaches_the_driver() -> None:
    """A name that the driver's placeholders cannot hold is escaped in both places."""
    query = compiled(select(bindparam("a(b)%", 5)))
    assert isinstance(query.statement, bytes)
    assert isinstance(query.parameters, dict)
    (name,) = query.parameters
    assert f"%({name})s" in query.statement.decode()


SEARCHES: list[tuple[str, dict[str, Any], str]] = [
    ("nothing", {}, "nothing to search for"),
    ("k 0", {"text": "x", "k": 0}, "k is 0: .* from 1 to 1000"),
    ("k -1", {"text": "x", "k": -1}, "k is -1"),
    ("k 1001", {"text": "x", "k": 1001}, "k is 1001"),
    ("k True", {"text": "x", "k": True}, "k is True"),
    ("k text", {"text": "x", "k": "5"}, "k is '5'"),
    ("k None", {"text": "x", "k": None}, "k is None"),
    ("k float", {"text": "x", "k": 2.0}, "k is 2.0"),
    ("offset -1", {"text": "x", "offset": -1}, "offset is -1: .* from 0 to 10000"),
    ("offset 10001", {"text": "x", "offset": 10_001}, "offset is 10001"),
]


@pytest.mark.parametrize(
    ("asked", "message"), [case[1:] for case in SEARCHES], ids=[case[0] for case in SEARCHES]
)
def test_search_out_of_range_is_refused(asked: dict[str, Any], message: str) -> None:
    """The range is named before anything is sent."""
    with pytest.raises(exceptions.InvalidQuery, match=message):
        Search(**asked)


@pytest.mark.parametrize(
    ("text", "error", "part"),
    [
        ("x" * (MAX_QUERY_BYTES + 1), exceptions.TextTooLong, "8,193"),
        ("é" * (MAX_QUERY_BYTES // 2 + 1), exceptions.TextTooLong, "8,194"),
        ("x " * (MAX_QUERY_WORDS + 1), exceptions.InvalidQuery, "65 words, and 64"),
        (",".join("x" * 65), exceptions.InvalidQuery, "65 words"),
        ("_".join("x" * 65), exceptions.InvalidQuery, "65 words"),
        ("a\0", exceptions.NulByte, "the query"),
        ("\udc80", exceptions.LoneSurrogate, "the query"),
        (5, exceptions.InvalidText, "the query is int"),
    ],
    ids=["long", "long in bytes", "words", "commas", "underscores", "NUL", "surrogate", "number"],
)
def test_query_text_that_cannot_be_sent_is_refused(text: Any, error: Any, part: str) -> None:
    """A query is limited in bytes and words, and holds what a chunk may hold."""
    with pytest.raises(error, match=part):
        check_query(text)
    with pytest.raises(error, match=part):
        text_arm(text=text)


def test_query_at_its_limits_is_taken() -> None:
    """The limits are inclusive."""
    for text in ("é" * (MAX_QUERY_BYTES // 2), "x " * MAX_QUERY_WORDS, "नमस्ते " * MAX_QUERY_WORDS):
        assert "websearch" in sent(text_arm(text=text))[0]


def test_search_result_is_a_sequence_that_shows_no_text() -> None:
    """It is indexed, sliced, iterated and counted like a tuple; its repr holds no passage."""
    first, second = (
        Hit(1.0, "k", None, number, 0, "secret", {}, 1, 0.0, None, None) for number in (1, 2)
    )
    result = SearchResult([first, second], strategy="vector", reason="because")
    assert (result[0], result[-1], len(result)) == (first, second, 2)
    assert list(result[1:]) == [second]
    assert list(reversed(result)) == [second, first]
    assert first in result
    assert repr(result) == "<SearchResult vector: 2 hits>"
    assert not SearchResult([], strategy="text", reason="")


def test_way_is_chosen_once_for_searches_of_one_shape() -> None:
    """Another vector or ef_search needs no decision; another k does, and so does a filter."""
    info = CollectionInfo(
        COLLECTION, "c", "simple", SPACE, True, size=100_000, own_index=100_000, space_index=None
    )
    memory = Memory()
    asked: list[tuple[dict[str, Any], int]] = [
        ({"k": 10}, 1),
        ({"k": 10, "ef_search": 200}, 1),
        ({"k": 50}, 2),
        ({"k": 50, "exact": True}, 3),
        ({"k": 50, "where": {"x": 1}}, 3),
    ]
    sent_: list[Any] = []
    for options, ways in asked:
        search = Search(vector=[1, 0], **options)
        sent_.append(next(answer(search, info, [1, 0], memory)))
        assert len(info.ways) == ways
    assert sent_[0].statement == sent_[1].statement
    assert 200 in sent_[1].parameters
    assert 200 not in sent_[0].parameters
    assert len({each.statement for each in sent_}) == 4


def test_filters_of_another_size_have_a_plan_of_their_own() -> None:
    """The server keeps a plan for filters of one magnitude, and none for one it has not seen."""
    info = CollectionInfo(
        COLLECTION, "c", "simple", SPACE, True, size=100_000, own_index=100_000, space_index=None
    )
    memory = Memory()
    sent_: list[Any] = []
    for value, count in (("a", 10), ("b", 99), ("c", 100), ("d", None)):
        search = Search(vector=[1, 0], where={"x": value})
        key = _Answer(search, info, [1, 0], memory)._filter_key
        assert key is not None
        if count is not None:
            memory.filters.put(key, (count, False))
        sent_.append(next(answer(search, info, [1, 0], memory)))
    assert sent_[0].statement == sent_[1].statement
    assert len({each.statement for each in sent_}) == 3
    assert [each.prepare for each in sent_] == [None, None, None, False]


def test_arm_of_a_hybrid_search_is_looked_for_wider() -> None:
    """An index gives half as many again as an arm ranks, unless the search says how many."""
    info = CollectionInfo(COLLECTION, "c", "simple", SPACE, True, 100_000, 100_000)
    for options, ef_search in (({}, 150), ({"ef_search": 120}, 120), ({"candidates": 300}, 450)):
        search = Search(vector=[1, 0], text="cat", **options)
        step: Any = next(answer(search, info, [1, 0], Memory()))
        assert ef_search in step.parameters


FEW = {"matching": 1_000, "chunks": 2_000_000, "where": {"x": "a"}}
PLANS: list[tuple[str, dict[str, Any], bool]] = [
    ("few of a large collection", {}, True),
    ("more than equality", {"where": {"x": "a", "y": {"$gt": 5}}}, True),
    ("no equality", {"where": {"y": {"$gt": 5}}}, False),
    ("one value of several", {"where": {"x": {"$in": ["a", "b"]}}}, False),
    ("not few", {"matching": 2_001}, False),
    ("a small collection of many", {"chunks": 2_000_001}, False),
    ("chunks never counted", {"chunks": 0}, False),
    ("a column with statistics", {"where": {"$document": {"key": "a"}}}, False),
    ("an expression", {"where": META.contains({"x": "a"})}, False),
]


@pytest.mark.parametrize(
    ("changes", "is_rare"), [case[1:] for case in PLANS], ids=[case[0] for case in PLANS]
)
def test_plan_of_a_filter_that_keeps_few_is_kept(changes: dict[str, Any], is_rare: bool) -> None:
    """One statement serves all filters that keep few, where the planner need not know the value.

    It does not see the value, and is told twice that few pass: its guess is multiplied.
    """
    case = {**FEW, **changes}
    info = CollectionInfo(
        COLLECTION, "c", "simple", SPACE, True, 100_000, 100_000, chunks=case["chunks"]
    )
    memory = Memory()
    search = Search(vector=[1, 0], k=100, where=case["where"])
    key = _Answer(search, info, [1, 0], memory)._filter_key
    assert key is not None
    memory.filters.put(key, (case["matching"], False))
    step: Any = next(answer(search, info, [1, 0], memory))
    text = step.statement.decode()
    assert text.count("@>") == (2 if is_rare else 1 if "@>" in text else 0)
    assert ("@> (SELECT" in text) == is_rare
    assert ("/* " in text) != is_rare
    assert step.prepare is None


def test_statement_of_a_search_names_what_it_was_built_for() -> None:
    """Ids stand in the statement, as plans and partitions go by them; the rest is parameters."""
    info = CollectionInfo(COLLECTION, "ZZname", "simple", SPACE, True, size=5)
    search = Search(text="ZZtext", vector=[1, 0], where={"ZZkey": "ZZvalue"}, neighbours=1)
    step: Any = next(answer(search, info, [1, 0], Memory()))
    text = step.statement.decode()
    assert f"ragstore_embedding.space_id = {SPACE_ID}" in text
    for table in ("chunk", "document", "embedding"):
        assert f"ragstore_{table}.collection_id = {COLLECTION}" in text
    assert "ZZ" not in text
    assert {"ZZname", "ZZtext", '{"ZZkey":"ZZvalue"}'} <= {
        each for each in step.parameters if isinstance(each, str)
    }


BAD_WEIGHTS: list[Any] = [
    1.0, True, "11", b"11", ..., [], [1], [1, 1, 1], [1, -1], [0, 0], [1, float("inf")],
    [1, float("nan")], ["1", 1], [True, 1], [None, 1], [10**400, 1], [[1], 1], {"title": 1},
    {"title": 1, 2: 1}, {None: 1}, {"vector": "1"}, {"text": True}, {"vector": 0, "text": 0},
]  # fmt: skip


@pytest.mark.parametrize("weights", BAD_WEIGHTS, ids=lambda given: f"{given!r:.30}")
def test_weights_that_are_none_are_refused(weights: Any) -> None:
    """Whatever is given for them, the error is the one of a wrong search."""
    with pytest.raises(exceptions.InvalidQuery, match="weights"):
        Search(text="x", vector=[1, 0], weights=weights)


@pytest.mark.parametrize(
    ("weights", "pair"),
    [(None, (1, 1)), ((2, 0), (2, 0)), (np.array([1, 2]), (1, 2)), ({"text": 3}, (1, 3))],
)
def test_weights_are_two_numbers(weights: Any, pair: tuple[float, float]) -> None:
    """A mapping, a sequence and an array say the same; what a mapping leaves out is 1."""
    assert Search(text="x", vector=[1, 0], weights=weights).both_weights == pair
