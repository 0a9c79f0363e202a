"""Which chunks of a changed document stay, move, go or are new."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragstore import NewDocument
from ragstore.content import PreparedDocument, prepare
from ragstore.diff import StoredChunk, diff

CASES: list[tuple[str, str, str, str, list[tuple[int, int]], str]] = [
    # Each row: its name; what is stored and wanted; what is new, moved (from, to) and gone.
    ("nothing", "abc", "abc", "", [], ""),
    ("all new", "", "ab", "ab", [], ""),
    ("one changed", "abc", "axc", "x", [], "b"),
    ("in front", "abc", "xabc", "x", [(0, 1), (1, 2), (2, 3)], ""),
    ("at the end", "abc", "abcx", "x", [], ""),
    ("removed", "abc", "ac", "", [(2, 1)], "b"),
    ("swapped", "ab", "ba", "", [(0, 1), (1, 0)], ""),
    ("equal ones stay", "aab", "aab", "", [], ""),
    ("one of equals goes", "aaa", "aa", "", [], "a"),
    ("one more of equals", "aa", "aaa", "a", [], ""),
    ("nothing in common", "ab", "xy", "xy", [], "ab"),
]


def document(letters: str) -> PreparedDocument:
    """Return a document of one chunk for each letter, or one without chunks."""
    if letters:
        return prepare(NewDocument("k", list(letters)))
    return PreparedDocument("k", None, "{}", (), b"")


def stored(letters: str) -> list[StoredChunk]:
    """Return the chunks as they are stored, their ids their places."""
    chunks = document(letters).chunks
    return [StoredChunk(each.ordinal, each.ordinal, each.content_hash) for each in chunks]


@pytest.mark.parametrize(
    ("before", "after", "new", "moved", "gone"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_only_what_changed_is_touched(
    before: str, after: str, new: str, moved: list[tuple[int, int]], gone: str
) -> None:
    """Chunks of the same content are kept, moved where their place is another."""
    change = diff(document(after), stored(before))
    assert "".join(chunk.text for chunk in change.new) == new
    assert sorted(change.moved) == moved
    assert "".join(before[chunk.id] for chunk in change.gone) == gone


@given(st.text("abc", max_size=8), st.text("abcx", max_size=8))
def test_as_much_as_possible_is_kept(before: str, after: str) -> None:
    """For any two documents each stored chunk is used once, and none is new that was there."""
    change = diff(document(after), stored(before))
    kept = Counter(before) & Counter(after)
    assert Counter(chunk.text for _, chunk in change.kept) == kept
    assert Counter(chunk.text for chunk in change.new) == Counter(after) - kept
    ids = [chunk.id for chunk, _ in change.kept] + [chunk.id for chunk in change.gone]
    assert sorted(ids) == list(range(len(before)))
    places = [chunk.ordinal for _, chunk in change.kept] + [each.ordinal for each in change.new]
    assert sorted(places) == list(range(len(after)))


def test_chunk_of_unknown_content_is_replaced() -> None:
    """One written otherwise than by ingest has no hash, and is never taken for the same."""
    change = diff(document("a"), [StoredChunk(7, 0, None)])
    assert [chunk.text for chunk in change.new] == ["a"]
    assert [chunk.id for chunk in change.gone] == [7]


def test_kept_chunk_without_vector_is_told() -> None:
    """A chunk that stays but has no vector in the collection's space still needs one."""
    (one,) = stored("a")
    lacking = StoredChunk(one.id, one.ordinal, one.content_hash, is_embedded=False)
    change = diff(document("a"), [lacking])
    assert [chunk.text for _, chunk in change.unembedded] == ["a"]
    assert diff(document("a"), [one]).unembedded == []
