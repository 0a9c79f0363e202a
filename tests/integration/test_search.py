"""Search against oracles in Python: which chunks, in what order, with what scores."""

from __future__ import annotations

from itertools import count
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sqlmodel import select

from ragstore import AsyncStore, DatabaseConnection, Hit, NewChunk, NewDocument, Store, exceptions
from ragstore import space as spaces
from ragstore.models import Chunk, Collection, Document, Embedding, EmbeddingSpace
from ragstore.search import hits, matching, nearest, path
from ragstore.search.hits import of_nearest
from ragstore.space import Space
from ragstore.types import Metric

METRICS = get_args(Metric)
META: Any = Chunk.meta
TITLE: Any = Document.title
NAMES = (f"collection {number}" for number in count())
WORDS = ("cat", "dog", "emu", "fox")


def distances(metric: Metric, matrix: Any, query: Any) -> Any:
    """Return each row's distance as pgvector defines it."""
    dot = matrix @ query
    if metric == "cosine":
        return 1 - dot / np.sqrt((matrix * matrix).sum(axis=1) * (query * query).sum())
    if metric == "inner_product":
        return -dot
    order = 2 if metric == "l2" else 1
    return np.linalg.norm(matrix - query, ord=order, axis=1)


def score_of(metric: Metric, distance: float) -> float:
    """Return the score that a distance has."""
    if metric == "cosine":
        return 1 - distance
    return -distance if metric == "inner_product" else 1 / (1 + distance)


def collection(store: Store, chunks: list[NewChunk], *, metric: Metric = "cosine") -> str:
    """Store chunks in a collection of their own, each a document of its own; return its name."""
    name = next(NAMES)
    size = 3 if chunks[0].vector is None else len(chunks[0].vector)
    made = store.create_space(
        f"{metric} {size}", model="m", dimensions=size, metric=metric, exists_ok=True
    )
    has_vectors = chunks[0].vector is not None
    store.create_collection(name, space=made.name if has_vectors else None, language="simple")
    documents = [NewDocument(f"{at:03}", [chunk], f"T{at}") for at, chunk in enumerate(chunks)]
    store.ingest(name, documents)
    return name


VECTOR = st.tuples(*[st.integers(-3, 3)] * 3).filter(any)
CORPUS = st.lists(
    st.tuples(VECTOR, st.lists(st.sampled_from(WORDS), min_size=1, max_size=6)),
    min_size=1,
    max_size=12,
)


def built(store: Store, corpus: Any, metric: Metric) -> tuple[str, Any]:
    """Store a corpus; return the collection's name and the matrix of its vectors."""
    chunks = [NewChunk(" ".join(words), vector) for vector, words in corpus]
    return collection(store, chunks, metric=metric), np.array(
        [vector for vector, _ in corpus], float
    )


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=8, deadline=None)
@given(corpus=CORPUS, query=VECTOR, k=st.integers(1, 15), offset=st.integers(0, 4))
def test_vector_search_is_exact(
    shared: Store, metric: Metric, corpus: Any, query: Any, k: int, offset: int
) -> None:
    """The nearest come first, ties by id, and always as many as there are."""
    name, matrix = built(shared, corpus, metric)
    expected = distances(metric, matrix, np.array(query, float))
    order = np.lexsort((np.arange(len(matrix)), expected))[offset : offset + k]
    result = shared.search(name, vector=query, k=k, offset=offset)
    assert [hit.document_key for hit in result] == [f"{at:03}" for at in order]
    for rank, (hit, at) in enumerate(zip(result, order, strict=True), start=offset + 1):
        assert hit.distance == pytest.approx(expected[at], abs=1e-6)
        assert hit.score == pytest.approx(score_of(metric, expected[at]), abs=1e-6)
        assert (hit.vector_rank, hit.text_rank, hit.text_score) == (rank, None, None)


def test_ties_are_broken_by_id(shared: Store) -> None:
    """Of many that are equally near, or match equally, the first come first."""
    name = collection(shared, [NewChunk("cat", [1, 2, 3]) for _ in range(40)])
    for asked in ({"vector": [3, 2, 1]}, {"text": "cat"}, {"text": "cat", "vector": [1, 1, 1]}):
        options: dict[str, Any] = asked
        found = [hit.document_key for hit in shared.search(name, **options, k=5, offset=3)]
        assert found == ["003", "004", "005", "006", "007"]


