"""Random models: descriptions that hypothesis draws and shrinks, and what is built of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st
from pgvector.sqlalchemy import BIT, HALFVEC, VECTOR
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Date,
    DateTime,
    Double,
    Enum,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    cast,
    collate,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import INT4RANGE, JSONB, ExcludeConstraint


@dataclass(frozen=True)
class Kind:
    """A kind of column: its type, the defaults it may have, and what may be built over it."""

    type: Callable[[], Any]
    defaults: tuple[str | None, ...] = (None,)
    checks: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ("plain", "unique", "descending", "partial", "covering")
    generated: str | None = None


_NUMBER_CHECKS = ("{} > 0", "{} >= 0", "{} < 1000 AND {} > -1")
_WORD_CHECKS = ("{} <> ''", "length({}) < 100")
_WORD_INDEXES = ("plain", "unique", "distinct", "partial", "lower", "pattern", "hash", "C")

KINDS: dict[str, Kind] = {
    "integer": Kind(Integer, (None, "0", "7"), _NUMBER_CHECKS),
    "bigint": Kind(BigInteger, (None, "0"), _NUMBER_CHECKS),
    "text": Kind(Text, (None, "", "it's"), _WORD_CHECKS, _WORD_INDEXES),
    "varchar": Kind(lambda: String(20), (None, "x"), _WORD_CHECKS, _WORD_INDEXES),
    "short": Kind(lambda: String(10), (None, "x"), _WORD_CHECKS, _WORD_INDEXES),
    "collated": Kind(lambda: Text(collation="C"), (None, "x"), _WORD_CHECKS, _WORD_INDEXES),
    "small": Kind(SmallInteger, (None, "0"), _NUMBER_CHECKS),
    "double": Kind(Double, (None, "0.5"), _NUMBER_CHECKS),
    "finer": Kind(lambda: Numeric(12, 3), (None, "1.50"), _NUMBER_CHECKS),
    "range": Kind(INT4RANGE, (None,), ("NOT isempty({})",), ("plain", "gist", "apart")),
    "bits": Kind(lambda: BIT(3), (None,), (), ("plain", "hnsw_bits")),
    "states": Kind(lambda: "states", (None, "{}"), (), ("gin",)),
    "numeric": Kind(lambda: Numeric(10, 2), (None, "1.50"), _NUMBER_CHECKS),
    "boolean": Kind(Boolean, (None, "true", "false"), (), ("plain", "partial")),
    "time": Kind(lambda: DateTime(timezone=True), (None, "now()")),
    "date": Kind(Date, (None, "2024-01-01")),
    "uuid": Kind(Uuid, (None, "gen_random_uuid()"), (), ("plain", "unique")),
    "json": Kind(JSONB, (None, "{}"), (), ("gin", "gin_path")),
    "array": Kind(lambda: ARRAY(Text), (None, "{}"), (), ("gin",)),
    "state": Kind(lambda: "state", (None, "a"), (), ("plain", "partial")),
    "vector": Kind(lambda: VECTOR(3), (None,), (), ("hnsw", "hnsw_l2", "ivfflat", "shrunk")),
    "wide": Kind(lambda: VECTOR(4), (None,), (), ("hnsw",)),
    "loose": Kind(VECTOR, (None,), (), ("shrunk",)),
    "halfvec": Kind(lambda: HALFVEC(3), (None,), (), ("hnsw_half",)),
    "twice": Kind(Integer, generated="id * 2", checks=("{} > 0",)),
    "triple": Kind(Integer, generated="id * 3"),
}
_FUNCTIONS = {"now()", "gen_random_uuid()"}

TABLES = ("alpha", "beta", "gamma")
COLUMNS = ("a", "b", "c", "order")
COMMENTS = (None, "said", "it's 100%")
RULES = (None, "CASCADE", "SET NULL")
TOGETHER = (None, "plain", "distinct", "deferred")
NUMBERING = (None, "by default", "always", "from 100")
STATES = (("a", "b"), ("a", "b", "c"), ("b", "a"), ("a", "x", "b"))


@dataclass(frozen=True)
class ColumnSpec:
    """A column, with what stands over it alone; ``was`` is its name before."""

    name: str
    kind: str
    default: str | None
    nullable: bool
    comment: str | None
    check: str | None
    index: str | None
    was: str | None = None


@dataclass(frozen=True)
class TableSpec:
    """A table.

    ``refers`` is the table that its ``owner_id`` refers to, what its end means, and when it is
    checked. ``together`` is how its two numbers are unique, ``numbering`` how its key counts.
    """

    name: str
    columns: tuple[ColumnSpec, ...]
    refers: tuple[str, str | None, bool] | None
    together: str | None
    comment: str | None
    numbering: str | None = None


@dataclass(frozen=True)
class ModelSpec:
    """A model: its tables, and the values of the enumeration that they share."""

    tables: tuple[TableSpec, ...]
    states: tuple[str, ...]

    def build(self) -> MetaData:
        """Return a MetaData of it."""
        metadata = MetaData()
        state = Enum(*self.states, name="state")
        names = {table.name for table in self.tables}
        for table in self.tables:
            _build(table, metadata, state, names)
        return metadata


@st.composite
def columns(draw: st.DrawFn, name: str) -> ColumnSpec:
    """Draw a column of that name."""
    kind = draw(st.sampled_from(list(KINDS)))
    of_kind = KINDS[kind]
    return ColumnSpec(
        name,
        kind,
        draw(st.sampled_from(of_kind.defaults)),
        draw(st.booleans()) or of_kind.generated is not None,
        draw(st.sampled_from(COMMENTS)),
        draw(st.sampled_from((None, *of_kind.checks))),
        draw(st.sampled_from((None, *of_kind.indexes))),
    )


@st.composite
def tables(draw: st.DrawFn, name: str, before: TableSpec | None = None) -> TableSpec:
    """Draw a table of that name; of ``before`` each column may stay."""
    old = {column.name: column for column in (before.columns if before else ())}
    names = draw(st.lists(st.sampled_from(COLUMNS), unique=True, max_size=len(COLUMNS)))
    gone = [old[column] for column in old if column not in names]
    found = []
    for column in names:
        choices = columns(column)
        if column in old:
            choices = st.just(old[column]) | choices
        elif gone:
            moved = gone.pop()
            choices = st.just(replace(moved, name=column, was=moved.name)) | choices
        found.append(draw(choices))
    return TableSpec(
        name,
        tuple(found),
        draw(st.none() | st.tuples(st.sampled_from(TABLES), st.sampled_from(RULES), st.booleans())),
        draw(st.sampled_from(TOGETHER)),
        draw(st.sampled_from(COMMENTS)),
        draw(st.sampled_from(NUMBERING)),
    )


@st.composite
def pairs(draw: st.DrawFn) -> tuple[ModelSpec, ModelSpec]:
    """Draw a model, and another that has some of its tables and columns."""
    first = draw(_models())
    old = {table.name: table for table in first.tables}
    second = [
        draw(st.just(old[name]) | tables(name, old[name]) if name in old else tables(name))
        for name in draw(_names())
    ]
    return first, ModelSpec(tuple(second), draw(st.just(first.states) | st.sampled_from(STATES)))


def _names() -> st.SearchStrategy[list[str]]:
    # The first table is in every model: where all are dropped, autogenerate refuses.
    return st.lists(st.sampled_from(TABLES[1:]), unique=True).map(lambda names: [TABLES[0], *names])


@st.composite
def _models(draw: st.DrawFn) -> ModelSpec:
    found = tuple(draw(tables(name)) for name in draw(_names()))
    return ModelSpec(found, draw(st.sampled_from(STATES)))


# --- from a description to a table --------------------------------------------------------------


def _build(spec: TableSpec, metadata: MetaData, state: Enum, names: set[str]) -> None:
    table = Table(
        spec.name,
        metadata,
        Column("id", Integer, *_NUMBERED[spec.numbering](), primary_key=True),
        Column("owner_id", Integer),
        *(_column(column, state) for column in spec.columns),
        comment=spec.comment,
    )
    for column in spec.columns:
        if column.check:
            written = column.check.replace("{}", f'"{column.name}"')
            name = f"{spec.name}_{column.name}_checked"
            table.append_constraint(CheckConstraint(text(written), name=name))
        if column.index == "apart":
            name = f"{spec.name}_{column.name}_apart"
            table.append_constraint(ExcludeConstraint((table.c[column.name], "&&"), name=name))
        elif column.index:
            _index(table, column)
    if spec.together:
        unique: dict[str, Any] = {"name": f"{spec.name}_together", **_UNIQUE[spec.together]}
        table.append_constraint(UniqueConstraint("id", "owner_id", **unique))
    if spec.refers and spec.refers[0] in names:
        target, rule, is_deferred = spec.refers
        when: dict[str, Any] = {"deferrable": True, "initially": "DEFERRED"} if is_deferred else {}
        name = f"{spec.name}_owner"
        table.append_constraint(
            ForeignKeyConstraint(["owner_id"], [f"{target}.id"], name, ondelete=rule, **when)
        )


_NUMBERED: dict[str | None, Callable[[], tuple[Identity, ...]]] = {
    None: tuple,
    "by default": lambda: (Identity(),),
    "always": lambda: (Identity(always=True),),
    "from 100": lambda: (Identity(start=100, increment=2),),
}
_UNIQUE: dict[str, dict[str, Any]] = {
    "plain": {},
    "distinct": {"postgresql_nulls_not_distinct": True},
    "deferred": {"deferrable": True, "initially": "DEFERRED"},
}


def _column(spec: ColumnSpec, state: Enum) -> Column[Any]:
    kind = KINDS[spec.kind]
    made: Any = kind.type()
    info = {"renamed_from": spec.was} if spec.was else {}
    if kind.generated:
        rule = Computed(kind.generated, persisted=True)
        return Column(spec.name, made, rule, comment=spec.comment, info=info)
    if made in ("state", "states"):
        made = state if made == "state" else ARRAY(state)
    return Column(
        spec.name,
        made,
        nullable=spec.nullable,
        server_default=text(spec.default) if spec.default in _FUNCTIONS else spec.default,
        comment=spec.comment,
        info=info,
    )


_KEYS: dict[str, Callable[[Any], Any]] = {
    "descending": lambda column: column.desc().nulls_last(),
    "lower": func.lower,
    "C": lambda column: collate(column, "C"),
    "shrunk": lambda column: cast(column, HALFVEC(3)).label("shrunk"),
}
_METHODS = {name: name for name in ("hash", "gin", "gist", "ivfflat")} | {"gin_path": "gin"}
_METHODS |= dict.fromkeys(("hnsw", "hnsw_l2", "hnsw_half", "hnsw_bits", "shrunk"), "hnsw")
_OPERATORS = {
    "pattern": "text_pattern_ops",
    "gin_path": "jsonb_path_ops",
    "hnsw": "vector_cosine_ops",
    "hnsw_l2": "vector_l2_ops",
    "hnsw_half": "halfvec_ip_ops",
    "hnsw_bits": "bit_jaccard_ops",
    "ivfflat": "vector_ip_ops",
    "shrunk": "halfvec_cosine_ops",
}
_STORAGE = {"ivfflat": {"lists": 2}, "C": {"fillfactor": 80}, "hnsw_l2": {"m": 8}}


def _index(table: Table, spec: ColumnSpec) -> None:
    column, form = table.c[spec.name], str(spec.index)
    labelled = "shrunk" if form == "shrunk" else spec.name
    # One name for every form: a change of it is then a change of the index.
    Index(
        f"{table.name}_{spec.name}_index",
        _KEYS.get(form, lambda same: same)(column),
        unique=form in ("unique", "distinct"),
        postgresql_nulls_not_distinct=form == "distinct",
        postgresql_include=["id"] if form == "covering" else [],
        postgresql_using=_METHODS.get(form, "btree"),
        postgresql_ops={labelled: _OPERATORS[form]} if form in _OPERATORS else {},
        postgresql_with=_STORAGE.get(form, {}),
        postgresql_where=table.c.id > 1 if form == "partial" else None,
    )
