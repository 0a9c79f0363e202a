"""Which way to the nearest vectors is chosen for which sizes, as a table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragstore.search.strategy import Situation, choose

LARGE = Situation(
    size=100_000, exact_limit=10_000, own_index=100_000, space_index=1_000_000, need=10
)
NONE = {"own_index": None, "space_index": None}
KEEPS = {"has_filter": True}

TABLE: list[tuple[str, dict[str, Any], str, str]] = [
    ("a small collection", {"size": 10_000}, "exact", "10,000 vectors are few enough"),
    ("an empty one", {"size": 0}, "exact", "0 vectors are few enough"),
    ("a small one with a filter", {"size": 50, **KEEPS}, "exact", "few enough"),
    ("a large one", {}, "own_index", "own index was searched"),
    ("without an index of its own", {"own_index": None}, "space_index", "index of the space"),
    ("without any index", NONE, "exact", "no index that is ready"),
    ("without any index, filtered", {**NONE, **KEEPS}, "filter", "no index that is ready"),
    ("asked to be exact", {"must_be_exact": True}, "exact", "exact=True was asked for"),
    ("asked to be exact, filtered", {"must_be_exact": True, **KEEPS}, "filter", "exact=True"),
    ("exact beats small", {"must_be_exact": True, "size": 5}, "exact", "exact=True"),
    ("most of it wanted", {"need": 11_000}, "exact", "11,000 are wanted of about 100,000"),
    ("a tenth of a percent wanted", {"need": 100}, "own_index", "own index"),
    ("one percent wanted", {"need": 1_000}, "own_index", "own index"),
    ("a hundredth of a space", {"own_index": None, "size": 10_001}, "exact", "10 are wanted"),
    ("a tenth of a space, much wanted",
     {"own_index": None, "need": 1_000}, "exact", "1,000 are wanted of about 100,000"),
    ("a filter of ten", {**KEEPS, "matching": 10}, "filter", "keeps about 10"),
    ("a filter of none", {**KEEPS, "matching": 0}, "filter", "keeps about 0"),
    ("a filter of 1 %", {**KEEPS, "matching": 1_000}, "filter", "keeps about 1,000"),
    ("the nearest of 1 %",
     {**KEEPS, "matching": 1_000, "need": 1}, "own_index", "keeps about 1,000 and 1 is wanted"),
    ("the nearest of less", {**KEEPS, "matching": 900, "need": 1}, "filter", "keeps about 900"),
    ("a filter of 5 %", {**KEEPS, "matching": 5_000}, "own_index", "keeps many"),
    ("a filter of half", {**KEEPS, "matching": 50_000}, "own_index", "keeps many"),
    ("a filter of 5 %, many wanted",
     {**KEEPS, "matching": 5_000, "need": 1_000}, "filter", "keeps about 5,000"),
    ("a filter of half, many wanted",
     {**KEEPS, "matching": 50_000, "need": 1_000}, "own_index", "keeps many"),
    ("at least half", {**KEEPS, "matching": 50_000, "at_least": True}, "own_index", "keeps many"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "scan", "reason"), [case[1:] for case in TABLE], ids=[case[0] for case in TABLE]
)
def test_strategy(changes: dict[str, Any], scan: str, reason: str) -> None:
    """Each situation has one way, and a reason in words; none of these needs to count first."""
    chosen = choose(replace(LARGE, **changes))
    assert chosen.scan == scan
    assert reason in chosen.reason
    assert chosen.limit is None
    assert chosen.is_exact == (scan in ("exact", "filter"))


WIDTHS: list[tuple[str, dict[str, Any], int]] = [
    ("no filter", {}, 40),
    ("one of unknown size", KEEPS, 64),
    ("the nearest of half", {**KEEPS, "matching": 50_000, "need": 1}, 40),
    ("the nearest of 10 %", {**KEEPS, "matching": 10_000, "need": 1}, 40),
    ("the nearest of 8 %", {**KEEPS, "matching": 8_000, "need": 1}, 50),
    ("ten of 5 %", {**KEEPS, "matching": 5_000}, 64),
    ("the nearest of 1 %", {**KEEPS, "matching": 1_000, "need": 1}, 400),
]


@pytest.mark.parametrize(
    ("changes", "ef_search"), [case[1:] for case in WIDTHS], ids=[case[0] for case in WIDTHS]
)
def test_width_of_a_search_by_index(changes: dict[str, Any], ef_search: int) -> None:
    """The fewer pass a filter, the more candidates the index gives at once, within bounds."""
    chosen = choose(replace(LARGE, **changes))
    assert (chosen.scan, chosen.ef_search) == ("own_index", ef_search)


UNKNOWN: list[tuple[str, dict[str, Any]]] = [
    ("a filter of unknown size", {}),
    ("one known to keep a few or more", {"matching": 500, "at_least": True}),
]


@pytest.mark.parametrize("changes", [case[1] for case in UNKNOWN], ids=[c[0] for c in UNKNOWN])
def test_unknown_filter_is_counted_first(changes: dict[str, Any]) -> None:
    """Where the size of a filter decides and is not known, the statement counts up to a limit."""
    chosen = choose(replace(LARGE, **KEEPS, **changes))
    assert chosen.scan == "own_index"
    assert chosen.limit is not None
    assert 1_000 <= chosen.limit <= 10_000
    assert f"more than {chosen.limit:,}" in chosen.reason


SITUATIONS = st.builds(
    Situation,
    size=st.integers(0, 10**9),
    exact_limit=st.just(10_000),
    own_index=st.none() | st.integers(0, 10**9),
    space_index=st.none() | st.integers(0, 10**9),
    need=st.integers(1, 11_000),
    has_filter=st.booleans(),
    matching=st.none() | st.integers(0, 10**9),
    at_least=st.booleans(),
    must_be_exact=st.booleans(),
)


@given(SITUATIONS)
def test_any_situation_has_a_strategy(now: Situation) -> None:
    """An index that is not there is never used, and what is counted is enough to answer with."""
    chosen = choose(now)
    if chosen.scan == "own_index":
        assert now.own_index is not None
    if chosen.scan == "space_index":
        assert now.space_index is not None
        assert now.own_index is None
    if chosen.scan == "filter" or chosen.limit is not None:
        assert now.has_filter
    if chosen.limit is not None:
        assert chosen.limit >= now.need
    assert chosen.max_scan >= 20_000
    assert 40 <= chosen.ef_search <= 1_000
