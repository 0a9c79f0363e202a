"""Identity and serial columns, and sequences that stand alone."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Identity, Integer, MetaData, Sequence, SmallInteger, Text

from tests.matrix.case import Case, change, control
from tests.matrix.models import item, number, table


def numbered(*identity: Any, kind: Any = BigInteger) -> MetaData:
    """Return notes whose key is an identity column."""
    return table("note", Column("id", kind, *identity, primary_key=True), Column("body", Text))


def unnumbered() -> MetaData:
    """Return notes whose key is given by their author."""
    return table(
        "note",
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        Column("body", Text),
    )


def second(*identity: Any) -> MetaData:
    """Return items with a second number."""
    return item(Column("place", Integer, *identity, nullable=False))


def taking(**options: Any) -> MetaData:
    """Return items whose code takes its numbers from a sequence of the model's."""
    metadata = MetaData()
    codes = Sequence("codes", metadata=metadata, **options)
    for one in item(
        Column("code", BigInteger, codes, server_default=codes.next_value())
    ).tables.values():
        one.to_metadata(metadata)
    return metadata


def alone(*names: str, **options: Any) -> MetaData:
    """Return items and sequences that no column uses."""
    metadata = item()
    for name in names:
        Sequence(name, metadata=metadata, **options)
    return metadata


CASES: list[Case] = [
    change("identity-added", unnumbered, lambda: numbered(Identity())),
    change("identity-removed", lambda: numbered(Identity()), unnumbered),
    change(
        "identity-to-always", lambda: numbered(Identity()), lambda: numbered(Identity(always=True))
    ),
    change(
        "identity-to-by-default",
        lambda: numbered(Identity(always=True)),
        lambda: numbered(Identity()),
    ),
    change(
        "identity-increment",
        lambda: numbered(Identity()),
        lambda: numbered(Identity(increment=10)),
    ),
    change("identity-cache", lambda: numbered(Identity()), lambda: numbered(Identity(cache=50))),
    change("identity-start", lambda: numbered(Identity()), lambda: numbered(Identity(start=100))),
    change(
        "identity-limits",
        lambda: numbered(Identity(minvalue=1, maxvalue=100)),
        lambda: numbered(Identity(minvalue=1, maxvalue=200, cycle=True)),
    ),
    change(
        "identity-options-removed",
        lambda: numbered(Identity(increment=5, cycle=True)),
        lambda: numbered(Identity()),
    ),
    change("identity-column-added", item, lambda: second(Identity())),
    change("identity-column-dropped", lambda: second(Identity()), item),
    change(
        "identity-type-widened",
        lambda: numbered(Identity(), kind=Integer),
        lambda: numbered(Identity(), kind=BigInteger),
    ),
    change(
        "serial-type-widened",
        lambda: numbered(kind=Integer),
        lambda: numbered(kind=BigInteger),
    ),
    change(
        "serial-small-type-widened",
        lambda: numbered(kind=SmallInteger),
        lambda: numbered(kind=Integer),
    ),
    change("serial-to-identity", numbered, lambda: numbered(Identity())),
    change("identity-to-serial", lambda: numbered(Identity()), numbered),
    change("serial-removed", numbered, unnumbered),
    change("serial-added", unnumbered, numbered),
    change("sequence-added", item, lambda: alone("counter")),
    change("sequence-dropped", lambda: alone("counter"), item),
    change("sequence-increment", lambda: alone("counter"), lambda: alone("counter", increment=5)),
    change("sequence-start", lambda: alone("counter"), lambda: alone("counter", start=100)),
    change(
        "sequence-limits",
        lambda: alone("counter", minvalue=1, maxvalue=10),
        lambda: alone("counter", minvalue=1, maxvalue=1000, cycle=True),
    ),
    change("sequence-cache", lambda: alone("counter", cache=5), lambda: alone("counter")),
    change(
        "sequence-type",
        lambda: alone("counter", data_type=Integer),
        lambda: alone("counter", data_type=BigInteger),
    ),
    change("sequence-with-its-column-added", item, taking),
    change("sequence-with-its-column-dropped", taking, item),
    change("sequence-of-a-column-changed", taking, lambda: taking(increment=2)),
    control("identity-rebuilt", lambda: numbered(Identity(start=5, increment=2, cycle=True))),
    control(
        "identity-spelling",
        lambda: numbered(Identity()),
        lambda: numbered(Identity(always=False, start=1, increment=1, minvalue=1, cache=1)),
    ),
    control("serial-rebuilt", numbered),
    control("sequence-rebuilt", lambda: alone("counter", increment=3, start=2)),
    control(
        "sequence-spelling",
        lambda: alone("counter"),
        lambda: alone("counter", start=1, increment=1, cache=1, data_type=BigInteger),
    ),
    control("sequence-of-a-column-rebuilt", taking),
    control(
        "serial-python-spelling",
        lambda: table("note", number(), Column("body", Text)),
        lambda: table(
            "note",
            Column("id", Integer, primary_key=True, autoincrement=True),
            Column("body", Text),
        ),
    ),
    control(
        "sequence-numbers-taken",
        lambda: alone("counter"),
        beside="SELECT nextval('counter') FROM generate_series(1, 9)",
    ),
]
