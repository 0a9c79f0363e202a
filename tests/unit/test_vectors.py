"""Which vectors fit a space, and the bytes that they are sent as."""

from __future__ import annotations

import re
import struct
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql

from ragstore import exceptions
from ragstore.models import EmbeddingSpace
from ragstore.packing import check_vectors, pack_vector, pack_vectors
from ragstore.space import Space, distance
from ragstore.types import IndexType, Metric

METRICS = get_args(Metric)


def space(metric: Metric = "cosine", dimensions: int = 2, index_type: IndexType = "none") -> Space:
    """Return a space that no database has."""
    return Space(7, "minilm", "all-MiniLM", dimensions, metric, index_type)


BAD: list[tuple[str, Any, str, list[str]]] = [
    ("NaN", [1, float("nan")], "NonFiniteVector", ["NaN"]),
    ("infinity", [1, float("inf")], "NonFiniteVector", ["infinity"]),
    ("beyond floats", [1, 1e39], "NonFiniteVector", ["4-byte"]),
    ("beyond floats, array", np.array([1, 1e39]), "NonFiniteVector", ["4-byte"]),
    ("short", [1], "DimensionMismatch", ["1 dim", "'minilm'", "'all-MiniLM'", "takes 2"]),
    ("long", [1, 2, 3], "DimensionMismatch", ["3 dim"]),
    ("empty", [], "DimensionMismatch", ["0 dim"]),
    ("matrix", [[1, 2]], "InvalidVector", ["2 axes"]),
    ("ragged", [[1], [1, 2]], "InvalidVector", ["not list"]),
    ("string", "12", "InvalidVector", ["not str"]),
    ("number in a string", "1.5", "InvalidVector", ["not str"]),
    ("strings", ["1", "2"], "InvalidVector", ["flat sequence of numbers"]),
    ("bytes", b"12", "InvalidVector", ["not bytes"]),
    ("booleans", [True, False], "InvalidVector", ["numbers"]),
    ("complex", np.array([1j, 2j]), "InvalidVector", ["not ndarray"]),
    ("dates", np.array(["2020", "2021"], "M8[D]"), "InvalidVector", ["not ndarray"]),
    ("none", None, "InvalidVector", ["NoneType"]),
    ("none inside", [None, 1.0], "InvalidVector", ["not list"]),
    ("huge integers", [10**400, 1], "InvalidVector", ["not list"]),
    ("mapping", {0: 1, 1: 2}, "InvalidVector", ["not dict"]),
    ("number", 5, "InvalidVector", ["not int"]),
    ("zero", [0, 0.0], "ZeroVector", ["all zeros", "leave"]),
    ("underflow", [1e-30, 1e-30], "ZeroVector", ["nearly"]),
    ("denormal square", [1e-22, 0], "ZeroVector", ["nearly"]),
    ("overflow", [1e38, 1e38], "NonFiniteVector", ["normalise"]),
]


