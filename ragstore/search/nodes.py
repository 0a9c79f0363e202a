"""What a filter is made of, and the SQL of each: every key and value of it is a parameter.

A node is never NULL for a row, so that ``Not`` keeps exactly the rows that the node leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    ARRAY,
    BindParameter,
    Boolean,
    Column,
    DateTime,
    Numeric,
    Text,
    and_,
    case,
    cast,
    false,
    func,
    literal_column,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH

from ragstore.models import CHUNKS, DOCUMENTS

Take = Callable[[Any, Any], BindParameter[Any]]
"""Gives the parameter of the next value; takes the value and its type."""

Path = tuple[str, ...]


@dataclass(frozen=True)
class Contains:
    """Metadata contains one of these JSON objects: the one condition that an index answers.

    The planner takes a rare one, of one object, to keep 1 row in 10,000 whatever the value is: it
    does not see the value, and it multiplies its guess of 1 in 100 with that of the same condition
    again, which costs the index nothing.
    """

    wanted: tuple[str, ...]
    of_document: bool = False
    is_rare: bool = False

    def sql(self, take: Take) -> Any:
        """Return ``metadata @> value``, or ``@> ANY (values)`` for any number of them but one."""
        contains = _metadata(self.of_document).bool_op("@>")
        if len(self.wanted) != 1:
            values = cast(take(list(self.wanted), ARRAY(Text)), ARRAY(JSONB))
            return contains(func.any(values))
        value = cast(take(self.wanted[0], Text), JSONB)
        if not self.is_rare:
            return contains(value)
        condition = contains(select(value).scalar_subquery())
        return and_(condition, condition)


@dataclass(frozen=True)
class Equal:
    """The value at a path is this JSON value, no more and no less."""

    path: Path
    wanted: str
    of_document: bool = False

    def sql(self, take: Take) -> Any:
        """Return whether the value is there and equal."""
        value = _value(self.path, take, self.of_document)
        return _or_false(value == cast(take(self.wanted, Text), JSONB))


@dataclass(frozen=True)
class Compare:
    """The value at a path is of a kind, and stands so to another of that kind.

    Kinds are ``number``, ``text`` (by code points), ``date`` (the first ten characters of an ISO
    date or time) and ``moment`` (an ISO time; one without offset is in UTC).
    """

    path: Path
    operator: str
    kind: str
    wanted: Any
    of_document: bool = False

    def sql(self, take: Take) -> Any:
        """Return the comparison, false where the value is missing or of another kind."""
        value = _value(self.path, take, self.of_document)
        if self.kind == "number":
            number = case((func.jsonb_typeof(value) == _constant("number"), cast(value, Numeric)))
            return _or_false(number.bool_op(self.operator)(take(self.wanted, Numeric)))
        text = _string(value)
        if self.kind == "moment":
            return _or_false(_moment_stands(text, self.operator, take(self.wanted, Text)))
        if self.kind == "date":
            text = case((text.bool_op("~")(_ISO_DATE), func.left(text, literal_column("10"))))
        return _or_false(text.collate("C").bool_op(self.operator)(take(self.wanted, Text)))


@dataclass(frozen=True)
class Like:
    """The string at a path matches an SQL pattern."""

    path: Path
    pattern: str
    of_document: bool = False

    def sql(self, take: Take) -> Any:
        """Return the match, false where there is no string."""
        text = _string(_value(self.path, take, self.of_document))
        return _or_false(text.like(take(self.pattern, Text)))


@dataclass(frozen=True)
class Exists:
    """There is something at a path, be it null."""

    path: Path
    of_document: bool = False

    def sql(self, take: Take) -> Any:
        """Return whether there is."""
        return _value(self.path, take, self.of_document).is_not(None)


@dataclass(frozen=True)
class Field:
    """A column of the document compared with a value, or one of several, or with a pattern."""

    name: str
    operator: str
    wanted: Any

    def sql(self, take: Take) -> Any:
        """Return the comparison, false where the column is NULL."""
        column: Column[Any] = DOCUMENTS.c[self.name]
        kind = DateTime(timezone=True) if self.name.endswith("_at") else Text()
        if self.operator == "exists":
            return column.is_not(None)
        if self.operator == "in":
            found = column == func.any(take(list(self.wanted), ARRAY(kind)))
        elif self.operator == "like":
            found = column.like(take(self.wanted, kind))
        elif self.operator == "=":
            found = column == take(self.wanted, kind)
        else:
            ordered = column.collate("C") if isinstance(kind, Text) else column
            found = ordered.bool_op(self.operator)(take(self.wanted, kind))
        return found if not column.nullable else _or_false(found)


@dataclass(frozen=True)
class Not:
    """What the node inside leaves out."""

    node: Node

    def sql(self, take: Take) -> Any:
        """Return the negation."""
        return not_(self.node.sql(take))


@dataclass(frozen=True)
class Every:
    """All nodes inside; everything, if there are none."""

    nodes: tuple[Node, ...]

    def sql(self, take: Take) -> Any:
        """Return the conjunction."""
        return and_(true(), *[node.sql(take) for node in self.nodes])


@dataclass(frozen=True)
class Some:
    """At least one of the nodes inside; nothing, if there are none."""

    nodes: tuple[Node, ...]

    def sql(self, take: Take) -> Any:
        """Return the disjunction."""
        return or_(false(), *[node.sql(take) for node in self.nodes])


Node = Contains | Equal | Compare | Like | Exists | Field | Not | Every | Some


def shape_of(node: Node) -> tuple[Any, ...]:
    """Return what the SQL of a node depends on: all of it but the keys and values."""
    if isinstance(node, Not):
        return ("not", shape_of(node.node))
    if isinstance(node, Every | Some):
        return (type(node).__name__, *map(shape_of, node.nodes))
    if isinstance(node, Contains):
        return ("contains", len(node.wanted) == 1, node.of_document)
    if isinstance(node, Field):
        return ("field", node.name, node.operator)
    kind = (node.operator, node.kind) if isinstance(node, Compare) else ()
    return (type(node).__name__, len(node.path), node.of_document, *kind)


def as_rare(node: Node) -> Node | None:
    """Return a node that keeps the same, with a plan for few rows, if it begins with equality."""
    if isinstance(node, Contains) and len(node.wanted) == 1:
        return replace(node, is_rare=True)
    if isinstance(node, Every) and node.nodes and (first := as_rare(node.nodes[0])):
        return Every((first, *node.nodes[1:]))
    return None


def values_of(node: Node) -> list[Any]:
    """Return the keys and values of a node, in the order in which its SQL takes them."""
    return list(_values(node))


def _values(node: Node) -> Iterator[Any]:
    if isinstance(node, Not):
        yield from _values(node.node)
    elif isinstance(node, Every | Some):
        for inside in node.nodes:
            yield from _values(inside)
    elif isinstance(node, Contains):
        yield node.wanted[0] if len(node.wanted) == 1 else list(node.wanted)
    elif isinstance(node, Field):
        if node.operator != "exists":
            yield list(node.wanted) if node.operator == "in" else node.wanted
    else:
        yield from node.path
        if isinstance(node, Like):
            yield node.pattern
        elif isinstance(node, Compare | Equal):
            yield node.wanted


def is_about_documents(node: Node) -> bool:
    """Tell whether a node reads the document."""
    if isinstance(node, Not):
        return is_about_documents(node.node)
    if isinstance(node, Every | Some):
        return any(map(is_about_documents, node.nodes))
    return isinstance(node, Field) or node.of_document


def _constant(text: str) -> Any:
    return literal_column(f"'{text}'", Text())


_ISO_DATE = _constant(r"^\d{4}-\d{2}-\d{2}")
_BARE_DATE = _constant(r"^\d{4}-\d{2}-\d{2}$")
_NO_OFFSET = _constant(r"^(\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(\.\d+)?)$")


def _moment_stands(text: Any, operator: str, moment: Any) -> Any:
    # A cast would end the search at the first string that is no date; this one is silent.
    shift = func.regexp_replace(text, _constant("Z$"), _constant("+00:00"))
    shift = func.regexp_replace(shift, _NO_OFFSET, _constant(r"\1+00:00"))
    shift = func.regexp_replace(shift, _BARE_DATE, _constant(r"\&T00:00:00+00:00"))
    test = _constant(f"$ ? (@.datetime() {_JSONPATH.get(operator, operator)} $moment.datetime())")
    variables = func.jsonb_build_object(_constant("moment"), moment)
    return func.jsonb_path_exists_tz(
        func.to_jsonb(shift), cast(test, JSONPATH), variables, true(), type_=Boolean()
    )


_JSONPATH = {"=": "=="}


def _metadata(of_document: bool) -> Any:
    return (DOCUMENTS if of_document else CHUNKS).c.metadata


def _value(path: Path, take: Take, of_document: bool) -> Any:
    # By `->` and a text a key is looked up, never a place in a list: as `@>` has it.
    value: Any = _metadata(of_document)
    for key in path:
        value = value.op("->", return_type=JSONB())(take(key, Text))
    return value


def _string(value: Any) -> Any:
    text = value.op("#>>", return_type=Text())(literal_column("'{}'"))
    return case((func.jsonb_typeof(value) == _constant("string"), text))


def _or_false(condition: Any) -> Any:
    return func.coalesce(condition, false(), type_=Boolean())
