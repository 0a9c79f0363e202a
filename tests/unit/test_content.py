"""What a document may hold, and how a document that may not be stored is told apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragstore import NewChunk, NewDocument, exceptions
from ragstore.content import (
    MAX_METADATA_BYTES,
    MAX_METADATA_DEPTH,
    metadata_json,
    prepare,
    prepare_batch,
)
from ragstore.models import MAX_KEY_BYTES, MAX_TEXT_BYTES


def nested(depth: int) -> dict[str, Any]:
    """Return metadata of that many levels."""
    meta: Any = 1
    for _ in range(depth):
        meta = {"a": meta}
    return dict(meta)


def cyclic() -> dict[str, Any]:
    """Return metadata that holds itself."""
    meta: dict[str, Any] = {}
    meta["self"] = [meta]
    return meta


def document(*chunks: Any, **fields: Any) -> NewDocument:
    """Return a document, of one chunk unless told otherwise."""
    return NewDocument(**{"key": "a", "chunks": list(chunks) or ["text"], **fields})


E_MIXED = "é" * (MAX_TEXT_BYTES // 2)
BAD = [
    # what is wrong, the document, the error, what its message says
    ("NUL in text", document("fine", "a\0b"), "NulByte", ["'a', chunk 1", "at 1", "replace"]),
    ("NUL in key", document(key="a\0b"), "NulByte", [r"a\x00b", "the key", "at 1"]),
    ("NUL in title", document(title="\0"), "NulByte", ["'a'", "the title", "at 0"]),
    ("surrogate in text", document("ab\udc80"), "LoneSurrogate", ["chunk 0", "at 2", "encode"]),
    ("surrogate in key", document(key="\ud800"), "LoneSurrogate", [r"\ud800", "the key"]),
    ("surrogate in title", document(title="x\udfff"), "LoneSurrogate", ["the title", "at 1"]),
    ("long text", document("x" * (MAX_TEXT_BYTES + 1)), "TextTooLong", ["262,145", "262,144"]),
    ("long multi-byte text", document(E_MIXED + "x"), "TextTooLong", ["262,145 bytes", "split"]),
    ("long key", document(key="é" * 513), "TextTooLong", ["the key", "1,026", "1,024"]),
    ("long title", document(title="é" * 513), "TextTooLong", ["'a'", "the title", "1,026"]),
    ("empty key", document(key=""), "InvalidText", ["empty key", "path or URI"]),
    ("key of another type", document(key=5), "InvalidText", ["the key is int, not str"]),
    ("title of another type", document(title=b"x"), "InvalidText", ["the title is bytes"]),
    ("text of another type", document(NewChunk(None)), "InvalidText", ["NoneType, not str"]),  # type: ignore[arg-type]
    ("no chunks", document(chunks=[]), "EmptyDocument", ["'a'", "no chunks", "leave"]),
    ("a string of chunks", document(chunks="text"), "InvalidInput", ["'a'", "are str", "[text]"]),
    ("a generator", document(chunks=iter("x")), "InvalidInput", ["str_", "list(chunks)"]),
    ("chunks None", document(chunks=None), "InvalidInput", ["are NoneType", "'a'"]),
    ("chunks array", document(chunks=np.zeros(2)), "InvalidInput", ["are ndarray"]),
    ("a blank chunk", document("x", " \n\t"), "EmptyChunk", ["chunk 1", "leave it out"]),
    ("a chunk of another type", document(5), "InvalidInput", ["chunk 0", "got int"]),
    ("not a document", {"key": "a"}, "InvalidInput", ["NewDocument(key, chunks)", "got dict"]),
    ("token_count text", document(NewChunk("x", token_count="5")), "InvalidInput", ["str '5'"]),  # type: ignore[arg-type]
    ("token_count < 0", document(NewChunk("x", token_count=-1)), "InvalidInput", ["token_count"]),
    ("token_count big", document(NewChunk("x", token_count=2**31)), "InvalidInput", ["2,147"]),
    ("token_count bool", document(NewChunk("x", token_count=True)), "InvalidInput", ["bool"]),
    ("string vector", document(NewChunk("x", vector="1.5")), "InvalidVector", ["not str"]),  # type: ignore[arg-type]
    ("ragged vector", document(NewChunk("x", [[1], [2, 3]])), "InvalidVector", ["chunk 0"]),  # type: ignore[list-item]
    ("metadata list", document(meta=[1]), "InvalidMetadata", ["'a'", "list, not a mapping"]),
    ("metadata None", document(meta=None), "InvalidMetadata", ["NoneType, not a mapping"]),
    ("metadata NaN", document(meta={"a": [0.0, float("nan")]}), "InvalidMetadata", ["meta.a[1]"]),
    ("metadata infinity", document(meta={"a": float("-inf")}), "InvalidMetadata", ["-inf"]),
    ("metadata date", document(meta={"a": {"b": datetime.now(timezone.utc)}}), "InvalidMetadata",
     ["meta.a.b is datetime", "isoformat"]),
    ("metadata numpy", document(meta={"a": np.int64(1)}), "InvalidMetadata", ["meta.a is int64"]),
    ("metadata tuple key", document(meta={"a": {(1, 2): 1}}), "InvalidMetadata", ["(1, 2)"]),
    ("metadata set", document(meta={"a": {1}}), "InvalidMetadata", ["meta.a is set"]),
    ("metadata integer", document(meta={"a": 10**5000}), "InvalidMetadata", ["meta.a", "digits"]),
    ("metadata NUL key", document(meta={"a": {"b\0": 1}}), "NulByte", ["a key of meta.a"]),
    ("metadata NUL value", document(meta={"a": ["\0"]}), "NulByte", ["meta.a[0]"]),
    ("metadata surrogate key", document(meta={"\udc80": 1}), "LoneSurrogate", ["a key of meta"]),
    ("metadata surrogate", document(meta={"a": "\udc80"}), "LoneSurrogate", ["meta.a"]),
    ("metadata too deep", document(meta=nested(33)), "MetadataTooDeep", ["32 levels"]),
    ("metadata a bomb", document(meta=nested(5000)), "MetadataTooDeep", ["32 levels"]),
    ("metadata cyclic", document(meta=cyclic()), "MetadataTooDeep", ["32 levels"]),
    ("metadata too large", document(meta={"a": "é" * 32_768}), "MetadataTooLarge", ["65,536"]),
    ("chunk metadata", document("x", NewChunk("y", meta={"a": b""})), "InvalidMetadata",
     ["chunk 1"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "error", "parts"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
def test_document_that_cannot_be_stored_is_refused(bad: Any, error: str, parts: list[str]) -> None:
    """Each thing wrong has its own error, which names the place and the remedy, not the text."""
    with pytest.raises(exceptions.InvalidInput) as caught:
        prepare(bad)
    assert type(caught.value).__name__ == error
    message = str(caught.value)
    assert [part for part in parts if part not in message] == []
    assert len(message) < 500


def test_error_carries_key_and_chunk() -> None:
    """Code can find the chunk that was refused without reading the message."""
    with pytest.raises(exceptions.EmptyChunk) as caught:
        prepare(document("x", " ", key="path/to"))
    assert (caught.value.key, caught.value.chunk) == ("path/to", 1)


@pytest.mark.parametrize(
    "good",
    [
        document("x" * MAX_TEXT_BYTES),
        document(E_MIXED),
        document("😀" * (MAX_TEXT_BYTES // 4)),
        document(key="é" * (MAX_KEY_BYTES // 2), title="é" * (MAX_KEY_BYTES // 2)),
        document(title=""),
        document(chunks=("a", NewChunk("b"))),
        document(meta=nested(MAX_METADATA_DEPTH)),
        document(meta={"a": "x" * (MAX_METADATA_BYTES - len('{"a":""}'))}),
        document(meta={"a": 10**4000, "b": True, "c": None, "d": (1, 2.5), "é": "😀"}),
        document(meta=MappingProxyType({"a": 1})),
        document(NewChunk("x", token_count=2**31 - 1)),
    ],
    ids=map(str, range(11)),
)
def test_document_at_a_limit_is_taken(good: NewDocument) -> None:
    """Limits are in bytes and inclusive."""
    assert prepare(good).key == good.key


def test_unknown_document_is_refused_in_a_batch() -> None:
    """What is not a document is refused, whatever it looks like."""
    with pytest.raises(exceptions.InvalidInput, match="got str"):
        prepare_batch(["a"])  # type: ignore[list-item]


def test_batch_is_sorted_by_key() -> None:
    """Rows are locked in one order, whatever order they come in."""
    batch = prepare_batch([document(key=key) for key in "cab"])
    assert [each.key for each in batch] == ["a", "b", "c"]


def test_key_twice_in_a_batch_is_refused() -> None:
    """The second of two documents of one key would silently win."""
    with pytest.raises(exceptions.DuplicateKey, match=r"'a': .*twice") as caught:
        prepare_batch([document(), document(key="b"), document()])
    assert caught.value.key == "a"


def changes() -> list[NewDocument]:
    """Return documents that differ in one thing each."""
    return [
        document("one", "two"),
        document("one two"),
        document("two", "one"),
        document("one", "two", title="T"),
        document("one", "two", title=""),
        document("one", "two", meta={"a": 1}),
        document("one", "two", meta={"a": True}),
        document("one", NewChunk("two", meta={"a": 1})),
        document("one", NewChunk("two", token_count=1)),
        document("one", NewChunk("two", [1.0, 2.0])),
        document("one", NewChunk("two", [1.0, 3.0])),
        document(NewChunk("one", [1.0, 2.0]), "two"),
    ]


def test_content_hash_covers_all_that_is_stored() -> None:
    """A change of text, order, title, metadata, token count or vector is a change."""
    hashes = [prepare(each).content_hash for each in changes()]
    assert len(set(hashes)) == len(hashes)


def test_content_hash_ignores_what_is_not_stored() -> None:
    """The order of metadata keys and the precision beyond 4-byte floats change nothing."""
    single = np.array([0.1, 0.2], dtype=np.float32)
    same = [
        document(NewChunk("x", [0.1, 0.2], meta={"a": 1, "b": [2]})),
        document(NewChunk("x", (0.1, 0.2), meta={"b": (2,), "a": 1})),
        document(NewChunk("x", single, meta={"a": 1, "b": [2]})),
        document(NewChunk("x", single.astype(np.float64), meta={"a": 1, "b": [2]})),
    ]
    assert len({prepare(each).content_hash for each in same}) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)  # fmt: skip


@pytest.mark.parametrize(
    "meta",
    [
        {"ab": 1, "a": 2, "a_": 3, "B": 4, "a1": 5, "_": 6},
        {"page": -(2**31), "last": 2**31 - 1, "beyond": 2**31, "far": 10**40},
        {"yes": True, "no": False, "none": None, "part": 0.5},
        {"path": "a/b c.md?x=<1>&y='2'", "url": "https://example.org/a%20b"},
        {"quote": 'say "a"', "back": "a\\b", "line": "a\nb", "del": "\x7f", "accent": "é 漢 😀"},
        {"two words": 1, 'quo"te': 2, "é": 3, "": 4, "1": 5, "a-b": 6},
        {"list": [1, "a"], "object": {"b": 1, "a": 2}},
    ],
    ids=["order", "integers", "constants", "plain", "escaped", "names", "nested"],
)
def test_metadata_is_canonical_json(meta: Mapping[str, Any]) -> None:
    """Whatever way it is written, JSON is as the standard encoder writes it: hashes are kept."""
    canonical = json.dumps(meta, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert metadata_json(meta) == canonical


@given(st.dictionaries(st.text(), JSON))
def test_metadata_is_kept_or_refused_by_name(meta: Mapping[str, Any]) -> None:
    """Any JSON object survives, or is refused with an error of ours."""
    try:
        text = metadata_json(meta)
    except (exceptions.NulByte, exceptions.LoneSurrogate):
        return
    assert json.loads(text) == meta
