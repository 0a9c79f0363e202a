"""Vectors: checked against the space that they are for, and packed as pgvector takes them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ragstore.content import flat_floats
from ragstore.exceptions import DimensionMismatch, InvalidVector, NonFiniteVector, ZeroVector
from ragstore.types import IndexType, Metric

Matrix = npt.NDArray[np.float32]


class Fit(Protocol):
    """What of a ``ragstore.space.Space`` tells whether a vector fits it."""

    @property
    def name(self) -> str:
        """Its name, for errors."""

    @property
    def model(self) -> str:
        """Its model, for errors."""

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has."""

    @property
    def metric(self) -> Metric:
        """What distances are measured by."""

    @property
    def index_type(self) -> IndexType:
        """What the vectors are indexed as."""


Place = Callable[[int], tuple[str | None, int | None]]


def _nowhere(_index: int) -> tuple[None, None]:
    return None, None


def check_vectors(space: Fit, vectors: Sequence[Any], place: Place = _nowhere) -> Matrix:
    """Return vectors as rows of 4-byte floats, if each of them fits the space.

    ``place`` gives the document's key and chunk of a vector, for the error.

    Raises:
        DimensionMismatch: a vector has another length than the space's.
        NonFiniteVector: one holds NaN, infinity, or a number beyond 4-byte floats, or so does its
            square sum (not under l1, which needs none).
        ZeroVector: one has no direction, or too little of it for 4-byte floats, under cosine.
    """
    matrix = _matrix(space, vectors, place)
    finite = np.asarray(np.isfinite(matrix).all(axis=1))
    _refuse(~finite, NonFiniteVector, _NOT_FINITE, place)
    with np.errstate(over="ignore"):
        norms = np.einsum("ij,ij->i", matrix, matrix)
    if space.metric != "l1":
        # pgvector sums squares in 4-byte floats too: beyond them a distance is infinite or NaN.
        _refuse(~np.isfinite(norms), NonFiniteVector, _TOO_LONG, place)
    if space.metric == "cosine":
        _refuse(norms < _LEAST_NORM, ZeroVector, _ZERO, place)
    if space.index_type in ("halfvec", "ivfflat"):
        _check_halves(space, matrix, place)
    return matrix


def _matrix(space: Fit, vectors: Sequence[Any], place: Place) -> Matrix:
    """Return vectors as a matrix; those that are arrays of the right kind all at once."""
    shape = (space.dimensions,)
    matrix = np.empty((len(vectors), *shape), dtype=np.float32)
    if all(
        type(each) is np.ndarray and each.shape == shape and each.dtype == np.float32
        for each in vectors
    ):
        if len(vectors):
            np.stack(vectors, out=matrix)
        return matrix
    for index, vector in enumerate(vectors):
        matrix[index] = _row(space, vector, index, place)
    return matrix


def _check_halves(space: Fit, matrix: Matrix, place: Place) -> None:
    """Refuse what an index over 2-byte floats would refuse, or would not hold."""
    peaks = np.maximum(matrix.max(axis=1, initial=0), -matrix.min(axis=1, initial=0))
    _refuse(peaks > _HALF.max, NonFiniteVector, _TOO_LARGE_FOR_HALVES, place)
    if space.metric == "cosine":
        _refuse(peaks < _HALF.tiny, ZeroVector, _TOO_SMALL_FOR_HALVES, place)


_LEAST_NORM = np.finfo(np.float32).tiny  # squares below it lose their digits, then vanish
_HALF = np.finfo(np.float16)
_TOO_LARGE_FOR_HALVES = (
    "the vector holds a number beyond the 2-byte floats of the space's index (65,504): normalise"
    " it, or make a space with index='vector' or 'none'"
)
_TOO_SMALL_FOR_HALVES = (
    "every number of the vector is below 0.00006, which the 2-byte floats of the space's index"
    " cannot tell from zero: normalise it, or make a space with index='vector' or 'none'"
)
_NOT_FINITE = (
    "the vector holds NaN, infinity or a number beyond 4-byte floats: look at what made it"
)
_TOO_LONG = "the vector's length is beyond 4-byte floats: normalise it"
_ZERO = (
    "the vector has no direction (all zeros, or nearly), so its cosine distance is not a number:"
    " leave the chunk out, or look at what made it"
)


def _refuse(
    bad: npt.NDArray[np.bool_], error: type[InvalidVector], message: str, place: Place
) -> None:
    if bad.any():
        key, chunk = place(int(bad.argmax()))
        raise error(message, key=key, chunk=chunk)


def _row(space: Fit, vector: Any, index: int, place: Place) -> Any:
    key, chunk = place(index)
    row = flat_floats(vector, key=key, chunk=chunk)
    if row.size != space.dimensions:
        raise DimensionMismatch(
            f"the vector has {row.size} dimensions, but space {space.name!r} (model"
            f" {space.model!r}) takes {space.dimensions}: embed with that model, or make a space"
            " for the other one",
            expected=space.dimensions,
            got=row.size,
            key=key,
            chunk=chunk,
        )
    return row


def pack_vectors(matrix: Matrix) -> list[bytes]:
    """Return each row as pgvector's binary input: length, two zero bytes, big-endian floats."""
    head = struct.pack(">HH", matrix.shape[1], 0)
    return [head + row.tobytes() for row in matrix.astype(">f4")]


# Square sums within which no number is too large or too small, for 2-byte floats neither.
_USUAL = (1e-3, 1e9)


def pack_vector(space: Fit, vector: Any) -> bytes:
    """Return one vector as pgvector's binary input, if it fits the space.

    Raises:
        InvalidVector: see ``check_vectors``, which is asked when anything looks odd.
    """
    row = vector if isinstance(vector, np.ndarray) and vector.dtype.kind == "f" else None
    if row is None or row.shape != (space.dimensions,):
        return pack_vectors(check_vectors(space, [vector]))[0]
    # One pass instead of six: a query has a single vector, and its search is a millisecond.
    with np.errstate(over="ignore"):
        norm = float(row.dot(row))
    if not _USUAL[0] < norm < _USUAL[1]:
        return pack_vectors(check_vectors(space, [vector]))[0]
    return struct.pack(">HH", space.dimensions, 0) + row.astype(">f4").tobytes()
