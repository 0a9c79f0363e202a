"""What the benchmarks judge by: the right answers, equal shares, and the page they write."""

from __future__ import annotations

from fractions import Fraction

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
    assert oracle.recall(found, {1: 0.9, 2: 0.5, 3: 0.5, 4: 0.1}, k) == recall


def test_fused_scores_add_the_ranks_of_both_arms() -> None:
    """A chunk in both arms has the sum of its shares; one beyond the candidates has none."""
    scores = oracle.fused({1: 0.9, 2: 0.5, 3: 0.1}, [2, 4, 5], candidates=2)
    assert scores == {
        1: Fraction(1, 61),
        2: Fraction(1, 62) + Fraction(1, 61),
        4: Fraction(1, 62),
    }


@pytest.mark.parametrize(("part", "share"), [("half", 100), ("twentieth", 10), ("hundredth", 2)])
def test_filters_let_equally_many_chunks_through(part: str, share: int) -> None:
    """Each value of a part of the metadata is that of as many chunks as of any other."""
    made = data.made(200)
    for number in (0, 1, 7):
        where = made.where(part, number)
        passing = [meta for meta in made.metas if where.items() <= meta.items()]
        assert len(passing) == len(made.matching(where)) == share


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
