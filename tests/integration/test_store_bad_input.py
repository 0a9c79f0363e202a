"""Bad input and failing servers: an error of ours that names the thing, and nothing changed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sqlalchemy.engine import URL

from ragstore import AsyncStore, DatabaseConnection, NewChunk, NewDocument, Store, exceptions
from ragstore.driver import connect
from ragstore.models import TABLES

SECRET = "passage that nobody may read"


def snapshot(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every table, and the tables there are."""
    with store.connection.transaction() as cursor:
        found = {
            table.name: cursor.execute(
                f"SELECT * FROM {table.name} ORDER BY 1, 2".encode()
            ).fetchall()
            for table in TABLES
        }
        found["pg_class"] = cursor.execute(
            "SELECT relname FROM pg_class WHERE relname LIKE 'ragstore%' ORDER BY 1"
        ).fetchall()
    return found


@pytest.fixture(scope="module")
def filled(shared: Store) -> Store:
    """Return a store with spaces ``s`` and ``flat`` of 2 dimensions and a document."""
    shared.create_space("s", model="minilm", dimensions=2)
    shared.create_space("flat", model="minilm", dimensions=2, metric="l2")
    shared.create_collection("c", space="s")
    shared.create_collection("flat", space="flat")
    shared.create_collection("plain")
    shared.ingest("c", [NewDocument("kept", [NewChunk("kept", [1, 0])])])
    return shared


def document(text: Any = SECRET, vector: Any = (1, 0), **fields: Any) -> NewDocument:
    """Return a document of one good chunk and this one."""
    chunks = [NewChunk("good", [0, 1]), NewChunk(text, vector)]
    return NewDocument(**{"key": "bad", "chunks": chunks, **fields})


NAN = float("nan")
INGESTS: list[tuple[str, Any, type[Exception], str]] = [
    ("NaN", [document(vector=[1, NAN])], exceptions.NonFiniteVector, "'bad', chunk 1: .*NaN"),
    ("infinity", [document(vector=[1, np.inf])], exceptions.NonFiniteVector, "chunk 1: .*infinity"),
    ("1e39", [document(vector=[1, 1e39])], exceptions.NonFiniteVector, "4-byte floats"),
    ("length", [document(vector=[1, 2, 3])], exceptions.DimensionMismatch, "3 dim.*'s'.*'minilm'"),
    ("empty", [document(vector=[])], exceptions.DimensionMismatch, "0 dimensions"),
    ("2-D", [document(vector=[[1, 2]])], exceptions.InvalidVector, "2 axes"),
    ("strings", [document(vector=["1", "2"])], exceptions.InvalidVector, "chunk 1.*numbers"),
    ("no vector", [document(vector=None)], exceptions.InvalidVector, "chunk 1: .*embed="),
    ("zero", [document(vector=[0, 0])], exceptions.ZeroVector, "no direction"),
    ("underflow", [document(vector=[1e-30, 0])], exceptions.ZeroVector, "nearly"),
    ("overflow", [document(vector=[1e38, 1e38])], exceptions.NonFiniteVector, "normalise"),
    ("NUL", [document(SECRET + "\0")], exceptions.NulByte, "'bad', chunk 1: .* at 28"),
    ("surrogate", [document(SECRET + "\udc80")], exceptions.LoneSurrogate, "chunk 1: .* at 28"),
    ("too long", [document("x" * 262_145)], exceptions.TextTooLong, "262,145 bytes"),
    ("metadata", [document(meta={"a": {"b": {1}}})], exceptions.InvalidMetadata, r"meta\.a\.b"),
    ("blank", [document(" ")], exceptions.EmptyChunk, "chunk 1"),
    ("no chunks", [document(chunks=())], exceptions.EmptyDocument, "'bad': .*no chunks"),
    ("a str", [document(chunks=SECRET)], exceptions.InvalidInput, r"'bad': .*\[text\]"),
    ("a generator", [document(chunks=iter("x"))], exceptions.InvalidInput, r"list\(chunks\)"),
    ("twice", [document("x"), document("y")], exceptions.DuplicateKey, "'bad': .*twice"),
    ("a dict", [{"key": "bad"}], exceptions.InvalidInput, "NewDocument.*got dict"),
    ("one document", document(), exceptions.InvalidInput, "documents is NewDocument, .*list"),
    ("a string", "text", exceptions.InvalidInput, "documents is str"),
    ("nothing", None, exceptions.InvalidInput, "documents is NoneType"),
]


