"""What a schema consists of, in the words of the database that holds it.

Two descriptions are compared, never two spellings: that of the user's database, and that of a
scratch copy that the same server has made of the models. All text in here was printed by the
server, with the names of the objects' own schema left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

Name = tuple[str | None, str]
"""The schema, None for the connection's default one, and the name in it."""


@dataclass(frozen=True)
class Sequence:
    """A sequence: one that stands alone, or the one behind an identity or serial column."""

    type: str
    start: int
    increment: int
    minimum: int
    maximum: int
    cache: int
    cycle: bool


@dataclass(frozen=True)
class Column:
    """A column of a table.

    ``default`` is the expression of a generated column if ``generated`` is not empty: ``s`` stored
    or ``v`` virtual. ``identity`` is empty, ``a`` (always) or ``d`` (by default). ``serial`` says
    that the default takes numbers from a sequence that belongs to the column, and ``default`` is
    then None. ``sequence`` are the options of the identity or serial sequence.
    """

    name: str
    type: str
    nullable: bool = True
    default: str | None = None
    generated: str = ""
    identity: str = ""
    serial: bool = False
    sequence: Sequence | None = None
    collation: str | None = None
    comment: str | None = None


@dataclass(frozen=True)
class Constraint:
    """A primary key ``p``, unique ``u``, foreign key ``f``, check ``c`` or exclusion ``x``.

    ``columns`` are those of the key in order, or those that a check or exclusion mentions.
    ``rests_on`` is, for a foreign key, the name of the index in the referred table that makes the
    target unique. ``definition`` is what ``ALTER TABLE … ADD CONSTRAINT name`` takes.
    """

    name: str
    kind: str
    definition: str
    columns: tuple[str, ...]
    refers_to: Name | None = None
    referred: tuple[str, ...] = ()
    on_update: str = ""
    on_delete: str = ""
    match: str = ""
    deferrable: bool = False
    deferred: bool = False
    validated: bool = True
    enforced: bool = True
    nulls_not_distinct: bool = False
    included: tuple[str, ...] = ()
    expression: str = ""
    no_inherit: bool = False
    rests_on: str | None = None
    comment: str | None = None


@dataclass(frozen=True)
class Index:
    """An index that is not behind a constraint.

    ``keys`` are its columns and expressions in order, each with its collation, operator class and
    order where they are not the default: ``title text_pattern_ops DESC``. ``columns`` are the
    columns that it mentions anywhere. ``definition`` is a whole ``CREATE INDEX``.
    """

    name: str
    definition: str
    method: str
    unique: bool
    keys: tuple[str, ...]
    columns: frozenset[str]
    included: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    where: str | None = None
    nulls_not_distinct: bool = False
    valid: bool = True


@dataclass(frozen=True)
class Table:
    """A table or partitioned parent, with all that belongs to it, by name."""

    schema: str | None
    name: str
    columns: dict[str, Column] = field(default_factory=dict)
    constraints: dict[str, Constraint] = field(default_factory=dict)
    indexes: dict[str, Index] = field(default_factory=dict)
    partition_key: str | None = None
    unlogged: bool = False
    options: tuple[tuple[str, str], ...] = ()
    comment: str | None = None

    @property
    def key(self) -> Name:
        """Return the schema and name."""
        return (self.schema, self.name)


@dataclass(frozen=True)
class Enum:
    """An enumerated type, its values in order, and the (table, column) pairs that have it."""

    schema: str | None
    name: str
    values: tuple[str, ...]
    used_by: tuple[tuple[Name, str], ...] = ()


@dataclass(frozen=True)
class Domain:
    """A domain; ``checks`` are (name, definition) pairs in the order of their names.

    ``written`` is the definition, and ``written_check`` the condition, as a model writes them.
    """

    schema: str | None
    name: str
    type: str
    nullable: bool = True
    default: str | None = None
    collation: str | None = None
    checks: tuple[tuple[str, str], ...] = ()
    used_by: tuple[tuple[Name, str], ...] = ()
    written: str = field(default="", compare=False)
    written_check: str = field(default="", compare=False)

    @property
    def key(self) -> Name:
        """Return the schema and name."""
        return (self.schema, self.name)


@dataclass(frozen=True)
class Routine:
    """A function by its name and argument types, as ``pg_get_functiondef`` prints it."""

    schema: str | None
    name: str
    arguments: tuple[str, ...]
    definition: str


@dataclass(frozen=True)
class Catalog:
    """The objects of a database, or of the models, that can be compared.

    ``others`` are objects in the same schemas that were not read: views, foreign tables and
    partitions, in words, such as ``view active_items``. What extensions made is in neither.
    """

    tables: dict[Name, Table] = field(default_factory=dict)
    enums: dict[Name, Enum] = field(default_factory=dict)
    domains: dict[Name, Domain] = field(default_factory=dict)
    sequences: dict[Name, Sequence] = field(default_factory=dict)
    routines: dict[tuple[str | None, str, tuple[str, ...]], Routine] = field(default_factory=dict)
    schemas: frozenset[str] = frozenset()
    extensions: frozenset[str] = frozenset()
    others: tuple[str, ...] = ()

    def indexes(self) -> Iterator[tuple[Table, Index]]:
        """Yield every index with its table."""
        for table in self.tables.values():
            for index in table.indexes.values():
                yield table, index
