"""The matrix as tables, in Markdown, and the pages that they stand in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from tests.matrix.case import Kind
from tests.matrix.harness import Mode, Outcome

DOCS = Path(__file__).parents[2] / "docs" / "database"
PAGE = DOCS / "autogenerate.md"
ROWS_PAGE = DOCS / "autogenerate-rows.md"
KINDS: dict[Kind, str] = {
    "change": "changes",
    "decision": "changes that need a decision",
    "control": "controls",
}
_NAMES: dict[Mode, str] = {"ours": "ragstore", "stock": "stock Alembic"}

Rows = Mapping[Mode, Sequence[Outcome]]


def verdict(outcome: Outcome) -> str:
    """Return what became of a row in a word or two."""
    if outcome.case.kind == "control":
        return "nothing" if not outcome.problems else "**found something**"
    if outcome.detected is False:
        return "**missed**"
    if not outcome.problems:
        return "asks" if outcome.asks else "runs" if outcome.asks is False else "both ways"
    for fact, word in (
        ("kept", "loses rows"),
        ("upgrades", "fails"),
        ("equals", "another schema"),
        ("clean", "found again"),
        ("downgrades", "no way back"),
        ("restored", "another schema after the downgrade"),
    ):
        if getattr(outcome, fact) is False:
            return f"**{word}**"
    return "**wrong**"


def figures(outcomes: Iterable[Outcome]) -> str:
    """Return how many rows are as they should be, and what became of the others."""
    every = list(outcomes)
    good = sum(not each.problems for each in every)
    bad = [each for each in every if each.problems]
    false = sum(each.case.kind == "control" for each in bad)
    missed = sum(each.case.kind != "control" and each.detected is False for each in bad)
    counts = {"missed": missed, "wrong": len(bad) - false - missed, "false": false}
    rest = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return f"{good} of {len(every)}" + (f" ({rest})" if rest else "")


def _table(rows: Rows, head: str, groups: Mapping[str, str]) -> list[str]:
    """Return a line for each group, by the ``head`` attribute of its cases."""
    lines = [f"| | {' | '.join(_NAMES[mode] for mode in rows)} |", "|---" * (len(rows) + 1) + "|"]
    for group, name in groups.items():
        chosen = [
            [each for each in outcomes if getattr(each.case, head) == group]
            for outcomes in rows.values()
        ]
        if any(chosen):
            lines.append(f"| {name} | {' | '.join(map(figures, chosen))} |")
    return lines


def _topics(rows: Rows) -> dict[str, str]:
    return {each.case.topic: each.case.topic for outcomes in rows.values() for each in outcomes}


def summary(rows: Rows, server: str, skipped: Iterable[str] = ()) -> str:
    """Return the figures of a run: by kind, and by topic."""
    names = ("alembic", "sqlalchemy", "sqlmodel", "psycopg")
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    lines = [f"Run on {server}; {packages}.", "", *_table(rows, "kind", KINDS)]
    lines += ["", *_table(rows, "topic", _topics(rows))]
    if left := sorted(skipped):
        lines += ["", f"Not run on this server: {', '.join(left)}."]
    return "\n".join(lines)


def one_line(rows: Rows, server: str, skipped: Iterable[str] = ()) -> str:
    """Return what a run of ours alone, on an older server, says beside the table."""
    left = len(list(skipped))
    wrong = ", ".join(f"`{each.case.id}`" for each in rows["ours"] if each.problems)
    return (
        f"{server}: {figures(rows['ours'])}"
        + (f"; {left} need what this server does not have" if left else "")
        + (f"; not as it should be: {wrong}" if wrong else "")
        + "."
    )


def listing(rows: Rows) -> str:
    """Return every row, by topic and kind."""
    lines: list[str] = []
    modes = list(rows)
    for topic in _topics(rows):
        found = [line for line in zip(*rows.values(), strict=True) if line[0].case.topic == topic]
        names = " | ".join(_NAMES[mode] for mode in modes)
        lines += ["", f"## {topic}", "", f"| row | kind | {names} |"]
        lines.append("|---" * (len(modes) + 2) + "|")
        for line in sorted(found, key=lambda each: list(KINDS).index(each[0].case.kind)):
            case = line[0].case
            lines.append(f"| {case.id} | {case.kind} | {' | '.join(map(verdict, line))} |")
    return "\n".join(lines).strip()


def write(text: str, mark: str, page: Path = PAGE) -> None:
    """Put the text between the two marks of a page, and leave the rest of it as it is.

    Raises:
        ValueError: the page does not have them, in this order, once.
    """
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    content = page.read_text(encoding="utf-8")
    before, _, rest = content.partition(begin)
    _, _, after = rest.partition(end)
    if content.count(begin) != 1 or content.count(end) != 1 or end not in rest:
        raise ValueError(f"{page} lacks the marks {begin} and {end}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
