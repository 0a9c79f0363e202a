"""The service that an application talks to; ``async_store`` has its twin for asyncio.

Everything that is decided or sent stands in the modules below this one, as operations; here are
only the calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from ragstore import indexing, maintenance, recall, reembed, space_lifecycle, stats, transfer
from ragstore.collection import CollectionInfo, find_collection, insert_collection
from ragstore.connection import DatabaseConnection
from ragstore.content import NewDocument
from ragstore.embedding import Embed, Embedder, EmbedOptions
from ragstore.execution import Operation, run
from ragstore.indexing import IndexReport
from ragstore.load import BuildIndex, Load, OnError
from ragstore.models import DEFAULT_EXACT_LIMIT
from ragstore.procedure import Procedure, perform
from ragstore.recall import RecallReport
from ragstore.reembed import Move, ReembedReport
from ragstore.report import IngestReport, Progress
from ragstore.search.filter import Where
from ragstore.search.query import QueryVector, Search, Weights
from ragstore.search.result import SearchResult
from ragstore.searcher import Searcher, as_searches
from ragstore.space import Space
from ragstore.stats import SpaceStats
from ragstore.tuning import IndexOptions
from ragstore.types import IndexType, Metric
from ragstore.work import do
from ragstore.writer import Writer

T = TypeVar("T")


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
        return self._do(
            space_lifecycle.create_space(
                name, model, dimensions, metric, index, exact_limit, exists_ok=exists_ok
            )
        )

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
            ImproperlyConfigured: the only URL leads through a transaction pooler: set it too.
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
        """Move a collection to another embedding space while it is read and written.

        Chunks that lack a vector in the space ``to`` get one, ``batch_size`` at a time (100 at most
        once the space has an index, which makes a batch slow): ``embed`` is called outside of
        transactions, as ``ingest`` does (``embed_batch_size``, ``embed_concurrency`` and
        ``embed_retries``), and each batch is stored in one. Searches and ingest go on in the old
        space. When next to nothing is left, its index is built (``memory`` and ``workers`` are
        what that may use) and the answers of ``sample`` chunks are compared; then writers wait
        while what came since, ``last`` chunks at most, is embedded and the collection is switched.
        Readers never wait. If ``embed`` raises meanwhile the writers are let by, and it is tried
        again. A batch of ingest that waited ends with SpaceChanged: its vectors were of the old
        model.

        ``approve`` is asked before the switch, with the report: its ``comparison`` and ``index``
        are there. Unless it returns True nothing is switched.

        Whatever ends a run before, searches are as they were, and the next run goes on where it
        stopped. The old space keeps its vectors: ``reembed`` back is the way back.

        Raises:
            CollectionNotFound, SpaceNotFound, SpaceNotReady: there is nothing to move, or to.
            ReembedUnderWay: the collection is on its way to another space.
            ReembedUnfinished: more is written than embedded; call it again when less is.
            SwitchRefused: ``approve`` returned False; the vectors are kept.
            SpaceChanged: another run finished or cancelled the move meanwhile.
            EmbeddingFailed: ``embed`` raised each time, or made something else than vectors.
            InvalidVector: a vector does not fit the space; it names the document and the chunk.
            LockTimeout: writers held the collection each time the switch was tried.
        """
        reembed.check_function("embed", embed)
        options = EmbedOptions(embed_batch_size, embed_concurrency, embed_retries)
        once = Embedder(embed, replace(options, retries=0))
        move = Move(
            collection,
            to,
            once.make,
            retries=embed_retries,
            batch_size=batch_size,
            last=last,
            sample=sample,
            approve=approve,
            on_progress=on_progress,
            options=IndexOptions(memory=memory, workers=workers),
        )
        with Writer(self.connection, embed, options) as writer, once:
            return writer.do(move.run())

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
            ImproperlyConfigured: the only URL leads through a transaction pooler: set it too.
            LockTimeout: other sessions held the tables each time; call it again.
        """
        self._do(space_lifecycle.drop_space(name))

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

        After a load that is large for the tables their statistics are gathered, and a collection
        that has grown beyond its space's ``exact_limit`` gets its index, unless the role of
        ``migration_url`` may not build it, or the server cannot: then a warning is logged, and
        searches stay exact. With ``build_index="never"`` neither is done.

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

    def delete_documents(
        self, collection: str, keys: Sequence[str] | None = None, *, where: Where | None = None
    ) -> int:
        """Delete documents with their chunks and vectors, and return how many.

        Either those of ``keys`` (a key that is not there is no error), or those with a chunk that
        a search with ``where`` would find. A thousand at a time, each a transaction.

        Raises:
            CollectionNotFound: there is no such collection.
            InvalidInput, InvalidFilter: not one of the two was given, it cannot be sent, or
                ``where`` is ``{}``: ``delete_collection`` is for all there is.
            LockTimeout, QueryFailed: other writers were in the way, each of several times.
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
            InvalidInput, InvalidFilter: not one of the two was given, it cannot be sent, or
                ``where`` is ``{}``: ``delete_collection`` is for all there is.
            LockTimeout, QueryFailed: other writers were in the way, each of several times.
        """
        return self._do(maintenance.chunks_deleted(collection, ids, where))

    def delete_collection(self, name: str) -> int:
        """Delete a collection with all that is in it, and return the number of its documents.

        A thousand documents at a time, each a transaction, the collection itself last: after an
        interruption, call it again. The space and its other collections stay. The collection's own
        index is dropped first, as the role of ``migration_url``; where that role may not, or a
        transaction pooler is between, a warning is logged and the index stays.

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
        return self._do(maintenance.collection_renamed(name, to))

    def analyze(self, collection: str) -> tuple[str, ...]:
        """Gather the planner's statistics of the collection's tables; return their names.

        Those that the role does not own, and may not maintain, are left out. The vectors' table
        is passed over while an index of it is built: the build ends with its statistics.

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
        name, as by ``create_space``. Two hundred documents at a time, each a transaction: after an
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

    def _run(self, operation: Operation[T]) -> T:
        with self.connection.transaction() as connection:
            return run(connection, operation)

    def _do(self, procedure: Procedure[T]) -> T:
        return do(procedure, perform(self.connection))
