"""A collection as lines of JSON, and back."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from sqlalchemy.engine import URL

from ragstore import (
    AsyncStore,
    DatabaseConnection,
    NewChunk,
    NewDocument,
    Store,
    exceptions,
    transfer,
)
from ragstore.models import Chunk, Document
from ragstore.testing.plugin import NewDatabase
from ragstore.writer import Writer

CONTENT = """
SELECT k.language, k.metadata, s.name, s.model, s.dimensions, s.metric,
  d.key, d.title, d.metadata, d.content_hash,
  c.ordinal, c.text, c.metadata, c.token_count, c.language, c.content_hash, vector_send(e.vector)
FROM ragstore_collection k LEFT JOIN ragstore_embedding_space s ON s.id = k.space_id
LEFT JOIN ragstore_document d ON d.collection_id = k.id
LEFT JOIN ragstore_chunk c ON c.collection_id = k.id AND c.document_id = d.id
LEFT JOIN ragstore_embedding e ON e.collection_id = k.id AND e.chunk_id = c.id
WHERE k.name = %s ORDER BY d.key, c.ordinal
"""
META = {"é": [1, 2.5, None, {"deep": True}], "n": 10**20, "small": 5e-324, "text": "a\nb\u2028"}


def content(store: Any, name: str) -> list[tuple[Any, ...]]:
    """Return all that a collection is, but for its ids and times."""
    with store.connection.transaction() as driver:
        found: list[tuple[Any, ...]] = driver.execute(CONTENT, [name]).fetchall()
    return found


def lines_of(store: Any, name: str) -> list[str]:
    """Return an export, of a store of either kind."""
    if isinstance(store, Store):
        return list(store.export_collection(name))

    async def collect() -> list[str]:
        return [line async for line in store._store.export_collection(name)]

    lines: list[str] = store._loop.run_until_complete(collect())
    return lines


@pytest.fixture
def filled(either: Any) -> Any:
    """Return a store with collection ``c`` of all sorts of documents."""
    either.create_space("s", model="minilm", dimensions=3, metric="l2", index="vector")
    either.create_collection("c", space="s", language="german", meta=META)
    numbers = np.random.default_rng(3).normal(size=(30, 3)) * np.logspace(-15, 15, 30)[:, None]
    documents = [
        NewDocument(
            f"{at:02} é\t'\"\\",
            [NewChunk(f"Häuser {at}\n\\N 😀", row, META, at), NewChunk("same", row), "same"],
            f"T {at}",
            META,
        )
        for at, row in enumerate(numbers)
    ]
    either.ingest("c", documents, embed=lambda texts: [[0.1, -0.0, 1e-40]] * len(texts))
    with either.connection.session() as session, session.begin():
        # What only SQL and sessions make: a gap, another language, a chunk without vector or hash.
        first = session.get_one(Chunk, (1, 1))
        first.ordinal, first.language = 9, "simple"
        session.delete(session.get_one(Chunk, (1, 5)))
        session.add(Chunk(collection_id=1, document_id=2, ordinal=70, text="added"))
    either.delete_chunks("c", [7, 8, 9])
    return either


def test_round_trip_is_exact(filled: Any, monkeypatch: Any) -> None:
    """Under another name everything is the same, hashes and vectors to the bit."""
    monkeypatch.setattr(transfer, "PAGE", 7)
    lines = lines_of(filled, "c")
    assert len(lines) == 31
    report = filled.import_collection(lines, name="copy")
    assert (report.inserted, report.chunks) == (30, 87)
    assert content(filled, "copy") == content(filled, "c")
    assert lines_of(filled, "copy")[1:] == lines[1:]


def test_page_holds_so_many_chunks(store: Store, monkeypatch: Any) -> None:
    """Memory depends on the size of a document, and not on how many of them are large."""
    monkeypatch.setattr(transfer, "PAGE_CHUNKS", 7)
    store.create_collection("c")
    sizes = [3, 3, 3, 7, 1, 20, 20, 2, 2, 2, 2]
    documents = [NewDocument(f"{at:02}", ["x"] * size) for at, size in enumerate(sizes)]
    store.ingest("c", documents)
    export, writer = transfer.Export("c"), Writer(store.connection)
    writer.do(export.start())
    pages = []
    while lines := writer.do(export.page()):
        pages.append([len(json.loads(line)["chunks"]) for line in lines])
    assert pages == [[3, 3], [3], [7], [1], [20], [20], [2, 2, 2], [2]]


def test_page_of_an_import_is_so_long(either: Any, monkeypatch: Any) -> None:
    """Long lines are written one by one: what stands before a bad one is stored."""
    monkeypatch.setattr(transfer, "PAGE_CHARACTERS", 10)
    with pytest.raises(exceptions.InvalidInput, match="line 4"):
        either.import_collection([head(), body(), body(key="b"), "{}"])
    assert either.delete_collection("n") == 2


def test_deleted_page_does_not_end_an_export(store: Store, monkeypatch: Any) -> None:
    """Where all documents of a page are deleted before they are read, the next one follows."""
    monkeypatch.setattr(transfer, "PAGE_CHUNKS", 1)
    store.create_collection("c")
    store.ingest("c", [NewDocument(key, ["x"]) for key in "abc"])
    last_of_page = transfer._last_of_page

    def deleting(sizes: Any) -> int:
        with Store(store.connection).connection.transaction() as other:
            other.execute("DELETE FROM ragstore_document WHERE key = 'b'")
        return last_of_page(sizes)

    monkeypatch.setattr(transfer, "_last_of_page", deleting)
    assert [json.loads(line)["key"] for line in lines_of(store, "c")[1:]] == ["a", "c"]


async def test_async_lines_are_imported(connection: DatabaseConnection) -> None:
    """An export of one store goes into another as it comes, without a file between."""
    async with connection:
        store = AsyncStore(connection)
        await store.create_space("s", model="m", dimensions=2)
        await store.create_collection("c", space="s")
        documents = [NewDocument(f"{at:03}", [NewChunk("x", [at, 1])]) for at in range(450)]
        await store.ingest("c", documents)
        report = await store.import_collection(store.export_collection("c"), name="copy")
        assert report.inserted == 450
        again = await store.ingest("copy", documents)
        assert again.unchanged == 450
        with pytest.raises(exceptions.InvalidInput, match="line 1"):
            await store.import_collection(nothing())


async def nothing() -> AsyncIterator[str]:
    """Yield no line."""
    for line in ():
        yield line


def test_document_with_an_id_below_one_is_exported(either: Any) -> None:
    """What a session stored under 0 or less comes along."""
    low = either.create_collection("low").id
    with either.connection.session() as session, session.begin():
        session.add_all(Document(collection_id=low, id=at, key=f"k{at}") for at in (-1, 0, 1))
    assert [json.loads(line)["key"] for line in lines_of(either, "low")[1:]] == ["k-1", "k0", "k1"]


def test_copy_is_recognised_by_its_source(filled: Any) -> None:
    """A source that is unchanged is unchanged for the imported collection too."""
    filled.create_collection("plain")
    source = [NewDocument("a", ["one", "two"], title="T", meta=META)]
    filled.ingest("plain", source)
    filled.import_collection(lines_of(filled, "plain"), name="copy")
    assert filled.ingest("copy", source).unchanged == 1


def test_export_is_read_by_another_database(
    filled: Any, ragstore_new_database: NewDatabase
) -> None:
    """A file brings the space along, and the collection its own name."""
    file = io.StringIO("".join(lines_of(filled, "c")) + "\n")
    url: URL = ragstore_new_database()
    with DatabaseConnection(url) as connection:
        store = Store(connection)
        store.import_collection(file)
        assert content(store, "c") == content(filled, "c")
        file.seek(0)
        with pytest.raises(exceptions.CollectionExists):
            store.import_collection(file)
    ragstore_new_database.drop(url)


def test_space_of_another_definition_is_refused(filled: Any) -> None:
    """Vectors of one model never land in the space of another."""
    lines = lines_of(filled, "c")
    head = json.loads(lines[0])
    head["space"]["model"] = "another"
    with pytest.raises(exceptions.SpaceExists, match="'s'"):
        filled.import_collection([json.dumps(head), *lines[1:]], name="copy")


def head(**changes: Any) -> str:
    """Return a first line."""
    plain = {"ragstore": 1, "collection": "n", "language": "english", "meta": {}, "space": None}
    return json.dumps({**plain, **changes})


def body(**changes: Any) -> str:
    """Return the line of a document."""
    chunk = {"ordinal": 0, "text": "x", "meta": {}, "token_count": None, "language": "english"}
    chunk.update({"hash": None, "vector": None})
    chunk.update(changes.pop("chunk", {}))
    document: dict[str, Any] = {
        "key": "a",
        "title": None,
        "meta": {},
        "hash": None,
        "chunks": [chunk],
    }
    return json.dumps({**document, **changes})


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "line 1"),
        (["{"], "line 1 is not a JSON object"),
        (["[]"], "line 1 is not a JSON object"),
        ([head(ragstore=2)], "line 1 is not that of an export of format 1"),
        ([head(space="s")], "line 1 has no definition of a space"),
        ([head(space={"name": "s", "owner": "me"})], "line 1 has no definition of a space"),
        ("text", "lines is str"),
        (5, "lines is int"),
        ([5], "line 1 is not a JSON object"),
        (["[" * 100_000], "line 1 is not a JSON object"),
        ([head(), body(chunk={"ordinal": "0"})], "line 2 is not a document"),
        ([head(), body(chunk={"ordinal": 2**63})], "line 2 is not a document"),
        ([head(), "nothing"], "line 2 is not a JSON object"),
        ([head(), body(), "{}"], "line 3 is not a document"),
        ([head(), body(hash="x")], "line 2 is not a document"),
        ([head(), body(chunk={"vector": "!"})], "line 2 is not a document"),
        ([head(), body(chunks=[5])], "line 2 is not a document"),
        ([head(), body(chunk={"ordinal": 2**31})], "line 2 is not a document"),
        ([head(), body(chunk={"text": " "})], "'a', chunk 0: it has no text"),
        ([head(), body(title="\0")], "'a': the title"),
        ([head(collection="")], "needs a name"),
        ([head(language="x")], "no text search configuration"),
    ],
)
def test_file_that_is_no_export_is_refused(either: Any, lines: Any, message: str) -> None:
    """The line is named, and nothing of its page is stored."""
    with pytest.raises(exceptions.InvalidInput, match=message):
        either.import_collection(lines)
    with either.connection.transaction() as driver:
        assert driver.execute("SELECT FROM ragstore_document").fetchall() == []


def test_nothing_to_export_is_named(either: Any) -> None:
    """A collection that is not there is an error, and not an empty file."""
    with pytest.raises(exceptions.CollectionNotFound, match="'x'"):
        lines_of(either, "x")
