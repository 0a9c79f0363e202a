"""``Store`` for asyncio: the same calls with the same results, awaited."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from ragstore import indexing, maintenance, recall, reembed, space_lifecycle, stats, transfer
from ragstore.collection import CollectionInfo, find_collection, insert_collection
from ragstore.connection import DatabaseConnection
from ragstore.content import NewDocument
from ragstore.embedding import AsyncEmbedder, Embed, EmbedOptions
from ragstore.execution import Operation, run_async
from ragstore.indexing import IndexReport
from ragstore.load import BuildIndex, Load, OnError
from ragstore.models import DEFAULT_EXACT_LIMIT
from ragstore.procedure import Procedure, perform_async
from ragstore.recall import RecallReport
from ragstore.reembed import Move, ReembedReport
from ragstore.report import IngestReport, Progress
from ragstore.search.filter import Where
from ragstore.search.query import QueryVector, Search, Weights
from ragstore.search.result import SearchResult
from ragstore.searcher import AsyncSearcher, as_searches
from ragstore.space import Space
from ragstore.stats import SpaceStats
from ragstore.tuning import IndexOptions
from ragstore.types import IndexType, Metric
from ragstore.work import do_async
from ragstore.writer import AsyncWriter

T = TypeVar("T")


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
        return await self._do(
            space_lifecycle.create_space(
                name, model, dimensions, metric, index, exact_limit, exists_ok=exists_ok
            )
        )

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
        embed_batch_size: int = 128,
        embed_concurrency: int = 1,
        embed_retries: int = 2,
        last: int = reembed.LAST,
        sample: int = 20,
        memory: str | None = None,
        workers: int | None = None,
        approve: reembed.Approve | None = None,
        on_progress: reembed.Progress | None = None,
    ) -> ReembedReport:
        """Move a collection to another embedding space; see ``Store.reembed``.

        ``approve`` may be a coroutine function; a plain one runs in a thread, as ``embed`` does.
        """
        reembed.check_function("embed", embed)
        options = EmbedOptions(embed_batch_size, embed_concurrency, embed_retries)
        move = Move(
            collection,
            to,
            AsyncEmbedder(embed, replace(options, retries=0)).make,
            retries=embed_retries,
            batch_size=batch_size,
            last=last,
            sample=sample,
            approve=approve,
            on_progress=on_progress,
            options=IndexOptions(memory=memory, workers=workers),
        )
        return await AsyncWriter(self.connection, embed, options).do(move.run())

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
        await self._do(space_lifecycle.drop_space(name))

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
        batch_size: int = 2_000,
        embed_batch_size: int = 128,
        embed_concurrency: int = 1,
        embed_retries: int = 2,
        on_error: OnError = "abort",
        sync: bool = False,
        build_index: BuildIndex = "auto",
        on_progress: Progress | None = None,
    ) -> IngestReport:
        """Store documents; see ``Store.ingest``."""
        options = EmbedOptions(embed_batch_size, embed_concurrency, embed_retries)
        load = Load(
            collection,
            can_embed=embed is not None,
            on_error=on_error,
            sync=sync,
            build_index=build_index,
        )
        writer = AsyncWriter(self.connection, embed, options)
        return await writer.ingest(load, documents, batch_size, on_progress)

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

    async def delete_documents(
        self, collection: str, keys: Sequence[str] | None = None, *, where: Where | None = None
    ) -> int:
        """Delete documents; see ``Store.delete_documents``."""
        return await self._do(maintenance.documents_deleted(collection, keys, where))

    async def delete_chunks(
        self, collection: str, ids: Sequence[int] | None = None, *, where: Where | None = None
    ) -> int:
        """Delete chunks; see ``Store.delete_chunks``."""
        return await self._do(maintenance.chunks_deleted(collection, ids, where))

    async def delete_collection(self, name: str) -> int:
        """Delete a collection; see ``Store.delete_collection``."""
        return await self._do(maintenance.collection_deleted(name))

    async def rename_collection(self, name: str, to: str) -> CollectionInfo:
        """Give a collection another name; see ``Store.rename_collection``."""
        return await self._do(maintenance.collection_renamed(name, to))

    async def analyze(self, collection: str) -> tuple[str, ...]:
        """Gather statistics; see ``Store.analyze``."""
        return await self._do(maintenance.tables_analyzed(collection))

    async def export_collection(self, name: str) -> AsyncIterator[str]:
        """Yield a collection as lines of JSON; see ``Store.export_collection``."""
        writer = AsyncWriter(self.connection)
        export = transfer.Export(name)
        yield await writer.do(export.start())
        while lines := await writer.do(export.page()):
            for line in lines:
                yield line

    async def import_collection(
        self, lines: Iterable[str] | AsyncIterable[str], *, name: str | None = None
    ) -> IngestReport:
        """Make a collection of an export; see ``Store.import_collection``."""
        source = await transfer.opened(lines, name)
        if source.space is not None:
            await self.create_space(**source.space, exists_ok=True)
        return await self._do(source.work())

    async def _run(self, operation: Operation[T]) -> T:
        async with self.connection.async_transaction() as connection:
            return await run_async(connection, operation)

    async def _do(self, procedure: Procedure[T]) -> T:
        return await do_async(procedure, perform_async(self.connection))
