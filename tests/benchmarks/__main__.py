"""What the store costs and how well it answers: ``python -m tests.benchmarks [part …]``."""

from __future__ import annotations

import argparse

from tests.benchmarks import search
from tests.benchmarks.bench import prepared
from tests.benchmarks.table import print_table


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--chunks", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=9)
    a = parser.parse_args()
    with prepared() as bench:
        rows = search.rows(bench, a.chunks, 200)
    print_table(bench.header, rows)


if __name__ == "__main__":
    main()
