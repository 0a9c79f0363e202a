"""The queries of ``catalog``: one for each kind of object, over whole schemas at once."""

from __future__ import annotations

from sqlalchemy import text

PATH = text("""
SELECT coalesce(current_schema(), 'public'), current_schemas(false),
  ARRAY(SELECT nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE nspname <> ALL (current_schemas(true)) GROUP BY nspname ORDER BY nspname)
""")

# What an extension made is the extension's business.
_NOT_OF_EXTENSION = """NOT EXISTS (SELECT FROM pg_depend e
  WHERE e.classid = '{0}'::regclass AND e.objid = {1}.oid AND e.deptype = 'e')"""

RELATIONS = f"""
SELECT c.oid, n.nspname, c.relname, quote_ident(c.relname) AS quoted, c.relkind::text AS kind,
  c.relispartition AS is_partition, c.relpersistence = 'u' AS unlogged, c.reloptions AS options,
  toast.reloptions AS toast_options, d.description AS comment,
  CASE c.relkind WHEN 'p' THEN pg_get_partkeydef(c.oid) END AS partition_key
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_class toast ON toast.oid = c.reltoastrelid
LEFT JOIN pg_description d
  ON d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0
WHERE n.nspname = ANY (CAST(:schemas AS text[])) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND {_NOT_OF_EXTENSION.format("pg_class", "c")}
ORDER BY n.nspname, c.relname
"""  # noqa: S608 - nothing but the constants above

COLUMNS = """
SELECT a.attrelid, a.attnum, a.attname, a.atttypid, format_type(a.atttypid, a.atttypmod) AS type,
  NOT a.attnotnull AS nullable, pg_get_expr(f.adbin, f.adrelid) AS expression,
  a.attgenerated::text AS generated, a.attidentity::text AS identity, d.description AS comment,
  CASE WHEN a.attcollation NOT IN (0, t.typcollation)
    THEN a.attcollation::regcollation::text END AS collation
FROM pg_attribute a
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
LEFT JOIN pg_description d
  ON d.objoid = a.attrelid AND d.classoid = 'pg_class'::regclass AND d.objsubid = a.attnum
WHERE a.attrelid = ANY (CAST(:tables AS oid[])) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
"""
# A sequence that belongs to no column has neither table nor column.
SEQUENCES = f"""
SELECT n.nspname, c.relname, o.refobjid AS table, o.refobjsubid AS column,
  format('nextval(%L::regclass)', c.oid::regclass::text) AS next_value,
  format_type(s.seqtypid, NULL) AS type, s.seqstart, s.seqincrement, s.seqmin, s.seqmax,
  s.seqcache, s.seqcycle
FROM pg_sequence s
JOIN pg_class c ON c.oid = s.seqrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_depend o ON o.classid = 'pg_class'::regclass AND o.objid = c.oid
  AND o.refclassid = 'pg_class'::regclass AND o.deptype IN ('a', 'i')
WHERE (n.nspname = ANY (CAST(:schemas AS text[])) OR o.refobjid = ANY (CAST(:tables AS oid[])))
  AND {_NOT_OF_EXTENSION.format("pg_class", "c")}
ORDER BY n.nspname, c.relname
"""  # noqa: S608

