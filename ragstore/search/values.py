"""The values of a filter: each is checked, and returned as it is sent.

What no stored value could be compared with is refused with an ``InvalidFilter``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any

from ragstore.content import check_text, metadata_json
from ragstore.exceptions import InvalidFilter, InvalidInput
from ragstore.models import MAX_TEXT_BYTES

MAX_VALUES = 10_000
"""The most values of one ``$in``."""


def as_ordered(wanted: Any, operator: str) -> tuple[str, Any]:
    """Return the kind of a value that has an order, and the value as it is sent."""
    if isinstance(wanted, datetime):
        return "moment", _in_utc(as_moment(wanted)).isoformat()
    if isinstance(wanted, date):
        return "date", wanted.isoformat()
    if isinstance(wanted, str):
        return "text", as_text(wanted)
    if isinstance(wanted, int | float | Decimal) and not isinstance(wanted, bool):
        # Of numpy's floats, which are floats, repr() tells the type as well.
        number = Decimal(repr(float(wanted)) if isinstance(wanted, float) else wanted)
        if not number.is_finite() or number.adjusted() > 131_071 or _decimals(number) > 16_383:
            raise InvalidFilter(f"{operator} has {number!s:.40}, which no metadata is equal to")
        return "number", number
    raise InvalidFilter(
        f"{operator} compares numbers, strings and dates, not {type(wanted).__name__}"
    )


def _decimals(number: Decimal) -> int:
    return -int(number.as_tuple().exponent)


def as_moment(moment: datetime) -> datetime:
    """Return a moment, if it has a time zone."""
    if moment.utcoffset() is None:
        raise InvalidFilter("a naive datetime: give it a time zone, as datetime.now(timezone.utc)")
    return moment


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(timezone.utc)
    except OverflowError:
        raise InvalidFilter(f"{moment} is beyond the years 1 to 9999 in UTC") from None


def as_pattern(wanted: Any) -> str:
    """Return a pattern of LIKE."""
    pattern = as_text(wanted)
    if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
        raise InvalidFilter("the pattern of $like ends with a backslash that escapes nothing")
    return pattern


def as_values(wanted: Any, what: str) -> list[Any]:
    """Return the values of a list; ``what`` begins the error, as ``$in takes``."""
    if isinstance(wanted, str | Mapping) or not isinstance(wanted, Iterable):
        raise InvalidFilter(f"{what} a list of values, not {type(wanted).__name__}")
    values = list(wanted)
    if len(values) > MAX_VALUES:
        raise InvalidFilter(f"{what} at most {MAX_VALUES:,} values, not {len(values):,}")
    return values


def as_text(wanted: Any) -> str:
    """Return a string that a stored one may be equal to."""
    try:
        return check_text(wanted, "a value", MAX_TEXT_BYTES)
    except InvalidInput as exc:
        raise InvalidFilter(f"where= is not a filter: {exc}") from exc


def as_json(wanted: Mapping[str, Any]) -> str:
    """Return a mapping as JSON, in the form of stored metadata."""
    try:
        return metadata_json(wanted)
    except InvalidInput as exc:
        raise InvalidFilter(f"where= is not a filter: {exc}") from exc


def as_json_value(wanted: Any) -> str:
    """Return any value as JSON, in that form."""
    return as_json({"": wanted})[len('{"":') : -1]
