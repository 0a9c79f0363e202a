"""One peer in its own environment: it takes orders as JSON lines, and answers each with one.

Run by that environment's Python as a file: ``serve.py PEER URL DIRECTORY``. The directory holds the
rows and queries. Times are taken here, around the peer's own call, so that the pipe costs nothing.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

NAMES = {
    "langchain-postgres": "langchain_store",
    "llama-index-vector-stores-postgres": "llama_index_store",
    "vecs": "vecs_collection",
}
TABLE = "peer_rows"


def main(name: str, url: str, directory: Path) -> None:
    """Serve until standard input ends."""
    warnings.simplefilter("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr  # peers print; the pipe is for answers
    rows = json.loads((directory / "rows.json").read_text())
    vectors = np.load(directory / "vectors.npy").tolist()
    queries = np.load(directory / "queries.npy").tolist()
    peer = importlib.import_module(NAMES[name]).Peer(url, TABLE, len(vectors[0]))
    rows = peer.rows(rows["texts"], rows["metas"], vectors)
    for line in sys.stdin:
        json.dump(_done(peer, json.loads(line), rows, queries), answers)
        answers.write("\n")
        answers.flush()


def _done(peer: Any, order: dict[str, Any], rows: Any, queries: list[list[float]]) -> Any:
    if order["do"] == "make":
        peer.make()
        return {}
    if order["do"] == "ingest":
        begun = perf_counter()
        peer.ingest(rows)
        return {"seconds": perf_counter() - begun}
    if order["do"] == "index":
        peer.index()
        return {}
    vector = queries[order["number"] % len(queries)]
    begun = perf_counter()
    found = peer.search(vector, order["k"], order["where"])
    return {"seconds": perf_counter() - begun, "rows": len(found)}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
