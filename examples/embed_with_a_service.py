r"""Vectors from a service: an HTTP client of the standard library, several calls at once.

The service speaks the API that most of them do: POST {"model", "input": [texts]} answered by
{"data": [{"index", "embedding"}]}. Run it on a migrated database:

    EMBEDDING_URL=https://…/v1/embeddings EMBEDDING_KEY=… EMBEDDING_DIMENSIONS=1536 \
    DB_DATABASE_URL=… python examples/embed_with_a_service.py
"""

from __future__ import annotations

import json
import os
import urllib.request
from typing import Any

from ragstore import DatabaseConnection, NewDocument, Store

URL = os.environ["EMBEDDING_URL"]
KEY = os.environ.get("EMBEDDING_KEY", "")
MODEL = os.environ.get("EMBEDDING_MODEL", "text-embedding-3-small")
DIMENSIONS = int(os.environ.get("EMBEDDING_DIMENSIONS", "1536"))
TIMEOUT = 30.0  # seconds

RECIPES = {
    "tea": ["Boil the water.", "Pour it over the leaves and wait for three minutes."],
    "toast": ["Cut two slices of bread.", "Toast them until they are brown."],
}


def embed(texts: list[str]) -> list[list[float]]:
    """Ask the service for a vector of each text; ingest() asks again if this raises."""
    request = urllib.request.Request(  # noqa: S310 - the URL is the user's own
        URL,
        data=json.dumps({"model": MODEL, "input": texts}).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310 - as above
        answer: dict[str, Any] = json.load(response)
    # Services may answer in another order than that of the question.
    found = sorted(answer["data"], key=lambda each: each["index"])
    return [each["embedding"] for each in found]


def main() -> None:
    """Ingest, ingest again for nothing, and search."""
    with DatabaseConnection() as connection:
        store = Store(connection)
        store.create_space("service", model=MODEL, dimensions=DIMENSIONS, exists_ok=True)
        store.create_collection("recipes", space="service", exists_ok=True)
        documents = [NewDocument(key, steps) for key, steps in RECIPES.items()]
        for _ in range(2):
            report = store.ingest(
                "recipes",
                documents,
                embed=embed,
                embed_batch_size=2,
                embed_concurrency=2,
                embed_retries=4,
            )
            print(f"{report.inserted} new, {report.unchanged} unchanged, {report.embedded} vectors")
        question = "how do I brown bread"
        for hit in store.search("recipes", text=question, vector=embed([question])[0], k=2):
            print(f"{hit.score:.3f} {hit.document_key}: {hit.text}")
        store.delete_collection("recipes")


if __name__ == "__main__":
    main()
