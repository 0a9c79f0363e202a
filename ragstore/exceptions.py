"""Every error and warning of ragstore.

Each error also inherits the built-in class a caller would try first, its message names the thing
and the remedy, and its attributes carry the data. No message holds a password or a row's text::

    RagstoreError
    ├── ImproperlyConfigured (ValueError)      settings: one or several variables are wrong
    ├── DependencyMissing (ImportError)        an extra of ragstore is not installed
    ├── DatabaseUnavailable (ConnectionError)  the server could not be asked
    │   ├── AuthenticationFailed               the server refused the role or its password
    │   ├── PoolExhausted                      all connections of the pool were in use
    │   └── EmbeddedServerError                the embedded server could not be started
    │       └── EmbeddedVersionMismatch        its data directory is of another major version
    ├── DatabaseNotFound (LookupError)         no database of that name on the server
    ├── DatabaseExists                         the name is taken
    ├── DatabaseProtected (PermissionError)    postgres and the templates are never dropped
    ├── UnsafeTestDatabase (PermissionError)   the test kit was given somebody's real database
    ├── PermissionDenied (PermissionError)     the role may not do this
    ├── QueryFailed                            the server refused a statement for any other reason
    │   └── LockTimeout (TimeoutError)         another session held a lock for too long
    ├── ExtensionError                         pgvector, on the server
    │   ├── ExtensionMissing                   not installed on the server, or not in the database
    │   ├── ExtensionTooOld                    its version is one that ragstore refuses
    │   └── ExtensionNotPermitted (PermissionError)  a superuser must create it
    ├── MigrationError                         the schema
    │   ├── SchemaMissing                      the tables are not there: upgrade
    │   ├── SchemaBehind                       the database is not at the newest revision
    │   ├── SchemaDrift                        the models and the database differ
    │   ├── CouldNotCompare                    the server cannot make a copy of the models
    │   ├── UnknownRevision (LookupError)      the database or the caller names no revision of ours
    │   ├── MultipleHeads                      two revisions have the same parent
    │   ├── MigrationNotApplied                the run ended without reaching its target
    │   ├── DecisionNeeded                     rows stand in a revision's way: a person must decide
    │   └── MigrationLockTimeout (TimeoutError)  another migrator is at work
    ├── CollectionNotFound (LookupError)
    ├── CollectionExists
    ├── SpaceNotFound (LookupError)
    ├── SpaceExists
    ├── SpaceInUse                             collections are in the space, or on the way to it
    ├── SpaceNotReady                          a collection without space, a space without partition
    ├── ReembedUnderWay                        the collection is on its way to another space
    ├── ReembedUnfinished                      writers were faster than embed: call it again
    ├── SwitchRefused                          approve() said no: the space is not switched
    ├── SpaceChanged                           the collection switched its space: make vectors anew
    ├── WriteConflict                          others kept writing the same documents
    └── InvalidInput (ValueError)              refused before any statement
        ├── InvalidName                        of a database, collection, space, language
        ├── InvalidQuery                       nothing to search for, k or offset out of range
        ├── InvalidFilter                      a where= that cannot be understood
        ├── InvalidText
        │   ├── NulByte
        │   ├── LoneSurrogate
        │   └── TextTooLong
        ├── EmptyDocument                      a document without chunks
        ├── EmptyChunk                         a chunk without text
        ├── DuplicateKey                       one key twice in a batch
        ├── InvalidMetadata
        │   ├── MetadataTooDeep
        │   └── MetadataTooLarge
        ├── InvalidVector
        │   ├── DimensionMismatch
        │   ├── NonFiniteVector
        │   └── ZeroVector
        └── EmbeddingFailed                    embed() raised, or gave not one vector for each text

    LegacyVariableWarning (DeprecationWarning)  an environment variable goes by an old name
    OldExtensionWarning (UserWarning)           pgvector works, but has known defects
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class RagstoreError(Exception):
    """Base of every error that ragstore raises on purpose.

    ``report`` is the ``IngestReport`` of what was stored before, where it ended a run of ingest.
    """

    report: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without calling ``__init__``, whose arguments are not ``args``."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[RagstoreError], args: tuple[Any, ...], data: dict[str, Any]) -> Any:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(data)
    return error


# --- settings and installation -----------------------------------------------------------------


class ImproperlyConfigured(RagstoreError, ValueError):
    """Settings are missing or wrong; ``problems`` has one message for each of them."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        lines = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(problems[0] if len(problems) == 1 else f"Settings are wrong:\n{lines}")


