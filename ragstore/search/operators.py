"""Filters as mappings: ``{"year": {"$gte": 2020}, "$or": [{"lang": "en"}, {"lang": "de"}]}``.

Here a mapping becomes nodes; which values they take stands in ``values``, and what each of them is
in SQL in ``nodes``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from typing import Any

from ragstore.content import MAX_METADATA_DEPTH
from ragstore.exceptions import InvalidFilter
from ragstore.search.nodes import (
    Compare,
    Contains,
    Equal,
    Every,
    Exists,
    Field,
    Like,
    Node,
    Not,
    Path,
    Some,
)
from ragstore.search.values import (
    as_json,
    as_json_value,
    as_moment,
    as_ordered,
    as_pattern,
    as_text,
    as_values,
)

MAX_CONDITIONS = 256
"""The most conditions of a filter."""

MAX_NESTING = 32
"""How deeply ``$and``, ``$or`` and ``$not`` may be nested."""

FIELDS = ("key", "title", "created_at", "updated_at")
"""The columns of a document that ``$document`` names beside ``meta``."""

_ORDER = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_OPERATORS = (*_ORDER, "$eq", "$ne", "$in", "$nin", "$exists", "$contains", "$like", "$not")


def path(*keys: str) -> str:
    r"""Return the path of keys as a filter writes it: ``path("a.b", "$c")`` is ``a\.b.\$c``.

    In a filter a dot steps into the value of a key, and ``$`` begins an operator. A key that has
    one of them, or a backslash, stands behind a backslash.
    """
    return ".".join(_escaped(key) for key in keys)


def _escaped(key: str) -> str:
    plain = key.replace("\\", "\\\\").replace(".", "\\.")
    return f"\\{plain}" if plain.startswith("$") else plain


def parsed(where: Mapping[str, Any]) -> Node:
    """Return a filter as nodes.

    Raises:
        InvalidFilter: an operator is unknown or has a value it cannot take.
    """
    node = _Reader().mapping(where, of_document=False, depth=0)
    if (count := _conditions(node)) > MAX_CONDITIONS:
        raise InvalidFilter(
            f"where= has {count} conditions, and {MAX_CONDITIONS} is the limit: use $in for"
            " many values of one key"
        )
    return node


def _conditions(node: Node) -> int:
    """Count what is sent; each list, mapping or date of an ``$in`` is a condition."""
    if isinstance(node, Not):
        return _conditions(node.node)
    if isinstance(node, Every | Some):
        return max(1, sum(map(_conditions, node.nodes)))
    return 0 if isinstance(node, Equal) else 1  # it stands beside a Contains


class _Reader:
    """Reads one filter."""

    def mapping(self, where: Any, *, of_document: bool, depth: int) -> Node:
        if not isinstance(where, Mapping):
            raise InvalidFilter(f"{type(where).__name__} stands where a mapping of keys should")
        _check_depth(depth)
        nodes: list[Node] = []
        plain: dict[str, Any] = {}
        for name, wanted in where.items():
            if not isinstance(name, str):
                raise InvalidFilter(f"where= has the key {name!r}, which is not a string")
            if name.startswith("$"):
                nodes.append(self._logical(name, wanted, of_document, depth))
            else:
                self._condition(_checked(_keys(name)), wanted, plain, nodes, of_document)
        if plain or not nodes:
            nodes.insert(0, Contains((as_json(plain),), of_document))
        return nodes[0] if len(nodes) == 1 else Every(tuple(nodes))

    def _logical(self, name: str, wanted: Any, of_document: bool, depth: int) -> Node:
        if name == "$not":
            return Not(self.mapping(wanted, of_document=of_document, depth=depth + 1))
        if name in ("$and", "$or"):
            if isinstance(wanted, str | Mapping) or not isinstance(wanted, Iterable):
                raise InvalidFilter(f"{name} takes a list of filters")
            nodes = [
                self.mapping(each, of_document=of_document, depth=depth + 1) for each in wanted
            ]
            return Every(tuple(nodes)) if name == "$and" else Some(tuple(nodes))
        if name == "$document" and not of_document:
            return self._document(wanted)
        raise InvalidFilter(
            f"where= has no operator {name!r} that stands beside keys: there are $and, $or, $not"
            f" and $document, and beneath a key {', '.join(_OPERATORS)}"
        )

    def _document(self, wanted: Any) -> Node:
        if not isinstance(wanted, Mapping):
            raise InvalidFilter("$document takes a mapping")
        nodes: list[Node] = []
        for name, value in wanted.items():
            if name == "meta":
                nodes.append(self.mapping(value, of_document=True, depth=1))
            elif name in FIELDS:
                nodes.extend(self._field(name, value))
            else:
                raise InvalidFilter(
                    f"a document has no field {name!r} to filter by: there are meta,"
                    f" {', '.join(FIELDS)}"
                )
        return Every(tuple(nodes))

    def _field(self, name: str, wanted: Any) -> Iterable[Node]:
        operators = wanted if _is_operators(wanted) else {"$eq": wanted}
        for operator, value in operators.items():
            yield _field(name, operator, value)

    def _condition(
        self, keys: Path, wanted: Any, plain: dict[str, Any], nodes: list[Node], of_document: bool
    ) -> None:
        if type(wanted) in _PLAIN or not _is_operators(wanted):
            if isinstance(wanted, date):
                wanted = {"$eq": wanted}
            else:
                # Those for equality are one look into the index, unless they speak of one key.
                if not _merged(plain, keys, wanted):
                    nodes.append(Contains((as_json(_nested(keys, wanted)),), of_document))
                return
        for operator, value in wanted.items():
            nodes.append(_operated(keys, operator, value, of_document))


_PLAIN = (str, int, float, bool, type(None))  # to ask whether it is a Mapping takes a microsecond


def _is_operators(wanted: Any) -> bool:
    """Tell whether a value is a mapping of operators, not one to compare with."""
    if not isinstance(wanted, Mapping) or not wanted:
        return False
    marked = [isinstance(name, str) and name.startswith("$") for name in wanted]
    if any(marked) and not all(marked):
        raise InvalidFilter(
            "where= mixes operators with keys in one mapping: to name a key that begins with $,"
            " write it behind a backslash (ragstore.search.path)"
        )
    return all(marked)


def _keys(name: str) -> Path:
    r"""Return the keys of a path: cut at each dot but one behind a backslash."""
    if "\\" not in name:
        return tuple(name.split("."))
    keys = [""]
    letters = iter(name)
    for letter in letters:
        if letter == "\\":
            keys[-1] += next(letters, "\\")
        elif letter == ".":
            keys.append("")
        else:
            keys[-1] += letter
    return tuple(keys)


def _checked(keys: Path) -> Path:
    if len(keys) > MAX_METADATA_DEPTH:
        raise InvalidFilter(f"where= has a path of {len(keys):,} keys, beyond all metadata")
    return keys


def _nested(keys: Path, wanted: Any) -> dict[str, Any]:
    for key in reversed(keys):
        wanted = {key: wanted}
    return wanted  # type: ignore[no-any-return]  # a path has at least one key


def _merged(plain: dict[str, Any], keys: Path, wanted: Any) -> bool:
    """Put a value into the one object that is asked for, unless something is in its place."""
    inside: Any = plain
    for key in keys[:-1]:
        inside = inside.setdefault(key, {})
        if type(inside) is not dict:
            return False
    if keys[-1] in inside:
        return False
    # Copied: what is given is not changed by the next key.
    inside[keys[-1]] = _Given(wanted) if isinstance(wanted, Mapping) else wanted
    return True


class _Given(dict[str, Any]):
    """A mapping of the caller's, which no other condition is put into."""


