"""How embed is called: cut into pieces, a few at once, and again when it fails."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import numpy as np
import pytest

from ragstore import embedding
from ragstore.embedding import AsyncEmbedder, Embedder, EmbedOptions
from ragstore.exceptions import EmbeddingFailed, InvalidInput

TEXTS = [f"text {number}" for number in range(10)]
SECRET = "what nobody may read"


@pytest.fixture(params=["sync", "async", "async coroutine"])
def make(request: pytest.FixtureRequest) -> Any:
    """Return a function that embeds by a plain or a coroutine function, on either embedder."""

    def run(embed: Any, texts: list[str], **options: int) -> list[Any]:
        if request.param == "sync":
            with Embedder(embed, EmbedOptions(**options)) as embedder:
                return embedder.make(texts)

        async def coroutine(some: list[str]) -> Any:
            return await asyncio.to_thread(embed, some)

        async def all_of_it() -> list[Any]:
            chosen = embed if request.param == "async" else coroutine
            return await AsyncEmbedder(chosen, EmbedOptions(**options)).make(texts)

        return asyncio.run(all_of_it())

    return run


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait between two attempts."""
    monkeypatch.setattr(embedding, "FIRST_PAUSE", 0.001)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_texts_are_cut_and_vectors_come_back_in_order(make: Any, concurrency: int) -> None:
    """No call gets more than its share, and each vector stands where its text stood."""
    sizes = []

    def embed(texts: list[str]) -> Any:
        sizes.append(len(texts))
        time.sleep(0.01 if texts[0] == TEXTS[0] else 0)  # the first comes last
        return np.array([[float(each.split()[1])] for each in texts])

    made = make(embed, TEXTS, batch_size=4, concurrency=concurrency)
    assert [float(vector[0]) for vector in made] == list(range(10))
    assert sorted(sizes) == [2, 4, 4]


def test_no_texts_are_no_call(make: Any) -> None:
    """Without texts the model is not asked."""
    assert make(None, []) == []


@pytest.mark.parametrize("concurrency", [1, 2])
def test_calls_at_once_are_bounded(make: Any, concurrency: int) -> None:
    """As many calls run at once as were allowed, and no more."""
    lock = threading.Lock()
    running = most = 0

    def embed(texts: list[str]) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.03)
        with lock:
            running -= 1
        return [[1.0] for _ in texts]

    make(embed, TEXTS, batch_size=1, concurrency=concurrency)
    assert most == concurrency


def test_two_batches_share_the_bound() -> None:
    """Where two threads ask one embedder, calls still do not overlap."""
    running = threading.Lock()

    def embed(texts: list[str]) -> Any:
        assert running.acquire(blocking=False)
        time.sleep(0.02)
        running.release()
        return [[1.0] for _ in texts]

    with Embedder(embed, EmbedOptions(batch_size=2)) as embedder:
        threads = [threading.Thread(target=embedder.make, args=(TEXTS,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(embedder.make(TEXTS)) == 10


def failing(times: int, error: type[Exception] = ConnectionError) -> Any:
    """Return an embed that fails so many times, then works."""
    left = [times]

    def embed(texts: list[str]) -> Any:
        if left[0]:
            left[0] -= 1
            raise error(SECRET)
        return [[1.0] for _ in texts]

    return embed


def test_failure_is_tried_again(make: Any, hasty: None, caplog: pytest.LogCaptureFixture) -> None:
    """A call that raises is made again, and the log has what kind of error, not its words."""
    assert make(failing(2), TEXTS, retries=2) == [[1.0]] * 10
    records = [record for record in caplog.records if record.name == "ragstore.embedding"]
    assert [record.levelno for record in records] == [logging.WARNING] * 2
    assert "ConnectionError" in caplog.text
    assert SECRET not in caplog.text
    assert [vars(record)["texts"] for record in records] == [10, 10]


def test_last_failure_is_the_cause(make: Any, hasty: None) -> None:
    """After the last attempt the error says how often, and what was raised stands behind it."""
    with pytest.raises(EmbeddingFailed, match=r"ConnectionError for 10 texts, 3 times") as caught:
        make(failing(3), TEXTS, retries=2)
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert SECRET not in str(caught.value)


def test_failure_ends_the_calls_that_wait(hasty: None) -> None:
    """When one call has failed for good, those that have not begun are not made."""
    calls = []

    def embed(texts: list[str]) -> Any:
        calls.append(texts)
        time.sleep(0.02)
        raise ConnectionError

    options = EmbedOptions(1, concurrency=2, retries=0)
    with Embedder(embed, options) as embedder, pytest.raises(EmbeddingFailed, match="once"):
        embedder.make(TEXTS)
    assert len(calls) < 10


def test_pauses_grow_to_a_limit() -> None:
    """Each pause is up to twice the one before, never the longest's length exceeded."""
    options = EmbedOptions()
    for failures in range(1, 12):
        longest = min(0.5 * 2 ** (failures - 1), 30)
        assert longest / 2 <= options.pause(failures) <= longest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "embed_batch_size is 0: .*from 1"),
        ({"concurrency": True}, "embed_concurrency is True"),
        ({"retries": -1}, "embed_retries is -1: .*from 0"),
        ({"retries": "2"}, "embed_retries is '2'"),
    ],
)
def test_options_are_checked(options: Any, message: str) -> None:
    """A number that makes no sense is refused by the name that ingest() has for it."""
    with pytest.raises(InvalidInput, match=message):
        EmbedOptions(**options)
