"""vecs: a collection; it has no text, which goes into the metadata."""

from __future__ import annotations

from typing import Any

import vecs


class Peer:
    """One collection of vecs."""

    def __init__(self, url: str, table: str, dimensions: int) -> None:
        self._client = vecs.create_client(url.replace("+psycopg:", "+psycopg2:"))
        self._name, self._dimensions = table + "_vecs", dimensions

    def rows(self, texts: list[str], metas: list[Any], vectors: list[Any]) -> Any:
        """Return what ``upsert`` takes."""
        return [
            (str(number), vector, {**meta, "text": body})
            for number, (body, meta, vector) in enumerate(zip(texts, metas, vectors, strict=True))
        ]

    def make(self) -> None:
        """Make the collection anew."""
        if any(each.name == self._name for each in self._client.list_collections()):
            self._client.delete_collection(self._name)
        self._collection = self._client.create_collection(self._name, dimension=self._dimensions)

    def ingest(self, rows: Any) -> None:
        """Store every row."""
        self._collection.upsert(rows)

    def index(self) -> None:
        """Build an HNSW index for cosine."""
        self._collection.create_index(
            method=vecs.IndexMethod.hnsw, measure=vecs.IndexMeasure.cosine_distance
        )

    def search(self, vector: list[float], k: int, where: Any) -> Any:
        """Return the rows nearest to the vector."""
        filters = {key: {"$eq": value} for key, value in (where or {}).items()} or None
        return self._collection.query(
            data=vector, limit=k, filters=filters, include_value=True, include_metadata=True
        )
