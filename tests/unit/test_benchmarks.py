"""What the benchmarks judge by: the right answers, equal shares, and the page they write."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks import data, oracle, page, timing


@pytest.mark.parametrize(
    ("found", "k", "recall"),
    [
        ([1, 2], 2, 1.0),
        ([1, 3], 2, 1.0),  # as near as the second
        ([1, 4], 2, 0.5),
        ([1], 2, 0.5),
        ([9, 1], 2, 0.5),  # one that the filter keeps out
        ([1, 2, 3, 4], 10, 1.0),  # there are no more
        ([4, 1, 2, 3], 2, 0.5),  # only the first k count
    ],
)
def test_recall_counts_what_is_as_good_as_the_best(found: list[int], k: int, recall: float) -> None:
    """Recall is the share of the first k found that are no worse than the k-th best."""
    right = oracle.Right(np.array([1, 2, 3, 4]), np.array([0.9, 0.5, 0.5, 0.1]))
    assert right.recall(found, k) == recall


def test_fused_scores_add_the_ranks_of_both_arms() -> None:
    """A chunk in both arms comes before those in one; one beyond the candidates does not come."""
    near = oracle.Right(np.array([1, 2, 3]), np.array([0.9, 0.5, 0.1]))
    right = oracle.fused(near, [2, 4, 5], candidates=2)
    assert right.best(10).tolist() == [2, 1, 4]
    assert right.recall([3], 1) == 0


@pytest.mark.parametrize(("part", "share"), [("half", 100), ("twentieth", 10), ("hundredth", 2)])
def test_filters_let_equally_many_chunks_through(part: str, share: int) -> None:
    """Each value of a part of the metadata is that of as many chunks as of any other."""
    made = data.made(200)
    for number in (0, 1, 7):
        where = made.where(part, number)
        passing = [meta for meta in made.metas if where.items() <= meta.items()]
        assert len(passing) == made.passes(where, np.arange(200)).sum() == share


def test_documents_hold_each_chunk_once() -> None:
    """The documents of a part of the data have its chunks, in order, ten to each."""
    made = data.made(200)
    chunks = [chunk for each in made.documents(50, 75) for chunk in each.chunks]
    assert [getattr(chunk, "text", chunk) for chunk in chunks] == made.texts[50:75]


def test_page_keeps_all_but_the_block_under_the_heading() -> None:
    """A table replaces the first block of text under its own heading, and nothing else."""
    before = "## One\n\n```text\nold\n```\n\n## Two\n\nwords\n\n```text\nold\n```\n"
    after = "## One\n\n```text\nold\n```\n\n## Two\n\nwords\n\n```text\nnew\n```\n"
    assert page.replaced(before, "Two", ["new  "]) == after
    with pytest.raises(ValueError, match="Three"):
        page.replaced(before, "Three", ["new"])


def test_page_has_a_block_for_every_table() -> None:
    """The page in docs has the headings that the command writes under."""
    from tests.benchmarks.__main__ import TITLES

    for title in TITLES.values():
        page.replaced(page.PAGE.read_text(), title, [])


def test_arms_take_turns_and_warm_rounds_go_unseen() -> None:
    """Each arm is called once in every round, and only the rounds after the warm ones count."""
    called: list[tuple[str, int]] = []
    arms = {name: lambda number, name=name: called.append((name, number)) for name in "ab"}
    times = timing.interleaved(arms, 3, warm=2)
    assert sorted(called) == [(name, number) for name in "ab" for number in range(5)]
    assert [len(seconds) for seconds in times.values()] == [3, 3]
