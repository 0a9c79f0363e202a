"""Searches through indexes: every row that matches, whichever way was chosen, and why."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from sqlmodel import select

from ragstore import DatabaseConnection, Hit, SearchResult, Store, exceptions
from ragstore.collection import CollectionInfo
from ragstore.conf import override_settings
from ragstore.models import Chunk
from ragstore.search import (
    approximate,
    fused,
    hits,
    matching,
    nearest,
    of_nearest,
    scan_settings,
    strategy,
)
from ragstore.testing.plans import assert_uses_index

SIZE = 3_900
RANDOM = np.random.default_rng(11)
MATRIX = RANDOM.normal(size=(SIZE, 8)).astype(np.float32)
QUERY = [float(value) for value in RANDOM.normal(size=8)]
KEPT = {"all": 1, "half": 2, "tenth": 10, "hundredth": 100, "few": 1_000}

_FILL = """
WITH made AS (
  INSERT INTO ragstore_document (collection_id, key)
  SELECT %(id)s, 'doc ' || n FROM generate_series(0, %(size)s / 3 - 1) n RETURNING id, key
), chunks AS (
  INSERT INTO ragstore_chunk (collection_id, document_id, ordinal, language, text, metadata)
  SELECT %(id)s, made.id, part, 'simple', 'word word' || n || ' mod' || n %% 7,
    jsonb_build_object('n', n, 'half', n %% 2, 'tenth', n %% 10, 'hundredth', n %% 100,
                       'few', n %% 1000, 'all', 0)
  FROM made, generate_series(0, 2) part,
    LATERAL (SELECT substr(key, 5)::int * 3 + part AS n) AS number
  RETURNING id, (metadata->>'n')::int AS n
)
INSERT INTO ragstore_embedding (collection_id, chunk_id, space_id, vector)
SELECT %(id)s, id, %(space)s, (%(vectors)s::text[])[n + 1]::vector FROM chunks
"""


def fill(store: Store, made: CollectionInfo, size: int = SIZE) -> None:
    """Store chunks of three to a document, their vectors the first rows of MATRIX."""
    assert made.space is not None
    vectors = [str(row.tolist()) for row in MATRIX[:size]]
    values = {"id": made.id, "space": made.space.id, "vectors": vectors, "size": size}
    with store.connection.transaction() as connection:
        connection.execute(_FILL, values)
        # New rows wait in a list that is read whole, until a vacuum sorts them in.
        for index in ("tsv", "metadata"):
            connection.execute(f"SELECT gin_clean_pending_list('ragstore_chunk_{index}_idx')")
        connection.execute("ANALYZE ragstore_chunk")
        connection.execute("ANALYZE ragstore_embedding")


@pytest.fixture(scope="module")
def indexed(shared: Store) -> Store:
    """Return a store with a collection that has an index, and two that share one."""
    for space in ("own", "common"):
        shared.create_space(space, model="m", dimensions=8, exact_limit=100)
    for name in ("own", "one", "other"):
        space = "own" if name == "own" else "common"
        fill(shared, shared.create_collection(name, space=space, language="simple"))
    shared.build_index("own", "own")
    shared.build_index("common")
    return shared


# --- every row ---------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [None, "word mod3"], ids=["vector", "hybrid"])
@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("name", ["own", "one"])
@pytest.mark.parametrize("k", [1, 10, 40, 41, 100, 1000])
def test_search_is_never_short(
    indexed: Store, name: str, kept: str, k: int, text: str | None
) -> None:
    """Always min(k, matching) hits, those of an exact search; known filters and new ones."""
    where = {kept: 0} if kept != "all" else None
    matching = -(-SIZE // KEPT[kept])
    exact = indexed.search(name, vector=QUERY, text=text, k=k, where=where, exact=True)
    for _ in range(2):
        result = indexed.search(name, vector=QUERY, text=text, k=k, where=where)
        assert len(result) == len({hit.chunk_id for hit in result}) == min(k, matching)
        first = min(k, matching, 10)
        found = {hit.chunk_id for hit in result[:first]}
        assert len(found & {hit.chunk_id for hit in exact[:first]}) >= 0.9 * first
    assert len(exact) == min(k, matching)


WAYS: list[tuple[str, str, dict[str, Any], str]] = [
    ("its own index", "own", {}, "own_index"),
    ("the index of the space", "one", {}, "space_index"),
    ("a broad filter", "own", {"where": {"half": 1}}, "own_index"),
    ("a narrow filter", "own", {"where": {"hundredth": 7}}, "filter"),
    ("a filter by expression", "own", {"where": {"n": {"$lt": 30}}}, "filter"),
    ("a broad filter of documents", "own",
     {"where": {"$document": {"key": {"$like": "doc %"}}}}, "own_index"),
    ("exact", "own", {"exact": True}, "exact"),
    ("exact with a filter", "own", {"exact": True, "where": {"half": 1}}, "filter"),
    ("all of it", "own", {"k": 1_000, "offset": 2_000}, "exact"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "asked", "scan"), [case[1:] for case in WAYS], ids=[case[0] for case in WAYS]
)
def test_result_names_its_way(indexed: Store, name: str, asked: Any, scan: str) -> None:
    """``scan`` is what was done, the plan uses the index that it names, and there is a reason."""
    index = {"own_index": "_ann_", "space_index": "_ann"}.get(scan)
    for _ in range(2):  # a filter is counted first, then known
        result = indexed.search(name, vector=QUERY, explain=True, **asked)
        assert result.scan == scan
        assert result.reason
        assert result.plan is not None
        read = "(actual time" in result.plan
        assert read
        used = [line for line in result.plan.splitlines() if "_ann" in line]
        run = [line for line in used if "never executed" not in line]
        assert bool(run) == (index is not None)
        assert all(index in line for line in run if index)


@pytest.mark.parametrize("where", [{"few": 3}, {"few": 3, "n": {"$gt": 5}}], ids=["one", "more"])
def test_kept_plan_of_a_narrow_filter_goes_by_the_index_of_metadata(
    indexed: Store, where: Any
) -> None:
    """What is found with a plan that is kept is the same, and the index of the metadata is read."""
    asked = {"vector": QUERY, "where": where}
    first, known = (indexed.search("own", **asked, explain=explain) for explain in (False, True))
    assert [hit.chunk_id for hit in known] == [hit.chunk_id for hit in first]
    assert known.plan is not None
    assert known.plan.count("InitPlan") >= 2
    assert "Bitmap Index Scan on ragstore_chunk_metadata_idx" in known.plan
    statements = (
        "SELECT generic_plans FROM pg_prepared_statements WHERE statement LIKE '%%(SELECT CAST(%%'"
    )
    for _ in range(12):  # five to be prepared, five more for the server to compare plans
        indexed.search("own", **asked)
    with indexed.connection.reading() as connection:
        assert any(count for (count,) in connection.execute(statements).fetchall())


def test_explain_is_only_on_demand(indexed: Store) -> None:
    """A result has no plan unless it was asked for."""
    assert indexed.search("own", vector=QUERY).plan is None


def test_text_has_no_scan(indexed: Store) -> None:
    """Without vectors there is nothing to choose, and a plan all the same."""
    result = indexed.search("own", text="word3", explain=True)
    assert (result.scan, len(result)) == (None, 1)
    assert "ragstore_chunk" in (result.plan or "")


# --- too little from an index ------------------------------------------------------------------


@pytest.fixture
def mine(store: Store) -> Store:
    """Return a store of this test's own with one indexed collection."""
    store.create_space("s", model="m", dimensions=8, exact_limit=100)
    fill(store, store.create_collection("c", space="s", language="simple"))
    store.build_index("s", "c")
    return store


