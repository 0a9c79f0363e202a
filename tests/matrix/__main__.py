"""Run the matrix and print it: ``python -m tests.matrix``.

A run of every row is also written into the documentation, between its marks: the tables of a run
in both modes on the newest server, and the one line of any run on an older one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from time import perf_counter

from tests.matrix import report, servers
from tests.matrix.case import Case
from tests.matrix.cases import CASES
from tests.matrix.databases import Bench
from tests.matrix.harness import Mode, Outcome, run


def main() -> int:
    """Run what the options ask for; 1 if one of our own rows is not as it should be."""
    options = _options()
    modes: list[Mode] = ["ours"] if options.ours_only else ["ours", "stock"]
    chosen = [case for case in CASES if not options.k or options.k in f"{case.kind}-{case.id}"]
    with servers.server(options.server) as url, tempfile.TemporaryDirectory() as directory:
        bench = Bench(url)
        skipped = {case.id for case in chosen if bench.lacks(case.extensions, case.version)}
        cases = [case for case in chosen if case.id not in skipped]
        rows = {mode: _run(bench, cases, mode, Path(directory)) for mode in modes}
        server = bench.versions
        bench.close()
    summary, listing = report.summary(rows, server, skipped), report.listing(rows)
    sys.stdout.write(f"{summary}\n\n{listing}\n")
    if options.k is None and options.server != servers.VERSIONS[0]:
        report.write(report.one_line(rows, server, skipped), f"matrix {options.server}")
    elif options.k is None and not options.ours_only:
        report.write(summary, "matrix")
        report.write(listing, "matrix", report.ROWS_PAGE)
    return int(any(outcome.problems for outcome in rows["ours"]))


def _run(bench: Bench, cases: list[Case], mode: Mode, directory: Path) -> list[Outcome]:
    outcomes, started = [], perf_counter()
    for number, case in enumerate(cases):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcomes.append(_of(bench, case, mode, directory / str(number)))
        if outcomes[-1].problems and mode == "ours":
            sys.stderr.write(f"{outcomes[-1]}\n")
    seconds = perf_counter() - started
    sys.stderr.write(f"{mode}: {len(cases)} rows in {seconds:.0f} s\n")
    return outcomes


def _of(bench: Bench, case: Case, mode: Mode, directory: Path) -> Outcome:
    """Run a row; one that cannot even be tried must not hide those after it."""
    try:
        return run(bench, case, directory, mode)
    except Exception as exc:  # noqa: BLE001 - it is told, and the others are run
        outcome = Outcome(case, mode, trace=traceback.format_exc())
        outcome.problems.append(f"the row cannot be run: {type(exc).__name__}: {exc}")
        return outcome


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("-k", metavar="WORD", help="only the rows whose kind-id contains this")
    parser.add_argument("--ours-only", action="store_true", help="leave out stock Alembic")
    parser.add_argument("--server", type=int, choices=servers.VERSIONS, default=18)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