def text_order(store: Store, name: str, query: str) -> list[str]:
    """Return the keys that match any word, by Postgres's own rank of each, ties by id."""
    statement = """
        SELECT d.key, ts_rank_cd(to_tsvector('simple', c.text), to_tsquery('simple', %s)) AS score
        FROM ragstore_chunk c JOIN ragstore_document d ON d.id = c.document_id
        JOIN ragstore_collection o ON o.id = c.collection_id WHERE o.name = %s
    """
    with store.connection.transaction() as cursor:
        rows = cursor.execute(statement, [query.replace(" ", " | "), name]).fetchall()
    found = [(-score, key) for key, score in rows if score > 0]
    return [key for _, key in sorted(found)]


@settings(max_examples=15, deadline=None)
@given(corpus=CORPUS, query=VECTOR, words=st.sets(st.sampled_from(WORDS), min_size=1, max_size=3),
       k=st.integers(1, 15), offset=st.integers(0, 4))  # fmt: skip
def test_hybrid_search_is_the_sum_of_its_ranks(
    shared: Store, corpus: Any, query: Any, words: Any, k: int, offset: int
) -> None:
    """The score of a chunk is 1 / (60 + rank) of each arm that found it; ties by id."""
    name, matrix = built(shared, corpus, "l2")
    asked = " ".join(sorted(words))
    expected = distances("l2", matrix, np.array(query, float))
    by_vector = [f"{at:03}" for at in np.lexsort((np.arange(len(matrix)), expected))]
    by_text = text_order(shared, name, asked)
    scores = {
        key: sum(1 / (60 + arm.index(key) + 1) for arm in (by_vector, by_text) if key in arm)
        for key in by_vector
    }
    order = sorted(scores, key=lambda key: (-round(scores[key], 12), key))[offset : offset + k]
    result = shared.search(name, text=asked, vector=query, k=k, offset=offset)
    assert (result.strategy, [hit.document_key for hit in result]) == ("hybrid", order)
    for hit in result:
        assert hit.score == pytest.approx(scores[hit.document_key], abs=1e-12)
        assert hit.vector_rank == by_vector.index(hit.document_key) + 1
        in_text = hit.document_key in by_text
        assert hit.text_rank == (by_text.index(hit.document_key) + 1 if in_text else None)
        assert (hit.text_score is None) is not in_text


@settings(max_examples=15, deadline=None)
@given(corpus=CORPUS, words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=2))
def test_text_search_needs_every_word(shared: Store, corpus: Any, words: list[str]) -> None:
    """Without a vector, a chunk matches that has all words, and the score is Postgres's."""
    name, _ = built(shared, corpus, "l1")
    result = shared.search(name, text=" ".join(words), k=20)
    expected = {f"{at:03}" for at, (_, has) in enumerate(corpus) if set(words) <= set(has)}
    assert {hit.document_key for hit in result} == expected
    assert [hit.text_rank for hit in result] == list(range(1, len(expected) + 1))
    ranked = [(-(hit.text_score or 0), hit.chunk_id) for hit in result]
    assert ranked == sorted(ranked)
    assert [hit.score for hit in result] == pytest.approx([-score for score, _ in ranked])


@pytest.fixture(scope="module")
def large(shared: Store) -> str:
    """Return a collection of 120 chunks, of which 40 distances round to one score."""
    random = np.random.default_rng(7)
    tiny = [(1.0, 1e-18 * at, 0.0) for at in range(40, 0, -1)]
    rest = [tuple(row) for row in random.normal(size=(80, 3))]
    chunks = [
        NewChunk(
            f"cat {at % 7} {'dog' if at % 3 else 'emu'}", vector, {"n": at, "even": at % 2 == 0}
        )
        for at, vector in enumerate([*tiny, *rest])
    ]
    return collection(shared, chunks, metric="l2")


@pytest.mark.parametrize(
    "asked",
    [{"vector": [1, 0, 0]}, {"text": "cat"}, {"text": "emu", "vector": [1, 0, 0]}],
    ids=["vector", "text", "hybrid"],
)
def test_pages_concatenate(shared: Store, large: str, asked: dict[str, Any]) -> None:
    """Pages hold every hit once, in the order of the whole list, which is that of the ranks."""
    whole = shared.search(large, **asked, k=1_000)
    assert len(whole) == 120
    if "text" not in asked:
        assert [hit.vector_rank for hit in whole] == list(range(1, 121))
    pages: list[Hit] = []
    for offset in range(0, 130, 13):
        pages += shared.search(large, **asked, k=13, offset=offset)
    assert pages == list(whole)


