"""Text files as documents: found, read, split into passages. For the quickstart."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ragstore.content import NewDocument
from ragstore.exceptions import InvalidInput
from ragstore.models import DOCUMENTS

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

SUFFIXES = (".md", ".markdown", ".txt", ".rst")

PASSAGE = 1_200
"""The longest passage, in characters."""

_SHOWN = 10  # notes in an error


@dataclass(frozen=True)
class Corpus:
    """Documents ready to ingest, where they come from, and what was left out."""

    source: str
    documents: Sequence[NewDocument]
    notes: Sequence[str] = ()

    @property
    def passages(self) -> int:
        """Return the number of passages of all documents."""
        return sum(len(document.chunks) for document in self.documents)

    @property
    def filter(self) -> ColumnElement[bool]:
        """Return the condition that a passage is of these documents.

        All runs of the quickstart share one collection; each searches what it has read itself.
        """
        from sqlalchemy import Text, any_, literal
        from sqlalchemy.dialects.postgresql import ARRAY

        keys = [document.key for document in self.documents]
        return DOCUMENTS.c.key == any_(literal(keys, ARRAY(Text)))


def read_reference() -> Corpus:
    """Return the Python language reference, which comes with Python: a document for each topic."""
    from pydoc_data.topics import topics

    documents = [_document(topic, text, ".txt") for topic, text in sorted(topics.items())]
    return Corpus("the Python language reference", [found for found in documents if found])


def read_files(paths: Sequence[Path]) -> Corpus:
    """Return files, and those below directories: .md, .markdown, .txt and .rst.

    A document's key is the file's path from the parent of the path it was given by, so it is the
    same wherever the command runs. Hidden files and directories are passed over, and noted is
    what is empty or cannot be read.

    Raises:
        InvalidInput: there is no such path, or no readable file.
    """
    documents: dict[str, NewDocument] = {}
    notes: list[str] = []
    for key, file in _find_files(paths, notes).items():
        text = _read(file, notes)
        document = _document(key, text, file.suffix.lower()) if text is not None else None
        if document is not None:
            documents[key] = document
        elif text is not None:
            notes.append(f"{file}: skipped, it is empty")
    if not documents:
        reasons = "".join(f"\n  - {note}" for note in notes[:_SHOWN])
        raise InvalidInput(
            f"There is nothing to read in {_listed(paths)}: the quickstart takes"
            f" {', '.join(SUFFIXES)} files of UTF-8{reasons}"
        )
    return Corpus(_listed(paths), list(documents.values()), notes)


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(str(path) for path in paths)


def _find_files(paths: Sequence[Path], notes: list[str]) -> dict[str, Path]:
    """Return the files by their keys.

    Raises:
        InvalidInput: a path does not exist, is no text, or gives a key that another one gave.
    """
    found: dict[str, Path] = {}
    for given in paths:
        top = Path(os.path.abspath(given))  # noqa: PTH100 - resolve() would follow a link's name
        for file in _files_of(given, top, notes):
            key = file.relative_to(top.parent).as_posix()
            if found.setdefault(key, file) != file:
                raise InvalidInput(
                    f"{found[key]} and {file} would both be the document {key!r}: give a directory"
                    " that holds both"
                )
    return found


def _files_of(given: Path, top: Path, notes: list[str]) -> Iterator[Path]:
    if not top.exists():
        raise InvalidInput(f"There is no file or directory {str(given)!r}")
    if not top.is_dir():
        if top.suffix.lower() not in SUFFIXES:
            raise InvalidInput(
                f"{str(given)!r} is not read: the quickstart takes {', '.join(SUFFIXES)} files,"
                " and directories of them"
            )
        yield top
        return

    def unreadable(error: OSError) -> None:
        notes.append(f"{error.filename}: skipped, {error.strerror}")

    for directory, below, names in os.walk(top, onerror=unreadable):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(directory, name)


def _read(file: Path, notes: list[str]) -> str | None:
    """Return the text that Postgres can store, or None and a note."""
    try:
        str(file).encode()
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeError as exc:
        what = "its name" if isinstance(exc, UnicodeEncodeError) else "it"
        notes.append(f"{_printable(file)}: skipped, {what} is not UTF-8")
        return None
    except OSError as exc:
        notes.append(f"{file}: skipped, {exc.strerror}")
        return None
    if nuls := text.count("\0"):
        notes.append(f"{file}: read without its {nuls} NUL bytes, which Postgres cannot store")
    return text.replace("\0", "")


def _printable(file: Path) -> str:
    return str(file).encode(errors="surrogateescape").decode(errors="replace")


def _document(key: str, text: str, suffix: str) -> NewDocument | None:
    """Split a text into passages; return None if it has none."""
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

    splitter = MarkdownSplitter if suffix in {".md", ".markdown"} else TextSplitter
    passages = [passage for passage in splitter(PASSAGE).chunks(text) if passage.strip()]
    return NewDocument(key, passages, title=_title(text)) if passages else None


def _title(text: str) -> str | None:
    """Return the first heading of Markdown, else the first line that has a word."""
    heading = re.search(r"^#{1,6}[ \t]+(.*\w.*)$", text, re.MULTILINE)
    line = heading or re.search(r"^(.*\w.*)$", text, re.MULTILINE)
    return line[1].strip(" \t#")[:100] if line else None
