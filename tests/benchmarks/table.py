"""The rows of the table, and the statistics in them."""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

NULL = "  again: the null band"
"""The name of a row in which the baseline is compared with itself."""


@dataclass(frozen=True)
class Row:
    """One line: milliseconds, what they are beside, and the target if there is one, or a note."""

    name: str
    milliseconds: float | None = None
    beside: str = ""
    target: str = ""
    is_met: bool = True
    note: str = ""


def median_ms(seconds: Iterable[float]) -> float:
    """Return the median in milliseconds."""
    return statistics.median(seconds) * 1_000


def ratio(subject: Sequence[float], baseline: Sequence[float]) -> float:
    """Return the median of the ratios of what ran side by side."""
    return statistics.median(mine / other for mine, other in zip(subject, baseline, strict=True))


def shown_ratio(subject: Sequence[float], baseline: Sequence[float]) -> str:
    """Return the paired ratio with its second lowest and second highest value.

    Of few pairs these are the lowest and the highest.
    """
    pairs = sorted(mine / other for mine, other in zip(subject, baseline, strict=True))
    edge = 1 if len(pairs) > 4 else 0
    return f"{ratio(subject, baseline):.2f}x [{pairs[edge]:.2f}-{pairs[-1 - edge]:.2f}]"


def shuffled(names: Sequence[T], rounds: int) -> Iterator[list[T]]:
    """Yield the names in another order for each round, the same in every run.

    What runs second finds caches and the processor warm: of as many rounds as there are names,
    each is once in every place.
    """
    chance = random.Random(0)
    turns: list[list[T]] = []
    for _ in range(rounds):
        if not turns:
            order = chance.sample(names, len(names))
            turns = [order[at:] + order[:at] for at in range(len(order))]
            chance.shuffle(turns)
        yield turns.pop()


def table_lines(rows: Iterable[Row]) -> list[str]:
    """Return the table of the rows, its head first."""
    lines = [f"{'milliseconds, medians':<50}{'':>9}  {'beside its baseline':<22}target"]
    for row in rows:
        number = "" if row.milliseconds is None else f"{row.milliseconds:,.2f}"
        verdict = f"{row.target}: {'met' if row.is_met else 'MISSED'}" if row.target else row.note
        lines.append(f"{row.name:<50}{number:>9}  {row.beside:<22}{verdict}".rstrip())
    return lines


def print_table(ground: Sequence[str], rows: Iterable[Row]) -> None:
    """Print what the benchmark ran on, and the rows."""
    sys.stdout.write("\n".join(["", *ground, "", *table_lines(rows), ""]))
