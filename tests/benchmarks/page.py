"""The page that holds the tables as they were last measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def replaced(page: str, title: str, lines: Sequence[str]) -> str:
    """Return the page with the first block of text under a heading replaced.

    Raises:
        ValueError: the page has no such heading with a block under it.
    """
    under = rf"(^## {re.escape(title)}\n(?:(?!^## ).*\n)*?^```text\n)(?:.*\n)*?(^```$)"
    block = "".join(f"{line.rstrip()}\n" for line in lines)
    found, count = re.subn(
        under, lambda match: match[1] + block + match[2], page, count=1, flags=re.MULTILINE
    )
    if not count:
        raise ValueError(f"The page has no heading {title!r} with a block of text under it")
    return found


def write(title: str, lines: Sequence[str], path: Path = PAGE) -> None:
    """Write a table into the page."""
    path.write_text(replaced(path.read_text(), title, lines))