@pytest.mark.parametrize(
    ("documents", "error", "message"), [case[1:] for case in INGESTS], ids=[c[0] for c in INGESTS]
)
async def test_document_that_cannot_be_stored_changes_nothing(
    filled: Store, caplog: pytest.LogCaptureFixture, documents: Any, error: Any, message: str
) -> None:
    """The batch of a bad document is refused as a whole, sync and async, and quotes no text."""
    caplog.set_level(logging.DEBUG)
    before = snapshot(filled)
    good = NewDocument("good", [NewChunk("x", [1, 0])])
    given = [good, *documents] if isinstance(documents, list) else documents
    with pytest.raises(error, match=message) as caught:
        filled.ingest("c", given)
    async with DatabaseConnection(filled.connection.url) as connection:
        with pytest.raises(error, match=message):
            await AsyncStore(connection).ingest("c", given)
    assert snapshot(filled) == before
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__} {caplog.text}"


def good_length(texts: list[str]) -> Any:
    """Return vectors of another model."""
    return [[1, 2, 3] for _ in texts]


EMBEDS: list[tuple[str, Any, type[Exception], str]] = [
    ("None", lambda _: None, exceptions.EmbeddingFailed, "returned NoneType"),
    ("too few", lambda _: [[1, 0]], exceptions.EmbeddingFailed, "1 vectors for 2 texts"),
    ("too many", lambda _: np.ones((3, 2)), exceptions.EmbeddingFailed, "3 vectors for 2"),
    ("a generator", lambda t: ([1, 0] for _ in t), exceptions.EmbeddingFailed, "generator.*list"),
    ("a string", lambda _: "12", exceptions.EmbeddingFailed, "returned str"),
    ("a mapping", lambda t: {each: [1, 0] for each in t}, exceptions.EmbeddingFailed, "dict"),
    ("a number", lambda _: np.float32(1), exceptions.EmbeddingFailed, "float32"),
    ("flat", lambda _: [1.0, 2.0], exceptions.InvalidVector, "'new', chunk 0: .*not float"),
    ("ragged", lambda _: [[1, 0], [1]], exceptions.DimensionMismatch, "'new', chunk 2"),
    ("another model", good_length, exceptions.DimensionMismatch, "3 dimensions.*'minilm'"),
    ("NaN", lambda _: [[1, 0], [NAN, 1]], exceptions.NonFiniteVector, "'new', chunk 2"),
    ("zero", lambda _: np.zeros((2, 2)), exceptions.ZeroVector, "'new', chunk 0"),
    ("none inside", lambda _: [[1, 0], None], exceptions.InvalidVector, "chunk 2: .*NoneType"),
]


@pytest.mark.parametrize(
    ("embed", "error", "message"), [case[1:] for case in EMBEDS], ids=[case[0] for case in EMBEDS]
)
def test_what_embed_makes_is_checked(filled: Store, embed: Any, error: Any, message: str) -> None:
    """A vector that cannot be stored is traced to its chunk, and nothing is written."""
    before = snapshot(filled)
    new = NewDocument("new", ["one", NewChunk("given", [1, 0]), "two"])
    with pytest.raises(error, match=message):
        filled.ingest("c", [new], embed=embed)
    assert snapshot(filled) == before


class OutOfTokensError(Exception):
    """What somebody's model raises."""


def broken(_: list[str]) -> Any:
    """Fail as a model does."""
    raise OutOfTokensError("later")


async def test_error_of_embed_is_the_cause(filled: Store) -> None:
    """What embed raises stands behind an error that names it, and nothing is written."""
    before = snapshot(filled)
    new = [NewDocument("new", ["x"])]
    with pytest.raises(exceptions.EmbeddingFailed, match="OutOfTokensError for 1 texts") as caught:
        filled.ingest("c", new, embed=broken, embed_retries=0)
    async with DatabaseConnection(filled.connection.url) as connection:
        with pytest.raises(exceptions.EmbeddingFailed, match="once") as caught_async:
            await AsyncStore(connection).ingest("c", new, embed=broken, embed_retries=0)
    for error in (caught.value, caught_async.value):
        assert isinstance(error.__cause__, OutOfTokensError)
    assert snapshot(filled) == before


def test_zero_vector_is_stored_where_it_means_something(store: Store) -> None:
    """Under l2 the origin is a point like any other."""
    store.create_space("s", model="m", dimensions=2, metric="l2")
    store.create_collection("c", space="s")
    store.ingest("c", [NewDocument("a", [NewChunk("origin", [0, 0])])])
    assert [hit.score for hit in store.search("c", vector=[0, 0])] == [1.0]


def space(name: Any = "n", *, model: Any = "m", dimensions: Any = 2, **more: Any) -> Any:
    """Call create_space."""
    return lambda store: store.create_space(name, model=model, dimensions=dimensions, **more)


def collection(name: Any = "n", **options: Any) -> Any:
    """Call create_collection."""
    return lambda store: store.create_collection(name, **options)


def ingest(name: Any = "c", *documents: NewDocument, **options: Any) -> Any:
    """Call ingest."""
    return lambda store: store.ingest(name, documents, **options)


