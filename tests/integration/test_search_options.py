"""What a search can be asked for besides the best chunks, with both stores."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import sleep
from typing import Any

import numpy as np
import psycopg
import pytest
from sqlalchemy import Boolean
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from ragstore import NewChunk, NewDocument, Search, Store, exceptions
from ragstore.models import Chunk
from ragstore.search.hybrid import RRF_CONSTANT

DOCUMENTS = [
    NewDocument(
        f"d{number}",
        [
            NewChunk(
                f"part {part} of {number} has cat{' and dog' * (part % 2)}", [number + 1, part]
            )
            for part in range(6)
        ],
        meta={"number": number},
    )
    for number in range(4)
]
UP = [0.0, 1.0]  # the nearest by cosine have the highest part and the lowest number


@pytest.fixture(scope="module")
def parts(shared: Store) -> Store:
    """Return a store with a collection ``parts`` of four documents of six chunks."""
    shared.create_space("plane", model="m", dimensions=2)
    shared.create_collection("parts", space="plane", language="simple")
    shared.ingest("parts", DOCUMENTS)
    return shared


def keys(result: Any) -> list[tuple[str, int]]:
    """Return which chunks were found, in order."""
    return [(hit.document_key, hit.ordinal) for hit in result]


ASKED: list[dict[str, Any]] = [{"vector": UP}, {"text": "cat"}, {"vector": UP, "text": "cat dog"}]
KINDS = ["vector", "text", "hybrid"]


@pytest.mark.parametrize("asked", ASKED, ids=KINDS)
@pytest.mark.parametrize("most", [1, 2])
def test_per_document_keeps_the_best_of_each(parts: Store, asked: Any, most: int) -> None:
    """At most so many of a document come, its best, and as many hits as there can be."""
    every = keys(parts.search("parts", **asked, k=100))
    expected: list[tuple[str, int]] = []
    for each in every:
        if sum(key == each[0] for key, _ in expected) < most:
            expected.append(each)
    assert keys(parts.search("parts", **asked, per_document=most, k=100)) == expected
    assert keys(parts.search("parts", **asked, per_document=most, k=3)) == expected[:3]
    assert keys(parts.search("parts", **asked, per_document=most, k=2, offset=1)) == expected[1:3]


@pytest.mark.parametrize("asked", ASKED, ids=KINDS)
def test_per_document_looks_beyond_a_long_document(store: Store, asked: Any) -> None:
    """One document that fills every first place does not hide the others."""
    store.create_space("plane", model="m", dimensions=2)
    store.create_collection("long", space="plane", language="simple")
    near = NewDocument("near", [NewChunk("cat dog " * 3, [0, 1])] * 1_500)
    far = [NewDocument(f"far {n}", [NewChunk("a cat far from a dog", [1, n])]) for n in range(3)]
    store.ingest("long", [near, *far])
    found = store.search("long", **asked, per_document=1, k=10)
    assert sorted(hit.document_key for hit in found) == ["far 0", "far 1", "far 2", "near"]


@pytest.mark.parametrize("asked", ASKED, ids=KINDS)
def test_neighbours_come_along(parts: Store, asked: Any) -> None:
    """Each hit has the chunks before and after it in its document, as far as there are."""
    for hit in parts.search("parts", **asked, neighbours=2, k=100):
        at = hit.ordinal
        assert [each.ordinal for each in hit.before] == list(range(max(0, at - 2), at))
        assert [each.ordinal for each in hit.after] == list(range(at + 1, min(6, at + 3)))
        for each in (*hit.before, *hit.after):
            assert each.text.startswith(f"part {each.ordinal} of {hit.document_key[1:]}")
            assert each.chunk_id != hit.chunk_id


def test_highlight_marks_the_words(parts: Store) -> None:
    """The matching passage comes with its words marked; without a text there is none to mark."""
    for asked in ASKED[1:]:
        options: dict[str, Any] = asked
        for hit in parts.search("parts", **options, highlight=True):
            assert "<b>cat</b>" in (hit.highlight or "")
    assert parts.search("parts", vector=UP, highlight=True)[0].highlight is None
    assert parts.search("parts", text="cat")[0].highlight is None


def test_highlight_looks_at_a_part_of_a_long_text(store: Store) -> None:
    """The end of a very long chunk is not looked through."""
    store.create_collection("c", language="simple")
    store.ingest("c", [NewDocument("d", ["cat " + "x " * 30_000 + "dog"])])
    (hit,) = store.search("c", text="cat dog", highlight=True)
    assert "<b>cat</b>" in (hit.highlight or "")
    assert "<b>dog</b>" not in (hit.highlight or "")


@pytest.mark.parametrize("asked", ASKED, ids=KINDS)
def test_text_may_stay_behind(parts: Store, asked: Any) -> None:
    """Without the text everything else is the same."""
    whole = parts.search("parts", **asked)
    bare = parts.search("parts", **asked, with_text=False)
    assert keys(bare) == keys(whole)
    assert {hit.text for hit in bare} == {""}
    assert all(hit.text for hit in whole)


def test_max_distance_leaves_out_what_is_farther(parts: Store) -> None:
    """No vector beyond it is found, and one at it is; words still find what they find."""
    every = parts.search("parts", vector=UP, k=100)
    limit = every[6].distance
    assert limit is not None
    near = parts.search("parts", vector=UP, k=100, max_distance=limit)
    assert keys(near) == [each for each, hit in zip(keys(every), every, strict=True)
                          if (hit.distance or 0) <= limit]  # fmt: skip
    assert len(near) >= 7
    both = parts.search("parts", vector=UP, text="cat", k=100, max_distance=limit)
    assert len(both) == 24
    assert {hit.vector_rank is not None for hit in both} == {True, False}
    assert len(parts.search("parts", vector=UP, max_distance=-1)) == 0


@pytest.mark.parametrize(
    ("weights", "pair"),
    [
        (None, (1, 1)),
        ({"text": 0.5}, (1, 0.5)),
        ({"vector": 0, "text": 2}, (0, 2)),
        ((3, 0.25), (3, 0.25)),
    ],
)
def test_weights_are_of_the_arms(parts: Store, weights: Any, pair: tuple[float, float]) -> None:
    """The score is the sum of each arm's weight by its rank."""
    result = parts.search("parts", vector=UP, text="dog", weights=weights, k=100)
    for hit in result:
        shares = [
            weight / (RRF_CONSTANT + rank)
            for weight, rank in zip(pair, (hit.vector_rank, hit.text_rank), strict=True)
            if rank is not None
        ]
        assert hit.score == pytest.approx(sum(shares))
    assert [hit.score for hit in result] == sorted((hit.score for hit in result), reverse=True)


