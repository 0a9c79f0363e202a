"""How the values of a column become values of another type, and which of them cannot.

A conversion in place is written only where it keeps what is stored, or where the rows that it
would change can be found first. Everything else needs a person.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ragstore.migrations.facts import Domain

_INTEGERS = ("smallint", "integer", "bigint")
_FRACTIONS = ("numeric", "double precision", "real")
_BITS = {"smallint": 15, "integer": 31, "bigint": 63}
_SIZED = re.compile(r"([a-z ]+?)(?:\((\d+)(?:,(\d+))?\))?(\[\])?")
_TEXTS = frozenset({"text", "character varying", "character"})
_VALUE = re.compile(r"'(?:[^']|'')*'|\bVALUE\b")
_VECTORS = frozenset({"vector", "halfvec", "sparsevec", "bit"})


@dataclass(frozen=True)
class Conversion:
    """What ``ALTER COLUMN … TYPE`` needs, in SQL that names the column ``{0}``.

    ``using`` is None where Postgres converts by itself. ``lost`` is the condition for a row whose
    value would be changed or refused, None if there can be none. ``question`` says why a person
    must decide about such a row.
    """

    using: str | None = None
    lost: str | None = None
    question: str = ""


@dataclass(frozen=True)
class _Type:
    base: str
    size: int | None
    scale: int | None
    is_array: bool

    @classmethod
    def of(cls, sql: str) -> _Type:
        found = _SIZED.fullmatch(sql)
        if found is None:
            return cls(sql, None, None, is_array=False)
        base, size, scale, array = found.groups()
        return cls(base, _integer(size), _integer(scale), is_array=bool(array))


def _integer(digits: str | None) -> int | None:
    return None if digits is None else int(digits)


def conversion(
    old: str, new: str, *, old_values: tuple[str, ...] = (), new_values: tuple[str, ...] = ()
) -> Conversion | None:
    """Return how a column of type ``old`` becomes one of type ``new``; None if it cannot in place.

    The types are as the server prints them. The values are those of enumerated types.
    """
    if old_values or new_values:
        return _of_enums(old, new, old_values, new_values)
    before, after = _Type.of(old), _Type.of(new)
    if before.is_array != after.is_array and "vector" in (before.base, after.base):
        return _between_array_and_vector(before, after, new)
    if before.is_array or after.is_array:
        return _of_arrays(before, after, new)
    if after.base in _TEXTS:
        return _to_text(before, after, new)
    if before.base in _VECTORS or after.base in _VECTORS:
        return _of_vectors(before, after, new)
    if before.base in _INTEGERS and after.base in _INTEGERS:
        return _of_integers(before.base, after.base)
    if after.base == "numeric" and before.base in (*_INTEGERS, "numeric"):
        return _to_numeric(before, after)
    return _of_others(before, after, new)


def are_alike(old: str, new: str) -> bool:
    """Tell whether Postgres gives a default of one type to a column of the other by itself."""
    before, after = _Type.of(old), _Type.of(new)
    if before.is_array != after.is_array:
        return False
    bases = {before.base, after.base}
    return len(bases) == 1 or bases <= _TEXTS or bases <= {*_INTEGERS, *_FRACTIONS}


def of_value(condition: str) -> str:
    """Return the condition of a domain's check with ``{}`` where its VALUE stands, for format()."""
    braced = condition.replace("{", "{{").replace("}", "}}")
    return _VALUE.sub(lambda found: "{}" if found[0] == "VALUE" else found[0], braced)


def into_domain(change: Conversion, domain: Domain, name: str) -> Conversion:
    """Return how values that become the type below ``domain`` become its own; ``name`` is it."""
    value = f"({change.using or '{0}'})"
    conditions = [f"{value} IS NOT NULL"] if not domain.nullable else []
    conditions += [
        of_value(check.removeprefix("CHECK ")).format(value) for _, check in domain.checks
    ]
    lost = [change.lost] if change.lost else []
    lost += [f"NOT ({condition})" for condition in conditions]
    question = change.question if not conditions else f"it is no {name}"
    return Conversion(f"{value}::{name}", " OR ".join(lost) or None, question)


def _of_enums(
    old: str, new: str, old_values: tuple[str, ...], new_values: tuple[str, ...]
) -> Conversion | None:
    array = "[]" if old.endswith("[]") else ""
    if array != ("[]" if new.endswith("[]") else ""):
        return None
    using = f"{{0}}::text{array}::{new}"
    if not new_values:
        return Conversion(using) if _Type.of(new).base in {"text", "character varying"} else None
    if array:
        return Conversion(using)
    if old_values and set(old_values) <= set(new_values):
        return Conversion(using)
    if not old_values and _Type.of(old).base not in _TEXTS:
        return None
    known = ", ".join(_literal(value) for value in new_values)
    return Conversion(
        using, f"{{0}}::text NOT IN ({known})", "the new type does not have its value"
    )


def _of_arrays(before: _Type, after: _Type, new: str) -> Conversion | None:
    if not (before.is_array and after.is_array):
        return None
    widened = (before.base, after.base) in _WIDER or after.base == "text"
    same = before.base == after.base and after.size is None
    return Conversion(f"{{0}}::{new}") if widened or same else None


def _to_text(before: _Type, after: _Type, new: str) -> Conversion:
    using = None if before.base in _TEXTS - {"character"} else f"{{0}}::{new}"
    was = before.size if before.base in _TEXTS else None
    size = 1 if after.base == "character" and after.size is None else after.size
    if size is None or (was is not None and was <= size):
        return Conversion(using)
    return Conversion(
        using, f"char_length({{0}}::text) > {size}", f"it is longer than {size} characters"
    )