def search(name: Any = "c", **options: Any) -> Any:
    """Call search."""
    return lambda store: store.search(name, **options)


def many(queries: Any) -> Any:
    """Call search_many."""
    return lambda store: store.search_many("c", queries)


def look(name: Any) -> Any:
    """Call collection."""
    return lambda store: store.collection(name)


PLAIN = NewDocument("a", ["x"])
HYBRID: dict[str, Any] = {"vector": [1, 0], "text": "kept"}
BOTH_COLLECTIONS = "'x' .*'c', 'flat'.*create"
CALLS: list[tuple[str, Any, type[Exception], str]] = [
    ("look", look("x"), exceptions.CollectionNotFound, BOTH_COLLECTIONS),
    ("search nowhere", search("x", text="a"), exceptions.CollectionNotFound, BOTH_COLLECTIONS),
    ("ingest nowhere", ingest("x"), exceptions.CollectionNotFound, BOTH_COLLECTIONS),
    ("name number", look(5), exceptions.InvalidText, "name of the collection is int"),
    ("name NUL", look("a\0"), exceptions.NulByte, "name of the collection"),
    ("name surrogate", search("\ud800", text="a"), exceptions.LoneSurrogate, "collection"),
    ("name empty", collection(""), exceptions.InvalidName, "needs a name"),
    ("name long", collection("é" * 128), exceptions.TextTooLong, "256 bytes"),
    ("no such space", collection(space="x"), exceptions.SpaceNotFound, "'flat', 's'.*create_space"),
    ("language", collection(language="x'y"), exceptions.InvalidName, "only .*english"),
    ("language NUL", collection(language="\0"), exceptions.NulByte, "the language"),
    ("metadata", collection(meta={"a": NAN}), exceptions.InvalidMetadata, "meta.a is nan"),
    ("metadata list", collection(meta=[1]), exceptions.InvalidMetadata, "list"),
    ("dimensions 0", space(dimensions=0), exceptions.InvalidVector, "1 to 16,000"),
    ("dimensions 16001", space(dimensions=16_001), exceptions.InvalidVector, "not 16001"),
    ("dimensions True", space(dimensions=True), exceptions.InvalidVector, "not True"),
    ("dimensions text", space(dimensions="2"), exceptions.InvalidVector, "not '2'"),
    ("metric", space(metric="dot"), exceptions.InvalidName, "'dot' is none of cosine, l2"),
    ("space name", space(""), exceptions.InvalidName, "needs a name"),
    ("space model", space(model=""), exceptions.InvalidName, "needs a model"),
    ("space NUL", space("\0"), exceptions.NulByte, "name of the space"),
    ("space long", space("x" * 256), exceptions.TextTooLong, "name of the space"),
    ("batch 0", ingest(batch_size=0), exceptions.InvalidInput, "batch_size is 0"),
    ("batch text", ingest(batch_size="5"), exceptions.InvalidInput, "batch_size is '5'"),
    ("vector", ingest("plain", document()), exceptions.SpaceNotReady, "'plain' has no .*space="),
    ("embed", ingest("plain", PLAIN, embed=broken), exceptions.SpaceNotReady, "'plain' has no"),
    ("no space", search("plain", vector=[1, 0]), exceptions.SpaceNotReady, "search by text"),
    ("no space, both", search("plain", **HYBRID), exceptions.SpaceNotReady, "search by text"),
    ("query length", search(vector=[1]), exceptions.DimensionMismatch, "1 dim.*'minilm'"),
    ("query NaN", search(vector=[1, NAN]), exceptions.NonFiniteVector, "NaN"),
    ("query zero", search(vector=[0, 0]), exceptions.ZeroVector, "no direction"),
    ("query string", search(vector="12"), exceptions.InvalidVector, "not str"),
    ("query empty", search(vector=[]), exceptions.DimensionMismatch, "0 dimensions"),
    ("query number", search(text=5), exceptions.InvalidText, "the query is int"),
    ("query NUL", search(text="a\0"), exceptions.NulByte, "the query"),
    ("query nothing", search(), exceptions.InvalidQuery, "text=, vector= or both"),
    ("query flag", search(text="a", exact=[]), exceptions.InvalidQuery, r"exact is \[\]"),
    ("far", search(vector=[1, 0], max_distance=10**400), exceptions.InvalidQuery, "beyond all"),
    ("weights", search(**HYBRID, weights=(5e-324, 1)), exceptions.InvalidQuery, "below 1e-300"),
    ("name list", search([], text="a"), exceptions.InvalidText, "name of the collection is list"),
    ("many of 5", many(5), exceptions.InvalidQuery, "a list of queries, not int"),
    ("many of one", many({"text": "a"}), exceptions.InvalidQuery, r"not dict: pass \[query\]"),
    ("query words", search(text="x," * 65), exceptions.InvalidQuery, "65 words"),
    ("k", search(text="a", k=0), exceptions.InvalidQuery, "k is 0"),
    ("offset", search(text="a", offset="1"), exceptions.InvalidQuery, "offset is '1'"),
    ("filter", search(text="the", where={"a\0": 1}), exceptions.InvalidFilter, "NUL"),
]