def test_candidates_are_what_each_arm_ranks(parts: Store) -> None:
    """With few candidates only these are fused."""
    result = parts.search("parts", vector=UP, text="dog", candidates=3, k=3)
    assert all((hit.vector_rank or 1) <= 3 and (hit.text_rank or 1) <= 3 for hit in result)


def test_score_without_words_is_that_of_the_vector(parts: Store) -> None:
    """A text without words leaves a search by vector, its scores and ranks included."""
    plain = parts.search("parts", vector=UP, k=5)
    wordless = parts.search("parts", vector=UP, text="?!", k=5)
    assert list(wordless) == list(plain)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("ef_search 0", {"vector": UP, "ef_search": 0}, "ef_search is 0: .* from 1 to 1000"),
    ("ef_search 1001", {"vector": UP, "ef_search": 1001}, "ef_search is 1001"),
    ("rerank", {"vector": UP, "rerank": 101}, "rerank is 101: .* from 1 to 100"),
    ("per_document", {"vector": UP, "per_document": 0}, "per_document is 0"),
    ("neighbours", {"vector": UP, "neighbours": 11}, "neighbours is 11: .* from 0 to 10"),
    ("candidates", {"vector": UP, "candidates": -1}, "candidates is -1"),
    ("distance of a text", {"text": "x", "max_distance": 1}, "there is no vector"),
    ("distance", {"vector": UP, "max_distance": "1"}, "max_distance is '1'"),
    ("distance NaN", {"vector": UP, "max_distance": float("nan")}, "not a number"),
    ("weights of another", {"text": "x", "weights": {"title": 1}}, "weights has 'title'"),
    ("one weight", {"text": "x", "weights": [1]}, "weights takes two numbers"),
    ("negative", {"text": "x", "weights": [1, -1]}, "weights takes two numbers"),
    ("zeros", {"text": "x", "weights": [0, 0]}, "not both 0"),
    ("infinite", {"text": "x", "weights": [1, float("inf")]}, "weights takes two numbers"),
    ("words", {"text": "x", "weights": ["1", 1]}, "weights takes two numbers"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "message"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG]
)
def test_option_out_of_range_is_refused(parts: Store, asked: Any, message: str) -> None:
    """Each option names its range before anything is sent."""
    with pytest.raises(exceptions.InvalidQuery, match=message):
        parts.search("parts", **asked)