@pytest.mark.parametrize("text", [None, "word mod3"], ids=["vector", "hybrid"])
def test_short_index_is_searched_again_exactly(
    indexed: Store, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    """Where the scan of an index ends too early, all that pass the filter are compared."""
    monkeypatch.setattr(strategy, "_LEAST_SCAN", 1)
    monkeypatch.setattr(strategy, "_reach", lambda *_sizes: 1)
    monkeypatch.setattr(strategy, "_most_to_compare", lambda *_sizes: 10)
    distances = 1 - MATRIX @ QUERY / np.linalg.norm(MATRIX, axis=1)
    farthest = [int(place) for place in np.argsort(distances)[-200:]]
    where = {"n": {"$in": farthest}}
    result = indexed.search("own", vector=QUERY, text=text, k=200, where=where)
    assert sorted(hit.meta["n"] for hit in result) == sorted(farthest)
    assert "too few were found at first" in result.reason
    assert result.scan == "filter"


def test_deleted_rows_leave_no_gap(mine: Store) -> None:
    """With nearly all rows deleted and no vacuum yet, the rest is found through the index."""
    with mine.connection.transaction() as connection:
        connection.execute("DELETE FROM ragstore_chunk WHERE (metadata->>'n')::int %% 20 <> 0", ())
    for k in (10, 100, 200):
        result = mine.search("c", vector=QUERY, k=k)
        assert len(result) == min(k, SIZE // 20)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass",
        "DROP INDEX {}",
    ],
    ids=["invalid", "absent"],
)
def test_without_a_usable_index_search_is_exact(mine: Store, statement: str) -> None:
    """An index that a build left invalid, or that is not there, is not used."""
    with mine.connection.transaction() as connection:
        rows = connection.execute("SELECT relname FROM pg_class WHERE relname LIKE '%%\\_ann\\_%%'")
        ((name,),) = rows.fetchall()
        parameters = (name,) if "%s" in statement else ()
        connection.execute(statement.format(name).encode(), parameters)
    result = Store(mine.connection).search("c", vector=QUERY, k=10)
    assert (result.scan, len(result)) == ("exact", 10)
    assert "no index that is ready" in result.reason


