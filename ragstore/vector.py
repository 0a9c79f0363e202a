"""The vectors of a batch: given or made, checked, and packed as they are sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ragstore.content import PreparedChunk
from ragstore.exceptions import EmbeddingFailed, InvalidVector
from ragstore.execution import Call
from ragstore.ingest import Place
from ragstore.packing import check_vectors, pack_vectors
from ragstore.report import Refusals
from ragstore.space import Space
from ragstore.work import Make, Work

HOPELESS = 3
"""How many texts must fail one by one, none having succeeded, for the model to be at fault."""

Vectors = dict[str, Any]
Failures = dict[str, EmbeddingFailed]


def make_vectors(
    space: Space,
    wanting: Mapping[Place, PreparedChunk],
    vectors: dict[Place, bytes | None],
    refuse: Refusals,
) -> Work[int]:
    """Put the packed vector of each chunk that needs one into ``vectors``; return how many made.

    Those given are checked first, so that nothing is embedded for a batch that they end. Equal
    texts are embedded once.

    Raises:
        EmbeddingFailed, InvalidVector: what ``refuse`` does not take.
    """
    wanted = {place: chunk for place, chunk in wanting.items() if place.key not in refuse.keys}
    given = {place: chunk.vector for place, chunk in wanted.items() if chunk.vector is not None}
    vectors.update((yield Call(_packed, (space, given, refuse))))
    bare = {
        place: chunk.text
        for place, chunk in wanted.items()
        if chunk.vector is None and place.key not in refuse.keys
    }
    texts = list(dict.fromkeys(bare.values()))
    made: Vectors = {}
    failed: Failures = {}
    if texts:
        yield from _make(texts, made, failed, skip=refuse.skip)
    _refuse_failed(bare, failed, refuse)
    left = {place: made[text] for place, text in bare.items() if place.key not in refuse.keys}
    if left:
        vectors.update((yield Call(_packed, (space, left, refuse))))
    return len(made)


def _make(texts: Sequence[str], made: Vectors, failed: Failures, *, skip: bool) -> Work[None]:
    """Embed texts; with ``skip`` those that the model refuses are found by halving them.

    Raises:
        EmbeddingFailed: without ``skip``, or where no text at all can be embedded.
    """
    try:
        vectors = yield Make(texts)
    except EmbeddingFailed as exc:
        if not skip or (len(failed) + 1 >= HOPELESS and not made):
            raise
        failure = exc
    else:
        made.update(zip(texts, vectors, strict=True))
        return
    if len(texts) == 1:
        failed[texts[0]] = failure
        return
    middle = len(texts) // 2
    for half in (texts[:middle], texts[middle:]):
        yield from _make(half, made, failed, skip=skip)


def _refuse_failed(bare: Mapping[Place, str], failed: Failures, refuse: Refusals) -> None:
    for place, text in bare.items():
        if text in failed and place.key not in refuse.keys:
            cause = failed[text]
            error = EmbeddingFailed(str(cause), key=place.key, chunk=place.ordinal, field="text")
            error.__cause__ = cause
            refuse(error)


def _packed(space: Space, vectors: Mapping[Place, Any], refuse: Refusals) -> dict[Place, bytes]:
    """Return vectors as they are sent, without those of documents that are refused for one."""
    places = list(vectors)
    while True:
        try:
            matrix = check_vectors(space, [vectors[place] for place in places], places.__getitem__)
        except InvalidVector as exc:
            refuse(exc)
            bad = exc.key
        else:
            return dict(zip(places, pack_vectors(matrix), strict=True))
        places = [place for place in places if place.key != bad]
