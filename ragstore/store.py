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

from ragstore import indexing, ingest, recall, reembed, space, space_removal, stats
from ragstore.collection import CollectionInfo, find_collection, insert_collection
from ragstore.connection import DatabaseConnection
from ragstore.content import NewDocument, prepare_batch
from ragstore.exceptions import InvalidInput, LockTimeout
from ragstore.execution import Operation, run, run_async
from ragstore.indexing import IndexOptions, IndexReport
from ragstore.ingest import Batcher, Embed, IngestReport
from ragstore.models import DEFAULT_EXACT_LIMIT
from ragstore.procedure import Procedure, perform, perform_async
from ragstore.recall import RecallReport
from ragstore.reembed import Move, ReembedReport
from ragstore.search.filter import Where
from ragstore.search.query import QueryVector, Search, Weights
from ragstore.search.result import SearchResult
from ragstore.searcher import AsyncSearcher, Searcher, as_searches
from ragstore.space import Space
from ragstore.stats import SpaceStats
from ragstore.types import IndexType, Metric
from ragstore.work import do, do_async

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

    def build_index(
        self,
        space: str,
        collection: str | None = None,
        *,
        m: int | None = None,
        ef_construction: int | None = None,
        lists: int | None = None,
        memory: str | None = None,
        workers: int | None = None,
    ) -> IndexReport:
        """Build the index over a space, or over one collection in it, as the owner of the tables.

        Reads and writes go on meanwhile; it waits for transactions that are open. A valid index
        is left as it is, an invalid one that a failed build left behind is built again, and a
        collection of up to the space's ``exact_limit`` vectors needs none. ``m`` and
        ``ef_construction`` are HNSW's, ``lists`` IVFFlat's. ``memory`` (such as ``"2GB"``) and
        ``workers`` are what the build may use; it is much slower if the index does not fit.

        Raises:
            SpaceNotFound, CollectionNotFound, SpaceNotReady: there is nothing to index.
            InvalidInput: the space was made without index, or an option is out of range.
            PermissionDenied: the role does not own the tables: set DB_MIGRATION_DATABASE_URL.
        """
        options = IndexOptions(m, ef_construction, lists, memory, workers)
        return self._do(indexing.build_index(space, collection, options))

    def ensure_indexes(
        self,
        space: str,
        *,
        whole: bool = False,
        memory: str | None = None,
        workers: int | None = None,
    ) -> list[IndexReport]:
        """Build the index of each collection that is larger than the space's ``exact_limit``.

        With ``whole`` also the one over the space, for searches across collections. As
        ``build_index``, one after another.
        """
        options = IndexOptions(memory=memory, workers=workers)
        return self._do(indexing.ensure_indexes(space, options, whole=whole))

    def reembed(
        self,
        collection: str,
        *,
        to: str,
        embed: Embed,
        batch_size: int = 1_000,
        last: int = reembed.LAST,
        sample: int = 20,
        memory: str | None = None,
        workers: int | None = None,
        on_progress: reembed.Progress | None = None,
    ) -> ReembedReport:
        """Move a collection to another embedding space while it is read and written.

        Chunks that lack a vector in the space ``to`` get one, ``batch_size`` at a time (100 at most
        once the space has an index, which makes a batch slow): ``embed`` is called outside of
        transactions, and each batch is stored in one. Searches and ingest go on in the old space.
        When at most ``last`` chunks are left, its index is built (``memory`` and ``workers`` are
        what that may use) and the answers of ``sample`` chunks are compared; then writers wait
        while those last ones are embedded and the collection is switched. Readers never wait. A
        batch of ingest that waited ends with SpaceChanged: its vectors were of the old model.

        Whatever ends a run before, searches are as they were, and the next run goes on where it
        stopped. The old space keeps its vectors: ``reembed`` back is the way back.

        Raises:
            CollectionNotFound, SpaceNotFound, SpaceNotReady: there is nothing to move, or to.
            ReembedUnderWay: the collection is on its way to another space.
            ReembedUnfinished: more is written than embedded; call it again when less is.
            SpaceChanged: another run finished or cancelled the move meanwhile.
            EmbeddingFailed, InvalidVector: ``embed`` made something that does not fit.
            LockTimeout: writers held the collection each time the switch was tried.
        """
        options = IndexOptions(memory=memory, workers=workers)
        move = Move(collection, to, embed, batch_size, last, sample, on_progress, options)
        return self._do(move.run())

    def cancel_reembed(self, collection: str) -> str | None:
        """Give a move up; return the name of the space it was going to, or None.

        The vectors made for it stay, and a later ``reembed`` to it goes on from them.

        Raises:
            CollectionNotFound: there is none of that name.
            LockTimeout: writers held the collection each time it was tried.
        """
        return self._do(reembed.cancel(collection))

    def measure_recall(
        self,
        collection: str,
        *,
        space: str | None = None,
        k: int = 10,
        sample: int = 50,
        where: Where | None = None,
        target: float = 0.95,
    ) -> RecallReport:
        """Measure how many of the ``k`` nearest the index finds, and how far it has to look.

        ``sample`` stored vectors are the queries. Values of ``ef_search`` (or probes) are tried
        from the least up to the first that reaches ``target``. ``space`` is the active one unless
        named.

        Raises:
            CollectionNotFound, SpaceNotFound, SpaceNotReady: there is nothing to measure.
            InvalidInput, InvalidFilter: an argument is out of range.
        """
        return self._run(
            recall.measure_recall(
                collection, space_name=space, k=k, sample=sample, where=where, target=target
            )
        )

    def drop_space(self, name: str) -> None:
        """Remove a space that no collection is in, and all vectors in it, as the owner.

        Searches and writers in other spaces go on: the partition is detached concurrently, and
        every lock is waited for briefly and tried again. A call that was cut short is finished by
        the next.

        Raises:
            SpaceNotFound: there is none of that name.
            SpaceInUse: collections are in it, or being moved to it; nothing was changed.
            PermissionDenied: the role does not own the tables: set DB_MIGRATION_DATABASE_URL.
            LockTimeout: other sessions held the tables each time; call it again.
        """
        self._do(space_removal.drop_space(name))

    def space_stats(self, name: str) -> SpaceStats:
        """Return what a space holds, its indexes and their state, and builds under way.

        Raises:
            SpaceNotFound: there is none of that name.
        """
        return self._run(stats.space_stats(name))

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

    def _do(self, procedure: Procedure[T]) -> T:
        return do(procedure, perform(self.connection))


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

    async def build_index(
        self,
        space: str,
        collection: str | None = None,
        *,
        m: int | None = None,
        ef_construction: int | None = None,
        lists: int | None = None,
        memory: str | None = None,
        workers: int | None = None,
    ) -> IndexReport:
        """Build an index; see ``Store.build_index``."""
        options = IndexOptions(m, ef_construction, lists, memory, workers)
        return await self._do(indexing.build_index(space, collection, options))

    async def ensure_indexes(
        self,
        space: str,
        *,
        whole: bool = False,
        memory: str | None = None,
        workers: int | None = None,
    ) -> list[IndexReport]:
        """Build the indexes that are due; see ``Store.ensure_indexes``."""
        options = IndexOptions(memory=memory, workers=workers)
        return await self._do(indexing.ensure_indexes(space, options, whole=whole))

    async def reembed(
        self,
        collection: str,
        *,
        to: str,
        embed: Embed,
        batch_size: int = 1_000,
        last: int = reembed.LAST,
        sample: int = 20,
        memory: str | None = None,
        workers: int | None = None,
        on_progress: reembed.Progress | None = None,
    ) -> ReembedReport:
        """Move a collection to another embedding space; see ``Store.reembed``."""
        options = IndexOptions(memory=memory, workers=workers)
        move = Move(collection, to, embed, batch_size, last, sample, on_progress, options)
        return await self._do(move.run())

    async def cancel_reembed(self, collection: str) -> str | None:
        """Give a move up; see ``Store.cancel_reembed``."""
        return await self._do(reembed.cancel(collection))

    async def measure_recall(
        self,
        collection: str,
        *,
        space: str | None = None,
        k: int = 10,
        sample: int = 50,
        where: Where | None = None,
        target: float = 0.95,
    ) -> RecallReport:
        """Measure how many of the nearest the index finds; see ``Store.measure_recall``."""
        return await self._run(
            recall.measure_recall(
                collection, space_name=space, k=k, sample=sample, where=where, target=target
            )
        )

    async def drop_space(self, name: str) -> None:
        """Remove a space that no collection is in; see ``Store.drop_space``."""
        await self._do(space_removal.drop_space(name))

    async def space_stats(self, name: str) -> SpaceStats:
        """Return what a space holds and the state of its indexes; see ``Store.space_stats``."""
        return await self._run(stats.space_stats(name))

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

    async def _do(self, procedure: Procedure[T]) -> T:
        return await do_async(procedure, perform_async(self.connection))


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