@pytest.mark.parametrize(
    ("call", "error", "message"), [case[1:] for case in CALLS], ids=[case[0] for case in CALLS]
)
def test_bad_argument_has_its_own_error(filled: Store, call: Any, error: Any, message: str) -> None:
    """Each wrong argument is named, with what would be right, and leaves no trace."""
    before = snapshot(filled)
    with pytest.raises(error, match=message):
        call(filled)
    assert snapshot(filled) == before


def test_more_than_there_is_is_all_there_is(filled: Store) -> None:
    """A k or an offset beyond the rows is no error."""
    assert len(filled.search("c", vector=[1, 0], k=1_000)) == 1
    assert len(filled.search("c", text="kept", vector=[1, 0], k=1_000)) == 1
    assert len(filled.search("c", vector=[1, 0], offset=10_000)) == 0


# --- a server or a schema that is not as it should be ------------------------------------------


async def test_database_without_tables_names_the_remedy(empty_database: URL) -> None:
    """Every call says that the tables must be made."""
    async with DatabaseConnection(empty_database) as connection:
        store = Store(connection)
        for call in (
            lambda: store.search("c", text="x"),
            lambda: store.ingest("c", []),
            lambda: store.create_collection("c"),
            lambda: store.create_space("s", model="m", dimensions=2),
        ):
            with pytest.raises(exceptions.SchemaMissing, match="ragstore migrate upgrade"):
                call()
        with pytest.raises(exceptions.SchemaMissing, match="ragstore migrate upgrade"):
            await AsyncStore(connection).search("c", text="x")


async def test_dead_server_is_not_an_empty_answer(server_url: URL) -> None:
    """Where nobody listens, nothing is answered; the password is in no message."""
    url = server_url.set(host="127.0.0.1", port=1, query={}, username="u", password="S3cr3t")
    async with DatabaseConnection(url) as connection:
        with pytest.raises(exceptions.DatabaseUnavailable) as caught:
            Store(connection).search("c", text="x")
        with pytest.raises(exceptions.DatabaseUnavailable) as caught_async:
            await AsyncStore(connection).search("c", text="x")
    for error in (caught.value, caught_async.value):
        assert "S3cr3t" not in f"{error!r} {error.__cause__!r}"


@pytest.fixture
def killer(connection: DatabaseConnection) -> Iterator[Any]:
    """Yield a function that ends every other session of the database, as a restart does."""
    kill = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = %s AND pid <> pg_backend_pid()"
    )
    with connect(connection.url.set(database="postgres"), autocommit=True) as admin:
        yield lambda: admin.execute(kill, [connection.url.database]).fetchall()


def test_store_works_again_when_the_server_is_back(either: Any, killer: Any) -> None:
    """A pooled connection that died is replaced unseen; one that dies at work is an error."""
    either.create_space("s", model="m", dimensions=2)
    either.create_collection("c", space="s")
    document = NewDocument("a", [NewChunk("x", [1, 0])])
    assert killer()
    either.ingest("c", [document])
    assert killer()
    assert len(either.search("c", vector=[1, 0])) == 1


def test_connection_that_dies_at_work_is_named(store: Store, killer: Any) -> None:
    """The batch is lost as a whole, the next call has a new connection."""
    store.create_collection("c")

    def killed(store: Store) -> None:
        with store.connection.transaction() as cursor:
            assert killer()
            cursor.execute("SELECT 1")

    with pytest.raises(exceptions.DatabaseUnavailable):
        killed(store)
    assert store.ingest("c", [PLAIN]).inserted == 1


def test_message_of_the_server_quotes_no_row(filled: Store, caplog: Any) -> None:
    """What a constraint of somebody's own refuses is told without the row that it refused."""
    caplog.set_level(logging.DEBUG)
    with filled.connection.transaction() as cursor:
        cursor.execute("ALTER TABLE ragstore_chunk ADD CONSTRAINT own CHECK (text !~ 'passage')")
    try:
        before = snapshot(filled)
        with pytest.raises(exceptions.QueryFailed, match="own") as caught:
            filled.ingest("plain", [NewDocument("a", [SECRET])])
        assert snapshot(filled) == before
    finally:
        with filled.connection.transaction() as cursor:
            cursor.execute("ALTER TABLE ragstore_chunk DROP CONSTRAINT own")
    error = caught.value
    assert error.sqlstate == "23514"
    assert SECRET not in f"{error!r} {error.__cause__!r} {caplog.text}"