def _operated(keys: Path, operator: str, wanted: Any, of_document: bool, depth: int = 0) -> Node:
    if operator == "$not":
        if not _is_operators(wanted):
            raise InvalidFilter("$not beneath a key takes operators: {'$not': {'$gt': 3}}")
        _check_depth(depth)
        depth += 1
        inside = [_operated(keys, name, of, of_document, depth) for name, of in wanted.items()]
        return Not(Every(tuple(inside)))
    if operator in _ORDER:
        return _compared(keys, operator, wanted, of_document)
    build = _BUILDERS.get(operator)
    if build is None:
        raise InvalidFilter(
            f"where= has no operator {operator!r}: there are {', '.join(_OPERATORS)}"
        )
    return build(keys, wanted, of_document)


def _equal(keys: Path, wanted: Any, of_document: bool) -> Node:
    if isinstance(wanted, date):
        return _compared(keys, "$eq", wanted, of_document)
    found = Contains((as_json(_nested(keys, wanted)),), of_document)
    if not isinstance(wanted, Mapping | list | tuple):
        return found
    return Every((found, Equal(keys, as_json_value(wanted), of_document)))


def _unequal(keys: Path, wanted: Any, of_document: bool) -> Node:
    return Not(_equal(keys, wanted, of_document))


def _among(keys: Path, wanted: Any, of_document: bool) -> Node:
    values = as_values(wanted, "$in and $nin take")
    plain = [each for each in values if not isinstance(each, _NOT_IN_INDEX)]
    nodes = [_equal(keys, each, of_document) for each in values if isinstance(each, _NOT_IN_INDEX)]
    if plain:
        found = tuple(as_json(_nested(keys, each)) for each in plain)
        nodes.insert(0, Contains(found, of_document))
    return nodes[0] if len(nodes) == 1 else Some(tuple(nodes))


