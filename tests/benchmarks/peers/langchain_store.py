"""langchain-postgres: PGVectorStore, its sync calls, metadata in its JSON column."""

from __future__ import annotations

import uuid
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_postgres import PGEngine, PGVectorStore
from langchain_postgres.v2.indexes import HNSWIndex


class _NoEmbeddings(Embeddings):
    """Vectors are given, for rows and for queries."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise NotImplementedError

    def embed_query(self, text: str) -> list[float]:
        raise NotImplementedError


class Peer:
    """One table of langchain-postgres."""

    def __init__(self, url: str, table: str, dimensions: int) -> None:
        self._table, self._dimensions = table + "_langchain", dimensions
        self._engine = PGEngine.from_connection_string(url=url)

    def rows(self, texts: list[str], metas: list[Any], vectors: list[Any]) -> Any:
        """Return what ``add_embeddings`` takes."""
        ids = [str(uuid.UUID(int=number + 1)) for number in range(len(texts))]
        return texts, vectors, metas, ids

    def make(self) -> None:
        """Make the table anew."""
        self._engine.init_vectorstore_table(
            table_name=self._table, vector_size=self._dimensions, overwrite_existing=True
        )
        self._store = PGVectorStore.create_sync(
            engine=self._engine, embedding_service=_NoEmbeddings(), table_name=self._table
        )

    def ingest(self, rows: Any) -> None:
        """Store every row."""
        texts, vectors, metas, ids = rows
        self._store.add_embeddings(texts, vectors, metas, ids)

    def index(self) -> None:
        """Build an HNSW index, by its default for cosine."""
        self._store.apply_vector_index(HNSWIndex())

    def search(self, vector: list[float], k: int, where: Any) -> Any:
        """Return the rows nearest to the vector."""
        return self._store.similarity_search_with_score_by_vector(vector, k=k, filter=where)