class DependencyMissing(RagstoreError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


# --- the server and its databases --------------------------------------------------------------


class DatabaseUnavailable(RagstoreError, ConnectionError):
    """The server could not be asked: unreachable, refusing, or gone during the work."""


class AuthenticationFailed(DatabaseUnavailable):
    """The server is there but refused the role or its password."""


class PoolExhausted(DatabaseUnavailable):
    """Every connection of the pool was in use for as long as DB_POOL_TIMEOUT."""


class EmbeddedServerError(DatabaseUnavailable):
    """The embedded server could not be started or stopped; the message ends with its log."""


class EmbeddedVersionMismatch(EmbeddedServerError):
    """The data directory was made by another major version of PostgreSQL."""

    def __init__(self, message: str, *, expected: str, got: str) -> None:
        self.expected = expected
        self.got = got
        super().__init__(message)


class DatabaseNotFound(RagstoreError, LookupError):
    """The server has no database of that name."""

    def __init__(self, message: str, *, database: str) -> None:
        self.database = database
        super().__init__(message)


class DatabaseExists(RagstoreError):
    """The server has a database of that name already."""

    def __init__(self, message: str, *, database: str) -> None:
        self.database = database
        super().__init__(message)


class DatabaseProtected(RagstoreError, PermissionError):
    """The database is one that ragstore never drops."""

    def __init__(self, message: str, *, database: str) -> None:
        self.database = database
        super().__init__(message)


class UnsafeTestDatabase(RagstoreError, PermissionError):
    """The test kit was given a database that is the application's, or may be."""


class PermissionDenied(RagstoreError, PermissionError):
    """The role lacks a right; the message says which statement grants it, where that is known."""


class QueryFailed(RagstoreError):
    """The server refused a statement.

    The message is the server's primary message without its detail, which quotes rows. ``sqlstate``
    is the five-letter code, or None when the driver refused the value before sending it.
    """

    def __init__(self, message: str, *, sqlstate: str | None = None) -> None:
        self.sqlstate = sqlstate
        super().__init__(message)


class LockTimeout(QueryFailed, TimeoutError):
    """Another session held a lock for longer than this one may wait. Nothing was changed."""


class ExtensionError(RagstoreError):
    """The pgvector extension cannot be used as it is."""


class ExtensionMissing(ExtensionError):
    """The extension is not installed on the server, or not created in the database."""


class ExtensionTooOld(ExtensionError):
    """The extension's version is one that ragstore refuses."""

    def __init__(self, message: str, *, found: str, needed: str) -> None:
        self.found = found
        self.needed = needed
        super().__init__(message)


class ExtensionNotPermitted(ExtensionError, PermissionError):
    """This role may not create the extension; ``statement`` is what a superuser must run."""

    def __init__(self, message: str, *, statement: str) -> None:
        self.statement = statement
        super().__init__(message)


# --- migrations --------------------------------------------------------------------------------


class MigrationError(RagstoreError):
    """The schema and the revisions do not fit, or could not be made to."""


class SchemaMissing(MigrationError):
    """The ragstore tables are not in the database: run ``ragstore migrate upgrade``."""


class SchemaBehind(MigrationError):
    """The database is not at the newest revision: run ``ragstore migrate upgrade``."""

    def __init__(self, message: str, *, current: Sequence[str], head: Sequence[str]) -> None:
        self.current = tuple(current)
        self.head = tuple(head)
        super().__init__(message)


class SchemaDrift(MigrationError):
    """The database is at the newest revision, but its schema is not the models'.

    ``differences`` has a sentence for each; ``foreign`` names what was left alone.
    """

    def __init__(
        self, message: str, *, differences: Sequence[str], foreign: Sequence[str] = ()
    ) -> None:
        self.differences = tuple(differences)
        self.foreign = tuple(foreign)
        super().__init__(message)


class CouldNotCompare(MigrationError):
    """The models could not be made beside the database's own tables, to be compared with them.

    ``problems`` has one message for each object, with the server's own words. Nothing was changed.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"The models cannot be compared with the database:\n{lines}")


class UnknownRevision(MigrationError, LookupError):
    """A revision that this version of the code does not have."""

    def __init__(self, message: str, *, revision: str) -> None:
        self.revision = revision
        super().__init__(message)


class MultipleHeads(MigrationError):
    """Two or more revisions have no child; merge them: ``alembic merge heads``."""

    def __init__(self, message: str, *, heads: Sequence[str]) -> None:
        self.heads = tuple(heads)
        super().__init__(message)


class MigrationNotApplied(MigrationError):
    """The run ended without an error, but the database is not at its target revision."""


class DecisionNeeded(MigrationError):
    """Rows stand in the way of a revision: a person must decide what becomes of them.

    ``question`` is what there is to decide, about rows of ``table``. Nothing was changed.
    """

    def __init__(self, message: str, *, question: str, table: str) -> None:
        self.question = question
        self.table = table
        super().__init__(message)


class MigrationLockTimeout(MigrationError, TimeoutError):
    """Another migrator held the migration lock until the deadline; ``holder`` is its backend."""

    def __init__(self, message: str, *, holder: int | None = None) -> None:
        self.holder = holder
        super().__init__(message)


# --- collections and spaces --------------------------------------------------------------------


class CollectionNotFound(RagstoreError, LookupError):
    """No collection of that name."""

    def __init__(self, message: str, *, collection: str) -> None:
        self.collection = collection
        super().__init__(message)


class CollectionExists(RagstoreError):
    """The collection's name is taken."""

    def __init__(self, message: str, *, collection: str) -> None:
        self.collection = collection
        super().__init__(message)


class SpaceNotFound(RagstoreError, LookupError):
    """No embedding space of that name."""

    def __init__(self, message: str, *, space: str) -> None:
        self.space = space
        super().__init__(message)


class SpaceExists(RagstoreError):
    """The embedding space's name is taken by one of another model, dimension or metric."""

    def __init__(self, message: str, *, space: str) -> None:
        self.space = space
        super().__init__(message)


class SpaceInUse(RagstoreError):
    """Collections are in the space, or being moved to it; ``collections`` has their names."""

    def __init__(self, message: str, *, space: str, collections: Sequence[str]) -> None:
        self.space = space
        self.collections = collections
        super().__init__(message)


class ReembedUnderWay(RagstoreError):
    """The collection is being moved to another space than the one asked for."""

    def __init__(self, message: str, *, collection: str, space: str) -> None:
        self.collection = collection
        self.space = space
        super().__init__(message)


class ReembedUnfinished(RagstoreError):
    """Writers added chunks faster than they were embedded; ``lacking`` is how many were left."""

    def __init__(self, message: str, *, collection: str, lacking: int) -> None:
        self.collection = collection
        self.lacking = lacking
        super().__init__(message)


class SwitchRefused(RagstoreError):
    """``approve`` refused the switch: all is embedded, and nothing is switched.

    ``report`` is the ReembedReport that it was asked with.
    """

    def __init__(self, message: str, *, report: Any) -> None:
        self.report = report
        super().__init__(message)


class SpaceNotReady(RagstoreError):
    """Vectors cannot be stored or searched: no space is set, or the space has no partition."""


class SpaceChanged(RagstoreError):
    """The collection switched its space after these vectors were made. Nothing was stored."""


class WriteConflict(RagstoreError):
    """Others changed the documents of a batch each time it was tried. Nothing of it was stored."""


# --- input -------------------------------------------------------------------------------------


class InvalidInput(RagstoreError, ValueError):
    """A value was refused before any statement was sent; nothing was stored.

    ``key`` is the document's key, ``chunk`` the chunk's position in it and ``field`` what of it
    is wrong, where there are such.
    """

    field: str | None = None

    def __init__(
        self,
        message: str,
        *,
        key: str | None = None,
        chunk: int | None = None,
        field: str | None = None,
    ) -> None:
        self.key = key
        self.chunk = chunk
        self.field = field or self.field
        place = "" if key is None else f"document {key[:200]!r}"  # a refused key may be huge
        if place and chunk is not None:
            place += f", chunk {chunk}"
        super().__init__(f"{place}: {message}" if place else message)


class InvalidName(InvalidInput):
    """A name that is empty, too long, or of nothing that exists on the server."""


class InvalidQuery(InvalidInput):
    """A search that asks for nothing, or whose k or offset is out of range."""


class InvalidFilter(InvalidInput):
    """A ``where=`` that cannot be understood."""


class InvalidText(InvalidInput):
    """Text that Postgres cannot store."""


class NulByte(InvalidText):
    r"""Text holds the character U+0000, which Postgres has no room for (PDF extractors emit it)."""


class LoneSurrogate(InvalidText):
    """Text holds half of a surrogate pair, which UTF-8 cannot encode."""


class TextTooLong(InvalidText):
    """Text is longer, in bytes of UTF-8, than its column allows."""


class EmptyDocument(InvalidInput):
    """A document has no chunks."""

    field = "chunks"


class EmptyChunk(InvalidInput):
    """A chunk has no text, or nothing but white space."""

    field = "text"


class DuplicateKey(InvalidInput):
    """One key stands twice in the documents of one batch."""

    field = "key"


class InvalidMetadata(InvalidInput):
    """Metadata is not a mapping of plain JSON values."""

    field = "meta"


class MetadataTooDeep(InvalidMetadata):
    """Metadata is nested more deeply than the limit."""


class MetadataTooLarge(InvalidMetadata):
    """Metadata is larger, as JSON, than the limit."""


class InvalidVector(InvalidInput):
    """A vector is not a flat sequence of numbers."""

    field = "vector"


class DimensionMismatch(InvalidVector):
    """A vector has another number of dimensions than its space."""

    def __init__(
        self,
        message: str,
        *,
        expected: int,
        got: int,
        key: str | None = None,
        chunk: int | None = None,
    ) -> None:
        self.expected = expected
        self.got = got
        super().__init__(message, key=key, chunk=chunk)


class NonFiniteVector(InvalidVector):
    """A vector holds NaN or infinity, or a number too large for its storage type."""


class ZeroVector(InvalidVector):
    """A vector without direction: its cosine distance to anything is not a number."""


class EmbeddingFailed(InvalidInput):
    """``embed`` returned something other than one vector for each text, or raised to the last.

    What it raised is the cause (``__cause__``).
    """


# --- warnings ----------------------------------------------------------------------------------


class LegacyVariableWarning(DeprecationWarning):
    """An environment variable goes by an old name that a later release will not read."""


class OldExtensionWarning(UserWarning):
    """This version of pgvector is accepted but has defects that a later one mends."""
