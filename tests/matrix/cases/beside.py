"""What somebody else made in the database stays, and is not reported."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

from tests.matrix.case import Case, change, control
from tests.matrix.models import item, number


def shop() -> MetaData:
    """Return items with a rank and a state, and owners."""
    metadata = item(
        Column("rank", Integer),
        Column("state", String(9)),
        CheckConstraint("state IN ('value 1', 'value 2', 'value 3')", name="item_state"),
        Index("item_rank", "rank", postgresql_where=Column("rank", Integer) > 0),
    )
    Table("owner", metadata, number(), Column("name", Text))
    return metadata


def _left_alone(name: str, beside: str, needs: str = "") -> Case:
    return control(f"beside-{name}", shop, beside=beside, needs=needs)


RESTORED = """
DO $$
DECLARE definition text;
BEGIN
  FOR round IN 1..2 LOOP
    SELECT pg_get_constraintdef(oid) INTO definition FROM pg_constraint
    WHERE conname = 'item_state';
    ALTER TABLE item DROP CONSTRAINT item_state;
    EXECUTE 'ALTER TABLE item ADD CONSTRAINT item_state ' || definition;
    SELECT pg_get_indexdef(oid) INTO definition FROM pg_class WHERE relname = 'item_rank';
    DROP INDEX item_rank;
    EXECUTE definition;
  END LOOP;
END $$
"""


def _wider() -> MetaData:
    metadata = shop()
    metadata.tables["item"].c.rank.type = BigInteger()
    return metadata


def _narrower() -> MetaData:
    metadata = item(
        Column("rank", Integer),
        Column("state", String(9)),
        CheckConstraint("state IN ('value 1', 'value 2', 'value 3', 'more')", name="item_state"),
        Index("item_rank", "rank", postgresql_where=Column("rank", Integer) > 0),
    )
    Table("owner", metadata, number(), Column("name", Text))
    return metadata


CASES: list[Case] = [
    _left_alone("index", "CREATE INDEX theirs ON item (rank, title)"),
    _left_alone("unique-index", "CREATE UNIQUE INDEX theirs ON item (id, title)"),
    _left_alone("column", "ALTER TABLE item ADD theirs integer DEFAULT 5"),
    _left_alone("check", "ALTER TABLE item ADD CONSTRAINT theirs CHECK (rank < 1000)"),
    _left_alone("unique", "ALTER TABLE item ADD CONSTRAINT theirs UNIQUE (id, rank)"),
    _left_alone("table", "CREATE TABLE theirs (id int PRIMARY KEY, item_id int REFERENCES item)"),
    _left_alone(
        "partitioned-table",
        "CREATE TABLE theirs (day int) PARTITION BY RANGE (day);"
        "CREATE TABLE theirs_1 PARTITION OF theirs FOR VALUES FROM (1) TO (2)",
    ),
    _left_alone("child-table", "CREATE TABLE theirs (more int) INHERITS (owner)"),
    _left_alone(
        "view",
        "CREATE VIEW theirs AS SELECT * FROM item;"
        "CREATE MATERIALIZED VIEW kept AS SELECT id FROM item; CREATE INDEX ON kept (id)",
    ),
    _left_alone(
        "trigger",
        "CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER theirs BEFORE INSERT ON item FOR EACH ROW EXECUTE FUNCTION act()",
    ),
    _left_alone(
        "policy",
        "ALTER TABLE item ENABLE ROW LEVEL SECURITY;CREATE POLICY theirs ON item USING (rank > 0)",
    ),
    _left_alone(
        "statistics",
        "CREATE STATISTICS theirs ON rank, title FROM item;"
        "ALTER TABLE item ALTER rank SET STATISTICS 500",
    ),
    _left_alone(
        "type",
        "CREATE TYPE theirs AS ENUM ('a'); CREATE DOMAIN word AS text;"
        "CREATE TYPE pair AS (a int, b int)",
    ),
    _left_alone("sequence", "CREATE SEQUENCE theirs"),
    _left_alone("rule", "CREATE RULE theirs AS ON DELETE TO owner DO INSTEAD NOTHING"),
    _left_alone(
        "publication",
        "CREATE PUBLICATION theirs FOR TABLE item;"
        "ALTER TABLE item REPLICA IDENTITY FULL; DROP PUBLICATION theirs",
    ),
    _left_alone(
        "extension",
        "CREATE INDEX theirs ON item USING gin (title gin_trgm_ops)",
        needs="pg_trgm",
    ),
    _left_alone(
        "foreign-table",
        "CREATE SERVER theirs FOREIGN DATA WRAPPER postgres_fdw;"
        "CREATE FOREIGN TABLE far (id int) SERVER theirs",
        needs="postgres_fdw",
    ),
    _left_alone(
        "file-table",
        "CREATE SERVER theirs FOREIGN DATA WRAPPER file_fdw;"
        "CREATE FOREIGN TABLE far (line text) SERVER theirs OPTIONS (filename '/dev/null')",
        needs="file_fdw",
    ),
    _left_alone("statistics-target-and-storage", "ALTER TABLE item ALTER title SET STATISTICS 9"),
    _left_alone("restored-from-a-dump", RESTORED),
    _left_alone("rights", "CREATE TABLE theirs AS SELECT 1 AS a; GRANT SELECT ON item TO PUBLIC"),
    change(
        "beside-column-type-under-their-index",
        shop,
        _wider,
        beside="CREATE INDEX theirs ON item (rank, title); CREATE INDEX more ON item ((rank + 1))",
    ),
    change(
        "beside-table-of-theirs-refers",
        lambda: item(Column("note", Text)),
        item,
        beside="CREATE TABLE theirs (id int PRIMARY KEY, item_id int REFERENCES item)",
    ),
    change(
        "beside-check-restored-then-changed",
        shop,
        _narrower,
        beside=RESTORED,
    ),
]
