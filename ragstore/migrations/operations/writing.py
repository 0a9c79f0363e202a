"""Python text of a call, as a formatter would leave it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.sql.elements import conv

WIDTH = 84
"""Columns for a call; the file indents it by four more."""

_INDENT = "    "
# A long text is cut before a space, so that each piece but the first begins with one, and after
# the end of a line.
_CUT = re.compile(r"[^\n]*\n|[^\n]+")


def call(prefix: str, verb: str, facts: Sequence[Any], keywords: Mapping[str, Any]) -> str:
    """Return ``op.verb(facts, keyword=…)``: one line if it fits, else a line for each argument."""
    short = [_short(fact, prefix) for fact in facts]
    short += [f"{name}={_short(value, prefix)}" for name, value in keywords.items()]
    line = f"{prefix}{verb}({', '.join(short)})"
    if len(line) <= WIDTH:
        return line
    long = [_long(fact, prefix, "") for fact in facts]
    long += [_long(value, prefix, f"{name}=") for name, value in keywords.items()]
    return f"{prefix}{verb}(\n{''.join(f'{_INDENT}{one},{chr(10)}' for one in long)})"


def string(text: str) -> str:
    """Return a string literal of Python, in double quotes where that needs no backslash."""
    written = repr(str(text))
    plain = written[0] == "'" and '"' not in written
    return f'"{written[1:-1]}"' if plain else written


def _short(value: Any, prefix: str) -> str:
    if isinstance(value, str):
        return f"{prefix}f({string(value)})" if isinstance(value, conv) else string(value)
    if isinstance(value, Mapping):
        items = (f"{string(key)}: {_short(one, prefix)}" for key, one in value.items())
        return f"{{{', '.join(items)}}}"
    if isinstance(value, (list, tuple)):
        inside = ", ".join(_short(one, prefix) for one in value)
        if isinstance(value, list):
            return f"[{inside}]"
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    return repr(value)


def _long(value: Any, prefix: str, name: str) -> str:
    """Write an argument on lines of its own, all but the first with their indentation."""
    short = name + _short(value, prefix)
    if len(_INDENT) + len(short) + 1 <= WIDTH:
        return short
    if isinstance(value, Mapping):
        items = [f"{string(key)}: {_short(one, prefix)}" for key, one in value.items()]
        return _bracketed(name + "{", items, "}")
    if isinstance(value, list):
        return _bracketed(name + "[", [_short(one, prefix) for one in value], "]")
    if isinstance(value, str) and not isinstance(value, conv):
        pieces = [string(piece) for piece in _pieces(value, WIDTH - 2 * len(_INDENT))]
        return name + f"\n{_INDENT}".join(pieces)
    return short


def _bracketed(start: str, items: Sequence[str], end: str) -> str:
    lines = "".join(f"{_INDENT * 2}{item},\n" for item in items)
    return f"{start}\n{lines}{_INDENT}{end}"


def _pieces(text: str, width: int) -> list[str]:
    return [piece for line in _CUT.findall(text) for piece in _folded(line, width)]


def _folded(line: str, width: int) -> list[str]:
    pieces = [""]
    for word in re.findall(r"\s*\S+|\s+$", line):
        if pieces[-1] and len(string(pieces[-1] + word)) > width:
            pieces.append("")
        pieces[-1] += word
    return pieces


def is_plain(text: str) -> bool:
    """Tell a text that stays what it is between three quotes, indented and written by Alembic."""
    lines = text.split("\n")
    return (
        '"""' not in text
        and "\\" not in text
        and all(line.isprintable() for line in (one.replace("\t", " ") for one in lines))
        and all(line == line.rstrip() for line in lines)
    )


def block(text: str) -> str:
    """Return a text of several lines in three quotes, indented; ``unblocked`` takes it back."""
    lines = "\n".join(f"{_INDENT}{line}" if line else "" for line in text.split("\n"))
    return f'"""\n{lines}\n"""'


def unblocked(text: str) -> str:
    """Return a text without the indentation of its first line, and without blank ends."""
    lines = text.strip("\n").split("\n")
    margin = lines[0][: len(lines[0]) - len(lines[0].lstrip())]
    return "\n".join(line.removeprefix(margin) for line in lines).rstrip()
