"""Documents cut into batches."""

from __future__ import annotations

import pytest

from ragstore import NewDocument
from ragstore.writer import batches


@pytest.mark.parametrize(
    ("size", "sizes"),
    [(1_000, [300, 1_000, 1_000, 200]), (200, [200] * 12 + [100])],
    ids=["large", "small"],
)
def test_first_batch_is_small(size: int, sizes: list[int]) -> None:
    """The server begins after 300 chunks, however large the batches are."""
    documents = [NewDocument(f"{number}", ["x"] * 50) for number in range(50)]
    cut = batches(documents, size)
    assert [sum(len(each.chunks) for each in batch) for batch in cut] == sizes
