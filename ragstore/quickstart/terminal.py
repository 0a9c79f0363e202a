"""The quickstart on a terminal: each step's line, the answers as tables, what to do next."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from ragstore import quickstart
from ragstore.conf import settings
from ragstore.connection import DatabaseConnection
from ragstore.embedded import default_data_directory
from ragstore.embedding import Embed
from ragstore.quickstart import Migrated, Server
from ragstore.quickstart.corpus import Corpus, read_files, read_reference
from ragstore.report import IngestReport
from ragstore.search.result import Hit, SearchResult
from ragstore.store import Store
from ragstore.url import display_url, is_embedded

T = TypeVar("T")

SNIPPET = 200
"""The longest part of a passage that is shown, in characters."""

MAX_NOTES = 10


def run(paths: Sequence[Path], questions: Sequence[str]) -> None:
    """Take every step, and tell on stdout what each one did and how long it took.

    Raises:
        RagstoreError: a step failed; those before it stay done.
    """
    console, began = Console(highlight=False), time.perf_counter()
    quickstart.require_extras()
    quickstart.check_questions(questions)
    with quickstart.some_database() as is_set, DatabaseConnection() as connection:
        corpus = _read(console, paths)
        _prepare(console, is_set=is_set)
        store = Store(connection)
        embed = _open_collection(console, store)
        _ingest(console, store, corpus, embed)
        for question in questions or (() if paths else quickstart.QUESTIONS):
            _print_answer(console, question, quickstart.ask(store, corpus, embed, question))
        console.print(f"\nDone in {time.perf_counter() - began:.1f} s.")
        _print_next(console, paths, questions, is_set=is_set)


def _read(console: Console, paths: Sequence[Path]) -> Corpus:
    def told(corpus: Corpus) -> str:
        documents = _count(len(corpus.documents), "document")
        return f"{documents} of {corpus.source}, {_count(corpus.passages, 'passage')}"

    corpus = _step(console, "read", lambda: read_files(paths) if paths else read_reference(), told)
    _print_notes(console, corpus.notes)
    return corpus


def _prepare(console: Console, *, is_set: bool) -> None:
    url = settings.DATABASE_URL

    def told(server: Server) -> str:
        vector = f"pgvector {server.pgvector}" if server.pgvector else "no pgvector"
        where = f"the settings' DATABASE_URL, {display_url(url)}"
        if is_embedded(url):
            how = "started" if server.is_started else "joined"
            why = where if is_set else "as DB_DATABASE_URL is not set"
            home = "" if url.database else f" in {default_data_directory()}"
            where = f"{how} the embedded server{home}, {why}"
        return f"PostgreSQL {server.postgres}, {vector}: {where}"

    server = _step(console, "server", quickstart.find_server, told)
    name = url.query.get("database", "ragstore") if is_embedded(url) else url.database
    _step(
        console,
        "database",
        lambda: quickstart.make_database(server),
        lambda made: f"created {name}" if made else f"{name} is there",
    )
    _step(console, "migrations", quickstart.migrate, _told_migrations)


def _told_migrations(done: Migrated) -> str:
    what = f"{_count(done.applied, 'revision')} applied" if done.applied else "nothing to apply"
    return f"{what}, at {done.head}"


def _open_collection(console: Console, store: Store) -> Embed:
    def work() -> Embed:
        quickstart.make_collection(store)
        return quickstart.load_model()

    told = f"{quickstart.NAME}: vectors of wordllama, {quickstart.DIMENSIONS} dimensions, cosine"
    return _step(console, "collection", work, lambda _: told)


def _ingest(console: Console, store: Store, corpus: Corpus, embed: Embed) -> None:
    def work() -> IngestReport:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task("embedding", total=len(corpus.documents))
            return quickstart.ingest(
                store,
                corpus,
                embed,
                lambda report: progress.update(bar, completed=report.documents),
            )

    def told(report: IngestReport) -> str:
        made = f"; {_count(report.embedded, 'vector')}" if report.embedded else ""
        return (
            f"{_count(report.documents, 'document')}: {report.inserted} new,"
            f" {report.updated} changed, {report.unchanged} unchanged{made}"
        )

    _step(console, "ingest", work, told, quiet=True)


def _step(
    console: Console,
    name: str,
    work: Callable[[], T],
    told: Callable[[T], str],
    *,
    quiet: bool = False,
) -> T:
    """Do a step and print a line about it; meanwhile, on a terminal, that it is being done."""
    began = time.perf_counter()
    with ExitStack() as stack:
        if not quiet and console.is_terminal:
            stack.enter_context(console.status(f"{name} …"))
        result = work()
    line = Table.grid(padding=(0, 2), expand=True)
    line.add_column(width=10, style="bold cyan")
    line.add_column(ratio=1, overflow="fold")
    line.add_column(width=6, justify="right", style="dim")
    line.add_row(name, Text(told(result)), f"{time.perf_counter() - began:.1f} s")
    console.print(line)
    return result


def _print_notes(console: Console, notes: Sequence[str]) -> None:
    shown = [*notes[:MAX_NOTES]]
    if len(notes) > MAX_NOTES:
        shown.append(f"and {len(notes) - MAX_NOTES} more")
    for note in shown:
        console.print(f"  {note}", style="yellow", markup=False, soft_wrap=True)


def _print_answer(console: Console, question: str, result: SearchResult) -> None:
    console.print()
    console.print(Text(question, style="bold"), Text(f"({result.strategy} search)", style="dim"))
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", expand=True)
    table.add_column("score", width=6, style="cyan")
    table.add_column("source", width=22, overflow="fold")
    table.add_column("passage", ratio=1, overflow="fold")
    for text, hits in _by_text(result)[: quickstart.HITS]:
        table.add_row(f"{hits[0].score:.4f}", _sources(hits), _snippet(text, question))
        table.add_row()
    console.print(table)


def _by_text(result: SearchResult) -> list[tuple[str, list[Hit]]]:
    """Gather the hits that say the same: documents share passages."""
    gathered: dict[str, list[Hit]] = {}
    for hit in result:
        gathered.setdefault(_folded(hit.text), []).append(hit)
    return list(gathered.items())


def _folded(text: str) -> str:
    """Return a text on one line, without the rules that underline its headings."""
    return " ".join(re.sub(r"([*=~^\-])\1{3,}", " ", text).split())


def _sources(hits: Sequence[Hit]) -> Text:
    first, *others = hits
    source = Text(f"{first.document_key} #{first.ordinal}")
    if first.title:
        source.append(f"\n{first.title}", "dim")
    for hit in others:
        source.append(f"\nalso {hit.document_key} #{hit.ordinal}", "dim")
    return source


def _snippet(text: str, question: str) -> Text:
    """Return the part of a passage that has most of the question's words, those in bold."""
    pattern = _pattern_of(question)
    found = [match.start() for match in pattern.finditer(text)]
    best = max([0, *found], key=lambda at: _words_in(text[at : at + SNIPPET], pattern))
    start = text.rfind(" ", 0, best - 20) + 1 if best > SNIPPET // 4 else 0
    shown = text[start : start + SNIPPET]
    if start + SNIPPET < len(text):
        shown = (shown.rpartition(" ")[0] or shown) + " …"
    snippet = Text(("… " if start else "") + shown)
    snippet.highlight_regex(pattern, "bold")
    return snippet