_NOT_IN_INDEX = (Mapping, list, tuple, date)


def _not_among(keys: Path, wanted: Any, of_document: bool) -> Node:
    return Not(_among(keys, wanted, of_document))


def _exists(keys: Path, wanted: Any, of_document: bool) -> Node:
    for key in keys:
        as_text(key)
    return _if(wanted, Exists(keys, of_document))


def _if(wanted: Any, found: Node) -> Node:
    if not isinstance(wanted, bool):
        raise InvalidFilter(f"$exists takes True or False, not {type(wanted).__name__}")
    return found if wanted else Not(found)


def _contains(keys: Path, wanted: Any, of_document: bool) -> Node:
    values = list(wanted) if isinstance(wanted, list | tuple) else [wanted]
    return Contains((as_json(_nested(keys, values)),), of_document)


def _like(keys: Path, wanted: Any, of_document: bool) -> Node:
    for key in keys:
        as_text(key)
    return Like(keys, as_pattern(wanted), of_document)


_BUILDERS: dict[str, Callable[[Path, Any, bool], Node]] = {
    "$eq": _equal,
    "$ne": _unequal,
    "$in": _among,
    "$nin": _not_among,
    "$exists": _exists,
    "$contains": _contains,
    "$like": _like,
}


def _compared(keys: Path, operator: str, wanted: Any, of_document: bool) -> Node:
    kind, value = as_ordered(wanted, operator)
    for key in keys:
        as_text(key)
    return Compare(keys, _ORDER.get(operator, "="), kind, value, of_document)


def _field(name: str, operator: str, wanted: Any, depth: int = 0) -> Node:
    if operator in ("$ne", "$nin", "$not"):
        if operator == "$not":
            if not _is_operators(wanted):
                raise InvalidFilter("$not beneath a field takes operators")
            _check_depth(depth)
            inside = (_field(name, each, value, depth + 1) for each, value in wanted.items())
            return Not(Every(tuple(inside)))
        return Not(_field(name, {"$ne": "$eq", "$nin": "$in"}[operator], wanted))
    if operator == "$exists":
        return _if(wanted, Field(name, "exists", None))
    if operator == "$in":
        values = tuple(_field_value(name, each) for each in as_values(wanted, "$in takes"))
        return Field(name, "in", values)
    if operator == "$like" and not name.endswith("_at"):
        return Field(name, "like", as_pattern(wanted))
    if operator == "$eq" and wanted is None:
        return Not(Field(name, "exists", None))
    if operator == "$eq" or operator in _ORDER:
        return Field(name, _ORDER.get(operator, "="), _field_value(name, wanted))
    raise InvalidFilter(f"the field {name!r} of a document has no operator {operator!r}")


def _field_value(name: str, wanted: Any) -> Any:
    if not name.endswith("_at"):
        return as_text(wanted)
    if not isinstance(wanted, datetime):
        raise InvalidFilter(f"{name} is compared with a datetime, not {type(wanted).__name__}")
    return as_moment(wanted)


def _check_depth(depth: int) -> None:
    if depth > MAX_NESTING:
        raise InvalidFilter(f"where= is nested more than {MAX_NESTING} levels deep")
