"""Tables made once more from their text, and under new names."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL

from ragstore.exceptions import CouldNotCompare
from ragstore.migrations import scratch
from ragstore.migrations.renames import Rename
from tests.integration.migrations.support import ITEM, compared, connected, differences


def test_a_restored_dump_has_other_text(empty_database: URL) -> None:
    """A CHECK that was printed and read once more differs in text, and is equal when rebuilt."""
    metadata = sa.MetaData()
    check = sa.CheckConstraint("kind IN ('a', 'b')", name="kind_check")
    part = sa.Index("part", "kind", postgresql_where=sa.text("kind IN ('a', 'b')"))
    sa.Table("item", metadata, sa.Column("kind", sa.String), check, part)
    listed = "(ARRAY[('a'::character varying)::text, ('b'::character varying)::text])"
    statements = (
        "CREATE TABLE item (kind varchar)",
        f"ALTER TABLE item ADD CONSTRAINT kind_check CHECK (((kind)::text = ANY {listed}))",
        f"CREATE INDEX part ON item (kind) WHERE ((kind)::text = ANY {listed})",
    )

    with connected(empty_database, *statements) as connection:
        wanted, found, *forms = compared(connection, [metadata])

    assert len(differences(wanted.tables, found.tables)) == 4
    assert differences(*forms) == []
    assert differences(forms[1], found.tables) == []


def test_renames(empty_database: URL) -> None:
    """Facts under new names are what the server prints after the renames, foreign keys too."""
    statements = (
        """CREATE TABLE item (id serial PRIMARY KEY, a int DEFAULT 3 CHECK (a > 0), "B" int,
          c int GENERATED ALWAYS AS (a + 1) STORED, parent_id int,
          CONSTRAINT pair UNIQUE (a, "B"))""",
        """ALTER TABLE item ADD CONSTRAINT parent
          FOREIGN KEY (parent_id, a) REFERENCES item (a, "B") ON UPDATE CASCADE
          ON DELETE SET NULL (parent_id) DEFERRABLE INITIALLY DEFERRED NOT VALID""",
        'CREATE INDEX ix ON item ("B" DESC, (a + "B")) INCLUDE (id) WHERE a > 5',
        "CREATE SCHEMA rag",
        "CREATE TABLE rag.part (item_id int REFERENCES item ON DELETE SET DEFAULT, id int)",
        "CREATE UNIQUE INDEX plain ON rag.part (id)",
        "CREATE TABLE rag.of_part (id int REFERENCES rag.part (id) MATCH FULL)",
    )
    part, of_part = ("rag", "part"), ("rag", "of_part")
    renames = [
        Rename("table", ITEM, "item", "Thing"),
        Rename("column", ITEM, "a", "first one"),
        Rename("column", ITEM, "parent_id", "parent"),
        Rename("column", ITEM, "id", "number"),
        Rename("index", ITEM, "ix", "new ix"),
        Rename("constraint", ITEM, "pair", "new pair"),
        Rename("constraint", ITEM, "parent", "new parent"),
        Rename("table", part, "part", "piece"),
        Rename("column", part, "item_id", "thing_id"),
        Rename("index", part, "plain", "simple"),
    ]
    done = (
        'ALTER TABLE item RENAME a TO "first one"',
        "ALTER TABLE item RENAME parent_id TO parent",
        "ALTER TABLE item RENAME id TO number",
        'ALTER INDEX ix RENAME TO "new ix"',
        'ALTER TABLE item RENAME CONSTRAINT pair TO "new pair"',
        'ALTER TABLE item RENAME CONSTRAINT parent TO "new parent"',
        'ALTER TABLE item RENAME TO "Thing"',
        "ALTER TABLE rag.part RENAME item_id TO thing_id",
        "ALTER TABLE rag.part RENAME TO piece",
        "ALTER INDEX rag.plain RENAME TO simple",
    )
    with connected(empty_database, *statements) as connection:
        with scratch.opened(connection) as bench:
            found = bench.read([None, "rag"])
            renamed = bench.rebuild(found, [ITEM, part, of_part], renames)
            assert found == bench.read([None, "rag"])
        for statement in done:
            connection.exec_driver_sql(statement)
        with scratch.opened(connection) as bench:
            expected = bench.read([None, "rag"]).tables

    assert set(renamed) == {(None, "Thing"), ("rag", "piece"), of_part}
    assert differences(renamed, expected) == []


def test_text_that_cannot_be_read_again(empty_database: URL) -> None:
    """A rebuild that the server refuses is told like a build."""
    statement = "CREATE TABLE item (id int DEFAULT 1)"
    with connected(empty_database, statement) as connection, scratch.opened(connection) as bench:
        found = bench.read()
        columns = found.tables[ITEM].columns
        columns["id"] = replace(columns["id"], default="nothing()")
        with pytest.raises(CouldNotCompare, match=r"nothing\(\) does not exist"):
            bench.rebuild(found, [ITEM])