@pytest.mark.parametrize(
    ("bad", "error", "parts"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
def test_vector_that_does_not_fit_is_refused(bad: Any, error: str, parts: list[str]) -> None:
    """Each thing wrong has its own error, with the key and chunk of the vector that it is in."""
    with pytest.raises(exceptions.InvalidVector) as caught:
        check_vectors(space(), [[1, 0], bad, [0, 1]], lambda index: (f"key{index}", index))
    message = str(caught.value)
    assert type(caught.value).__name__ == error
    assert [part for part in ["'key1', chunk 1", *parts] if part not in message] == []
    assert (caught.value.key, caught.value.chunk) == ("key1", 1)


def test_dimension_mismatch_carries_both_numbers() -> None:
    """Code can tell what was expected without reading the message."""
    with pytest.raises(exceptions.DimensionMismatch) as caught:
        check_vectors(space(), [[1, 2, 3]])
    assert (caught.value.expected, caught.value.got) == (2, 3)


@pytest.mark.parametrize("metric", ["l2", "inner_product", "l1"])
def test_zero_vector_is_refused_under_cosine_alone(metric: Metric) -> None:
    """Only an angle needs a direction."""
    assert check_vectors(space(metric), [[0, 0], [1e-30, 0]]).shape == (2, 2)


@pytest.mark.parametrize("metric", METRICS)
def test_square_sum_beyond_floats_is_refused_where_it_is_needed(metric: Metric) -> None:
    """A distance would be infinite, or not a number: every metric but l1 multiplies."""
    if metric == "l1":
        assert check_vectors(space(metric), [[1e38, 1e38]]).dtype == np.float32
    else:
        with pytest.raises(exceptions.NonFiniteVector, match="normalise"):
            check_vectors(space(metric), [[1e38, 1e38]])


@pytest.mark.parametrize(
    ("index", "metric", "vector", "error"),
    [
        ("halfvec", "cosine", [65_504, -65_504], None),
        ("halfvec", "l1", [65_600, 0], exceptions.NonFiniteVector),
        ("ivfflat", "l2", [0, -65_600], exceptions.NonFiniteVector),
        ("vector", "l2", [65_600, 0], None),
        ("binary", "cosine", [65_600, 1e-9], None),
        ("halfvec", "cosine", [7e-5, 0], None),
        ("halfvec", "cosine", [6e-5, -6e-5], exceptions.ZeroVector),
        ("halfvec", "l2", [6e-5, 0], None),
        ("vector", "cosine", [6e-5, 0], None),
    ],
)
def test_vector_must_fit_the_floats_of_the_index(
    index: IndexType, metric: Metric, vector: list[float], error: type[Exception] | None
) -> None:
    """What 2-byte floats cannot hold would end a build, or be in no answer of the index."""
    if error is None:
        assert check_vectors(space(metric, index_type=index), [vector]).shape == (1, 2)
    else:
        with pytest.raises(error, match=r"2-byte floats.*normalise it.*index='vector' or 'none'"):
            check_vectors(space(metric, index_type=index), [[1, 1], vector])


@pytest.mark.parametrize(
    "good",
    [[1, 2], (1.5, 2), range(1, 3), np.array([1, 2], np.float16), np.array([1, 2], np.int8),
     np.ones((4, 2))[:, 0][:2], np.arange(4.0)[::2] + 1, [np.float32(1), 2]],
    ids=map(str, range(8)),
)  # fmt: skip
def test_any_flat_sequence_of_numbers_is_taken(good: Any) -> None:
    """Lists, tuples, ranges and arrays of any number type become rows of 4-byte floats."""
    matrix = check_vectors(space(), [good])
    assert matrix.dtype == np.float32
    assert matrix.tolist() == [[float(number) for number in good]]


def test_no_vectors_are_no_rows() -> None:
    """An empty batch is not an error."""
    assert check_vectors(space(), []).shape == (0, 2)


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(FLOATS, min_size=1, max_size=20))
def test_packed_vector_is_what_pgvector_reads(numbers: list[float]) -> None:
    """Binary input is the number of dimensions, a zero, and big-endian floats, bit for bit."""
    matrix = np.array([numbers, numbers], dtype=np.float32)
    first, second = pack_vectors(matrix)
    count, zero, *read = struct.unpack(f">HH{len(numbers)}f", first)
    assert (count, zero, first) == (len(numbers), 0, second)
    assert struct.pack(f"{len(numbers)}f", *read) == struct.pack(f"{len(numbers)}f", *numbers)


@pytest.mark.parametrize("number", [1, 0, 6e4, 1e30, 1e300, float("inf"), float("nan")])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("metric", METRICS)
def test_single_vector_is_packed_or_refused_as_many_are(
    metric: Metric, kind: type[np.floating[Any]], number: float
) -> None:
    """The quick way of a query's vector says the same, and numpy says nothing of its own."""
    with np.errstate(over="ignore"):
        vector = np.array([number, number], kind)
    try:
        expected = pack_vectors(check_vectors(space(metric), [vector]))[0]
    except exceptions.InvalidVector as exc:
        with pytest.raises(type(exc), match=re.escape(str(exc))):
            pack_vector(space(metric), vector)
    else:
        assert pack_vector(space(metric), vector) == expected


@pytest.mark.parametrize(
    ("metric", "operator"),
    [("cosine", "<=>"), ("l2", "<->"), ("inner_product", "<#>"), ("l1", "<+>")],
)
def test_distance_is_the_metrics_operator(metric: Metric, operator: str) -> None:
    """The expression has the space's own operator, from a Space or from its row."""
    row = EmbeddingSpace(id=7, name="minilm", model="m", dimensions=2, metric=metric)
    for expression in (space(metric).distance([1, 0]), distance(row, [1, 0])):
        text = expression.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
        assert f"ragstore_embedding.vector {operator} %(" in str(text)
        assert list(text.params.values()) == [[1.0, 0.0]]


def test_distance_refuses_a_vector_that_does_not_fit() -> None:
    """The error comes where the statement is built, not from the server."""
    with pytest.raises(exceptions.DimensionMismatch):
        space().distance([1, 2, 3])
