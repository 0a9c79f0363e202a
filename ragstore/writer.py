"""The steps of a work on a DatabaseConnection, and a run of ingest over all its batches.

While a batch is stored the next one is read and planned, and its vectors are made.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, closing, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from ragstore.connection import DatabaseConnection
from ragstore.content import NewDocument
from ragstore.embedding import AsyncEmbedder, Embed, Embedder, EmbedOptions
from ragstore.exceptions import InvalidInput, RagstoreError
from ragstore.load import Batcher, Load
from ragstore.procedure import Procedure, perform, perform_async
from ragstore.report import IngestReport, Progress
from ragstore.work import Make, do, do_async

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

logger = logging.getLogger(__name__)

Documents = Iterable[NewDocument]
AnyDocuments = Documents | AsyncIterable[NewDocument]


class Writer:
    """Does works, each transaction of theirs on a pooled connection."""

    def __init__(
        self,
        connection: DatabaseConnection,
        embed: Embed | None = None,
        options: EmbedOptions | None = None,
    ) -> None:
        self._perform_other = perform(connection)
        self._embedder = None if embed is None else Embedder(embed, options or EmbedOptions())

    def __enter__(self) -> Self:
        if self._embedder is not None:
            self._embedder.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._embedder is not None:
            self._embedder.__exit__(*exc_info)

    def do(self, work: Procedure[T]) -> T:
        """Do a work, and return its result."""
        return do(work, self._perform)

    def _perform(self, step: Any) -> Any:
        if isinstance(step, Make):
            return self._embedder.make(step.texts) if self._embedder else ()
        return self._perform_other(step)

    def ingest(
        self, load: Load, documents: Documents, batch_size: int, on_progress: Progress | None
    ) -> IngestReport:
        """Store all documents, a batch at a time, and return what was done."""
        tally = Tally()
        with tally.told():
            self.do(load.start())
            with closing(self._stored(load, batches(documents, batch_size))) as stored:
                for each in stored:
                    report = tally.add(each)
                    log("batch stored", load, each, logging.DEBUG)
                    if on_progress is not None:
                        on_progress(report)
            report = tally.add(self.do(load.finish(tally.report)))
        log("ingested", load, report)
        return report

    def _stored(
        self, load: Load, documents: Iterator[list[NewDocument]]
    ) -> Generator[IngestReport, None, None]:
        behind: Future[IngestReport] | None = None
        with ThreadPoolExecutor(1, "ragstore-write") as writing:
            try:
                for each in documents:
                    planned = self.do(load.plan(each))
                    former = behind.result() if behind is not None else None
                    behind = writing.submit(self.do, load.store(planned))
                    if former is not None:
                        yield former
                if behind is not None:
                    self.do(load.analyze_ahead(planned))
            except Exception:
                if behind is not None:  # what is on its way is told, or has failed before
                    yield behind.result()
                raise
            if behind is not None:
                yield behind.result()


class AsyncWriter:
    """``Writer`` for asyncio."""

    def __init__(
        self,
        connection: DatabaseConnection,
        embed: Embed | None = None,
        options: EmbedOptions | None = None,
    ) -> None:
        self._perform_other = perform_async(connection)
        self._embedder = None if embed is None else AsyncEmbedder(embed, options or EmbedOptions())

    async def do(self, work: Procedure[T]) -> T:
        """Do a work, and return its result."""
        return await do_async(work, self._perform)

    async def _perform(self, step: Any) -> Any:
        if isinstance(step, Make):
            return await self._embedder.make(step.texts) if self._embedder else ()
        return await self._perform_other(step)

    async def ingest(
        self, load: Load, documents: AnyDocuments, batch_size: int, on_progress: Progress | None
    ) -> IngestReport:
        """Store all documents; see ``Writer.ingest``."""
        tally = Tally()
        with tally.told():
            await self.do(load.start())
            async with aclosing(self._stored(load, async_batches(documents, batch_size))) as stored:
                async for each in stored:
                    report = tally.add(each)
                    log("batch stored", load, each, logging.DEBUG)
                    if on_progress is not None and inspect.isawaitable(told := on_progress(report)):
                        await told
            report = tally.add(await self.do(load.finish(tally.report)))
        log("ingested", load, report)
        return report

    async def _stored(
        self, load: Load, documents: AsyncIterator[list[NewDocument]]
    ) -> AsyncGenerator[IngestReport, None]:
        behind: asyncio.Task[IngestReport] | None = None
        try:
            try:
                async for each in documents:
                    planned = await self.do(load.plan(each))
                    former = await behind if behind is not None else None
                    behind = asyncio.ensure_future(self.do(load.store(planned)))
                    if former is not None:
                        yield former
                if behind is not None:
                    await self.do(load.analyze_ahead(planned))
            except Exception:
                if behind is not None:  # what is on its way is told, or has failed before
                    yield await behind
                raise
            if behind is not None:
                yield await behind
        finally:
            if behind is not None and not behind.done():
                behind.cancel()
                with suppress(asyncio.CancelledError):
                    await behind


class Tally:
    """A report that grows, and knows the time."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self.report = IngestReport()

    def add(self, report: IngestReport) -> IngestReport:
        """Add what was done since, and return the whole."""
        seconds = time.perf_counter() - self._started
        self.report = replace(self.report + report, seconds=seconds)
        return self.report

    @contextmanager
    def told(self) -> Iterator[None]:
        """Let an error of ragstore that ends the run carry the report of what was stored before."""
        try:
            yield
        except RagstoreError as exc:
            exc.report = self.add(IngestReport())
            raise


def log(message: str, load: Load, report: IngestReport, level: int = logging.INFO) -> None:
    """Log what was done, in numbers: the keys of what was skipped are in the report alone."""
    level = max(level, logging.WARNING) if report.skipped else level
    logger.log(level, message, extra={"collection": load.target.name, **report.numbers})


def batches(documents: Documents, size: int) -> Iterator[list[NewDocument]]:
    """Cut documents into batches; see ``Batcher``.

    Raises:
        InvalidInput: ``documents`` is no iterable of documents, or the size no size.
    """
    batcher = Batcher(size)
    if isinstance(documents, str | Mapping) or not isinstance(documents, Iterable):
        raise InvalidInput(
            f"documents is {type(documents).__name__}, not an iterable of NewDocument: pass a list"
            " or a generator (an async one to AsyncStore)"
        )
    for document in documents:
        if batch := batcher.add(document):
            yield batch
    if batch := batcher.rest():
        yield batch


async def async_batches(documents: AnyDocuments, size: int) -> AsyncIterator[list[NewDocument]]:
    """Cut documents into batches, as ``batches`` does.

    What is no list may make its documents, or read them, meanwhile: it is drawn from in threads.
    """
    if not isinstance(documents, AsyncIterable):
        plain = batches(documents, size)
        is_list = isinstance(documents, Sequence)
        while batch := next(plain, []) if is_list else await asyncio.to_thread(next, plain, []):
            yield batch
        return
    batcher = Batcher(size)
    async for document in documents:
        if batch := batcher.add(document):
            yield batch
    if batch := batcher.rest():
        yield batch
