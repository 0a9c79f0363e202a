"""Facts about a schema, read from the database's own catalog.

What the server says of an object (``pg_get_indexdef`` and the like) is the one description that
two spellings of the same thing share, so schemas are compared by it.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

# Each query gives (kind, name, definition). Objects of an extension are the extension's business,
# and partitions are runtime objects.
_TABLES = """
SELECT 'table', c.relname, concat_ws(' ',
  CASE c.relkind WHEN 'p' THEN 'partitioned by ' || pg_get_partkeydef(c.oid) ELSE 'plain' END,
  CASE c.relpersistence WHEN 'u' THEN 'unlogged' END, c.reloptions::text,
  'comment ' || obj_description(c.oid, 'pg_class'))
FROM relations c
"""
_COLUMNS = """
SELECT 'column', c.relname || '.' || a.attname, concat_ws(' ',
  format_type(a.atttypid, a.atttypmod),
  CASE WHEN a.attnotnull THEN 'not null' END,
  CASE a.attidentity WHEN 'a' THEN 'identity always' WHEN 'd' THEN 'identity by default' END,
  CASE a.attgenerated WHEN 's' THEN 'stored' WHEN 'v' THEN 'virtual' ELSE 'default' END
    || ' ' || pg_get_expr(d.adbin, d.adrelid),
  'collate ' || (SELECT collname FROM pg_collation
    WHERE oid = a.attcollation AND collname <> 'default'),
  'storage ' || nullif(a.attstorage, t.typstorage)::text,
  'comment ' || col_description(c.oid, a.attnum))
FROM relations c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
"""
_CONSTRAINTS = """
SELECT 'constraint', c.relname || '.' || k.conname,
  pg_get_constraintdef(k.oid) || CASE WHEN k.convalidated THEN '' ELSE ' not validated' END
FROM relations c JOIN pg_constraint k ON k.conrelid = c.oid
"""
_INDEXES = """
SELECT 'index', i.relname,
  pg_get_indexdef(x.indexrelid, 0, true) || CASE WHEN x.indisvalid THEN '' ELSE ' invalid' END
FROM relations c JOIN pg_index x ON x.indrelid = c.oid JOIN pg_class i ON i.oid = x.indexrelid
"""
_FUNCTIONS = """
SELECT 'function', p.oid::regprocedure::text, pg_get_functiondef(p.oid)
FROM pg_proc p
WHERE p.pronamespace = CAST(:schema AS regnamespace) AND p.prokind = 'f' AND NOT EXISTS (
  SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
"""
_RELATIONS = """
WITH relations AS (
  SELECT c.* FROM pg_class c
  WHERE c.relnamespace = CAST(:schema AS regnamespace) AND c.relkind IN ('r', 'p')
    AND NOT c.relispartition AND NOT EXISTS (
      SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e'))
"""


def read_catalog(connection: Connection, schema: str = "public") -> dict[str, str]:
    """Return the definition of every object of a schema, by kind and name.

    Columns are named and not numbered: two tables whose columns stand in another order are equal.
    """
    queries = [_RELATIONS + part for part in (_TABLES, _COLUMNS, _CONSTRAINTS, _INDEXES)]
    return {
        f"{kind} {name}": definition
        for query in [*queries, _FUNCTIONS]
        for kind, name, definition in connection.execute(text(query), {"schema": schema})
    }
