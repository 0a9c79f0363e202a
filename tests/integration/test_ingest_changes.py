"""What ingest does to a document that has changed: only what it must."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL

from ragstore import DatabaseConnection, IngestReport, NewChunk, NewDocument, Store
from ragstore.driver import connect

STORED = """
SELECT d.key, c.ordinal, c.text, c.id, e.vector::real[], c.xmin::text
FROM ragstore_document d JOIN ragstore_chunk c
  ON c.collection_id = d.collection_id AND c.document_id = d.id
LEFT JOIN ragstore_embedding e ON e.collection_id = c.collection_id AND e.chunk_id = c.id
JOIN ragstore_collection k ON k.id = d.collection_id AND k.name = %s
ORDER BY d.key, c.ordinal
"""


class Model:
    """An embed that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        """Embed each text as its length and first letter."""
        self.asked += texts
        return [[float(len(each)), float(ord(each[0]))] for each in texts]


@pytest.fixture
def filled(either: Any) -> Any:
    """Return a store with space ``s`` of 2 dimensions and collection ``c`` in it."""
    either.create_space("s", model="m", dimensions=2)
    either.create_collection("c", space="s")
    return either


def stored(connection: DatabaseConnection, name: str = "c") -> list[tuple[Any, ...]]:
    """Return (key, place, text, id, vector, transaction) of each chunk of a collection."""
    with connection.transaction() as driver:
        return driver.execute(STORED, [name]).fetchall()


def counts(report: IngestReport) -> tuple[int, ...]:
    """Return (inserted, updated, unchanged, chunks, embedded)."""
    return report.inserted, report.updated, report.unchanged, report.chunks, report.embedded


def test_only_changed_chunks_are_embedded_and_written(
    filled: Any, connection: DatabaseConnection
) -> None:
    """Chunks that stay keep id and vector, and those in their place are not even touched."""
    model = Model()
    filled.ingest("c", [NewDocument("a", ["one", "two", "three"])], embed=model)
    before = {row[2]: row for row in stored(connection)}
    model.asked.clear()

    report = filled.ingest("c", [NewDocument("a", ["one", "new", "two"])], embed=model)

    assert counts(report) == (0, 1, 0, 1, 1)
    assert model.asked == ["new"]
    after = {row[2]: row for row in stored(connection)}
    assert [(row[1], row[2]) for row in after.values()] == [(0, "one"), (1, "new"), (2, "two")]
    assert after["one"] == before["one"]
    assert after["two"][3:5] == before["two"][3:5]
    assert after["new"][4] == [3.0, float(ord("n"))]


@pytest.mark.parametrize("change", [{"title": "T"}, {"meta": {"a": 1}}], ids=["title", "metadata"])
def test_change_of_the_document_alone_touches_no_chunk(
    filled: Any, connection: DatabaseConnection, change: Any
) -> None:
    """A new title or new metadata embeds nothing and writes no chunk."""
    filled.ingest("c", [NewDocument("a", ["one", "two"])], embed=Model())
    before = stored(connection)
    model = Model()
    report = filled.ingest("c", [NewDocument("a", ["one", "two"], **change)], embed=model)
    assert counts(report) == (0, 1, 0, 0, 0)
    assert model.asked == []
    assert stored(connection) == before


def test_equal_texts_are_embedded_once(filled: Any, connection: DatabaseConnection) -> None:
    """Within a batch a text costs one vector, however often it stands there."""
    model = Model()
    report = filled.ingest(
        "c", [NewDocument("a", ["same", "same"]), NewDocument("b", ["same"])], embed=model
    )
    assert model.asked == ["same"]
    assert counts(report) == (2, 0, 0, 3, 1)
    assert [row[4] for row in stored(connection)] == [[4.0, 115.0]] * 3


def test_any_change_ends_as_a_first_ingest(filled: Any, connection: DatabaseConnection) -> None:
    """After random edits the collection is what it would be, had it been filled that way."""
    choice = random.Random(5)
    source = {f"k{at}": [choice.choice("abcdef") for _ in range(6)] for at in range(8)}
    for turn in range(12):
        documents = [NewDocument(key, list(letters)) for key, letters in source.items()]
        choice.shuffle(documents)
        model = Model()
        before = stored(connection)
        filled.ingest("c", documents, embed=model, batch_size=choice.randint(1, 40))
        wanted = [
            (key, place, letter, [1.0, float(ord(letter))])
            for key, letters in sorted(source.items())
            for place, letter in enumerate(letters)
        ]
        now = stored(connection)
        assert [(*row[:3], row[4]) for row in now] == wanted, turn
        common = {(row[0], row[2]) for row in before} & {(row[0], row[2]) for row in now}
        ids = {row[3] for row in before} & {row[3] for row in now}
        assert len({(row[0], row[2]) for row in now if row[3] in ids}) == len(common)
        for letters in source.values():
            at = choice.randrange(len(letters) + 1)
            letters[at : at + choice.randint(0, 2)] = choice.choices("abcdefg", k=2)
            choice.shuffle(letters) if choice.random() < 0.2 else None


def test_vectors_given_are_checked_for_new_chunks_alone(
    filled: Any, connection: DatabaseConnection
) -> None:
    """Where nothing but one chunk has changed, one vector is written."""
    chunks = [NewChunk(letter, [1, at + 1]) for at, letter in enumerate("abc")]
    filled.ingest("c", [NewDocument("a", chunks)])
    before = stored(connection)
    report = filled.ingest("c", [NewDocument("a", [*chunks[:2], NewChunk("c", [5, 5])])])
    assert counts(report) == (0, 1, 0, 1, 0)
    assert stored(connection)[:2] == before[:2]
    assert stored(connection)[2][4] == [5.0, 5.0]


def test_language_of_kept_chunks_follows_the_collection(
    filled: Any, connection: DatabaseConnection
) -> None:
    """A collection whose language was changed has its words anew, and nothing is embedded."""
    source = [NewDocument("a", ["the houses"])]
    filled.ingest("c", source, embed=Model())
    with connection.session() as session, session.begin():
        session.execute(text("UPDATE ragstore_collection SET language = 'simple'"))
    model = Model()
    assert counts(filled.ingest("c", source, embed=model)) == (0, 1, 0, 0, 0)
    assert model.asked == []
    assert len(filled.search("c", text="the")) == 1


def test_plan_for_small_tables_is_not_kept(database: URL) -> None:
    """Neither look-ups nor foreign keys, first used on small tables, read whole ones later."""
    documents = [NewDocument(f"k{at:04}", [f"text {at}"]) for at in range(2_000)]
    with DatabaseConnection(database) as connection:
        store = Store(connection)
        store.create_space("s", model="m", dimensions=2)
        store.create_collection("c", space="s")
        store.ingest("c", documents[:1], embed=Model())
    with connect(database, autocommit=True) as other:
        other.execute("VACUUM ANALYZE")  # they are small, and known to be
    options: dict[str, Any] = {"embed": Model(), "batch_size": 100, "build_index": "never"}
    with DatabaseConnection(database) as connection:
        store = Store(connection)
        assert store.ingest("c", documents, **options).inserted == 1_999
        assert store.ingest("c", documents, **options).unchanged == 2_000
        assert store.delete_documents("c", [f"k{at:04}" for at in range(1_900)]) == 1_900
    # The sessions are over, so all that they have read is counted.
    with connect(database) as other:
        read = "SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE relname LIKE 'ragstore%'"
        assert other.execute(read).fetchall()[0][0] < 50_000
        read = "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname LIKE 'ragstore%'"
        assert other.execute(read).fetchall()[0][0] < 100_000
