"""Documents and chunks on their way in: what they look like, and what is refused.

Everything is checked here, before any statement, because the database says it later and worse: a
NUL byte has three different errors, and one bad row ends a COPY of a thousand good ones.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ragstore.exceptions import (
    DuplicateKey,
    EmptyChunk,
    EmptyDocument,
    InvalidInput,
    InvalidMetadata,
    InvalidText,
    InvalidVector,
    LoneSurrogate,
    MetadataTooDeep,
    MetadataTooLarge,
    NulByte,
    TextTooLong,
)
from ragstore.models import MAX_KEY_BYTES, MAX_TEXT_BYTES

MAX_METADATA_BYTES = 65_536
"""The largest metadata of a document or chunk, as JSON."""

MAX_METADATA_DEPTH = 32
"""How deeply metadata may be nested; Postgres and Python both give up somewhere beyond 1,000."""

_MAX_INTEGER_BITS = 14_000  # Python writes and reads no integer beyond 4,300 digits
_INTEGER_END = 2**31  # of a Postgres integer


@dataclass(frozen=True)
class NewChunk:
    """A passage to store. ``vector`` may be left out where ``embed`` makes it."""

    text: str
    vector: Sequence[float] | np.ndarray[Any, Any] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    token_count: int | None = None


@dataclass(frozen=True)
class NewDocument:
    """A document to store, under a key of yours; a plain string is a chunk too.

    Ingesting the same key again replaces the document, or does nothing if it is the same.
    """

    key: str
    chunks: Sequence[NewChunk | str]
    title: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PreparedChunk:
    """A checked chunk, its metadata as JSON; without a ``language`` it takes the collection's."""

    ordinal: int
    text: str
    meta: str
    token_count: int | None
    vector: npt.NDArray[np.float32] | None
    content_hash: bytes
    language: str | None = None


@dataclass(frozen=True)
class PreparedDocument:
    """A checked document. ``content_hash`` covers all that is stored, given vectors included."""

    key: str
    title: str | None
    meta: str
    chunks: tuple[PreparedChunk, ...]
    content_hash: bytes


Refuse = Callable[[InvalidInput], None]
"""Told what is wrong with a document: raises it, or notes it so that the document is left out."""


def raise_it(error: InvalidInput) -> None:
    """Refuse a document, and all that come with it."""
    raise error


def prepare_batch(
    documents: Iterable[NewDocument], refuse: Refuse = raise_it
) -> list[PreparedDocument]:
    """Check documents and return them sorted by key, the order in which rows are locked.

    Raises:
        InvalidInput: the first thing that is wrong, with its document's key and chunk; unless
            ``refuse`` notes it.
    """
    prepared: dict[str, PreparedDocument] = {}
    for document in documents:
        try:
            ready = prepare(document)
            if ready.key in prepared:
                raise DuplicateKey(
                    "this key stands twice in one batch, and the second document would replace the"
                    " first: give each its own key",
                    key=ready.key,
                )
        except InvalidInput as exc:  # noqa: PERF203 - the price is nothing beside the checks
            refuse(exc)
        else:
            prepared[ready.key] = ready
    return [prepared[key] for key in sorted(prepared)]


def prepare(document: NewDocument) -> PreparedDocument:
    """Check one document and return it as it will be stored."""
    if not isinstance(document, NewDocument):
        raise InvalidInput(
            f"expected NewDocument(key, chunks), got {type(document).__name__}: build one from it"
        )
    key = _checked_key(document.key)
    _check_chunks(document.chunks, key)
    title = document.title
    if title is not None:
        check_text(title, "the title", MAX_KEY_BYTES, key=key, field="title")
    meta = metadata_json(document.meta, key=key)
    chunks = tuple(_prepare_chunk(chunk, key, at) for at, chunk in enumerate(document.chunks))
    digest = hashlib.sha256(json.dumps([title, meta]).encode())
    for chunk in chunks:
        digest.update(chunk.content_hash)
    return PreparedDocument(key, title, meta, chunks, digest.digest())


def _checked_key(key: str) -> str:
    known = key if isinstance(key, str) else None
    check_text(key, "the key", MAX_KEY_BYTES, key=known, field="key")
    if not key:
        raise InvalidText(
            "a document has an empty key: give it one, as its path or URI", field="key"
        )
    return key


