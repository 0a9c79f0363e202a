"""Calls of ``embed``: in pieces, a few at a time, tried again when they fail."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from ragstore.exceptions import EmbeddingFailed, InvalidInput

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

Embed = Callable[[list[str]], Any]
"""Makes one vector for each text: a matrix, or a sequence of vectors. May be a coroutine function
for AsyncStore."""

FIRST_PAUSE = 0.5
"""Seconds before a failed call of ``embed`` is tried again; each further pause is twice as long."""

LONGEST_PAUSE = 30.0
"""The longest pause, in seconds."""


@dataclass(frozen=True)
class EmbedOptions:
    """How ``embed`` is called.

    At most ``batch_size`` texts go into a call, ``concurrency`` calls run at once, and one that
    raises is made ``retries`` times more.

    Raises:
        InvalidInput: one of them is no whole number, or too small.
    """

    batch_size: int = 128
    concurrency: int = 1
    retries: int = 2

    def __post_init__(self) -> None:
        """Refuse what is no number, in the words of the arguments of ingest()."""
        for name, least in (("batch_size", 1), ("concurrency", 1), ("retries", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidInput(
                    f"embed_{name} is {value!r}: it takes a whole number from {least}"
                )

    def pieces(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the texts cut into those of one call each."""
        size = self.batch_size
        return [list(texts[at : at + size]) for at in range(0, len(texts), size)]

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after so many failures of one call.

        Up to half of them is left to chance: writers that failed together come back apart.
        """
        longest: float = min(FIRST_PAUSE * 2 ** (failures - 1), LONGEST_PAUSE)
        return longest * (1 - random.random() / 2)  # noqa: S311 - no secret


class Embedder:
    """Calls a plain ``embed``; in threads of its own if several calls may run at once."""

    def __init__(self, embed: Embed, options: EmbedOptions) -> None:
        self._embed = embed
        self._options = options
        self._turn = Lock()  # two batches may ask at once, and ``concurrency`` holds for both
        self._pool: Any = nullcontext()
        if options.concurrency > 1:
            self._pool = ThreadPoolExecutor(options.concurrency, "ragstore-embed")

    def __enter__(self) -> Self:
        self._pool.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._pool.__exit__(*exc_info)

    def make(self, texts: Sequence[str]) -> list[Any]:
        """Return a vector for each text, as ``embed`` made it.

        Raises:
            EmbeddingFailed: ``embed`` raised to the last, or returned something else.
        """
        pieces = self._options.pieces(texts)
        with self._turn:
            if self._options.concurrency == 1:
                made = [self._call(piece) for piece in pieces]
            else:
                made = self._call_together(pieces)
        return [vector for vectors in made for vector in vectors]

    def _call_together(self, pieces: list[list[str]]) -> list[Sequence[Any]]:
        calls = [self._pool.submit(self._call, piece) for piece in pieces]
        try:
            return [call.result() for call in calls]
        finally:
            for call in calls:
                call.cancel()  # what has not begun when one has failed

    def _call(self, piece: list[str]) -> Sequence[Any]:
        failures = 0
        while True:
            try:
                made = self._embed(piece)
            except Exception as exc:  # noqa: PERF203 - whatever a model raises
                failures += 1
                if failures > self._options.retries:
                    raise _failed(exc, piece, failures) from exc
                time.sleep(_pause(exc, piece, failures, self._options))
            else:
                return checked(piece, made)


class AsyncEmbedder:
    """Calls an ``embed`` of either kind for asyncio; a plain one in a thread."""

    def __init__(self, embed: Embed, options: EmbedOptions) -> None:
        self._embed = embed
        self._options = options
        self._turns = asyncio.Semaphore(options.concurrency)

    async def make(self, texts: Sequence[str]) -> list[Any]:
        """Return a vector for each text, as ``embed`` made it.

        Raises:
            EmbeddingFailed: ``embed`` raised to the last, or returned something else.
        """
        calls = [asyncio.ensure_future(self._call(each)) for each in self._options.pieces(texts)]
        try:
            made = await asyncio.gather(*calls)
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        return [vector for vectors in made for vector in vectors]

    async def _call(self, piece: list[str]) -> Sequence[Any]:
        failures = 0
        async with self._turns:
            while True:
                try:
                    made = await _awaited(self._embed, piece)
                except Exception as exc:  # noqa: PERF203 - whatever a model raises
                    failures += 1
                    if failures > self._options.retries:
                        raise _failed(exc, piece, failures) from exc
                    await asyncio.sleep(_pause(exc, piece, failures, self._options))
                else:
                    return checked(piece, made)


async def _awaited(embed: Embed, texts: list[str]) -> Any:
    if inspect.iscoroutinefunction(embed):
        return await embed(texts)
    made = await asyncio.to_thread(embed, texts)
    return await made if inspect.isawaitable(made) else made


def _pause(exc: Exception, piece: list[str], failures: int, options: EmbedOptions) -> float:
    """Return how long to wait before the next attempt, and log it; not what the model said."""
    seconds = options.pause(failures)
    numbers = {"texts": len(piece), "failures": failures, "seconds": seconds}
    logger.warning("embed() raised %s: it is tried again", type(exc).__name__, extra=numbers)
    return seconds


def _failed(exc: Exception, piece: list[str], failures: int) -> EmbeddingFailed:
    # Without the words of the exception: they may quote the texts, or a key. It is the cause.
    times = "once" if failures == 1 else f"{failures} times"
    return EmbeddingFailed(
        f"embed() raised {type(exc).__name__} for {len(piece)} texts, {times}: see the cause. The"
        " batches before are stored, and the same call goes on from there"
    )


def checked(texts: Sequence[str], made: Any) -> Sequence[Any]:
    """Return what ``embed`` made of the texts, if it is one thing for each.

    Raises:
        EmbeddingFailed: it is not.
    """
    try:
        count = -1 if isinstance(made, str | bytes | Mapping | AbstractSet) else len(made)
    except TypeError:
        count = -1
    if count < 0:
        raise EmbeddingFailed(
            f"embed() returned {type(made).__name__}: it must return a list or matrix with a vector"
            " for each text"
        )
    if count != len(texts):
        raise EmbeddingFailed(
            f"embed() returned {count} vectors for {len(texts)} texts: it must return one for each"
        )
    vectors: Sequence[Any] = made
    return vectors
