"""The service that an application talks to, sync and async.

Everything that is decided or sent stands in the modules below this one, as operations; here are
only their transactions, and the calls of ``embed`` between them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from ragstore import maintenance, space, transfer
from ragstore.collection import CollectionInfo, find_collection, insert_collection
from ragstore.connection import DatabaseConnection
from ragstore.content import NewDocument
from ragstore.embedding import Embed, EmbedOptions
from ragstore.exceptions import LockTimeout
from ragstore.execution import Operation, run, run_async
from ragstore.load import BuildIndex, Load, OnError
from ragstore.report import IngestReport, Progress
from ragstore.search.filter import Where
from ragstore.search.query import Search
from ragstore.search.result import SearchResult
from ragstore.space import Space
from ragstore.types import Metric
from ragstore.work import Work
from ragstore.writer import AsyncWriter, Writer

T = TypeVar("T")


class Store:
    """Collections, ingest and search over one DatabaseConnection.

    Each call is one or a few transactions of its own; nothing stays open between two calls. It
    holds no state, so threads may share it.
    """

    def __init__(self, connection: DatabaseConnection) -> None:
        self.connection = connection

    def create_space(
        self,
        name: str,
        *,
        model: str,
        dimensions: int,
        metric: Metric = "cosine",
        exists_ok: bool = False,
    ) -> Space:
        """Make an embedding space and its partition, as the role of ``migration_url``.

        With ``exists_ok`` a space of the same definition is returned, and its partition made if
        an earlier call was cut short.

        Raises:
            SpaceExists: the name is taken.
            PermissionDenied: the role does not own the tables: set DB_MIGRATION_DATABASE_URL.
            LockTimeout: other sessions kept the tables locked; the row is there: call it again
                with ``exists_ok``.
        """
        made = self._run(space.insert_space(name, model, dimensions, metric, exists_ok=exists_ok))
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
        batch_size: int = 2_000,
        embed_batch_size: int = 128,
        embed_concurrency: int = 1,
        embed_retries: int = 2,
        on_error: OnError = "abort",
        sync: bool = False,
        build_index: BuildIndex = "auto",
        on_progress: Progress | None = None,
    ) -> IngestReport:
        """Store documents, each replacing the one of its key; those that are the same cost a look.

        Works through ``documents`` in batches of about ``batch_size`` chunks, each one transaction
        by COPY. Of a changed document only the changed chunks are written, and need a vector; the
        others keep their ids. A key that stands twice in one batch is refused; in two, the later
        document replaces the earlier one. Writers of the same keys may run at once: the result is
        that of one after the other.

        ``embed`` makes the vectors that chunks do not bring, outside the transactions: at most
        ``embed_batch_size`` texts a call, ``embed_concurrency`` calls at once (in threads), each
        tried ``embed_retries`` times more when it raises. Meanwhile the batch before is stored.

        With ``on_error="skip"`` the documents that cannot be stored are left out and told in the
        report; otherwise nothing of their batch is stored, and the batches before it stay. To go
        on after an error or a crash, ingest again. With ``sync`` the documents of the collection
        that were not in ``documents`` are deleted at the end, unless there was an error; it costs
        8 bytes of memory for each document.

        After a load that is large for the tables their statistics are gathered; not with
        ``build_index="never"``.

        Raises:
            InvalidInput: a document cannot be stored: nothing of its batch was.
            EmbeddingFailed: ``embed`` raised each time, or made something else than vectors.
            CollectionNotFound, SpaceNotReady: there is nowhere to store it.
            SpaceChanged: the collection switched its space meanwhile.
            WriteConflict, LockTimeout: other writers were in the way, each of several times.
        """
        options = EmbedOptions(embed_batch_size, embed_concurrency, embed_retries)
        load = Load(
            collection,
            can_embed=embed is not None,
            on_error=on_error,
            sync=sync,
            build_index=build_index,
        )
        with Writer(self.connection, embed, options) as writer:
            return writer.ingest(load, documents, batch_size, on_progress)

    def search(
        self,
        collection: str,
        *,
        text: str | None = None,
        vector: Sequence[float] | None = None,
        k: int = 10,
        offset: int = 0,
        where: Where | None = None,
    ) -> SearchResult:
        """Return the ``k`` best chunks for a text, a vector, or both fused by their ranks.

        Always ``min(k, matching)`` hits: vectors are compared exactly. ``where`` is a mapping that
        the chunk's metadata contains, or a condition on Chunk and Document.

        Raises:
            InvalidQuery: neither text nor vector, or ``k`` or ``offset`` out of range.
            InvalidText, InvalidFilter: the text or ``where`` cannot be sent.
            InvalidVector: the vector does not fit the collection's space.
            CollectionNotFound, SpaceNotReady: there is nothing to search.
        """
        return self._run(Search(text, vector, k, offset, where).on(collection))

    def delete_documents(
        self, collection: str, keys: Sequence[str] | None = None, *, where: Where | None = None
    ) -> int:
        """Delete documents with their chunks and vectors, and return how many.

        Either those of ``keys`` (a key that is not there is no error), or those with a chunk that
        a search with ``where`` would find. A thousand at a time, each a transaction.

        Raises:
            CollectionNotFound: there is no such collection.
            InvalidInput, InvalidFilter: not one of the two was given, or it cannot be sent.
        """
        return self._do(maintenance.documents_deleted(collection, keys, where))

    def delete_chunks(
        self, collection: str, ids: Sequence[int] | None = None, *, where: Where | None = None
    ) -> int:
        """Delete chunks (``Hit.chunk_id``) with their vectors, and return how many.

        Either those of ``ids``, or those that a search with ``where`` would find. The next ingest
        of their document brings back what its source still has.

        Raises:
            CollectionNotFound: there is no such collection.
            InvalidInput, InvalidFilter: not one of the two was given, or it cannot be sent.
        """
        return self._do(maintenance.chunks_deleted(collection, ids, where))

    def delete_collection(self, name: str) -> int:
        """Delete a collection with all that is in it, and return the number of its documents.

        A thousand documents at a time, each a transaction, the collection itself last: after an
        interruption, call it again. The space and its other collections stay.

        Raises:
            CollectionNotFound: there is no such collection.
        """
        return self._do(maintenance.collection_deleted(name))

    def rename_collection(self, name: str, to: str) -> CollectionInfo:
        """Give a collection another name; nothing else of it changes.

        Raises:
            CollectionNotFound: there is none of the old name.
            CollectionExists: the new name is taken.
            InvalidName, InvalidText: the new name cannot be one.
        """
        return self._run(maintenance.rename_collection(name, to))

    def analyze(self, collection: str) -> tuple[str, ...]:
        """Gather the planner's statistics of the collection's tables; return their names.

        Those that the role does not own, and may not maintain, are left out.

        Raises:
            CollectionNotFound: there is no such collection.
        """
        return self._do(maintenance.tables_analyzed(collection))

    def export_collection(self, name: str) -> Iterator[str]:
        """Yield a collection as lines of JSON, each with its newline: see ``import_collection``.

        The first line is the collection and its space, every other a document with its chunks and
        their vectors in that space. Read in pages: documents written meanwhile may be in it or
        not, each is whole.

        Raises:
            CollectionNotFound: there is no such collection.
        """
        return self._export(transfer.Export(name))

    def _export(self, export: transfer.Export) -> Iterator[str]:
        writer = Writer(self.connection)
        yield writer.do(export.start())
        while lines := writer.do(export.page()):
            yield from lines

    def import_collection(self, lines: Iterable[str], *, name: str | None = None) -> IngestReport:
        """Make a collection of what ``export_collection`` gave, under its name or another.

        Everything is as it was: keys, titles, metadata, chunks, their order and languages, and
        vectors to the bit; only ids and times are new. The space is made if there is none of its
        name, as by ``create_space``. A thousand documents at a time, each a transaction: after an
        interruption, delete the collection or ingest into it.

        Raises:
            InvalidInput: a line is not one of an export; the message has its number.
            CollectionExists: the name is taken.
            SpaceExists: the space's name is taken by one of another definition.
            PermissionDenied: the space must be made, and the role does not own the tables.
        """
        source = transfer.Import(lines, name)
        if source.space is not None:
            self.create_space(**source.space, exists_ok=True)
        return self._do(source.work())

    def _do(self, work: Work[T]) -> T:
        return Writer(self.connection).do(work)

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

    async def create_space(
        self,
        name: str,
        *,
        model: str,
        dimensions: int,
        metric: Metric = "cosine",
        exists_ok: bool = False,
    ) -> Space:
        """Make an embedding space and its partition; see ``Store.create_space``."""
        made = await self._run(
            space.insert_space(name, model, dimensions, metric, exists_ok=exists_ok)
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
        vector: Sequence[float] | None = None,
        k: int = 10,
        offset: int = 0,
        where: Where | None = None,
    ) -> SearchResult:
        """Return the ``k`` best chunks; see ``Store.search``."""
        return await self._run(Search(text, vector, k, offset, where).on(collection))

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
        return await self._run(maintenance.rename_collection(name, to))

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
        self, lines: Iterable[str], *, name: str | None = None
    ) -> IngestReport:
        """Make a collection of an export; see ``Store.import_collection``."""
        source = transfer.Import(lines, name)
        if source.space is not None:
            await self.create_space(**source.space, exists_ok=True)
        return await self._do(source.work())

    async def _do(self, work: Work[T]) -> T:
        return await AsyncWriter(self.connection).do(work)

    async def _run(self, operation: Operation[T]) -> T:
        async with self.connection.async_transaction() as connection:
            return await run_async(connection, operation)