def test_many_takes_searches_and_mappings(either: Any) -> None:
    """``search_many`` of both stores takes either form, and says what is neither."""
    either.create_collection("c", language="simple")
    either.ingest("c", [NewDocument("d", ["cat", "dog"])])
    found = either.search_many("c", [Search(text="cat"), {"text": "dog"}, {"text": "emu", "k": 3}])
    assert [[hit.text for hit in result] for result in found] == [["cat"], ["dog"], []]
    for wrong in ("cat", {"words": "cat"}, 5):
        with pytest.raises(exceptions.InvalidQuery, match="a query is a Search, or a mapping"):
            either.search_many("c", [wrong])
    with pytest.raises(exceptions.CollectionNotFound):
        either.search_many("d", [Search(text="cat")])


def test_searches_are_logged_in_numbers(either: Any, caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG there is a record of each search, how it was made, and nothing of what was asked."""
    either.create_space("plane", model="m", dimensions=2)
    either.create_collection("parts", space="plane", language="simple")
    either.ingest("parts", DOCUMENTS)
    caplog.clear()
    caplog.set_level(logging.DEBUG, "ragstore")
    asked = {"vector": [0.123, 1], "text": "ZZtext", "where": {"ZZkey": "ZZvalue"}}
    either.search_many("parts", [asked, {"vector": UP, "k": 2}])
    records = [vars(record) for record in caplog.records if record.name == "ragstore.searcher"]
    told = [(each["collection"], each["strategy"], each["scan"], each["hits"]) for each in records]
    assert told == [("parts", "hybrid", "exact", 0), ("parts", "vector", "exact", 2)]
    assert all(each["searches"] == 2 and 0 < each["seconds"] < 60 for each in records)
    every = " ".join(str(each) for each in map(vars, caplog.records))
    assert "ZZ" not in every
    assert "0.123" not in every


def test_error_of_one_is_raised_for_all(either: Any) -> None:
    """What the server refuses arrives as ragstore's error, and the connection serves the next."""
    either.create_collection("c", language="simple")
    either.ingest("c", [NewDocument("d", ["cat"])])
    for language in ("of_nobody", "simple"):
        with psycopg.connect(_conninfo(either)) as other:
            other.execute("UPDATE ragstore_collection SET language = %s", [language])
        if language == "simple":
            assert [len(each) for each in either.search_many("c", [{"text": "cat"}] * 3)] == [1] * 3
            continue
        with pytest.raises(exceptions.QueryFailed, match="of_nobody"):
            either.search_many("c", [{"text": "cat"}] * 3)


# --- what changed since the last search --------------------------------------------------------


def test_collection_made_anew_is_found(either: Any) -> None:
    """A collection that was deleted and made again is searched as it is now."""
    for language, space in (("english", 2), ("german", 3), ("simple", 2)):
        name = f"s{space}"
        either.create_space(name, model="m", dimensions=space, exists_ok=True)
        either.create_collection("c", space=name, language=language)
        vector = np.ones(space)
        either.ingest("c", [NewDocument(language, [NewChunk("die Häuser", vector)])])
        for _ in range(2):
            (hit,) = either.search("c", vector=vector)
            assert hit.document_key == language
        assert len(either.search("c", text="Haus", vector=vector)) == 1
        found = either.search("c", text="Haus")
        assert len(found) == (language == "german")
        with Store(either.connection).connection.owner_transaction() as connection:
            connection.execute("DELETE FROM ragstore_collection WHERE name = 'c'")
    with pytest.raises(exceptions.CollectionNotFound):
        either.search("c", text="Haus")


def test_vector_is_made_for_the_space_that_is_searched(either: Any) -> None:
    """A function is given the space, and again the new one after the model was switched."""
    for name, size in (("old", 2), ("new", 3)):
        either.create_space(name, model=name, dimensions=size)
    either.create_collection("c", space="old", language="simple")
    either.ingest("c", [NewDocument("d", [NewChunk("cat", [1, 0])])])
    asked: list[str] = []

    def embed(space: Any) -> list[float]:
        asked.append(space.name)
        return [1.0] * int(space.dimensions)

    assert len(either.search("c", vector=embed)) == 1
    assert asked == ["old"]
    with Store(either.connection).connection.owner_transaction() as connection:
        connection.execute(
            "UPDATE ragstore_collection SET space_id ="
            " (SELECT id FROM ragstore_embedding_space WHERE name = 'new')"
        )
        connection.execute(
            "INSERT INTO ragstore_embedding SELECT collection_id, id,"
            " (SELECT id FROM ragstore_embedding_space WHERE name = 'new'), '[1,2,3]'"
            " FROM ragstore_chunk"
        )
    (hit,) = either.search("c", text="cat", vector=embed)
    assert hit.vector_rank == 1
    assert asked == ["old", "old", "new"]


def test_collection_that_never_stays_is_an_error(either: Any) -> None:
    """A collection that is another at each look is given up on, and the error says so."""
    either.create_space("s", model="m", dimensions=2)
    either.create_collection("c", space="s", language="simple")
    names = iter(["english", "german", "french", "simple"])

    def change(_space: Any) -> list[float]:
        with psycopg.connect(_conninfo(either)) as other:
            other.execute("UPDATE ragstore_collection SET language = %s", [next(names)])
        return UP

    with pytest.raises(exceptions.SpaceChanged, match="changed at each of 3 attempts"):
        either.search("c", vector=change)


def test_vector_that_fits_no_longer_is_an_error(either: Any) -> None:
    """A vector is refused by the space that there is, not by the one that was."""
    either.create_space("s2", model="m", dimensions=2)
    either.create_space("s3", model="m", dimensions=3)
    either.create_collection("c", space="s2", language="simple")
    for wrong in ([1], [1, 2, 3]):
        with pytest.raises(exceptions.DimensionMismatch, match="takes 2"):
            either.search("c", vector=wrong)
    with psycopg.connect(_conninfo(either)) as other:
        other.execute(
            "UPDATE ragstore_collection SET space_id ="
            " (SELECT id FROM ragstore_embedding_space WHERE name = 's3')"
        )
    assert len(either.search("c", vector=[1, 2, 3])) == 0


def test_threads_share_a_store_while_a_collection_changes(store: Store) -> None:
    """Searches of many threads go on, whole, while what they search is changed under them."""
    for size in (2, 3):
        store.create_space(f"s{size}", model="m", dimensions=size)
    store.create_collection("c", space="s2", language="simple")
    store.ingest("c", [NewDocument(f"d{n}", [NewChunk("cat", [1, n])]) for n in range(20)])
    with psycopg.connect(_conninfo(store)) as other:
        other.execute(
            "INSERT INTO ragstore_embedding SELECT collection_id, id,"
            " (SELECT id FROM ragstore_embedding_space WHERE name = 's3'), '[1,2,3]'"
            " FROM ragstore_chunk"
        )
    stop = Event()

    def read() -> int:
        count = 0
        while not stop.is_set():
            found = store.search("c", vector=lambda space: [1.0] * space.dimensions, text="cat")
            assert len(found) == 10
            assert all(hit.vector_rank for hit in found)
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        for name in ("s3", "s2") * 6:
            with psycopg.connect(_conninfo(store)) as other:
                other.execute(
                    "UPDATE ragstore_collection SET space_id ="
                    " (SELECT id FROM ragstore_embedding_space WHERE name = %s)",
                    [name],
                )
            sleep(0.1)
        stop.set()
        assert all(reader.result() > 0 for reader in readers)


def _conninfo(store: Any) -> str:
    url = store.connection.url.set(drivername="postgresql")
    text: str = url.render_as_string(hide_password=False)
    return text


class Uncached(FunctionElement[bool]):
    """A condition whose SQL SQLAlchemy cannot keep."""

    type = Boolean()
    inherit_cache = False


@compiles(Uncached)
def _compile(_element: Uncached, _compiler: Any, **_options: Any) -> str:
    return "(ragstore_chunk.ordinal = 3)"


def test_condition_that_cannot_be_kept_is_compiled_each_time(parts: Store) -> None:
    """A filter whose SQL is not known to be the same is a filter all the same."""
    for asked in ASKED:
        options: dict[str, Any] = asked
        found = parts.search("parts", **options, where=Uncached(Chunk.ordinal))
        assert {hit.ordinal for hit in found} == {3}


def test_lists_of_other_lengths_are_other_statements(parts: Store) -> None:
    """An IN list is written out, and its values go where they belong, however many."""
    ordinal: Any = Chunk.ordinal
    for wanted in ([1], [2, 3], [4, 5], [0, 1, 5], []):
        where = ordinal.in_(wanted) & (ordinal >= 1)
        found = parts.search("parts", vector=UP, k=100, where=where)
        assert {hit.ordinal for hit in found} == set(wanted) - {0}
        assert len(parts.search("parts", text="cat", k=100, where=where)) == len(found)


async def test_vector_may_be_awaited(parts: Store) -> None:
    """AsyncStore takes a coroutine function, and a plain one that returns something to await."""
    from ragstore import AsyncStore, DatabaseConnection

    async def embed(space: Any) -> list[float]:
        return UP[: space.dimensions]

    def soon(space: Any) -> Any:
        return embed(space)

    async with DatabaseConnection(parts.connection.url) as connection:
        expected = keys(parts.search("parts", vector=UP))
        store = AsyncStore(connection)
        for vector in (embed, soon, lambda _space: UP):
            assert keys(await store.search("parts", vector=vector)) == expected


def test_vector_of_a_function_is_checked(parts: Store) -> None:
    """What a function returns is checked like a vector that is given."""
    with pytest.raises(exceptions.DimensionMismatch):
        parts.search("parts", vector=lambda _space: [1.0])
    with pytest.raises(exceptions.ZeroVector):
        parts.search("parts", vector=lambda _space: np.zeros(2))
    for odd in ([1e39, 0], np.array([np.nan, 1.0]), np.array([np.inf, 1.0])):
        with pytest.raises(exceptions.NonFiniteVector):
            parts.search("parts", vector=odd)
    parts.create_collection("no space", language="simple", exists_ok=True)
    with pytest.raises(exceptions.SpaceNotReady):
        parts.search("no space", vector=lambda _space: UP)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, ">f4"])
def test_vector_of_any_number_type(parts: Store, dtype: Any) -> None:
    """Arrays of every kind of number search as the list of the same numbers does."""
    expected = list(parts.search("parts", vector=[3.0, 2.0]))
    assert list(parts.search("parts", vector=np.array([3, 2], dtype=dtype))) == expected
