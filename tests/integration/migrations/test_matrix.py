"""Every row of the matrix, with ragstore's comparison: see ``tests/matrix``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.matrix.case import Case
from tests.matrix.cases import CASES
from tests.matrix.databases import Bench
from tests.matrix.harness import run


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}-{case.id}")
def test_matrix(case: Case, bench: Bench, tmp_path: Path) -> None:
    """What changed is found, and what is found runs both ways; nothing else is found."""
    if reason := bench.lacks(case.extensions, case.version):
        pytest.skip(reason)

    outcome = run(bench, case, tmp_path)

    assert not outcome.problems, str(outcome)
