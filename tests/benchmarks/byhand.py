"""The searches that ragstore is compared with: SQL written by hand, for psycopg to prepare.

Each returns the columns of a hit. The collection and the partition stand in the statement, as they
would in that of somebody who has one of each; the query is a parameter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

from tests.benchmarks.loading import Loaded

RRF = 60

HNSW = "hnsw"
"""The plan that takes what the approximate index finds first."""


@dataclass(frozen=True)
class Plan:
    """How the nearest are found: the settings of the session, and the arm of the statement."""

    name: str
    settings: dict[str, Any]
    arm: str
    """Selects chunk_id and distance of the ``{limit}`` nearest; it has ``%(vector)s``."""

    def set_up(self, connection: psycopg.Connection[Any]) -> None:
        """Give a session the settings of the plan."""
        for name, value in self.settings.items():
            connection.execute("SELECT set_config(%s, %s, false)", [name, str(value)])


def hnsw(loaded: Loaded, *, filtered: bool = False, mode: str = "off", ef: int) -> Plan:
    """Return the plan of the approximate index: as it is, or scanned on until enough pass."""
    part, distance = loaded.space.partition, _near(loaded)
    join = _chunk_of("e") if filtered else ""
    arm = (
        f"SELECT e.chunk_id, {distance} AS distance FROM {part} e {join}"
        f" WHERE e.collection_id = {loaded.id} {_passing(filtered)}"
        f" ORDER BY {distance} LIMIT {{limit}}"
    )
    name = f"{HNSW} ef {ef}" if mode == "off" else f"{HNSW} {mode} ef {ef}"
    order = {"off": "off", "relaxed": "relaxed_order", "strict": "strict_order"}[mode]
    settings = {"hnsw.ef_search": ef, "hnsw.iterative_scan": order, "hnsw.max_scan_tuples": 100_000}
    return Plan(name, settings, arm)


def exact(loaded: Loaded, *, filtered: bool = False) -> Plan:
    """Return the plan that measures every vector of the collection that the filter lets through."""
    part = loaded.space.partition
    distance = "e.vector <=> %(vector)s::vector"
    source = f"{part} e {_chunk_of('e') if filtered else ''}"
    arm = (
        f"SELECT chunk_id, distance FROM (WITH every AS MATERIALIZED (SELECT e.chunk_id, {distance}"
        f" AS distance FROM {source} WHERE e.collection_id = {loaded.id} {_only(filtered)})"
        " SELECT chunk_id, distance FROM every ORDER BY distance, chunk_id LIMIT {limit}) nearest"
    )
    return Plan("exact", {"jit": "off"}, arm)


def _near(loaded: Loaded) -> str:
    kind = f"halfvec({loaded.space.dimensions})"
    return f"(e.vector::{kind}) <=> %(vector)s::{kind}"


def _chunk_of(alias: str) -> str:
    return (
        f"JOIN ragstore_chunk c ON c.collection_id = {alias}.collection_id"
        f" AND c.id = {alias}.chunk_id"
    )


def _only(filtered: bool) -> str:
    return "AND c.metadata @> %(where)s" if filtered else ""


def _passing(filtered: bool) -> str:
    # Hidden from the planner, which would take the index of the metadata, and sort.
    return "AND (c.metadata @> %(where)s) IS TRUE" if filtered else ""


def vector_search(loaded: Loaded, plan: Plan, k: int) -> str:
    """Return the statement of a search by vector."""
    arm = plan.arm.format(limit=k)
    return (
        f"SELECT {_HIT}, n.distance FROM ({arm}) n {_hits(loaded, 'n.chunk_id')}"
        " ORDER BY n.distance"
    )


def text_search(loaded: Loaded, k: int) -> str:
    """Return the statement of a search by text."""
    arm = text_arm(loaded, k)
    return (
        f"SELECT {_HIT}, t.score FROM ({arm}) t {_hits(loaded, 't.chunk_id')}"
        " ORDER BY t.score DESC, t.chunk_id"
    )


def hybrid_search(
    loaded: Loaded, plan: Plan, k: int, candidates: int, *, filtered: bool = False
) -> str:
    """Return the statement of a search by both, fused by their ranks."""
    return f"""
    WITH v AS (SELECT chunk_id, distance, row_number() OVER (ORDER BY distance, chunk_id) AS rank
      FROM ({plan.arm.format(limit=candidates)}) nearest),
    t AS (SELECT chunk_id, score, row_number() OVER (ORDER BY score DESC, chunk_id) AS rank
      FROM ({text_arm(loaded, candidates, filtered=filtered)}) matching),
    f AS (SELECT coalesce(v.chunk_id, t.chunk_id) AS chunk_id,
      coalesce(1.0 / ({RRF} + v.rank), 0) + coalesce(1.0 / ({RRF} + t.rank), 0) AS score,
      v.rank AS vector_rank, v.distance, t.rank AS text_rank, t.score AS text_score
      FROM v FULL JOIN t USING (chunk_id) ORDER BY score DESC, chunk_id LIMIT {k})
    SELECT {_HIT}, f.score, f.vector_rank, f.distance, f.text_rank, f.text_score
    FROM f {_hits(loaded, "f.chunk_id")} ORDER BY f.score DESC, f.chunk_id"""


_HIT = "c.id, c.ordinal, c.text, c.metadata, d.key, d.title"


def _hits(loaded: Loaded, chunk_id: str) -> str:
    return (
        f"JOIN ragstore_chunk c ON c.collection_id = {loaded.id} AND c.id = {chunk_id}"
        f" JOIN ragstore_document d ON d.collection_id = {loaded.id} AND d.id = c.document_id"
    )


def text_arm(loaded: Loaded, limit: int, *, filtered: bool = False) -> str:
    """Return the arm that ranks what matches the words, which takes ``%(text)s``."""
    return (
        "SELECT c.id AS chunk_id, ts_rank_cd(c.tsv, q) AS score FROM ragstore_chunk c,"
        " websearch_to_tsquery('english', %(text)s) q"
        f" WHERE c.collection_id = {loaded.id} AND c.tsv @@ q {_only(filtered)}"
        f" ORDER BY score DESC, chunk_id LIMIT {limit}"
    )


def any_word(question: str) -> str:
    """Return a question as a query that one of its words answers."""
    return " or ".join(question.split())