def _of_vectors(before: _Type, after: _Type, new: str) -> Conversion | None:
    if before.base == after.base and after.size is None:
        return Conversion()
    if before.base == after.base == "vector" and before.size is None:
        lost = f"vector_dims({{0}}) <> {after.size}"
        return Conversion(None, lost, f"it has another number of dimensions than {after.size}")
    if before.base == "halfvec" and after.base == "vector" and before.size == after.size:
        return Conversion(f"{{0}}::{new}")
    if before.base == "vector" and after.base == "halfvec" and before.size == after.size:
        lost = f"{{0}} <> {{0}}::{new}::vector"
        return Conversion(f"{{0}}::{new}", lost, _ROUNDED.format(new))
    return None  # the values must be made again


def _between_array_and_vector(before: _Type, after: _Type, new: str) -> Conversion | None:
    """Return how a real[] becomes a vector, and back: the elements are the same."""
    if before.is_array and before.base == "real" and after.size is not None:
        # The cast refuses what is NULL, empty or nested: it is only tried on what it takes.
        flat = "array_ndims({0}) = 1 AND array_position({0}, NULL) IS NULL"
        lost = f"NOT coalesce({flat} AND cardinality({{0}}) = {after.size}, {{0}} IS NULL)"
        return Conversion(f"{{0}}::{new}", lost, f"it has not {after.size} numbers in a row")
    return Conversion(f"{{0}}::{new}") if after.is_array and after.base == "real" else None


def _of_integers(old: str, new: str) -> Conversion:
    if _BITS[old] <= _BITS[new]:
        return Conversion()
    limit = 2 ** _BITS[new]
    return Conversion(
        None, f"{{0}} NOT BETWEEN {-limit} AND {limit - 1}", f"it does not fit the type {new}"
    )


def _to_numeric(before: _Type, after: _Type) -> Conversion:
    if after.size is None:
        return Conversion()
    scale = after.scale or 0
    if before.base == "numeric" and before.size is not None:
        was = before.scale or 0
        if was <= scale and before.size - was <= after.size - scale:
            return Conversion()
    whole = after.size - scale
    lost = f"{{0}} <> round({{0}}, {scale}) OR abs({{0}}) >= 10::numeric ^ {whole}"
    return Conversion(None, lost, f"it does not fit numeric({after.size},{scale})")


# Pairs that Postgres converts with nothing lost, beside the integers.
_WIDER = {
    ("smallint", "integer"),
    ("smallint", "bigint"),
    ("integer", "bigint"),
    ("smallint", "real"),
    ("smallint", "double precision"),
    ("integer", "double precision"),
    ("real", "double precision"),
    ("character varying", "text"),
    ("date", "timestamp without time zone"),
    ("cidr", "inet"),
}
# Pairs with a cast both ways, where the rows that do not come back as they were can be found.
_THERE_AND_BACK = {
    ("double precision", "real"),
    ("bigint", "double precision"),
    ("bigint", "real"),
    ("integer", "real"),
    ("timestamp without time zone", "date"),
    ("timestamp without time zone", "timestamp without time zone"),
    ("timestamp with time zone", "timestamp with time zone"),
    ("interval", "interval"),
    ("json", "jsonb"),
}
# Pairs with a cast that cannot fail or lose anything.
_CAST = {
    ("boolean", "integer"),
    ("jsonb", "json"),
    ("text", "citext"),
    ("character varying", "citext"),
}
_ROUNDED = "as {} it would not be the same: if it may be rounded, this line can go"
_ZONES = {
    ("timestamp without time zone", "timestamp with time zone"),
    ("timestamp with time zone", "timestamp without time zone"),
}


def _of_others(before: _Type, after: _Type, new: str) -> Conversion | None:
    pair = (_unsized_timestamp(before.base), _unsized_timestamp(after.base))
    if pair in _WIDER:
        return Conversion()
    if pair in _CAST:
        return Conversion(f"{{0}}::{new}")
    if pair in _ZONES:
        question = "is the time without a zone the one of UTC? Then this line can go"
        return Conversion("{0} AT TIME ZONE 'UTC'", "{0} IS NOT NULL", question)
    if pair == ("interval", "interval") and (after.size or 6) >= (before.size or 6):
        return Conversion()
    if pair in _THERE_AND_BACK:
        old = before.base if before.size is None else f"{before.base}({before.size})"
        if pair[0] == "json":
            lost = "{0}::text <> {0}::jsonb::text"
        else:
            lost = f"{{0}} <> {{0}}::{new}::{old}"
        return Conversion(f"{{0}}::{new}", lost, _ROUNDED.format(new))
    if before.base in _FRACTIONS and after.base in _INTEGERS:
        limit = 2 ** _BITS[after.base]
        lost = f"{{0}} <> trunc({{0}}) OR {{0}} NOT BETWEEN {-limit} AND {limit - 1}"
        return Conversion(f"{{0}}::{new}", lost, f"it is no {new}")
    if before.base == "integer" and after.base == "boolean":
        return Conversion("{0}::boolean", "{0} NOT IN (0, 1)", "it is neither 0 nor 1")
    return None


def _unsized_timestamp(sql: str) -> str:
    return re.sub(r"\(\d\)", "", sql)


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
