"""What ragstore logs: numbers and names, never what documents say."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from sqlalchemy.engine import URL

from ragstore import DatabaseConnection, NewChunk, NewDocument, Store, embedding, exceptions

SECRET = "passage that nobody may read"
NUMBER = 0.1234567


def test_records_have_figures_and_no_content(
    either: Any, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    """A whole life of a collection is logged, in figures, without text, vector, key or meta."""
    caplog.set_level(logging.DEBUG, logger="ragstore")
    monkeypatch.setattr(embedding, "FIRST_PAUSE", 0.001)
    failures = [1]

    def embed(texts: list[str]) -> Any:
        if failures:
            raise ConnectionError(SECRET, failures.pop())
        return [[NUMBER, 1.0]] * len(texts)

    either.create_space("s", model="m", dimensions=2)
    either.create_collection("c", space="s")
    documents = [
        NewDocument(f"key {SECRET}", [SECRET, NewChunk("x", meta={"a": SECRET})], SECRET),
        NewDocument("bad", [SECRET + "\0"]),
    ]
    either.ingest("c", documents, embed=embed, on_error="skip", batch_size=1)
    either.delete_documents("c", [f"key {SECRET}"])
    either.delete_documents("c", where={"a": SECRET})
    either.delete_chunks("c", [1])
    either.delete_collection("c")

    records = [record for record in caplog.records if record.name.startswith("ragstore.")]
    everything = " ".join(f"{record.getMessage()} {vars(record)}" for record in records)
    assert SECRET not in everything
    assert str(NUMBER) not in everything
    by_message = {record.getMessage(): record for record in records}
    done: Any = by_message["ingested"]
    assert (done.levelno, done.collection) == (logging.WARNING, "c")
    assert (done.documents, done.inserted, done.skipped, done.chunks) == (2, 1, 1, 2)
    assert done.seconds > 0
    retried: Any = by_message["embed() raised ConnectionError: it is tried again"]
    assert (retried.texts, retried.failures) == (2, 1)
    assert {"batch stored", "documents deleted", "collection deleted"} <= set(by_message)


def test_records_of_spaces_and_indexes_have_figures(
    either: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A build, a move and both drops name collection, space, index and seconds, and no content."""
    caplog.set_level(logging.DEBUG, logger="ragstore")
    for name in "st":
        either.create_space(name, model="m", dimensions=2, exact_limit=1)
    either.create_collection("c", space="s")

    def embed(texts: list[str]) -> Any:
        return [[NUMBER, 1.0]] * len(texts)

    either.ingest("c", [NewDocument("a", [SECRET, "x"])], embed=embed)
    either.reembed("c", to="t", embed=embed, last=0)
    either.delete_collection("c")
    either.drop_space("s")

    records: list[Any] = [each for each in caplog.records if each.name.startswith("ragstore.")]
    everything = " ".join(f"{record.getMessage()} {vars(record)}" for record in records)
    assert SECRET not in everything
    assert str(NUMBER) not in everything
    of = {part: [each for each in records if part in each.getMessage()] for part in PARTS}
    assert [(each.collection, each.space) for each in of["was built"]] == [("c", "s"), ("c", "t")]
    dropped = of["_ann_"][-2:]
    assert [each.index for each in dropped] == [each.index for each in of["was built"]]
    (moved,) = of["reembedded"]
    assert (moved.collection, moved.space, moved.embedded, moved.last) == ("c", "t", 2, 0)
    (gone,) = of["The space 's' was dropped"]
    assert gone.space == "s"
    assert all(each.seconds > 0 for each in [*of["was built"], *dropped, moved, gone])


PARTS = ("was built", "_ann_", "reembedded", "The space 's' was dropped")


def test_ordinary_run_is_no_warning(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Without anything wrong a run logs at INFO, its batches at DEBUG."""
    caplog.set_level(logging.DEBUG, logger="ragstore")
    store.create_collection("c")
    store.ingest("c", [NewDocument("a", ["x"])])
    levels = {record.getMessage(): record.levelno for record in caplog.records}
    assert (levels["ingested"], levels["batch stored"]) == (logging.INFO, logging.DEBUG)


def test_password_is_in_no_record(database: URL, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the URL of a connection nor its error shows it."""
    caplog.set_level(logging.DEBUG)
    url = database.set(host="127.0.0.1", port=1, query={}, username="u", password="S3cr3t")
    with DatabaseConnection(url) as connection, pytest.raises(exceptions.DatabaseUnavailable):
        Store(connection).ingest("c", [])
    assert "S3cr3t" not in caplog.text


def test_sessions_have_a_name_on_the_server(either: Any) -> None:
    """An administrator sees whose sessions they are, by DB_APPLICATION_NAME."""
    either.create_collection("c")
    statement = (
        "SELECT DISTINCT application_name FROM pg_stat_activity"
        " WHERE datname = current_database() AND backend_type = 'client backend'"
    )
    names: list[Any] = []

    def embed(texts: list[str]) -> Any:
        with either.connection.transaction() as driver:
            names.extend(driver.execute(statement).fetchall())
        return [[1.0]] * len(texts)

    either.create_space("s", model="m", dimensions=1)
    either.create_collection("d", space="s")
    either.ingest("d", [NewDocument("a", ["x"])], embed=embed)
    assert set(names) == {("ragstore",)}
