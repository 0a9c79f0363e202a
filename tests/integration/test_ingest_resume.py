"""A run that is killed: what it has stored stays, and the next run goes on from there."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import URL

from ragstore import DatabaseConnection, NewChunk, NewDocument, Store, exceptions

ROOT = Path(__file__).parents[2]
CHILD = """
import sys, time
from ragstore import DatabaseConnection, Store
sys.path.insert(0, {here!r})
from test_ingest_resume import documents

def slowly():
    for document in documents():
        time.sleep(0.005)
        yield document

with DatabaseConnection(sys.argv[1]) as connection:
    Store(connection).ingest("c", slowly(), batch_size=20, on_progress=lambda _: print(flush=True))
"""
STORED = """
SELECT d.key, d.title, d.content_hash, c.ordinal, c.text, c.content_hash, e.vector::text
FROM ragstore_document d JOIN ragstore_chunk c
  ON c.collection_id = d.collection_id AND c.document_id = d.id
LEFT JOIN ragstore_embedding e ON e.collection_id = c.collection_id AND e.chunk_id = c.id
JOIN ragstore_collection k ON k.id = d.collection_id AND k.name = %s
ORDER BY d.key, c.ordinal
"""


def documents() -> list[NewDocument]:
    """Return a source of 1,000 chunks."""
    return [
        NewDocument(f"k{at:03}", [NewChunk(f"text {at} {i}", [1, at + i]) for i in range(5)], "T")
        for at in range(200)
    ]


@pytest.mark.parametrize("batches", [1, 4, 9])
def test_killed_run_is_finished_by_the_next(store: Store, database: URL, batches: int) -> None:
    """After kill -9 the same call stores what is missing, nothing twice and nothing half."""
    store.create_space("s", model="m", dimensions=2)
    store.create_collection("c", space="s")
    store.create_collection("oracle", space="s")
    store.ingest("oracle", documents())
    url = database.render_as_string(hide_password=False)
    code = CHILD.format(here=str(Path(__file__).parent))
    with subprocess.Popen(
        [sys.executable, "-c", code, url], cwd=ROOT, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        for _ in range(batches):
            assert child.stdout.readline()
        time.sleep(0.013 * batches)
        child.send_signal(signal.SIGKILL)
    before = stored(store.connection, "c")
    oracle = stored(store.connection, "oracle")
    assert before
    assert len(before) < len(oracle)
    assert before == oracle[: len(before)]

    report = store.ingest("c", documents())

    assert report.unchanged * 5 == len(before)
    assert report.inserted == 200 - report.unchanged
    assert stored(store.connection, "c") == oracle


def stored(connection: DatabaseConnection, name: str) -> list[tuple[Any, ...]]:
    """Return all that a collection holds."""
    with connection.transaction() as driver:
        return driver.execute(STORED, [name]).fetchall()


def test_batch_before_an_error_of_the_source_is_stored(either: Any) -> None:
    """What the source raises ends the run, and the batch that was on its way then is stored."""
    either.create_collection("c")

    def source() -> Iterator[NewDocument]:
        yield from (NewDocument(f"k{at}", ["x"]) for at in range(20))
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        either.ingest("c", source(), batch_size=10)

    assert either.delete_collection("c") == 20


def failing(model: str) -> Any:
    """Return a model that fails for one text, if it is to."""

    def embed(texts: list[str]) -> list[list[int]]:
        if model in texts:
            raise RuntimeError
        return [[1, 1]] * len(texts)

    return embed


def broken(at: int, chunk: str) -> Iterator[NewDocument]:
    """Yield 30 documents, one of them with another chunk."""
    yield from (NewDocument(f"k{each:02}", ["x" if each != at else chunk]) for each in range(30))


def failing_source() -> Iterator[NewDocument]:
    """Yield 25 documents, and fail as ragstore does."""
    yield from (NewDocument(f"k{at:02}", ["x"]) for at in range(25))
    raise exceptions.QueryFailed("no more")


ENDINGS: dict[str, tuple[Callable[[], Any], int, type[exceptions.RagstoreError]]] = {
    "bad document": (lambda: broken(25, " "), 20, exceptions.EmptyChunk),
    "first batch": (lambda: broken(5, " "), 0, exceptions.EmptyChunk),
    "model": (lambda: broken(15, "no vector"), 10, exceptions.EmbeddingFailed),
    "server": (lambda: broken(15, "refused"), 10, exceptions.QueryFailed),
    "source": (failing_source, 20, exceptions.QueryFailed),
}


@pytest.mark.parametrize(("source", "stored", "error"), ENDINGS.values(), ids=ENDINGS)
def test_error_carries_the_report_so_far(
    either: Any,
    connection: DatabaseConnection,
    source: Callable[[], Any],
    stored: int,
    error: type[exceptions.RagstoreError],
) -> None:
    """Whatever ends a run, its error tells what is stored, and that is all that is stored."""
    either.create_space("s", model="m", dimensions=2)
    either.create_collection("c", space="s")
    with connection.transaction() as driver:
        driver.execute("ALTER TABLE ragstore_chunk ADD CHECK (text <> 'refused')")
    embed = failing("no vector")
    with pytest.raises(error) as caught:
        either.ingest("c", source(), embed=embed, batch_size=10, embed_retries=0)
    assert caught.value.report.inserted == stored
    assert caught.value.report.seconds > 0
    assert either.delete_collection("c") == stored
