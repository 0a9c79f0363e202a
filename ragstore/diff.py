"""A changed document beside its stored chunks: which of them stay, which go, which are new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragstore.content import PreparedChunk, PreparedDocument


@dataclass(frozen=True)
class StoredChunk:
    """A chunk as it is in the database.

    ``is_indexed`` says that it is in the collection's language, ``is_embedded`` that it has a
    vector in the collection's space.
    """

    id: int
    ordinal: int
    content_hash: bytes | None
    is_indexed: bool = True
    is_embedded: bool = True


@dataclass(frozen=True)
class Change:
    """What becomes of the chunks of a document: those to write, to keep, and to delete."""

    new: Sequence[PreparedChunk]
    kept: Sequence[tuple[StoredChunk, PreparedChunk]]
    gone: Sequence[StoredChunk]

    @property
    def moved(self) -> list[tuple[int, int]]:
        """Return the id and the new place of kept chunks that have moved."""
        return [
            (stored.id, chunk.ordinal)
            for stored, chunk in self.kept
            if stored.ordinal != chunk.ordinal
        ]

    @property
    def unembedded(self) -> list[tuple[StoredChunk, PreparedChunk]]:
        """Return the kept chunks that lack their vector in the collection's space."""
        return [pair for pair in self.kept if not pair[0].is_embedded]


def diff(document: PreparedDocument, stored: Sequence[StoredChunk]) -> Change:
    """Match the chunks of a document with stored ones of the same content.

    Each stored chunk is matched once, so equal chunks are counted: of three equal ones stored and
    two wanted, one goes. One that need not move is matched first.
    """
    if not stored:
        return Change(document.chunks, (), ())
    spare: dict[bytes | None, dict[int, StoredChunk]] = {}
    for each in stored:
        spare.setdefault(each.content_hash, {})[each.ordinal] = each
    kept: list[tuple[StoredChunk, PreparedChunk]] = []
    new: list[PreparedChunk] = []
    moved: list[PreparedChunk] = []
    for chunk in document.chunks:
        same = spare.get(chunk.content_hash, {}).pop(chunk.ordinal, None)
        if same is None:
            moved.append(chunk)
        else:
            kept.append((same, chunk))
    for chunk in moved:
        others = spare.get(chunk.content_hash)
        if others:
            kept.append((others.popitem()[1], chunk))  # any: they are equal
        else:
            new.append(chunk)
    return Change(new, kept, [each for others in spare.values() for each in others.values()])
