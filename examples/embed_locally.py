"""Vectors from a model on this machine; here wordllama, whose weights are in its package.

Run it on a migrated database, with ragstore[local] installed:

    DB_DATABASE_URL=… python examples/embed_locally.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import wordllama
from semantic_text_splitter import MarkdownSplitter

from ragstore import DatabaseConnection, NewDocument, Store

ROOT = Path(__file__).parents[1]
PASSAGE = 800  # characters

# The weights come with the package, but it looks for them elsewhere first, and then on the network.
_MODEL = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)


def embed(texts: list[str]) -> Any:
    """Return a matrix with a row for each text."""
    return _MODEL.embed(texts, norm=True)


def documents() -> Iterator[NewDocument]:
    """Yield the pages of this project, read one at a time."""
    splitter = MarkdownSplitter(PASSAGE)
    for path in sorted(ROOT.glob("docs/**/*.md")):
        key = path.relative_to(ROOT).as_posix()
        yield NewDocument(key, splitter.chunks(path.read_text()), title=path.stem)


def main() -> None:
    """Ingest the documentation, and ask it something."""
    with DatabaseConnection() as connection:
        store = Store(connection)
        store.create_space("wordllama", model="wordllama-256", dimensions=256, exists_ok=True)
        store.create_collection("docs", space="wordllama", exists_ok=True)
        report = store.ingest("docs", documents(), embed=embed, sync=True)
        print(f"{report.documents} pages, {report.chunks} passages in {report.seconds:.1f} s")
        question = "How do I set the size of the connection pool?"
        for hit in store.search("docs", text=question, vector=embed([question])[0], k=3):
            print(f"{hit.score:.3f} {hit.document_key}: {(hit.text or '')[:70]!r}")
        store.delete_collection("docs")


if __name__ == "__main__":
    main()
