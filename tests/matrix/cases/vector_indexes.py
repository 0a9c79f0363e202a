"""HNSW and IVFFlat indexes with every metric, option and form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pgvector.sqlalchemy import BIT, HALFVEC, SPARSEVEC, VECTOR
from sqlalchemy import Column, Index, Integer, MetaData, cast, column, func, text

from ragstore.types import hnsw, ivfflat
from tests.matrix.case import Case, change, control, decision
from tests.matrix.models import item


def of(kind: Any, *more: Any) -> MetaData:
    """Return items with an embedding of that type."""
    return item(Column("embedding", kind), Column("rank", Integer), *more)


def near(
    ops: str = "vector_cosine_ops", kind: Any = None, method: str = "hnsw", **options: Any
) -> Callable[[], MetaData]:
    """Return a model of items with an index over the column itself."""
    return lambda: of(
        kind or VECTOR(3),
        Index(
            "item_near",
            "embedding",
            postgresql_using=method,
            postgresql_ops={"embedding": ops},
            **options,
        ),
    )


def listed(ops: str = "vector_cosine_ops", lists: int = 2, kind: Any = None) -> Any:
    """Return a model of items with an IVFFlat index."""
    return near(ops, kind, "ivfflat", postgresql_with={"lists": lists})


def shrunk(size: int = 3, ops: str = "halfvec_cosine_ops", **options: Any) -> Any:
    """Return a model of items indexed as halfvec, by a labelled expression."""
    return lambda: of(
        VECTOR(),
        Index(
            "item_near",
            cast(column("embedding", VECTOR()), HALFVEC(size)).label("e"),
            postgresql_using="hnsw",
            postgresql_ops={"e": ops},
            **options,
        ),
    )


def written(expression: str, **options: Any) -> Any:
    """Return a model of items with an index whose key is written out."""
    return lambda: of(
        VECTOR(),
        Index("item_near", text(expression), postgresql_using="hnsw", **options),
    )


def made(maker: Any, **options: Any) -> Any:
    """Return a model of items with an index made by a helper of ours."""

    def build() -> MetaData:
        metadata = of(VECTOR(3))
        embedding = metadata.tables["item"].c.embedding
        maker("item_near", embedding, dimensions=3, **options)
        return metadata

    return build


def quantized(dimensions: int = 3) -> MetaData:
    """Return items indexed by the signs of their numbers."""
    return of(
        VECTOR(3),
        Index(
            "item_near",
            cast(func.binary_quantize(column("embedding", VECTOR(3))), BIT(dimensions)).label("e"),
            postgresql_using="hnsw",
            postgresql_ops={"e": "bit_hamming_ops"},
        ),
    )


def _row(name: str, before: Any, after: Any, **more: Any) -> Case:
    return change(f"{name}", before, after, needs="vector", **more)


def _same(name: str, before: Any, after: Any = None, **more: Any) -> Case:
    return control(f"{name}", before, after, needs="vector", **more)


def plain() -> MetaData:
    """Return items without an index."""
    return of(VECTOR(3))


def loose() -> MetaData:
    """Return items of any dimensions without an index."""
    return of(VECTOR())


M8, M16 = {"m": 8, "ef_construction": 32}, {"m": 16, "ef_construction": 64}

CASES: list[Case] = [
    _row("hnsw-added", plain, near()),
    _row("hnsw-dropped", near(), plain),
    _row("hnsw-metric-l2", near(), near("vector_l2_ops")),
    _row("hnsw-metric-inner-product", near(), near("vector_ip_ops")),
    _row("hnsw-metric-l1", near(), near("vector_l1_ops")),
    _row("hnsw-options-added", near(), near(postgresql_with=M8)),
    _row("hnsw-m", near(postgresql_with=M16), near(postgresql_with={**M16, "m": 8})),
    _row(
        "hnsw-ef-construction",
        near(postgresql_with=M16),
        near(postgresql_with={**M16, "ef_construction": 100}),
    ),
    _row("hnsw-options-removed", near(postgresql_with=M8), near()),
    _row("hnsw-where-added", near(), near(postgresql_where=text("rank > 0"))),
    _row(
        "hnsw-where-changed",
        near(postgresql_where=text("rank = 1")),
        near(postgresql_where=text("rank = 2")),
    ),
    _row("hnsw-where-removed", near(postgresql_where=text("rank > 0")), near()),
    _row("hnsw-to-ivfflat", near(), listed()),
    _row("ivfflat-to-hnsw", listed(), near()),
    _row("ivfflat-added", plain, listed()),
    _row("ivfflat-dropped", listed(), plain),
    _row("ivfflat-lists", listed(), listed(lists=4)),
    _row("ivfflat-metric-l2", listed(), listed("vector_l2_ops")),
    _row("ivfflat-metric-inner-product", listed(), listed("vector_ip_ops")),
    _row(
        "hnsw-halfvec-metric",
        near("halfvec_cosine_ops", HALFVEC(3)),
        near("halfvec_l2_ops", HALFVEC(3)),
    ),
    _row("hnsw-bit-metric", near("bit_hamming_ops", BIT(8)), near("bit_jaccard_ops", BIT(8))),
    _row(
        "hnsw-sparse-metric",
        near("sparsevec_cosine_ops", SPARSEVEC(9)),
        near("sparsevec_l1_ops", SPARSEVEC(9)),
    ),
    _row(
        "ivfflat-bit-lists",
        listed("bit_hamming_ops", kind=BIT(8)),
        listed("bit_hamming_ops", 3, BIT(8)),
    ),
    _row(
        "hnsw-name",
        near(),
        lambda: of(
            VECTOR(3),
            Index(
                "item_nearest",
                "embedding",
                postgresql_using="hnsw",
                postgresql_ops={"embedding": "vector_cosine_ops"},
            ),
        ),
    ),
    _row("hnsw-expression-added", loose, shrunk()),
    _row("hnsw-expression-dropped", shrunk(), loose),
    _row(
        "hnsw-expression-dimensions",
        shrunk(3),
        shrunk(2),
        seed="INSERT INTO item (title) VALUES ('a'), ('b'), ('c')",
    ),
    _row("hnsw-expression-metric", shrunk(), shrunk(ops="halfvec_l2_ops")),
    _row("hnsw-expression-options", shrunk(), shrunk(postgresql_with=M8)),
    _row(
        "hnsw-text-dimensions",
        written("(embedding::halfvec(3)) halfvec_cosine_ops"),
        written("(embedding::halfvec(2)) halfvec_cosine_ops"),
        seed="INSERT INTO item (title) VALUES ('a'), ('b'), ('c')",
    ),
    _row(
        "hnsw-text-metric",
        written("(embedding::halfvec(3)) halfvec_cosine_ops"),
        written("(embedding::halfvec(3)) halfvec_l2_ops"),
    ),
    _row("hnsw-quantized-added", plain, quantized),
    _row("hnsw-quantized-dropped", quantized, plain),
    _row(
        "hnsw-subvector",
        plain,
        lambda: of(
            VECTOR(3),
            Index(
                "item_near",
                text("(subvector(embedding, 1, 2)::vector(2)) vector_cosine_ops"),
                postgresql_using="hnsw",
            ),
        ),
    ),
    _row("hnsw-of-ours-added", plain, made(hnsw)),
    _row("hnsw-of-ours-metric", made(hnsw), made(hnsw, metric="l2")),
    _row("hnsw-of-ours-storage", made(hnsw), made(hnsw, storage="vector")),
    _row("hnsw-of-ours-m", made(hnsw), made(hnsw, m=8)),
    _row("hnsw-of-ours-where", made(hnsw), made(hnsw, where=column("rank", Integer) == 1)),
    _row("ivfflat-of-ours-lists", made(ivfflat, lists=1), made(ivfflat, lists=2)),
    _row("hnsw-and-column-to-halfvec", near(), near("halfvec_cosine_ops", HALFVEC(3))),
    _row("hnsw-and-column-to-vector", near("halfvec_l2_ops", HALFVEC(3)), near("vector_l2_ops")),
    _row("hnsw-and-dimensions-given", shrunk(), shrunk(ops="halfvec_ip_ops")),
    _row("hnsw-with-its-column-added", item, near()),
    _row("hnsw-with-its-column-dropped", near(), item),
    _row(
        "hnsw-second-metric",
        near(),
        lambda: of(
            VECTOR(3),
            *(
                Index(name, "embedding", postgresql_using="hnsw", postgresql_ops={"embedding": ops})
                for name, ops in (
                    ("item_near", "vector_cosine_ops"),
                    ("item_near_l2", "vector_l2_ops"),
                )
            ),
        ),
    ),
    _same("hnsw-rebuilt", near(postgresql_with=M8)),
    _same("ivfflat-rebuilt", listed()),
    _same("hnsw-expression-rebuilt", shrunk()),
    _same(
        "hnsw-text-or-label",
        written("(embedding::halfvec(3)) halfvec_cosine_ops"),
        shrunk(),
    ),
    _same(
        "hnsw-cast-spelling",
        written("(embedding::halfvec(3)) halfvec_cosine_ops"),
        written("((CAST(embedding AS halfvec(3)))) halfvec_cosine_ops"),
    ),
    _same("hnsw-quantized-rebuilt", quantized),
    _same(
        "hnsw-options-order",
        near(postgresql_with=M8),
        near(postgresql_with=dict(reversed(M8.items()))),
    ),
    _same("hnsw-of-ours-rebuilt", made(hnsw)),
    _same(
        "hnsw-where-spelling",
        near(postgresql_where=text("(rank=1)")),
        near(postgresql_where=column("rank", Integer) == 1),
    ),
    decision("hnsw-and-dimensions-changed", near(), near(kind=VECTOR(4)), needs="vector"),
    decision(
        "hnsw-and-bit-dimensions-changed",
        near("bit_hamming_ops", BIT(8)),
        near("bit_hamming_ops", BIT(16)),
        needs="vector",
    ),
]