def _pattern_of(question: str) -> re.Pattern[str]:
    """Return what finds the question's longer words, in any of their endings."""
    words = [word for word in re.findall(r"\w+", question) if len(word) > 3]
    stems = sorted({re.escape(word[: max(4, len(word) - 3)]) for word in words})
    return re.compile(rf"\b(?:{'|'.join(stems) or '(?!)'})\w*", re.IGNORECASE)


def _words_in(text: str, pattern: re.Pattern[str]) -> int:
    return len({found.lower() for found in pattern.findall(text)})


def _print_next(
    console: Console, paths: Sequence[Path], questions: Sequence[str], *, is_set: bool
) -> None:
    if paths and not questions:
        command = shlex.join(["ragstore", "quickstart", *map(str, paths), "--ask"])
        _print(console, f'Ask your documents: {command} "your question"')
    url = display_url(settings.DATABASE_URL)
    note = " (it knows already)" if is_set else ""
    _print(console, "Three things to do next:")
    for number, title, line in (
        (1, f"Tell your program which database this is{note}:", f"DB_DATABASE_URL={url}"),
        (2, "Use its tables:", "from ragstore.models import Document, Chunk, Embedding"),
        (3, "Change a model, and write the migration:", "alembic revision --autogenerate"),
    ):
        _print(console, f"  {number}. {title}")
        _print(console, f"     {line}", style="bold")


def _print(console: Console, text: str, style: str | None = None) -> None:
    """Print a line to copy from: not wrapped, nothing in it taken for markup."""
    console.print(text, style=style, markup=False, soft_wrap=True)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