CONSTRAINTS = """
SELECT k.conrelid, k.conname, k.contype::text AS kind, pg_get_constraintdef(k.oid) AS definition,
  k.conkey AS key, n.nspname AS refers_schema, r.relname AS refers_to,
  r.oid::regclass::text AS refers_printed,
  ARRAY(SELECT a.attname FROM unnest(k.confkey) WITH ORDINALITY u(number, place)
    JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.number
    ORDER BY u.place) AS referred,
  k.confupdtype::text AS on_update, k.confdeltype::text AS on_delete,
  ARRAY(SELECT quote_ident(a.attname) FROM unnest(k.confdelsetcols) WITH ORDINALITY u(number, place)
    JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.number
    ORDER BY u.place) AS on_delete_columns,
  k.confmatchtype = 'f' AS match_full, k.condeferrable, k.condeferred, k.convalidated,
  {enforced} AS enforced, k.connoinherit, pg_get_expr(k.conbin, k.conrelid) AS expression,
  i.relname AS rests_on, x.indnullsnotdistinct, x.indnkeyatts, x.indkey::int2[] AS index_key,
  ARRAY(SELECT DISTINCT m.refobjsubid FROM pg_depend m
    WHERE k.contype = 'x' AND m.classid = 'pg_class'::regclass AND m.objid = k.conindid
      AND m.refobjid = k.conrelid AND m.refobjsubid > 0) AS excluded,
  d.description AS comment
FROM pg_constraint k
LEFT JOIN pg_class r ON r.oid = k.confrelid
LEFT JOIN pg_namespace n ON n.oid = r.relnamespace
LEFT JOIN pg_class i ON i.oid = k.conindid
LEFT JOIN pg_index x ON x.indexrelid = k.conindid
LEFT JOIN pg_description d ON d.objoid = k.oid AND d.classoid = 'pg_constraint'::regclass
WHERE k.conrelid = ANY (CAST(:tables AS oid[])) AND k.contype IN ('p', 'u', 'f', 'c', 'x')
ORDER BY k.conrelid, k.conname
"""
INDEXES = """
SELECT x.indrelid, i.relname, quote_ident(i.relname) AS quoted, m.amname AS method, x.indisunique,
  x.indisvalid, x.indnullsnotdistinct, x.indnkeyatts, x.indkey::int2[] AS index_key,
  pg_get_indexdef(x.indexrelid) AS definition, i.reloptions AS options,
  ARRAY(SELECT pg_get_indexdef(x.indexrelid, place, false)
    FROM generate_series(1, x.indnkeyatts) place ORDER BY place) AS keys,
  pg_get_expr(x.indpred, x.indrelid) AS predicate,
  ARRAY(SELECT DISTINCT d.refobjsubid FROM pg_depend d
    WHERE d.classid = 'pg_class'::regclass AND d.objid = x.indexrelid
      AND d.refclassid = 'pg_class'::regclass AND d.refobjid = x.indrelid
      AND d.refobjsubid > 0) AS mentioned
FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_am m ON m.oid = i.relam
WHERE x.indrelid = ANY (CAST(:tables AS oid[])) AND NOT EXISTS (SELECT FROM pg_constraint k
  WHERE k.conindid = x.indexrelid AND k.conrelid = x.indrelid AND k.contype IN ('p', 'u', 'x'))
ORDER BY x.indrelid, i.relname
"""
TYPES = f"""
SELECT t.oid, t.typarray, n.nspname, t.typname, t.typtype::text AS kind,
  ARRAY(SELECT l.enumlabel FROM pg_enum l WHERE l.enumtypid = t.oid
    ORDER BY l.enumsortorder) AS labels,
  format_type(t.typbasetype, t.typtypmod) AS type, NOT t.typnotnull AS nullable,
  pg_get_expr(t.typdefaultbin, 0) AS expression,
  CASE WHEN t.typcollation NOT IN (0, b.typcollation)
    THEN t.typcollation::regcollation::text END AS collation,
  ARRAY(SELECT ARRAY[k.conname, pg_get_constraintdef(k.oid)] FROM pg_constraint k
    WHERE k.contypid = t.oid AND k.contype = 'c' ORDER BY k.conname) AS checks
FROM pg_type t
JOIN pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_type b ON b.oid = t.typbasetype
WHERE n.nspname = ANY (CAST(:schemas AS text[])) AND t.typtype IN ('e', 'd')
  AND {_NOT_OF_EXTENSION.format("pg_type", "t")}
ORDER BY n.nspname, t.typname
"""  # noqa: S608

ROUTINES = f"""
SELECT n.nspname, p.proname, pg_get_functiondef(p.oid) AS definition,
  ARRAY(SELECT format_type(u.type, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY u(type, place)
    ORDER BY u.place) AS arguments
FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = ANY (CAST(:schemas AS text[])) AND p.prokind IN ('f', 'p')
  AND {_NOT_OF_EXTENSION.format("pg_proc", "p")}
ORDER BY n.nspname, p.proname, p.oid
"""  # noqa: S608

SURROUNDINGS = text("""
SELECT ARRAY(SELECT nspname FROM pg_namespace
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'),
  ARRAY(SELECT extname FROM pg_extension)
""")

# The extensions whose types, operator classes and functions the objects of some schemas use. The
# type of an array is its element's. Without MATERIALIZED the joins are misjudged, and take minutes.
USED_EXTENSIONS = """
WITH spaces AS MATERIALIZED (
  SELECT oid FROM pg_namespace WHERE nspname = ANY (CAST(:schemas AS text[]))),
relations AS MATERIALIZED (
  SELECT oid FROM pg_class WHERE relnamespace IN (SELECT oid FROM spaces)),
own AS MATERIALIZED (
  SELECT 'pg_class'::regclass::oid AS classid, oid AS objid FROM relations
  UNION ALL SELECT 'pg_attrdef'::regclass, oid FROM pg_attrdef
    WHERE adrelid IN (SELECT oid FROM relations)
  UNION ALL SELECT 'pg_constraint'::regclass, oid FROM pg_constraint
    WHERE conrelid IN (SELECT oid FROM relations)
  UNION ALL SELECT 'pg_type'::regclass, oid FROM pg_type
    WHERE typnamespace IN (SELECT oid FROM spaces)
  UNION ALL SELECT 'pg_proc'::regclass, oid FROM pg_proc
    WHERE pronamespace IN (SELECT oid FROM spaces)),
used AS MATERIALIZED (
  SELECT DISTINCT d.refclassid, coalesce(t.typelem, d.refobjid) AS refobjid
  FROM own JOIN pg_depend d ON d.classid = own.classid AND d.objid = own.objid
  LEFT JOIN pg_type t ON d.refclassid = 'pg_type'::regclass AND t.oid = d.refobjid
    AND t.typcategory = 'A'),
members AS MATERIALIZED (
  SELECT m.classid, m.objid, e.extname FROM pg_depend m JOIN pg_extension e ON e.oid = m.refobjid
  WHERE m.refclassid = 'pg_extension'::regclass AND m.deptype = 'e')
SELECT DISTINCT extname FROM used JOIN members ON classid = refclassid AND objid = refobjid
"""
