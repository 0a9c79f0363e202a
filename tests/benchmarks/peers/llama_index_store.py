"""llama-index-vector-stores-postgres: PGVectorStore, its sync calls, metadata in JSONB."""

from __future__ import annotations

from typing import Any

from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.vector_stores.postgres import PGVectorStore
from sqlalchemy import create_engine, text

HNSW = {
    "hnsw_m": 16,
    "hnsw_ef_construction": 64,
    "hnsw_ef_search": 40,
    "hnsw_dist_method": "vector_cosine_ops",
}


class Peer:
    """One table of llama-index."""

    def __init__(self, url: str, table: str, dimensions: int) -> None:
        self._url = url.replace("+psycopg:", "+psycopg2:")
        self._table, self._dimensions = table + "_llama", dimensions

    def rows(self, texts: list[str], metas: list[Any], vectors: list[Any]) -> Any:
        """Return what ``add`` takes."""
        return [
            TextNode(id_=str(number), text=body, metadata=meta, embedding=vector)
            for number, (body, meta, vector) in enumerate(zip(texts, metas, vectors, strict=True))
        ]

    def _opened(self, hnsw: dict[str, Any] | None) -> PGVectorStore:
        return PGVectorStore.from_params(
            connection_string=self._url,
            async_connection_string=self._url.replace("+psycopg2:", "+asyncpg:"),
            table_name=self._table,
            embed_dim=self._dimensions,
            use_jsonb=True,
            hnsw_kwargs=hnsw,
        )

    def make(self) -> None:
        """Make the table anew."""
        engine = create_engine(self._url)
        with engine.begin() as connection:
            connection.execute(text(f"DROP TABLE IF EXISTS data_{self._table}"))
        engine.dispose()
        self._store = self._opened(None)
        self._store.add([])

    def ingest(self, rows: Any) -> None:
        """Store every row."""
        self._store.add(rows)

    def index(self) -> None:
        """Build an HNSW index: a store that is to have one builds it at its first use."""
        self._store = self._opened(HNSW)
        self._store.add([])

    def search(self, vector: list[float], k: int, where: Any) -> Any:
        """Return the rows nearest to the vector."""
        filters = [MetadataFilter(key=key, value=value) for key, value in (where or {}).items()]
        asked = VectorStoreQuery(
            query_embedding=vector,
            similarity_top_k=k,
            filters=MetadataFilters(filters=filters) if filters else None,
        )
        return self._store.query(asked).nodes
