"""The quickstart: real text on a real server, from nothing to an answer.

The steps are plain functions that return what they did, in the order they are taken; telling
about them is the business of ``ragstore.quickstart.terminal``. They show the way an application
goes, too.
"""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragstore import migrations
from ragstore.conf import override_settings, settings
from ragstore.content import check_text
from ragstore.database import create_database, database_exists
from ragstore.driver import connect, resolve_url
from ragstore.embedding import Embed
from ragstore.exceptions import (
    DatabaseNotFound,
    DependencyMissing,
    ImproperlyConfigured,
    InvalidQuery,
    PermissionDenied,
)
from ragstore.models import MAX_KEY_BYTES
from ragstore.quickstart.corpus import Corpus
from ragstore.report import IngestReport, Progress
from ragstore.search.result import SearchResult
from ragstore.store import Store
from ragstore.url import is_embedded

if TYPE_CHECKING:
    from psycopg import Connection
    from sqlalchemy import URL

NAME = "quickstart"
"""What the space and the collection are called."""

MODEL, DIMENSIONS = "wordllama-l2-supercat-256", 256

QUESTIONS = (
    "how do I catch an exception",
    "what does yield do",
    "how do I format a string",
)
"""What the language reference is asked when nothing else is."""

BATCH = 64  # passages in a transaction: what the progress moves by
HITS = 3  # shown for a question; twice as many are asked for, as documents share passages


@dataclass(frozen=True)
class Server:
    """The server that was found, and whether this step has started it."""

    postgres: str
    pgvector: str | None
    is_started: bool
    has_database: bool


@dataclass(frozen=True)
class Migrated:
    """How many revisions were applied, and the newest."""

    applied: int
    head: str


def require_extras() -> None:
    """Refuse to begin without what the quickstart needs.

    Raises:
        DependencyMissing: the extra ``local`` is not installed.
    """
    for module in ("wordllama", "semantic_text_splitter"):
        if importlib.util.find_spec(module) is None:
            raise DependencyMissing(
                'The quickstart needs an extra that is not installed: pip install "ragstore[local]"'
            )


def database_is_set() -> bool:
    """Tell whether the settings name a database.

    Raises:
        ImproperlyConfigured: something is wrong with the settings.
    """
    _ = settings.LEGACY_NAMES  # reading any setting raises the problems of all
    try:
        return settings.DATABASE_URL is not None
    except ImproperlyConfigured:
        return False


@contextmanager
def some_database() -> Iterator[bool]:
    """Use the database of the settings, or else the embedded server; yield which it is."""
    with ExitStack() as stack:
        is_set = database_is_set()
        if not is_set:
            override = override_settings(DATABASE_URL="embedded://", MIGRATION_DATABASE_URL=None)
            stack.enter_context(override)
        yield is_set


def find_server() -> Server:
    """Ask the server who it is; an embedded one is started or joined."""
    url, began = settings.MIGRATION_DATABASE_URL, time.time()
    has_database = database_exists(url)
    with _connect_somewhere(url, has_database=has_database) as connection:
        postgres, pgvector, is_started = connection.execute(
            "SELECT split_part(current_setting('server_version'), ' ', 1),"
            " (SELECT coalesce(installed_version, default_version)"
            "  FROM pg_available_extensions WHERE name = 'vector'),"
            " extract(epoch FROM pg_postmaster_start_time()) >= %s",
            [began],
        ).fetchall()[0]
    return Server(postgres, pgvector, is_started, has_database)


def _connect_somewhere(url: URL, *, has_database: bool) -> Connection[Any]:
    if has_database:
        return connect(resolve_url(url))
    try:
        return connect(resolve_url(_beside(url, "postgres")))
    except (DatabaseNotFound, PermissionDenied):
        return connect(resolve_url(_beside(url, "template1")))


def _beside(url: URL, database: str) -> URL:
    if is_embedded(url):
        return url.update_query_dict({"database": database})
    return url.set(database=database)


def make_database(server: Server) -> bool:
    """Create the database if it is not there; return whether that was so."""
    return not server.has_database and create_database(
        settings.MIGRATION_DATABASE_URL, exists_ok=True
    )


def migrate() -> Migrated:
    """Bring the schema to the newest revision."""
    before = migrations.current()
    migrations.upgrade()
    revisions = [revision.id for revision in migrations.history()]
    newer = revisions.index(before[0]) if before else len(revisions)
    return Migrated(newer, revisions[0])


def load_model() -> Embed:
    """Return the function that makes vectors; its weights come with the package wordllama."""
    with _root_logger_kept():
        import wordllama

        directory = Path(wordllama.__file__).parent
        model = wordllama.WordLlama.load(cache_dir=directory, disable_download=True)

    def embed(texts: list[str]) -> Any:
        return model.embed(texts, norm=True)

    return embed


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Undo what wordllama does on import: a handler on the root logger, and the level INFO."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def make_collection(store: Store) -> None:
    """Create the space and the collection, unless they are there."""
    store.create_space(NAME, model=MODEL, dimensions=DIMENSIONS, exists_ok=True)
    store.create_collection(NAME, space=NAME, exists_ok=True)


def ingest(
    store: Store, corpus: Corpus, embed: Embed, on_progress: Progress | None = None
) -> IngestReport:
    """Store the documents; those that did not change cost a look."""
    return store.ingest(
        NAME, corpus.documents, embed=embed, batch_size=BATCH, on_progress=on_progress
    )


def check_questions(questions: Sequence[str]) -> None:
    """Refuse a question that cannot be asked.

    Raises:
        InvalidQuery: it is empty.
        InvalidText: it is not Unicode, or too long.
    """
    for question in questions:
        if not check_text(question, "the question", MAX_KEY_BYTES).strip():
            raise InvalidQuery('the question is empty: ask something, as --ask "what is a space"')


def ask(store: Store, corpus: Corpus, embed: Embed, question: str) -> SearchResult:
    """Search the documents by the question's words and its meaning."""
    vector = embed([question])[0]
    return store.search(NAME, text=question, vector=vector, k=2 * HITS, where=corpus.filter)