FILTERS: list[tuple[str, Any, Any]] = [
    ("mapping", {"even": True}, lambda at: at % 2 == 0),
    ("nested mapping", {"n": 7, "even": False}, lambda at: at == 7),
    ("empty mapping", {}, lambda _: True),
    ("no match", {"even": "true"}, lambda _: False),
    ("metadata", META["n"].as_integer() < 30, lambda at: at < 30),
    ("in", META["n"].astext.in_(["3", "5", "999"]), lambda at: at in {3, 5}),
    ("text", Chunk.text.like("%emu"), lambda at: at % 3 == 0),  # type: ignore[attr-defined]
    ("document", TITLE == "T5", lambda at: at == 5),
    ("both", (TITLE > "T5") & (Chunk.ordinal == 0) & META.contains({"even": True}),
     lambda at: at % 2 == 0 and f"T{at}" > "T5"),
    ("either", (TITLE == "T5") | META.contains({"n": 6}), lambda at: at in {5, 6}),
    ("subquery", Chunk.document_id.in_(select(Document.id).where(TITLE == "T9")),  # type: ignore[union-attr]
     lambda at: at == 9),
]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "keeps"), [case[1:] for case in FILTERS], ids=[case[0] for case in FILTERS]
)
def test_filter_keeps_what_it_says(shared: Store, large: str, where: Any, keeps: Any) -> None:
    """Each strategy returns all that pass the filter, however few they are."""
    expected = {f"{at:03}" for at in range(120) if keeps(at)}
    for asked in ({"vector": [1, 0, 0]}, {"text": "cat"}, {"text": "cat", "vector": [0, 1, 0]}):
        options: dict[str, Any] = asked
        result = shared.search(large, **options, k=1_000, where=where)
        found = [hit.document_key for hit in result]
        assert len(found) == len(set(found))
        assert set(found) == expected


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@settings(max_examples=25, deadline=None)
@given(key=TEXT, value=TEXT, other=st.text(alphabet="'\"\\{}%$:;-() \0é"))
def test_hostile_filter_is_data(shared: Store, key: str, value: str, other: str) -> None:
    """Whatever a key or value holds is compared, never run."""
    assume(key != "o")
    bad = "\0" in key + value + other
    chunks = [NewChunk("x", meta={} if bad else {key: value, "o": {"i": other}})]
    name = collection(shared, [*chunks, NewChunk("x")])
    wheres: list[Any] = [
        {path(key): value, "o": {"i": other}},
        META[key].astext == value + "\0" * bad,
    ]
    for where in wheres:
        if bad:
            with pytest.raises(exceptions.InvalidFilter):
                shared.search(name, text="x", where=where)
        else:
            found = shared.search(name, text="x", where=where)
            assert [hit.document_key for hit in found] == ["000"]


def test_hit_holds_what_was_stored(shared: Store) -> None:
    """A hit names its document and its place in it."""
    name = next(NAMES)
    shared.create_collection(name)
    chunk = NewChunk("second cat", meta={"a": [1]})
    shared.ingest(name, [NewDocument("path/é", ["first", chunk], title="T")])
    (hit,) = result = shared.search(name, text="cat")
    assert (hit.document_key, hit.title, hit.ordinal) == ("path/é", "T", 1)
    assert (hit.text, hit.meta, hit.vector_rank, hit.text_rank) == (
        "second cat",
        {"a": [1]},
        None,
        1,
    )
    assert (result.strategy, result.reason) == ("text", "a text and no vector was given")


@pytest.fixture(scope="module")
def sentences(shared: Store) -> str:
    """Return a collection of a few English sentences with vectors."""
    shared.create_space("sentences", model="m", dimensions=2, exists_ok=True)
    shared.create_collection("sentences", space="sentences")
    texts = ["the quick brown fox", "a brown bear and a fox", "quick thinking", "lazy dogs sleep"]
    shared.ingest(
        "sentences",
        [NewDocument(str(at), [NewChunk(each, [1, at])]) for at, each in enumerate(texts)],
    )
    return "sentences"


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("brown fox", "01"),
        ('"brown fox"', "0"),
        ("fox -bear", "0"),
        ("bear or dogs", "13"),
        ("dog", "3"),
        ("sleeping", "3"),
        ("FOX!!! & | ( : *", "01"),
        ("unknown", ""),
        ("'; drop table x", ""),
    ],
)
def test_text_is_read_as_web_search_reads_it(
    shared: Store, sentences: str, asked: str, found: str
) -> None:
    """Words, phrases, ``or``, ``-`` and stems mean what they mean elsewhere; none is an error."""
    result = shared.search(sentences, text=asked)
    assert sorted(hit.document_key for hit in result) == list(found)


@pytest.mark.parametrize(
    ("asked", "matched"),
    [("brown fox sleep", "013"), ('"brown fox" dogs', "03"), ("fox -bear", "0"), ("nothing", "")],
)
def test_hybrid_text_needs_one_word(
    shared: Store, sentences: str, asked: str, matched: str
) -> None:
    """Beside a vector one word is enough, phrases stay phrases, and ``-`` still excludes."""
    result = shared.search(sentences, text=asked, vector=[1, 0])
    assert len(result) == 4
    assert sorted(hit.document_key for hit in result if hit.text_rank) == list(matched)


