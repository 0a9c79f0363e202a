"""Any model becomes any other, with rows or without; or the question in its way is asked.

``RAGSTORE_RANDOM_MODELS=1000`` draws as many pairs, others each time; without it the pairs are few
and always the same.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings

from tests.matrix.case import Case
from tests.matrix.databases import Bench
from tests.matrix.harness import created, run
from tests.matrix.reading import Catalog
from tests.matrix.vocabulary import ModelSpec, pairs

_ASKED = os.environ.get("RAGSTORE_RANDOM_MODELS")
_NEEDS = frozenset({"vector"})


@settings(
    max_examples=int(_ASKED or 25),
    derandomize=_ASKED is None,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(pair=pairs())
def test_random_models(pair: tuple[ModelSpec, ModelSpec], bench: Bench) -> None:
    """A difference is found if there is one; it runs both ways on empty tables, and keeps rows."""
    if reason := bench.lacks(_NEEDS, 15):
        pytest.skip(reason)
    before, after = pair
    case = Case("random", before.build, after.build, "decision", needs=_NEEDS)
    if _catalog(bench, case, before) == _catalog(bench, case, after):
        case = replace(case, kind="control")

    with TemporaryDirectory() as directory:
        outcome = run(bench, case, Path(directory))

    assert not outcome.problems, str(outcome)


def _catalog(bench: Bench, case: Case, spec: ModelSpec) -> Catalog:
    return created(bench, replace(case, after=spec.build))
