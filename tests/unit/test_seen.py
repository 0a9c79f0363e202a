"""The keys of a source, in few bytes."""

from __future__ import annotations

from ragstore.seen import SeenKeys


def test_unseen_documents_are_told() -> None:
    """Of stored documents those are named whose key was never added, whatever the order."""
    seen = SeenKeys()
    seen.add(["b", "a", "é", "a"])
    assert seen.missing([(1, "a"), (2, "x"), (3, "é"), (4, "")]) == [2, 4]
    seen.add(["x"])
    assert seen.missing([(2, "x")]) == []


def test_nothing_seen_is_everything_missing() -> None:
    """Without a key every document is missing."""
    assert SeenKeys().missing([(1, "a")]) == [1]


def test_key_costs_eight_bytes() -> None:
    """A hundred thousand keys take 0.8 MB."""
    seen = SeenKeys()
    seen.add(str(number) for number in range(100_000))
    assert len(seen._hashes) == 800_000
    assert seen.missing([(at, str(at)) for at in range(100_000)]) == []