@pytest.mark.parametrize("asked", ["the and of", "", " ", "?!", "-", '""'])
def test_text_without_words_says_so(shared: Store, sentences: str, asked: str) -> None:
    """Alone it finds nothing; beside a vector the vector alone is searched; both give a reason."""
    alone = shared.search(sentences, text=asked)
    assert (len(alone), alone.strategy) == (0, "text")
    assert "no words" in alone.reason
    both = shared.search(sentences, text=asked, vector=[1, 0])
    assert ([hit.document_key for hit in both], both.strategy) == (list("0123"), "vector")
    assert "no words" in both.reason


def test_text_is_searched_in_the_collections_language(shared: Store) -> None:
    """German stems find German words, and not in an English collection."""
    for name, language, found in (("de", "german", 1), ("en", "english", 0)):
        shared.create_collection(name, language=language)
        shared.ingest(name, [NewDocument("a", ["Die Häuser am See"])])
        assert len(shared.search(name, text="Haus")) == found


def test_collections_of_a_space_are_apart(shared: Store) -> None:
    """Thirty collections in one space each return their own k, by each strategy."""
    names = [
        collection(shared, [NewChunk(f"cat {at}", [1, at, n]) for at in range(12)])
        for n in range(30)
    ]
    ids: set[int] = set()
    for name in names:
        for asked in ({"vector": [1, 1, 1]}, {"text": "cat"}, {"text": "cat", "vector": [1, 1, 1]}):
            options: dict[str, Any] = asked
            assert len(shared.search(name, **options, k=10)) == 10
            found = {hit.chunk_id for hit in shared.search(name, **options, k=50)}
            assert len(found) == 12
        assert not ids & found
        ids |= found


def test_search_leaves_nothing_behind(shared: Store, sentences: str) -> None:
    """The pooled connection is idle afterwards, with its settings as they were."""
    settings_of = "SELECT name, setting FROM pg_settings WHERE source = 'session'"
    with shared.connection.transaction() as cursor:
        before = cursor.execute(settings_of).fetchall()
    shared.search(sentences, text="fox", vector=[1, 0], where=TITLE.is_(None))
    with shared.connection.transaction() as cursor:
        assert cursor.execute(settings_of).fetchall() == before
        others = cursor.execute(
            "SELECT state FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()
    assert {state for (state,) in others} <= {"idle"}


async def test_async_search_is_the_same(shared: Store, sentences: str) -> None:
    """AsyncStore gives the same hits, strategy and reason."""
    async with DatabaseConnection(shared.connection.url) as connection:
        for asked in ({"vector": [1, 0]}, {"text": "fox"}, {"text": "fox", "vector": [1, 0]}):
            options: dict[str, Any] = asked
            expected = shared.search(sentences, **options)
            result = await AsyncStore(connection).search(sentences, **options)
            assert list(result) == list(expected)
            assert (result.strategy, result.reason) == (expected.strategy, expected.reason)


@pytest.mark.parametrize("metric", METRICS)
def test_statement_of_ones_own_gives_the_same_order(shared: Store, metric: Metric) -> None:
    """In a SQLModel session, ``distance`` and the builders find what ``Store.search`` finds."""
    random = np.random.default_rng(3)
    chunks = [
        NewChunk(f"cat {at}", list(row)) for at, row in enumerate(random.normal(size=(20, 3)))
    ]
    name = collection(shared, chunks, metric=metric)
    query = [0.3, -0.2, 0.9]
    expected = [hit.chunk_id for hit in shared.search(name, vector=query, k=20)]
    with shared.connection.session() as session:
        found = session.exec(select(Collection).where(Collection.name == name)).one()
        row = session.get_one(EmbeddingSpace, found.space_id)
        by_row = spaces.distance(row, query)
        mine = (
            select(Chunk.id)
            .join(Embedding)
            .where(Embedding.space_id == row.id, Embedding.collection_id == found.id)
            .order_by(by_row)
        )
        assert list(session.exec(mine)) == expected
        space: Space = spaces.space_of(row)
        arm = nearest(found.id or 0, space, query, limit=20)
        assert list(session.execute(arm.order_by("rank")).scalars()) == expected
        built_hits = hits(found.id or 0, of_nearest(arm, metric, limit=5, offset=2))
        assert [each.id for each in session.execute(built_hits)] == expected[2:7]
        words = matching(found.id or 0, "simple", "cat 7", limit=5)
        assert session.execute(words).one().chunk_id in expected
