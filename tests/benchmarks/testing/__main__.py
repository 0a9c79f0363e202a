"""What the test kit costs: ``python -m tests.benchmarks.testing [rounds]``.

One table: what ``db_session`` adds to a test, a clone, the start of a run, a thousand tests beside
what other tools do, and the import of the plugin. Baseline and subject take turns; a ratio is the
median of the pairs, with the second lowest and second highest of them in brackets. The row called
null band is the baseline beside itself: a difference within that is noise.

It starts an embedded server in a temporary directory, takes some minutes, and asserts nothing.
``pip install -r tests/benchmarks/requirements.txt`` brings what it compares with.
"""

from __future__ import annotations

import sys

from tests.benchmarks.table import print_table
from tests.benchmarks.testing import clones, sessions, starts, suites
from tests.benchmarks.testing.ground import prepared

ROUNDS = 300


def main() -> None:
    """Measure, and print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with prepared() as ground:
        before = ground.described()
        rows = [
            *sessions.rows(ground, max(rounds, 50)),
            *clones.rows(ground, max(rounds // 20, 3)),
            *starts.rows(ground, max(rounds // 30, 3)),
            *suites.rows(ground, max(rounds // 100, 1)),
            *starts.import_rows(max(rounds // 30, 3)),
        ]
    print_table(before, rows)


if __name__ == "__main__":
    main()
