"""What the store costs and how well it answers: ``python -m tests.benchmarks [part …]``.

Parts: ``ingest``, ``search``, ``completeness`` and ``switch``, all of them if none is named, and
``peers``, which installs other packages into an environment of their own and runs if it is named.
Baseline and subject take turns; a ratio is the median of the pairs, with the second lowest and
second highest in brackets. The row called null band is the baseline beside itself: a difference
within that is noise.

It starts an embedded server in a temporary directory and takes about three quarters of an hour;
``--write`` puts the tables into docs/benchmarks.md. With ``--check`` it runs for a minute on little
data, every target of time loosened by a quarter or more; what misses one is measured again, and if
it misses again, it exits with 1: for CI.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.benchmarks import completeness, ingest, page, peers, search, switch
from tests.benchmarks.bench import Bench, prepared
from tests.benchmarks.table import Row, table_lines

TITLES = {
    "ingest": "Ingest",
    "search": "Search",
    "completeness": "Completeness",
    "switch": "Model switch under load",
    "peers": "Beside other packages",
}
"""The parts, and the headings of their tables in docs/benchmarks.md."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured, and by what the targets of time are loosened.

    The shorter what is measured, the more: a cell of the grid may take half a millisecond.
    """

    chunks: int = 100_000
    ingested: int = 20_000
    rounds: int = 9
    queries: int = 400
    cell_queries: int = 40
    beside: float = 5.0
    ingest_slack: float = 1.0
    search_slack: float = 1.0
    cell_slack: float = 1.0
    ks: tuple[int, ...] = completeness.KS
    shares: tuple[str, ...] = tuple(completeness.SHARES)
    collections: tuple[int, ...] = completeness.COLLECTIONS
    venv: Path | None = None
    exact_limit: int | None = None


CHECK = Sizes(
    chunks=5_000,
    ingested=2_000,
    rounds=5,
    queries=100,
    cell_queries=20,
    exact_limit=1_000,
    beside=1.0,
    ingest_slack=1.28,  # 1.25 becomes 1.6
    search_slack=1.6,
    cell_slack=2.0,
    ks=(10, 100),
    shares=("100 %", "1 %"),
    collections=(20,),
)


@dataclass(frozen=True)
class Table:
    """One part's table as it is printed, and how many of its targets were missed."""

    title: str
    lines: list[str]
    missed: int


def _of_rows(part: str, rows: list[Row]) -> Table:
    return Table(TITLES[part], table_lines(rows), sum(not row.is_met for row in rows))


def _ingest(bench: Bench, sizes: Sizes) -> Table:
    rows = ingest.rows(bench, sizes.ingested, sizes.rounds, sizes.ingest_slack)
    return _of_rows("ingest", rows)


def _search(bench: Bench, sizes: Sizes) -> Table:
    rows = search.rows(bench, sizes.chunks, sizes.queries, sizes.search_slack)
    return _of_rows("search", rows)


def _completeness(bench: Bench, sizes: Sizes) -> Table:
    cells = completeness.cells(
        bench,
        sizes.chunks,
        sizes.cell_queries,
        sizes.cell_slack,
        sizes.ks,
        sizes.shares,
        sizes.collections,
    )
    missed = sum(not cell.is_met for cell in cells)
    return Table(TITLES["completeness"], completeness.lines(cells), missed)


def _switch(bench: Bench, sizes: Sizes) -> Table:
    return _of_rows("switch", switch.rows(bench, sizes.chunks, sizes.beside))


def _peers(bench: Bench, sizes: Sizes) -> Table:
    rounds = max(sizes.rounds // 3, 1)
    rows = peers.rows(bench, sizes.ingested, rounds, sizes.cell_queries * 5, sizes.venv)
    return _of_rows("peers", rows)


PARTS: dict[str, Callable[[Bench, Sizes], Table]] = {
    "ingest": _ingest,
    "search": _search,
    "completeness": _completeness,
    "switch": _switch,
    "peers": _peers,
}
UNASKED = ("ingest", "search", "completeness", "switch")
"""The parts that need nothing installed."""


def tables(parts: Sequence[str], sizes: Sizes) -> Iterator[Table]:
    """Measure one part after the other, all on one server."""
    with prepared(sizes.exact_limit) as bench:
        for part in parts:
            found = PARTS[part](bench, sizes)
            yield replace(found, lines=[*bench.header, "", *found.lines])


def main() -> int:
    """Print the tables; with ``--check``, return 1 if a part misses a target twice."""
    given = _arguments()
    sizes = _sizes(given)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the server would stay
    missed = []
    # In this order whatever is named: ingest and peers empty the tables.
    parts = [part for part in PARTS if part in (given.parts or UNASKED)]
    for part, table in _shown(parts, sizes):
        if given.write:
            page.write(table.title, table.lines)
        if table.missed:
            missed.append(part)
    if not given.check:
        return 0
    # Whatever else the machine did meanwhile: it is to do that twice.
    again = [part for part in missed for _, table in _shown([part], sizes) if table.missed]
    return 1 if again else 0


def _shown(parts: Sequence[str], sizes: Sizes) -> Iterator[tuple[str, Table]]:
    for part, table in zip(parts, tables(parts, sizes), strict=True):
        sys.stdout.write("\n".join(["", table.title, "", *table.lines, ""]))
        sys.stdout.flush()
        yield part, table


def _sizes(given: argparse.Namespace) -> Sizes:
    sizes = CHECK if given.check else Sizes()
    names = ("chunks", "rounds", "queries", "venv")
    changed = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    if given.chunks is not None:
        changed["ingested"] = min(given.chunks, sizes.ingested)
    if given.queries is not None:
        changed["cell_queries"] = max(given.queries // 10, 3)
    return replace(sizes, **changed)


def _arguments() -> argparse.Namespace:
    about, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=about,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="part", choices=[*PARTS, []])
    parser.add_argument("--check", action="store_true", help="little data, and assertions")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md anew")
    parser.add_argument("--chunks", type=int, help="how many chunks are searched (100,000)")
    parser.add_argument("--rounds", type=int, help="pairs of an ingest (9)")
    parser.add_argument(
        "--queries", type=int, help="queries of a search (400), ten times those of a cell"
    )
    parser.add_argument("--venv", type=Path, help="where the peers are, or are to be, installed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