def _check_chunks(chunks: Any, key: str) -> None:
    if isinstance(chunks, str) or not isinstance(chunks, Sequence):
        raise InvalidInput(
            f"its chunks are {type(chunks).__name__}, not a list of NewChunk or str: pass"
            " [text] or list(chunks)",
            key=key,
            field="chunks",
        )
    if not chunks:
        raise EmptyDocument("it has no chunks: split its text, or leave the document out", key=key)


def check_text(
    text: str,
    what: str,
    limit: int,
    *,
    key: str | None = None,
    chunk: int | None = None,
    field: str | None = None,
) -> str:
    """Return ``text`` if Postgres can store it in ``limit`` bytes of UTF-8.

    Raises:
        InvalidText: it is not a string, or one of the kinds below.
        NulByte, LoneSurrogate, TextTooLong: naming ``what`` and, for the first two, the offset.
    """
    problem = _problem_of_checked(text, what, limit)
    if problem is not None:
        kind, message = problem
        raise kind(message, key=key, chunk=chunk, field=field)
    return text


def _problem_of_checked(text: Any, what: str, limit: int) -> Problem | None:
    if not isinstance(text, str):
        return InvalidText, f"{what} is {type(text).__name__}, not str"
    if (at := text.find("\0")) >= 0:
        message = f"{what} has a NUL character at {at}, which Postgres cannot store: remove it with"
        return NulByte, f"{message} text.replace('\\0', '')"
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as exc:  # not raised from: it quotes the whole text
        message = f"{what} has half of a surrogate pair at {exc.start}, which UTF-8 cannot encode"
        return LoneSurrogate, f"{message}: replace it with text.encode('utf-8', 'replace').decode()"
    if size <= limit:
        return None
    message = f"{what} has {size:,} bytes, and {limit:,} is the limit: shorten or split it"
    return TextTooLong, message


def metadata_json(
    meta: Mapping[str, Any], *, key: str | None = None, chunk: int | None = None
) -> str:
    """Return metadata as canonical JSON: keys sorted, nothing Postgres would refuse.

    Raises:
        InvalidMetadata: a value has no JSON form; the message names its path.
        MetadataTooDeep, MetadataTooLarge: beyond the limits of this module.
    """
    if not isinstance(meta, Mapping):
        raise InvalidMetadata(
            f"metadata is {type(meta).__name__}, not a mapping", key=key, chunk=chunk
        )
    if not meta:
        return "{}"
    text = _json_of_simple(meta)
    if text is None:
        plain = dict(meta)
        if (problem := _problem(plain, "meta", MAX_METADATA_DEPTH)) is not None:
            kind, message = problem
            raise kind(message, key=key, chunk=chunk, field="meta")
        text = _ENCODER.encode(plain)
    if (size := len(text if text.isascii() else text.encode())) > MAX_METADATA_BYTES:
        raise MetadataTooLarge(
            f"metadata has {size:,} bytes as JSON, and {MAX_METADATA_BYTES:,} is the limit: keep"
            " large values in a table of your own",
            key=key,
            chunk=chunk,
        )
    return text


_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _json_of_simple(meta: Mapping[Any, Any]) -> str | None:
    """Return what the encoder would, of most metadata: one level of plain words and numbers.

    Of anything else, None. Half of the time that checking a chunk takes would go into the full
    look and the encoder.
    """
    parts = []
    for name, value in meta.items():
        if type(name) is not str or not (name.isascii() and name.isidentifier()):
            return None
        kind = type(value)
        if kind is int:
            if not -_INTEGER_END <= value < _INTEGER_END:
                return None
            parts.append(f'"{name}":{value}')
        elif kind is str:
            if not _is_plain(value):
                return None
            parts.append(f'"{name}":"{value}"')
        elif kind is bool or value is None:
            parts.append(f'"{name}":{_CONSTANTS[value]}')
        else:
            return None
    # A quote sorts before whatever a name may go on with: this is the order of the names.
    parts.sort()
    return f"{{{','.join(parts)}}}"


def _is_plain(text: str) -> bool:
    """Tell whether a text stands in JSON as it is."""
    return text.isascii() and text.isprintable() and '"' not in text and "\\" not in text


_CONSTANTS = {None: "null", False: "false", True: "true"}


Problem = tuple[type[InvalidInput], str]


