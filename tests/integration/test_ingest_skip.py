"""Bad documents left out: every good one is stored, every bad one is told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ragstore import DatabaseConnection, NewChunk, NewDocument, Store, exceptions
from ragstore.report import MAX_PROBLEMS
from ragstore.testing.plugin import NewDatabase

NAN = float("nan")
SECRET = "passage that nobody may read"


def chunk(text: Any = "text", vector: Any = (1, 0), **more: Any) -> NewChunk:
    """Return a chunk that is good unless told otherwise."""
    return NewChunk(text, vector, **more)


BAD: list[tuple[str, Any, str | None, int | None, str]] = [
    ("NaN", NewDocument("x", [chunk(), chunk(vector=[1, NAN])]), "vector", 1, "NaN"),
    ("length", NewDocument("x", [chunk(vector=[1])]), "vector", 0, "1 dimensions"),
    ("zero", NewDocument("x", [chunk(vector=[0, 0])]), "vector", 0, "no direction"),
    ("strings", NewDocument("x", [chunk(vector=["1"])]), "vector", 0, "numbers"),
    ("no vector", NewDocument("x", [chunk(), chunk(vector=None)]), "vector", 1, "embed="),
    ("NUL", NewDocument("x", [chunk("a\0")]), "text", 0, "NUL"),
    ("surrogate", NewDocument("x", [chunk("\udc80")]), "text", 0, "surrogate"),
    ("too long", NewDocument("x", [chunk("é" * 131_073)]), "text", 0, "262,146 bytes"),
    ("blank", NewDocument("x", [chunk(" ")]), "text", 0, "no text"),
    ("no chunks", NewDocument("x", []), "chunks", None, "no chunks"),
    ("a string", NewDocument("x", "text"), "chunks", None, "str"),
    ("chunk of a type", NewDocument("x", [5]), "chunks", 0, "got int"),  # type: ignore[list-item]
    ("title", NewDocument("x", [chunk()], title="a\0"), "title", None, "the title"),
    ("metadata", NewDocument("x", [chunk()], meta={"a": {1}}), "meta", None, r"meta\.a is set"),
    ("chunk's", NewDocument("x", [chunk(meta={"a": NAN})]), "meta", 0, "meta.a is nan"),
    ("NUL in it", NewDocument("x", [chunk(meta={"a": "\0"})]), "meta", 0, "NUL"),
    ("tokens", NewDocument("x", [chunk(token_count=-1)]), "token_count", 0, "-1"),
]


@pytest.fixture(scope="module")
def target(ragstore_new_database: NewDatabase) -> Iterator[DatabaseConnection]:
    """Yield a connection to a database with a space ``s`` and collection ``c``."""
    url = ragstore_new_database()
    with DatabaseConnection(url) as connection:
        store = Store(connection)
        store.create_space("s", model="m", dimensions=2)
        store.create_collection("c", space="s")
        yield connection
    ragstore_new_database.drop(url)


def keys(connection: DatabaseConnection) -> list[str]:
    """Return the keys that are stored."""
    with connection.transaction() as driver:
        found = driver.execute("SELECT key FROM ragstore_document ORDER BY key").fetchall()
    return [key for (key,) in found]


@pytest.mark.parametrize(
    ("bad", "field", "place", "reason"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
def test_bad_document_is_told_and_left_out(
    target: DatabaseConnection, bad: Any, field: str, place: int | None, reason: str
) -> None:
    """Its key, field, chunk and reason are told; the others of its batch are stored."""
    store = Store(target)
    good = [NewDocument(key, [chunk(key)]) for key in ("w", "y")]
    report = store.ingest("c", [good[0], bad, good[1]], on_error="skip")
    (problem,) = report.problems
    assert (problem.key, problem.field, problem.chunk) == ("x", field, place)
    assert re.search(reason, problem.reason)
    assert (report.skipped, report.documents) == (1, 3)
    assert keys(target) == ["w", "y"]
    store.delete_documents("c", ["w", "y"])


def test_second_of_a_key_is_left_out(either: Any, connection: DatabaseConnection) -> None:
    """Of two documents of one key in a batch the first is stored."""
    either.create_collection("c")
    twice = [NewDocument("a", ["first"]), NewDocument("a", ["second"]), NewDocument("b", ["x"])]
    report = either.ingest("c", twice, on_error="skip")
    assert (report.inserted, report.skipped) == (2, 1)
    assert (report.problems[0].key, report.problems[0].field) == ("a", "key")
    assert [hit.text for hit in either.search("c", text="first")] == ["first"]


def test_what_is_no_document_is_told_without_key(
    either: Any, connection: DatabaseConnection
) -> None:
    """Things that are no documents are counted, and what can be stored is."""
    either.create_collection("c")
    things: list[Any] = [{"key": "a"}, None, NewDocument("", ["x"]), NewDocument("b", ["x"])]
    report = either.ingest("c", things, on_error="skip")
    assert (report.inserted, report.skipped) == (1, 3)
    assert {problem.key for problem in report.problems} == {None}
    assert keys(connection) == ["b"]


def test_vectors_made_are_checked_like_those_given(
    either: Any, connection: DatabaseConnection
) -> None:
    """A text for which the model makes no usable vector costs its own document alone."""
    either.create_space("s", model="m", dimensions=2)
    either.create_collection("c", space="s")

    def embed(texts: list[str]) -> Any:
        return [np.array([1.0, NAN if each == "bad" else 1.0]) for each in texts]

    documents = [NewDocument("a", ["good", "bad"]), NewDocument("b", ["good", "fine"])]
    report = either.ingest("c", documents, embed=embed, on_error="skip")
    assert keys(connection) == ["b"]
    (problem,) = report.problems
    assert (problem.key, problem.chunk, problem.field) == ("a", 1, "vector")


def test_text_that_the_model_refuses_is_found_by_halves(
    either: Any, connection: DatabaseConnection
) -> None:
    """It costs the documents that have it; the others are embedded and stored."""
    either.create_space("s", model="m", dimensions=2)
    either.create_collection("c", space="s")
    calls: list[int] = []

    def embed(texts: list[str]) -> Any:
        calls.append(len(texts))
        if any("long" in each for each in texts):
            raise ValueError(SECRET)
        return [[1.0, 1.0]] * len(texts)

    documents = [
        NewDocument(f"k{at:02}", [f"text {at}", "too long" if at in (3, 11) else "fine"])
        for at in range(16)
    ]
    options: dict[str, Any] = {"embed_retries": 0, "on_error": "skip"}
    report = either.ingest("c", documents, embed=embed, **options)
    assert [(each.key, each.chunk, each.field) for each in report.problems] == [
        ("k03", 1, "text"),
        ("k11", 1, "text"),
    ]
    assert "ValueError" in report.problems[0].reason
    assert SECRET not in report.problems[0].reason
    assert (report.inserted, report.embedded) == (14, 17)
    assert len(calls) < 12
    assert len(keys(connection)) == 14


def test_model_that_does_not_work_at_all_ends_the_run(either: Any) -> None:
    """Where nothing can be embedded the documents are not to blame, and few calls are made."""
    either.create_space("s", model="m", dimensions=2)
    either.create_collection("c", space="s")
    calls: list[int] = []

    def embed(texts: list[str]) -> Any:
        calls.append(len(texts))
        raise ConnectionError

    documents = (NewDocument(f"k{at}", [f"text {at}"]) for at in range(1_000))
    with pytest.raises(exceptions.EmbeddingFailed, match="ConnectionError"):
        either.ingest("c", documents, embed=embed, embed_retries=0, on_error="skip")
    assert len(calls) < 20


def test_document_is_skipped_once(either: Any) -> None:
    """However much is wrong with a document, it is one problem, and one document."""
    either.create_space("s", model="m", dimensions=2)
    either.create_collection("c", space="s")
    bad = NewDocument("a", [chunk(vector=[0, 0]), chunk(vector=None), chunk(vector=[1])])
    report = either.ingest("c", [bad], on_error="skip")
    assert (report.skipped, len(report.problems)) == (1, 1)


def test_what_the_server_refuses_is_found_by_halves(
    either: Any, connection: DatabaseConnection, caplog: pytest.LogCaptureFixture
) -> None:
    """A constraint of somebody's own costs the documents that break it, and no row is quoted."""
    either.create_collection("c")
    with connection.transaction() as driver:
        driver.execute("ALTER TABLE ragstore_chunk ADD CONSTRAINT own CHECK (text !~ 'passage')")
    documents = [NewDocument(f"k{at:02}", [SECRET if at in (3, 17) else "x"]) for at in range(20)]
    report = either.ingest("c", documents, on_error="skip")
    assert (report.inserted, report.skipped, report.chunks) == (18, 2, 18)
    assert [problem.key for problem in report.problems] == ["k03", "k17"]
    assert all("own" in problem.reason for problem in report.problems)
    assert {problem.field for problem in report.problems} == {None}
    assert SECRET not in f"{report} {caplog.text}"
    assert len(keys(connection)) == 18
    again = either.ingest("c", documents, on_error="skip")
    assert (again.unchanged, again.skipped) == (18, 2)


