"""A generated column made anew, with all that depends on it."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from ragstore.exceptions import MigrationError
from ragstore.migrations.operations import SetGeneratedOp
from ragstore.migrations.operations.rebuilding import rebuild

# Everything that falls with a column, and must be there again.
TABLE = (
    'CREATE TABLE "Order" (id int PRIMARY KEY, a int NOT NULL, note text,'
    ' "G" {type} COLLATE "C" GENERATED ALWAYS AS ({expression}) STORED NOT NULL,'
    ' CONSTRAINT "it\'s" CHECK ("G" <> \'%\'), CONSTRAINT order_g UNIQUE ("G"))'
)
AROUND = (
    "COMMENT ON COLUMN \"Order\".\"G\" IS 'it''s 100% :a'",
    'COMMENT ON CONSTRAINT "it\'s" ON "Order" IS \'checked\'',
    'CREATE INDEX "my-index" ON "Order" (lower("G") text_pattern_ops) WHERE "G" <> \'%\'',
    "COMMENT ON INDEX \"my-index\" IS 'fast'",
    'CREATE STATISTICS order_stats ON "G", note FROM "Order"',
    'ALTER TABLE "Order" ALTER "G" SET STATISTICS 7',
    'ALTER TABLE "Order" ALTER "G" SET STORAGE MAIN',
    (
        'CREATE TABLE other (g varchar(20) COLLATE "C", CONSTRAINT other_g FOREIGN KEY (g)'
        ' REFERENCES "Order" ("G") ON DELETE CASCADE)'
    ),
    'GRANT SELECT ("G") ON "Order" TO PUBLIC',
)
DETAILS = """
SELECT a.attstattarget, a.attacl::text, pg_get_statisticsobjdef(s.oid)
FROM pg_attribute a LEFT JOIN pg_statistic_ext s ON s.stxrelid = a.attrelid
WHERE a.attrelid = '"Order"'::regclass AND a.attname = 'G'
"""


def setup(expression: str) -> tuple[str, ...]:
    """Return the statements that make the table."""
    return (TABLE.format(type="varchar(20)", expression=expression), *AROUND)


def test_all_is_there_again(workbench: Any) -> None:
    """A column made anew has its type, comment, rights, indexes, constraints and the keys to it."""
    new = "'<' || a % 7 || '>'"
    workbench.reset(*setup(new))
    expected = workbench.catalog(), workbench.run(DETAILS)
    workbench.reset(*setup("a::text"), 'INSERT INTO "Order" (id, a) VALUES (1, 9)')

    workbench.within(lambda op: rebuild(op, '"Order"', "G", new))

    assert (workbench.catalog(), workbench.run(DETAILS)) == expected
    assert workbench.run('SELECT "G" FROM "Order"') == [("<2>",)]


def test_partitioned_table(workbench: Any) -> None:
    """An index of a partitioned table is there again on every partition."""
    statements = (
        "CREATE TABLE item (a int, g int GENERATED ALWAYS AS ({}) STORED) PARTITION BY LIST (a)",
        "CREATE TABLE item_1 PARTITION OF item FOR VALUES IN (1)",
        "CREATE INDEX item_g ON item (g)",
    )
    indexes = (
        "SELECT count(*), bool_and(indisvalid) FROM pg_index JOIN pg_class i ON i.oid = indexrelid"
        " WHERE relname LIKE 'item%'"
    )
    workbench.reset(*(each.format("a + 1") for each in statements))

    workbench.within(lambda op: rebuild(op, "item", "g", "a + 2"))

    after = workbench.catalog()
    assert workbench.run(indexes) == [(2, True)]
    workbench.reset(*(each.format("a + 2") for each in statements))
    assert after == workbench.catalog()


def test_a_view_is_in_the_way(workbench: Any) -> None:
    """What is outside of the table is not dropped: the server says so, and nothing has changed."""
    workbench.reset(*setup("a::text"), 'CREATE VIEW seen AS SELECT "G" FROM "Order"')
    before = workbench.catalog()

    with pytest.raises(sa.exc.DBAPIError, match="view seen depends on column"):
        workbench.within(lambda op: rebuild(op, '"Order"', "G", "'x'"))

    assert workbench.catalog() == before


def test_virtual_column(workbench: Any) -> None:
    """A virtual column gets another expression, also where its table has checks."""
    if workbench.run("SHOW server_version_num")[0][0] < "180000":
        pytest.skip("virtual columns came with PostgreSQL 18")
    table = (
        "CREATE TABLE item (a int CHECK (a > 0), g int GENERATED ALWAYS AS ({}) VIRTUAL,"
        " CONSTRAINT g_given NOT NULL g)"
    )
    workbench.reset(table.format("a % 5"))
    expected = workbench.catalog()
    workbench.reset(table.format("a + 1"))
    before = workbench.catalog()
    operation = SetGeneratedOp("item", "g", "a % 5", existing="a + 1")

    workbench.online(operation)
    assert workbench.catalog() == expected
    workbench.written(operation.reverse())

    assert workbench.catalog() == before


def test_no_such_column(workbench: Any) -> None:
    """A column that is not there is named, by the server where that changes the expression."""
    workbench.reset("CREATE TABLE item (a int)")

    with pytest.raises(MigrationError, match="item has no column g"):
        workbench.within(lambda op: rebuild(op, "item", "g", "1"))
    with pytest.raises((sa.exc.DBAPIError, MigrationError), match=r'column "?g'):
        workbench.online(SetGeneratedOp("item", "g", "1"))