def _problem(value: Any, path: str, depth: int) -> Problem | None:
    """Return what is wrong with a JSON value, or with the first wrong thing inside it."""
    if isinstance(value, str):
        return _problem_of_text(value, path)
    if isinstance(value, dict | list | tuple):
        return _problem_inside(value, path, depth)
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int):
        return _problem_of_integer(value, path)
    if isinstance(value, float):
        if math.isfinite(value):
            return None
        return InvalidMetadata, f"{path} is {value}, which JSON cannot say: leave it out"
    return (
        InvalidMetadata,
        f"{path} is {type(value).__name__}, which has no JSON form: convert it (.isoformat())",
    )


def _problem_of_integer(value: int, path: str) -> Problem | None:
    if value.bit_length() <= _MAX_INTEGER_BITS:
        return None
    return InvalidMetadata, f"{path} is an integer of thousands of digits: write it as a string"


def _problem_inside(value: Any, path: str, depth: int) -> Problem | None:
    if depth == 0:
        return MetadataTooDeep, f"metadata is nested more than {MAX_METADATA_DEPTH} levels deep"
    if not isinstance(value, dict):
        items = ((f"{path}[{at}]", each) for at, each in enumerate(value))
        return _first(_problem(each, inside, depth - 1) for inside, each in items)
    for name in value:
        if not isinstance(name, str):
            return InvalidMetadata, f"{path} has the key {name!r}, which is not a string"
        if problem := _problem_of_text(name, f"a key of {path}"):
            return problem
    return _first(_problem(each, f"{path}.{name}", depth - 1) for name, each in value.items())


def _problem_of_text(text: str, path: str) -> Problem | None:
    if "\0" in text:
        return NulByte, f"{path} has a NUL character, which Postgres cannot store: remove it"
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        return LoneSurrogate, f"{path} has half of a surrogate pair, which UTF-8 cannot encode"
    return None


def _first(problems: Iterable[Problem | None]) -> Problem | None:
    return next((problem for problem in problems if problem is not None), None)


def flat_floats(
    vector: Any, *, key: str | None = None, chunk: int | None = None
) -> npt.NDArray[np.float32]:
    """Return a vector as an array of 4-byte floats, as it is stored; infinity where one is larger.

    Raises:
        InvalidVector: it is not a flat sequence of numbers; numpy would read ``["1"]`` as one.
    """
    if type(vector) is np.ndarray and vector.dtype == np.float32 and vector.ndim == 1:
        return vector
    try:
        array = np.asarray(vector)
    except (TypeError, ValueError, RuntimeError) as exc:  # RuntimeError: torch's
        raise InvalidVector(_not_numbers(vector), key=key, chunk=chunk) from exc
    if array.dtype.kind not in "fiu" or array.ndim != 1:
        axes = f" of {array.ndim} axes" if array.ndim > 1 else ""
        raise InvalidVector(_not_numbers(vector) + axes, key=key, chunk=chunk)
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


def _not_numbers(vector: Any) -> str:
    return f"a vector is a flat sequence of numbers, not {type(vector).__name__}"


def _prepare_chunk(chunk: NewChunk | str, key: str, at: int) -> PreparedChunk:
    if isinstance(chunk, str):
        chunk = NewChunk(chunk)
    if not isinstance(chunk, NewChunk):
        raise InvalidInput(
            f"expected NewChunk or str, got {type(chunk).__name__}",
            key=key,
            chunk=at,
            field="chunks",
        )
    text = check_text(chunk.text, "the text", MAX_TEXT_BYTES, key=key, chunk=at, field="text")
    if text.isspace() or not text:
        raise EmptyChunk("it has no text: leave it out", key=key, chunk=at)
    meta = metadata_json(chunk.meta, key=key, chunk=at)
    _check_token_count(chunk.token_count, key, at)
    vector = None if chunk.vector is None else flat_floats(chunk.vector, key=key, chunk=at)
    # Not JSON, but each part behind its length: hashing is a cost of every ingest.
    head = f"{len(text)} {len(meta)} {chunk.token_count} {meta}{text}"
    digest = hashlib.sha256(head.encode())
    if vector is not None:
        digest.update(vector.tobytes())
    return PreparedChunk(at, text, meta, chunk.token_count, vector, digest.digest())


def _check_token_count(count: Any, key: str, at: int) -> None:
    if count is None:
        return
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count < _INTEGER_END:
        raise InvalidInput(
            f"its token_count is {type(count).__name__} {count!r:.20}: it takes None or a whole"
            " number from 0 to 2,147,483,647",
            key=key,
            chunk=at,
            field="token_count",
        )