def test_abort_leaves_nothing_of_the_batch(either: Any, connection: DatabaseConnection) -> None:
    """Without skip the first bad document ends the run, and its whole batch is not stored."""
    either.create_collection("c")
    documents = [NewDocument("a", ["x"]), NewDocument("b", ["x"]), NewDocument("c", [" "])]
    with pytest.raises(exceptions.EmptyChunk):
        either.ingest("c", documents)
    assert keys(connection) == []


def test_problems_kept_are_bounded_and_counted(either: Any) -> None:
    """A source that is bad all through does not fill the memory."""
    either.create_collection("c")
    bad = (NewDocument(f"{at}", [" "]) for at in range(MAX_PROBLEMS + 500))
    report = either.ingest("c", bad, on_error="skip", batch_size=100)
    assert (report.skipped, len(report.problems)) == (MAX_PROBLEMS + 500, MAX_PROBLEMS)


def test_error_of_the_run_is_no_bad_document(either: Any, connection: DatabaseConnection) -> None:
    """What has nothing to do with a document ends the run, skip or not."""
    either.create_collection("c")
    with connection.transaction() as driver:
        driver.execute("DROP TABLE ragstore_embedding")
        driver.execute("ALTER TABLE ragstore_chunk DROP COLUMN token_count")
    with pytest.raises(exceptions.RagstoreError):
        either.ingest("c", [NewDocument("a", ["x"])], on_error="skip")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
        ({"build_index": True}, "build_index is True"),
        ({"sync": "no"}, "sync is 'no': it takes True or False"),
        ({"embed_retries": -1}, "embed_retries is -1"),
    ],
)
def test_options_are_checked(either: Any, options: Any, message: str) -> None:
    """An option that is none is refused before anything is read."""
    with pytest.raises(exceptions.InvalidInput, match=message):
        either.ingest("c", [], **options)
