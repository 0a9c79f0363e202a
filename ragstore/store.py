"""The service that an application talks to, sync and async.

Everything that is decided or sent stands in the modules below this one, as operations; here are
only their transactions, and the calls of ``embed`` between them.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from dataclasses import replace
from typing import Any, TypeVar

from ragstore import ingest, space
from ragstore.collection import CollectionInfo, find_collection, insert_collection
from ragstore.connection import DatabaseConnection
from ragstore.content import NewDocument, prepare_batch
from ragstore.exceptions import InvalidInput, LockTimeout
from ragstore.execution import Operation, run, run_async
from ragstore.ingest import Batcher, Embed, IngestReport
from ragstore.models import DEFAULT_EXACT_LIMIT
from ragstore.search.filter import Where
from ragstore.search.query import QueryVector, Search, Weights
from ragstore.search.result import SearchResult
from ragstore.searcher import AsyncSearcher, Searcher, as_searches
from ragstore.space import Space
from ragstore.types import IndexType, Metric

T = TypeVar("T")

Progress = Callable[[IngestReport], object]
"""Called after each batch with the report so far."""


class Store:
    """Collections, ingest and search over one DatabaseConnection.

    Each call is one or a few transactions of its own; nothing stays open between two calls. It
    holds nothing but what makes the next search faster, so threads may share it.
    """

    def __init__(self, connection: DatabaseConnection) -> None:
        self.connection = connection
        self._searcher = Searcher(connection)

    def create_space(
        self,
        name: str,
        *,
        model: str,
        dimensions: int,
        metric: Metric = "cosine",
        index: IndexType = "halfvec",
        exact_limit: int = DEFAULT_EXACT_LIMIT,
        exists_ok: bool = False,
    ) -> Space:
        """Make an embedding space and its partition, as the role of ``migration_url``.

        ``index`` is what large collections are searched through: HNSW over 2-byte floats
        ("halfvec", up to 4,000 dimensions), over 4-byte ones ("vector", up to 2,000) or over signs
        ("binary"); "ivfflat"; or "none". A collection of up to ``exact_limit`` vectors is
        searched without. ``build_index`` builds it, best when the vectors are there.

        With ``exists_ok`` a space of the same definition is returned, and its partition made if
        an earlier call was cut short.

        Raises:
            SpaceExists: the name is taken.
            InvalidInput: the index is not for these dimensions or this metric.
            PermissionDenied: the role does not own the tables: set DB_MIGRATION_DATABASE_URL.
            LockTimeout: other sessions kept the tables locked; the row is there: call it again
                with ``exists_ok``.
        """
        made = self._run(
            space.insert_space(
                name, model, dimensions, metric, index, exact_limit, exists_ok=exists_ok
            )
        )
        for pause in (*space.LOCK_PAUSES, None):
            try:
                with self.connection.owner_transaction() as connection:
                    run(connection, space.create_partition(made))
                    break
            except LockTimeout:
                if pause is None:
                    raise
                time.sleep(pause)
        return made

    def create_collection(
        self,
        name: str,
        *,
        space: str | None = None,
        language: str = "english",
        meta: Mapping[str, Any] | None = None,
        exists_ok: bool = False,
    ) -> CollectionInfo:
        """Make a collection whose vectors are in ``space``, searched as ``language``.

        With ``exists_ok`` one of the same space and language is returned, its ``meta`` untouched.

        Raises:
            CollectionExists: the name is taken.
            SpaceNotFound: there is no such space.
            InvalidName: the server has no such language, or the name is empty.
            InvalidText, InvalidMetadata: the name or ``meta`` cannot be stored.
        """
        return self._run(insert_collection(name, space, language, meta or {}, exists_ok=exists_ok))

    def collection(self, name: str) -> CollectionInfo:
        """Look a collection up.

        Raises:
            CollectionNotFound: there is none of that name.
        """
        return self._run(find_collection(name))

    def ingest(
        self,
        collection: str,
        documents: Iterable[NewDocument],
        *,
        embed: Embed | None = None,
        batch_size: int = 1_000,
        on_progress: Progress | None = None,
    ) -> IngestReport:
        """Store documents, each replacing the one of its key; those that are the same cost a look.

        Works through ``documents`` in batches of about ``batch_size`` chunks, each one transaction
        by COPY. ``embed`` makes the vectors that chunks do not bring, outside the transaction.
        After an error the batches before it are stored and its own is not; to go on, ingest again.
        A key that stands twice in one batch is refused; in two, the later document replaces the
        earlier one.

        Raises:
            InvalidInput: a document cannot be stored: nothing of its batch was.
            CollectionNotFound, SpaceNotReady: there is nowhere to store it.
            SpaceChanged: the collection switched its space meanwhile.
        """
        started = time.perf_counter()
        target = self.collection(collection)
        report = IngestReport()
        for batch in _batches(documents, batch_size):
            report = _timed(report + self._ingest_batch(target, batch, embed), started)
            if on_progress is not None:
                on_progress(report)
        return _timed(report, started)

    def _ingest_batch(
        self, target: CollectionInfo, documents: list[NewDocument], embed: Embed | None
    ) -> IngestReport:
        prepared = prepare_batch(documents)
        changed = self._run(ingest.find_changed(target, prepared))
        unchanged = IngestReport(unchanged=len(prepared) - len(changed))
        if not changed:
            return unchanged
        texts = ingest.texts_to_embed(target, changed, can_embed=embed is not None)
        made = embed(texts) if embed is not None and texts else ()
        batch = ingest.with_vectors(target, changed, texts, made)
        return unchanged + self._run(ingest.write(target, batch))

    def search(
        self,
        collection: str,
        *,
        text: str | None = None,
        vector: QueryVector | None = None,
        k: int = 10,
        offset: int = 0,
        where: Where | None = None,
        ef_search: int | None = None,
        exact: bool = False,
        max_distance: float | None = None,
        rerank: int | None = None,
        per_document: int | None = None,
        neighbours: int = 0,
        highlight: bool = False,
        with_text: bool = True,
        weights: Weights | None = None,
        candidates: int | None = None,
        explain: bool = False,
    ) -> SearchResult:
        """Return the ``k`` best chunks for a text, a vector, or both fused by their ranks.

        Always ``min(k, matching)`` hits; the result says how they were found. One round trip,
        unless an index gave too little and every vector had to be compared.

        ``vector`` may be a function of the Space, so that it fits after a switch of the model.
        ``where`` is a mapping of operators over the metadata (docs/search.md), or a condition on
        Chunk and Document. ``offset`` skips so many hits. For the vectors: ``ef_search`` is how
        many candidates an index looks at, ``exact`` compares every vector, ``max_distance`` leaves
        out what is farther, and ``rerank`` takes so many candidates for each one wanted and
        compares those in full. ``weights`` of the vector and the text, and how many
        ``candidates`` each ranks, are for both together. For the hits: ``per_document`` is how
        many of one document may come, ``neighbours`` how many chunks before and after come along,
        ``highlight`` the matching passages, ``with_text=False`` leaves the text out. ``explain``
        runs the statement again and keeps its plan.

        Raises:
            InvalidQuery: neither text nor vector, or an option out of range.
            InvalidText, InvalidFilter: the text or ``where`` cannot be sent.
            InvalidVector: the vector does not fit the collection's space.
            CollectionNotFound, SpaceNotReady: there is nothing to search.
        """
        asked = Search(
            text=text,
            vector=vector,
            k=k,
            offset=offset,
            where=where,
            ef_search=ef_search,
            exact=exact,
            max_distance=max_distance,
            rerank=rerank,
            per_document=per_document,
            neighbours=neighbours,
            highlight=highlight,
            with_text=with_text,
            weights=weights,
            candidates=candidates,
            explain=explain,
        )
        return self._searcher.search(collection, [asked])[0]

    def search_many(
        self, collection: str, queries: Iterable[Search | Mapping[str, Any]]
    ) -> list[SearchResult]:
        """Return the result of each query, in their order, in as few round trips as possible.

        A query is a ``Search``, or a mapping of the arguments of ``search``. An error of one is
        raised for all.
        """
        return self._searcher.search(collection, as_searches(queries))

    def _run(self, operation: Operation[T]) -> T:
        with self.connection.transaction() as connection:
            return run(connection, operation)


class AsyncStore:
    """``Store`` for asyncio: the same calls with the same results, awaited.

    ``embed`` may be a coroutine function; a plain one runs in a thread. ``documents`` may be an
    async iterable, and ``on_progress`` a coroutine function.
    """

    def __init__(self, connection: DatabaseConnection) -> None:
        self.connection = connection
        self._searcher = AsyncSearcher(connection)

    async def create_space(
        self,
        name: str,
        *,
        model: str,
        dimensions: int,
        metric: Metric = "cosine",
        index: IndexType = "halfvec",
        exact_limit: int = DEFAULT_EXACT_LIMIT,
        exists_ok: bool = False,
    ) -> Space:
        """Make an embedding space and its partition; see ``Store.create_space``."""
        made = await self._run(
            space.insert_space(
                name, model, dimensions, metric, index, exact_limit, exists_ok=exists_ok
            )
        )
        for pause in (*space.LOCK_PAUSES, None):
            try:
                async with self.connection.async_owner_transaction() as connection:
                    await run_async(connection, space.create_partition(made))
                    break
            except LockTimeout:
                if pause is None:
                    raise
                await asyncio.sleep(pause)
        return made

    async def create_collection(
        self,
        name: str,
        *,
        space: str | None = None,
        language: str = "english",
        meta: Mapping[str, Any] | None = None,
        exists_ok: bool = False,
    ) -> CollectionInfo:
        """Make a collection; see ``Store.create_collection``."""
        return await self._run(
            insert_collection(name, space, language, meta or {}, exists_ok=exists_ok)
        )

    async def collection(self, name: str) -> CollectionInfo:
        """Look a collection up; see ``Store.collection``."""
        return await self._run(find_collection(name))

    async def ingest(
        self,
        collection: str,
        documents: Iterable[NewDocument] | AsyncIterable[NewDocument],
        *,
        embed: Embed | None = None,
        batch_size: int = 1_000,
        on_progress: Progress | None = None,
    ) -> IngestReport:
        """Store documents; see ``Store.ingest``."""
        started = time.perf_counter()
        target = await self.collection(collection)
        report = IngestReport()
        async for batch in _async_batches(documents, batch_size):
            report = _timed(report + await self._ingest_batch(target, batch, embed), started)
            if on_progress is not None and inspect.isawaitable(told := on_progress(report)):
                await told
        return _timed(report, started)

    async def _ingest_batch(
        self, target: CollectionInfo, documents: list[NewDocument], embed: Embed | None
    ) -> IngestReport:
        prepared = prepare_batch(documents)
        changed = await self._run(ingest.find_changed(target, prepared))
        unchanged = IngestReport(unchanged=len(prepared) - len(changed))
        if not changed:
            return unchanged
        texts = ingest.texts_to_embed(target, changed, can_embed=embed is not None)
        made = await _call(embed, texts) if embed is not None and texts else ()
        batch = ingest.with_vectors(target, changed, texts, made)
        return unchanged + await self._run(ingest.write(target, batch))

    async def search(
        self,
        collection: str,
        *,
        text: str | None = None,
        vector: QueryVector | None = None,
        k: int = 10,
        offset: int = 0,
        where: Where | None = None,
        ef_search: int | None = None,
        exact: bool = False,
        max_distance: float | None = None,
        rerank: int | None = None,
        per_document: int | None = None,
        neighbours: int = 0,
        highlight: bool = False,
        with_text: bool = True,
        weights: Weights | None = None,
        candidates: int | None = None,
        explain: bool = False,
    ) -> SearchResult:
        """Return the ``k`` best chunks; see ``Store.search``. ``vector`` may be a coroutine's."""
        asked = Search(
            text=text,
            vector=vector,
            k=k,
            offset=offset,
            where=where,
            ef_search=ef_search,
            exact=exact,
            max_distance=max_distance,
            rerank=rerank,
            per_document=per_document,
            neighbours=neighbours,
            highlight=highlight,
            with_text=with_text,
            weights=weights,
            candidates=candidates,
            explain=explain,
        )
        return (await self._searcher.search(collection, [asked]))[0]

    async def search_many(
        self, collection: str, queries: Iterable[Search | Mapping[str, Any]]
    ) -> list[SearchResult]:
        """Return the result of each query; see ``Store.search_many``."""
        return await self._searcher.search(collection, as_searches(queries))

    async def _run(self, operation: Operation[T]) -> T:
        async with self.connection.async_transaction() as connection:
            return await run_async(connection, operation)


def _timed(report: IngestReport, started: float) -> IngestReport:
    return replace(report, seconds=time.perf_counter() - started)


def _batches(documents: Iterable[NewDocument], size: int) -> Iterator[list[NewDocument]]:
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


async def _async_batches(
    documents: Iterable[NewDocument] | AsyncIterable[NewDocument], size: int
) -> AsyncIterator[list[NewDocument]]:
    if not isinstance(documents, AsyncIterable):
        for batch in _batches(documents, size):
            yield batch
        return
    batcher = Batcher(size)
    async for document in documents:
        if batch := batcher.add(document):
            yield batch
    if batch := batcher.rest():
        yield batch


async def _call(embed: Embed, texts: list[str]) -> Any:
    if inspect.iscoroutinefunction(embed):
        return await embed(texts)
    made = await asyncio.to_thread(embed, texts)
    return await made if inspect.isawaitable(made) else made
