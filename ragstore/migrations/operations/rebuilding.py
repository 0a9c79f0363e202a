"""A generated column made anew with all that depends on it in its table.

What only PostgreSQL 17 can say in one statement. The statements that make everything again are
written by the server, before the column goes.
"""

from __future__ import annotations

from alembic.operations import Operations

from ragstore.exceptions import MigrationError
from ragstore.migrations.operations.base import quoted, run, select

# Each query has the table and the column as its parameters. A table's own constraints fall with
# the column; foreign keys of others, and they alone, must be dropped by name.
_OWN = """
SELECT attrelid, attnum FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = %s
"""
_DEPENDENT = f"""
WITH own AS ({_OWN}), dependent AS (
  SELECT DISTINCT d.classid, d.objid FROM pg_depend d JOIN own
    ON d.refclassid = 'pg_class'::regclass AND d.refobjid = own.attrelid
    AND d.refobjsubid = own.attnum)
"""  # noqa: S608 - constants
_FOREIGN_KEYS = f"""{_DEPENDENT}
SELECT format('ALTER TABLE %%s DROP CONSTRAINT %%I', k.conrelid::regclass, k.conname)
FROM dependent d JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
WHERE k.contype = 'f' AND k.conparentid = 0
"""  # noqa: S608 - constants
_COLUMN = f"""
WITH own AS ({_OWN})
SELECT format_type(a.atttypid, a.atttypmod)
  || CASE WHEN a.attcollation <> t.typcollation
    THEN (SELECT format(' COLLATE %%I.%%I', nspname, collname)
      FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
      WHERE c.oid = a.attcollation) ELSE '' END,
  CASE a.attgenerated WHEN 'v' THEN 'VIRTUAL' ELSE 'STORED' END,
  a.attnotnull AND NOT EXISTS (
    SELECT FROM pg_constraint k
    WHERE k.conrelid = a.attrelid AND k.contype = 'n' AND k.conkey[1] = a.attnum)
FROM own JOIN pg_attribute a USING (attrelid, attnum) JOIN pg_type t ON t.oid = a.atttypid
"""  # noqa: S608 - constants
# In the order in which they can run: an index first, for it may be the identity of the replica.
_AGAIN = f"""{_DEPENDENT}, made AS (
  SELECT 1 AS place, i.relname::text AS name,
    replace(pg_get_indexdef(i.oid), ' ON ONLY ', ' ON ') AS statement,
    'INDEX ' || i.oid::regclass::text AS object, obj_description(i.oid, 'pg_class') AS comment
  FROM dependent d JOIN pg_class i
    ON d.classid = 'pg_class'::regclass AND i.oid = d.objid AND i.relkind IN ('i', 'I')
  UNION ALL
  SELECT CASE k.contype WHEN 'n' THEN 0 WHEN 'f' THEN 3 ELSE 2 END, k.conname,
    format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', k.conrelid::regclass, k.conname,
      pg_get_constraintdef(k.oid)),
    format('CONSTRAINT %%I ON %%s', k.conname, k.conrelid::regclass),
    obj_description(k.oid, 'pg_constraint')
  FROM dependent d JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
  WHERE k.conparentid = 0
  UNION ALL
  SELECT 4, s.stxname, pg_get_statisticsobjdef(s.oid),
    format('STATISTICS %%s.%%I', s.stxnamespace::regnamespace, s.stxname),
    obj_description(s.oid, 'pg_statistic_ext')
  FROM dependent d JOIN pg_statistic_ext s
    ON d.classid = 'pg_statistic_ext'::regclass AND s.oid = d.objid
  UNION ALL
  SELECT 5, a.attname, format('ALTER TABLE %%s ALTER COLUMN %%I SET STATISTICS %%s',
      attrelid::regclass, a.attname, a.attstattarget), NULL, NULL
  FROM own JOIN pg_attribute a USING (attrelid, attnum) WHERE a.attstattarget >= 0
  UNION ALL
  SELECT 5, a.attname, format('ALTER TABLE %%s ALTER COLUMN %%I SET STORAGE %%s',
      attrelid::regclass, a.attname, CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN
      'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END), NULL, NULL
  FROM own JOIN pg_attribute a USING (attrelid, attnum) JOIN pg_type t ON t.oid = a.atttypid
  WHERE a.attstorage <> t.typstorage AND a.attgenerated <> 'v'
  UNION ALL
  SELECT 6, a.attname, NULL, format('COLUMN %%s.%%I', attrelid::regclass, a.attname),
    col_description(attrelid, attnum)
  FROM own JOIN pg_attribute a USING (attrelid, attnum)
  UNION ALL
  SELECT 7, x.privilege_type, format('GRANT %%s (%%I) ON %%s TO %%s', x.privilege_type, a.attname,
      attrelid::regclass,
      CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END)
    || CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END, NULL, NULL
  FROM own JOIN pg_attribute a USING (attrelid, attnum), aclexplode(a.attacl) x)
SELECT statement, CASE WHEN comment IS NOT NULL
  THEN format('COMMENT ON %%s IS %%L', object, comment) END
FROM made ORDER BY place, name
"""  # noqa: S608 - constants


def rebuild(operations: Operations, table: str, column: str, expression: str) -> None:
    """Drop a generated column and add it with another expression, and what depends on it again.

    ``table`` is quoted. The column becomes the last one. What is outside of tables, such as a
    view, is not dropped: the server refuses then, and names it.

    Raises:
        MigrationError: there is no such column.
    """
    connection = operations.get_bind()
    found = select(connection, _COLUMN, table, column)
    if not found:
        raise MigrationError(f"The table {table} has no column {column}, or is not there itself")
    [(kind, generated, is_not_null)] = found
    again = select(connection, _AGAIN, table, column)
    for (statement,) in select(connection, _FOREIGN_KEYS, table, column):
        run(operations, statement)
    run(operations, f"ALTER TABLE {table} DROP COLUMN {quoted(column)}")
    run(
        operations,
        f"ALTER TABLE {table} ADD COLUMN {quoted(column)} {kind}"
        f" GENERATED ALWAYS AS ({expression}) {generated}{' NOT NULL' if is_not_null else ''}",
    )
    for statements in again:
        for statement in filter(None, statements):
            run(operations, statement)
