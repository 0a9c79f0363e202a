"""Which changes of a column make Postgres write every row anew."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ALIASES = {
    "varchar": "character varying",
    "char": "character",
    "bpchar": "character",
    "varbit": "bit varying",
    "decimal": "numeric",
    "int": "integer",
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "bool": "boolean",
    "float4": "real",
    "float8": "double precision",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
    "time": "time without time zone",
    "timetz": "time with time zone",
}
_DEFAULTS = {"character": (1,), "bit": (1,)}
_PATTERN = re.compile(
    r"(?P<first>.*?)\s*(?:\((?P<sizes>[\d,\s-]+)\))?(?P<rest>[^()\[\]]*)(?P<array>(\[\d*\])*)"
)
# Types of one representation: (old, new), with no length for new. Measured, as the rest in here.
_ALIKE = frozenset(
    {
        ("character varying", "text"),
        ("text", "character varying"),
        ("cidr", "inet"),
        ("xml", "text"),
        ("xml", "character varying"),
        ("citext", "text"),
        ("citext", "character varying"),
        ("text", "citext"),
        ("character varying", "citext"),
        ("bit", "bit varying"),
        ("bit varying", "bit"),
    }
)
_WIDENED = ("character varying", "bit varying", "time", "timestamp", "interval")

_STEADY = frozenset(
    word
    for line in (
        "abs array_fill btrim ceil coalesce concat current_schema current_setting date_part",
        "date_trunc decode encode floor format greatest jsonb_build_array jsonb_build_object",
        "json_build_array json_build_object least length lower lpad ltrim make_date make_interval",
        "make_timestamp md5 now nullif pg_backend_pid pi regexp_replace repeat replace right round",
        "rpad rtrim sha256 split_part statement_timestamp substr substring to_char to_date to_json",
        "to_jsonb to_timestamp to_tsquery to_tsvector transaction_timestamp trim trunc upper",
        "version array cast current_date current_time current_timestamp localtime localtimestamp",
        "extract row in and or not",
    )
    for word in line.split()
)
_QUOTED = re.compile(r"'(?:[^']|'')*'")
_CAST = re.compile(r"::\s*(?:\"[^\"]+\"|[\w.]+)(?:\s+varying|\s+precision)?(?:\([\d,\s]*\))?")
_CALL = re.compile(r"(?:(?:\"[^\"]+\"|\w+)\.)?(\"[^\"]+\"|\w+)\s*\(")


@dataclass(frozen=True)
class _Type:
    base: str
    sizes: tuple[int, ...]
    dimensions: bool

    @classmethod
    def of(cls, written: str) -> _Type:
        text = " ".join(re.sub(r"\s+COLLATE\s+.*", "", written, flags=re.IGNORECASE).split())
        found = _PATTERN.fullmatch(text if '"' in text else text.lower())
        if found is None:
            return cls(text, (), dimensions=False)
        sizes = tuple(int(size) for size in (found["sizes"] or "").split(",") if size)
        name = found["first"] + found["rest"]
        base = _ALIASES.get(name, name)
        if not sizes and written.strip().lower() != "bpchar":
            sizes = _DEFAULTS.get(base, ())
        if base == "numeric" and len(sizes) == 1:
            sizes = (*sizes, 0)
        return cls(base, sizes, dimensions=bool(found["array"]))


def rewrites(old: str, new: str) -> bool:
    """Say if ``ALTER COLUMN … TYPE`` from ``old`` to ``new`` writes every row anew.

    The types are texts of ``format_type``, or as SQL is written. A pair that is not known counts as
    one that does. Without a rewrite, constraints and some indexes are checked or built again, but
    the rows stay where they are.
    """
    before, after = _Type.of(old), _Type.of(new)
    if before == after:
        return False
    if before.dimensions != after.dimensions:
        return True
    if before.base == after.base:
        return bool(after.sizes) and not _widened(before, after)
    if before.dimensions or after.sizes:
        return True
    return (before.base, after.base) not in _ALIKE


def _widened(before: _Type, after: _Type) -> bool:
    """Say if a length grew, where Postgres knows that no value needs a look."""
    if not before.sizes or before.dimensions:
        return False
    if before.base == "numeric":
        return before.sizes[0] <= after.sizes[0] and before.sizes[1] == after.sizes[1]
    return before.base.startswith(_WIDENED) and before.sizes <= after.sizes


def is_volatile(default: str) -> bool:
    """Say if a default may differ from row to row, so that adding it writes every row.

    A function that is not known to be steady counts as volatile: that is what one is unless it is
    declared otherwise.
    """
    plain = _CAST.sub("", _QUOTED.sub("''", default))
    return any(name.strip('"').lower() not in _STEADY for name in _CALL.findall(plain))
