"""The matrix as a table, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

from tests.matrix.case import Kind
from tests.matrix.harness import Mode, Outcome

BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"
PAGE = Path(__file__).parents[2] / "docs" / "database" / "autogenerate.md"
_HEADS: dict[Kind, str] = {
    "change": "Changes",
    "control": "Controls: nothing may be found",
    "decision": "Changes that need a decision where there are rows",
}
_NAMES: dict[Mode, str] = {"ours": "ragstore", "stock": "stock Alembic"}

Rows = Mapping[Mode, list[Outcome]]


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


def totals(rows: Rows) -> list[str]:
    """Return a table of figures, a line for each kind and comparison."""
    lines = [
        "| | rows | found | as it should be | fails or wrong | false |",
        "|---|---|---|---|---|---|",
    ]
    for kind, head in _HEADS.items():
        for mode, outcomes in rows.items():
            of_kind = [outcome for outcome in outcomes if outcome.case.kind == kind]
            if of_kind:
                lines.append(
                    f"| {head.split(':')[0]}, {_NAMES[mode]} | {_figures(kind, of_kind)} |"
                )
    return lines


def _figures(kind: Kind, outcomes: list[Outcome]) -> str:
    good = sum(not outcome.problems for outcome in outcomes)
    found = sum(bool(outcome.detected) for outcome in outcomes)
    if kind == "control":
        return f"{len(outcomes)} | {found} | {good} | | {len(outcomes) - good}"
    return f"{len(outcomes)} | {found} | {good} | {found - good} | "


def table(rows: Rows) -> list[str]:
    """Return every row, by kind."""
    lines: list[str] = []
    modes = list(rows)
    for kind, head in _HEADS.items():
        found = [line for line in zip(*rows.values(), strict=True) if line[0].case.kind == kind]
        if not found:
            continue
        names = " | ".join(_NAMES[mode] for mode in modes)
        lines += ["", f"### {head}", "", f"| row | {names} |"]
        lines.append("|---" * (len(modes) + 1) + "|")
        for line in found:
            lines.append(f"| {line[0].case.id} | " + " | ".join(map(verdict, line)) + " |")
    return lines


def document(rows: Rows, server: str, skipped: Iterable[str]) -> str:
    """Return the part of the page that a run writes."""
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("alembic", "sqlalchemy", "sqlmodel", "psycopg")
    )
    lines = [f"Run on {server}; {packages}.", "", *totals(rows)]
    if left := sorted(skipped):
        lines += ["", f"Not run on this server: {', '.join(left)}."]
    return "\n".join([*lines, *table(rows)])


def write(text: str, page: Path = PAGE) -> None:
    """Put the text between the two marks of a page.

    Raises:
        ValueError: the page does not have them.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} lacks the marks {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