@pytest.mark.parametrize("index", ["vector", "halfvec", "binary", "ivfflat", "none"])
@pytest.mark.filterwarnings("ignore::ragstore.exceptions.OldExtensionWarning")
def test_every_kind_of_index_answers(store: Store, index: Any) -> None:
    """Each finds most of what an exact search finds, in order of the full vectors, none short."""
    store.create_space("s", model="m", dimensions=8, exact_limit=100, index=index)
    fill(store, store.create_collection("c", space="s", language="simple"))
    if index != "none":
        store.build_index("s", "c")
    exact = [hit.chunk_id for hit in store.search("c", vector=QUERY, k=20, exact=True)]
    asked: Any = {"rerank": 13} if index == "binary" else {"ef_search": 200}
    result = store.search("c", vector=QUERY, k=20, **asked)
    assert result.scan == ("exact" if index == "none" else "own_index")
    assert len(result) == 20
    assert [hit.distance for hit in result] == sorted(hit.distance or 0 for hit in result)
    # Eight signs tell 256 vectors apart: no more can be asked of them.
    least = 8 if index == "binary" else 16
    assert len(set(exact) & {hit.chunk_id for hit in result}) >= least
    for kept in ("half", "few"):
        filtered = store.search("c", vector=QUERY, k=1_000, where={kept: 1})
        assert len(filtered) == min(1_000, -(-SIZE // KEPT[kept]))


# --- what is set, sent and left behind ---------------------------------------------------------


def test_settings_reach_the_scan_and_do_not_stay(indexed: Store) -> None:
    """More rows come than the server's own ef_search gives, and afterwards it is as it was."""
    shown = "SELECT current_setting('hnsw.ef_search'), current_setting('hnsw.iterative_scan')"
    for _ in range(12):  # beyond the fifth, the server has the statement and its plan
        assert len(indexed.search("own", vector=QUERY, k=500)) == 500
        with indexed.connection.transaction() as connection:
            assert connection.execute(shown).fetchall() == [("40", "off")]
    with indexed.connection.transaction() as connection:
        assert not connection.autocommit


def test_ef_search_is_heeded(indexed: Store) -> None:
    """A small ``ef_search`` looks at less of the index than a large one."""

    def buffers(ef_search: int) -> int:
        plan = indexed.search("own", vector=QUERY, k=1, ef_search=ef_search, explain=True).plan
        line = next(line for line in (plan or "").splitlines() if "Buffers: shared" in line)
        return int(line.partition("hit=")[2].split()[0])

    assert buffers(1) < buffers(1_000)


@pytest.mark.parametrize(
    "asked",
    [
        {"vector": QUERY},
        {"vector": QUERY, "text": "word mod3"},
        {"text": "word mod3"},
        {"vector": QUERY, "where": {"half": 1}, "k": 100},
        {"text": "the"},
        {"vector": QUERY, "neighbours": 1, "text": "mod3", "highlight": True},
    ],
    ids=["vector", "hybrid", "text", "filter", "no words", "options"],
)
def test_search_is_one_round_trip(indexed: Store, asked: Any) -> None:
    """Once the collection is known, a search sends one statement and waits once."""
    indexed.search("own", **asked)
    with indexed.connection.reading() as connection, tempfile.TemporaryFile() as log:
        connection.pgconn.trace(log.fileno())
        try:
            indexed_on = Store(_Lent(connection))  # type: ignore[arg-type]
            indexed_on._searcher.memory = indexed._searcher.memory
            indexed_on.search("own", **asked)
        finally:
            connection.pgconn.untrace()
        log.seek(0)
        sent = [line.split(b"\t")[3] for line in log.read().splitlines() if b"\tF\t" in line]
    assert sent.count(b"Sync") + sent.count(b"Query") == 1


class _Lent:
    """A DatabaseConnection that lends one connection, which the test listens to."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def reading(self, *, ask: bool = False) -> Any:
        return self

    def __enter__(self) -> Any:
        return self._connection

    def __exit__(self, *exc: object) -> None:
        pass


@pytest.fixture
def behind_pooler(indexed: Store) -> Iterator[Store]:
    """Yield a store that is told of a transaction pooler and a timeout."""
    with (
        override_settings(POOLER="transaction", STATEMENT_TIMEOUT=30.0),
        DatabaseConnection(indexed.connection.url) as connection,
    ):
        yield Store(connection)


def test_pooler_gets_nothing_of_a_session(behind_pooler: Store) -> None:
    """Behind a transaction pooler no statement is prepared and no setting stays."""
    for _ in range(8):
        assert len(behind_pooler.search("own", vector=QUERY, k=200)) == 200
    with behind_pooler.connection.transaction() as connection:
        assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
        shown = connection.execute("SELECT current_setting('hnsw.ef_search')").fetchone()
    assert shown == ("40",)


def test_dead_connection_is_replaced(either: Any) -> None:
    """Connections that the server ended while they were in the pool cost a retry, no error."""
    either.create_collection("c", language="simple")
    url = either.connection.url.set(drivername="postgresql")
    for _ in range(2):
        assert len(either.search("c", text="x")) == 0
        with psycopg.connect(url.render_as_string(hide_password=False)) as other:
            ended = other.execute(
                "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchone()
        assert ended >= (1,)


# --- statements of one's own -------------------------------------------------------------------


def test_builders_use_the_indexes(indexed: Store) -> None:
    """Each builder's statement finds its rows by the index that a search finds them by."""
    info = indexed.collection("own")
    space = info.require_space()
    exact = nearest(info.id, space, QUERY, limit=10)
    near = approximate(info.id, space, QUERY, limit=10)
    filtered = approximate(info.id, space, QUERY, limit=10, where={"half": 1})
    words = matching(info.id, "simple", "word7 word8", limit=10, any_word=True)
    both = fused(near, words, limit=10, offset=0)
    own = f"ragstore_embedding_{space.id}_ann_{info.id}"
    plans = [
        (exact, f"ragstore_embedding_{space.id}_pkey"),
        (near, own),
        (filtered, own),
        (words, "ragstore_chunk_tsv_idx"),
        (both, own),
        (both, "ragstore_chunk_tsv_idx"),
        (hits(info.id, of_nearest(near, "cosine", limit=5)), own),
        (hits(info.id, of_nearest(near, "cosine", limit=5)), "ragstore_document_pkey"),
    ]
    with indexed.connection.session() as session:
        for statement, index in plans:
            assert_uses_index(session, statement, index)


def test_approximate_finds_what_a_search_finds(indexed: Store) -> None:
    """In a session, after its settings, it gives the rows of a search, and may be extended."""
    info = indexed.collection("own")
    space = info.require_space()
    where = {"half": 1}
    expected = [hit.chunk_id for hit in indexed.search("own", vector=QUERY, k=300, where=where)]
    near = approximate(info.id, space, QUERY, limit=300, candidates=400, where=where)
    with indexed.connection.session() as session:
        before = session.execute(near).all()
        session.execute(scan_settings(space, ef_search=300))
        found = list(session.execute(near.order_by("rank")).scalars())
        first = near.cte("near")
        texts = session.execute(
            select(Chunk.text)  # type: ignore[call-overload]
            .join(first, first.c.chunk_id == Chunk.id)
            .where(Chunk.collection_id == info.id, first.c.rank <= 3)
        ).all()
    assert len(before) < 300  # without settings it is pgvector's own, 40 at a time
    assert len(found) == 300
    assert len(set(found) & set(expected)) >= 285
    assert len(texts) == 3


def test_approximate_needs_an_index(indexed: Store) -> None:
    """A space that was made without one has nothing to search approximately."""
    space = indexed.create_space("bare", model="m", dimensions=8, index="none", exists_ok=True)
    with pytest.raises(exceptions.InvalidQuery, match="has no index: use nearest"):
        approximate(1, space, QUERY, limit=10)


# --- many at once ------------------------------------------------------------------------------


def test_nothing_is_found_where_nothing_is(indexed: Store) -> None:
    """No hit is made up for the one row that every statement has."""
    for asked in ({"vector": QUERY}, {"text": "word"}, {"vector": QUERY, "text": "word"}):
        options: dict[str, Any] = asked
        for k in (1, 10):
            assert list(indexed.search("own", **options, k=k, where={"n": -1})) == []


def as_dicts(result: SearchResult | list[Hit]) -> list[dict[str, Any]]:
    """Return hits as what they hold."""
    return [dict(vars(hit)) for hit in result]


def test_many_are_answered_in_order(indexed: Store) -> None:
    """``search_many`` gives what each search gives, fallbacks and filters included."""
    queries: list[dict[str, Any]] = [
        {"vector": QUERY},
        {"text": "word7"},
        {"vector": QUERY, "where": {"hundredth": 3}, "k": 50},
        {"vector": QUERY, "text": "the", "per_document": 1},
        {"vector": MATRIX[5], "where": {"half": 1}, "k": 300},
        {"text": "nothing of the kind"},
        *({"vector": MATRIX[number], "k": 3} for number in range(110)),
    ]
    results = indexed.search_many("own", queries)
    assert len(results) == len(queries)
    for query, result in zip(queries, results, strict=True):
        alone = indexed.search("own", **query)
        assert as_dicts(result) == as_dicts(alone)
        assert result.strategy == alone.strategy
    assert indexed.search_many("own", []) == []
