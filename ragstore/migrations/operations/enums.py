"""Enumerated types and their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alembic.operations import Operations

from ragstore.migrations.operations.base import Operation, dollar_quoted, literal, quoted, run

Columns = Sequence[Sequence[str]]
"""The columns of a type: each a table and a column, and the table's schema if it is not default."""


@Operations.register_operation("create_enum")
class CreateEnumOp(Operation):
    """Create an enumerated type."""

    verb = "create_enum"

    def __init__(self, name: str, values: Sequence[str], *, schema: str | None = None) -> None:
        self.name = name
        self.values = list(values)
        self.schema = schema

    @classmethod
    def create_enum(
        cls,
        operations: Operations,
        name: str,
        values: Sequence[str],
        *,
        schema: str | None = None,
    ) -> None:
        """Create the type ``name`` with ``values``, in their order.

        Columns then name it by ``postgresql.ENUM(…, name=name, create_type=False)``.
        """
        operations.invoke(cls(name, values, schema=schema))

    def facts(self) -> tuple[str, list[str]]:
        """Return the name and the values."""
        return (self.name, self.values)

    def reverse(self) -> DropEnumOp:
        """Return the operation that drops the type."""
        return DropEnumOp(self.name, schema=self.schema, values=self.values)


@Operations.register_operation("drop_enum")
class DropEnumOp(Operation):
    """Drop an enumerated type; ``values`` are those that its reverse brings back."""

    verb = "drop_enum"

    def __init__(
        self, name: str, *, schema: str | None = None, values: Sequence[str] | None = None
    ) -> None:
        self.name = name
        self.schema = schema
        self.values = values

    @classmethod
    def drop_enum(cls, operations: Operations, name: str, *, schema: str | None = None) -> None:
        """Drop the type ``name``, which no column may have."""
        operations.invoke(cls(name, schema=schema))

    def facts(self) -> tuple[str]:
        """Return the name."""
        return (self.name,)

    def reverse(self) -> CreateEnumOp:
        """Return the operation that creates the type again."""
        return CreateEnumOp(self.name, self.reversible_by(self.values), schema=self.schema)


@Operations.register_operation("add_enum_value")
class AddEnumValueOp(Operation):
    """Add a value to an enumerated type.

    ``existing_values`` and ``columns`` are what the reverse needs: Postgres cannot take a value
    away, so the type is replaced.
    """

    verb = "add_enum_value"

    def __init__(
        self,
        name: str,
        value: str,
        *,
        before: str | None = None,
        after: str | None = None,
        schema: str | None = None,
        existing_values: Sequence[str] | None = None,
        columns: Columns = (),
    ) -> None:
        self.name = name
        self.value = value
        self.before = before
        self.after = after
        self.schema = schema
        self.existing_values = existing_values
        self.columns = columns

    @classmethod
    def add_enum_value(
        cls,
        operations: Operations,
        name: str,
        value: str,
        *,
        before: str | None = None,
        after: str | None = None,
        schema: str | None = None,
    ) -> None:
        """Add ``value`` to the type ``name``: before or after another one, or as the last.

        Rows cannot have it, nor defaults and checks mention it, before the transaction has ended:
        use it in a later revision. No table is read or locked.
        """
        operations.invoke(cls(name, value, before=before, after=after, schema=schema))

    def facts(self) -> tuple[str, str]:
        """Return the name and the value."""
        return (self.name, self.value)

    def options(self) -> Mapping[str, Any]:
        """Return the value's place."""
        return {"before": self.before, "after": self.after}

    def reverse(self) -> ReplaceEnumOp:
        """Return the operation that replaces the type by one with the values of before."""
        values = self.reversible_by(self.existing_values)
        return ReplaceEnumOp(
            self.name,
            values,
            self.columns,
            schema=self.schema,
            existing_values=self._with_value(values),
        )

    def _with_value(self, values: Sequence[str]) -> list[str]:
        changed, place = list(values), len(values)
        if self.before is not None:
            place = changed.index(self.before)
        elif self.after is not None:
            place = changed.index(self.after) + 1
        return [*changed[:place], self.value, *changed[place:]]


@Operations.register_operation("rename_enum_value")
class RenameEnumValueOp(Operation):
    """Give a value of an enumerated type another name."""

    verb = "rename_enum_value"

    def __init__(self, name: str, old: str, new: str, *, schema: str | None = None) -> None:
        self.name = name
        self.old = old
        self.new = new
        self.schema = schema

    @classmethod
    def rename_enum_value(
        cls,
        operations: Operations,
        name: str,
        old: str,
        new: str,
        *,
        schema: str | None = None,
    ) -> None:
        """Rename the value ``old`` of the type ``name`` to ``new``, in every row that has it."""
        operations.invoke(cls(name, old, new, schema=schema))

    def facts(self) -> tuple[str, str, str]:
        """Return the type, the old value and the new one."""
        return (self.name, self.old, self.new)

    def reverse(self) -> RenameEnumValueOp:
        """Return the operation that gives the old name back."""
        return RenameEnumValueOp(self.name, self.new, self.old, schema=self.schema)


@Operations.register_operation("replace_enum")
class ReplaceEnumOp(Operation):
    """Give an enumerated type other values, or another order of them."""

    verb = "replace_enum"

    def __init__(
        self,
        name: str,
        values: Sequence[str],
        columns: Columns = (),
        *,
        schema: str | None = None,
        existing_values: Sequence[str] | None = None,
    ) -> None:
        self.name = name
        self.values = list(values)
        self.columns = [tuple(column) for column in columns]
        self.schema = schema
        self.existing_values = existing_values

    @classmethod
    def replace_enum(
        cls,
        operations: Operations,
        name: str,
        values: Sequence[str],
        columns: Columns,
        *,
        schema: str | None = None,
    ) -> None:
        """Make the type ``name`` anew with ``values``, and convert ``columns`` to it.

        ``columns`` has every column of the type, or of an array of it: ``(table, column)``, or
        ``(table, column, schema)``. Each keeps its default; its table is written anew. Indexes,
        checks, views and functions that mention the type must be dropped before. The comment on
        the type and the rights to it are lost.

        The server refuses to convert a row whose value is not among ``values``.
        """
        operations.invoke(cls(name, values, columns, schema=schema))

    def facts(self) -> tuple[Any, ...]:
        """Return the name, the values and the columns."""
        return (self.name, self.values, self.columns)

    def reverse(self) -> ReplaceEnumOp:
        """Return the operation that brings the old values back."""
        return ReplaceEnumOp(
            self.name,
            self.reversible_by(self.existing_values),
            self.columns,
            schema=self.schema,
            existing_values=self.values,
        )


@Operations.implementation_for(CreateEnumOp)
def _create_enum(operations: Operations, operation: CreateEnumOp) -> None:
    run(operations, _creation(operation.name, operation.values, operation.schema))


def _creation(name: str, values: Sequence[str], schema: str | None) -> str:
    return f"CREATE TYPE {quoted(name, schema)} AS ENUM ({', '.join(map(literal, values))})"


@Operations.implementation_for(DropEnumOp)
def _drop_enum(operations: Operations, operation: DropEnumOp) -> None:
    run(operations, f"DROP TYPE {quoted(operation.name, operation.schema)}")


@Operations.implementation_for(AddEnumValueOp)
def _add_enum_value(operations: Operations, operation: AddEnumValueOp) -> None:
    place = ""
    if operation.before is not None:
        place = f" BEFORE {literal(operation.before)}"
    elif operation.after is not None:
        place = f" AFTER {literal(operation.after)}"
    name = quoted(operation.name, operation.schema)
    run(operations, f"ALTER TYPE {name} ADD VALUE {literal(operation.value)}{place}")


@Operations.implementation_for(RenameEnumValueOp)
def _rename_enum_value(operations: Operations, operation: RenameEnumValueOp) -> None:
    name = quoted(operation.name, operation.schema)
    values = f"{literal(operation.old)} TO {literal(operation.new)}"
    run(operations, f"ALTER TYPE {name} RENAME VALUE {values}")


@Operations.implementation_for(ReplaceEnumOp)
def _replace_enum(operations: Operations, operation: ReplaceEnumOp) -> None:
    """Do all in one block that finds the defaults itself, so that a script of SQL can do it too.

    A default is printed with the name of the type: it must be read while the type has it.
    """
    columns = [_column(*column) for column in operation.columns]
    name = quoted(operation.name, operation.schema)
    body = f"""
DECLARE
  tables regclass[] := ARRAY[{", ".join(table for table, _ in columns)}]::regclass[];
  columns text[] := ARRAY[{", ".join(column for _, column in columns)}]::text[];
  defaults text[];
  dimensions text[];
  drops text[];
  again text[];
  statement text;
BEGIN
  -- What compares with a value of the type, and would be left with one of the old type.
  SELECT array_agg(gone), array_agg(back) INTO drops, again
  FROM (
    SELECT format('DROP INDEX %s', i.oid::regclass) AS gone,
      replace(pg_get_indexdef(i.oid), ' ON ONLY ', ' ON ') AS back
    FROM pg_class i WHERE i.relkind IN ('i', 'I') AND EXISTS ({_depends("pg_class", "i.oid", name)})
    UNION ALL
    SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', k.conrelid::regclass, k.conname),
      format('ALTER TABLE %s ADD CONSTRAINT %I %s', k.conrelid::regclass, k.conname,
        pg_get_constraintdef(k.oid))
    FROM pg_constraint k WHERE k.contype = 'c' AND k.conrelid <> 0 AND k.conparentid = 0
      AND EXISTS ({_depends("pg_constraint", "k.oid", name)})) dependent;
  FOREACH statement IN ARRAY coalesce(drops, '{{}}') LOOP
    EXECUTE statement;
  END LOOP;
  SELECT array_agg(pg_get_expr(d.adbin, d.adrelid) ORDER BY c.place),
    array_agg(CASE WHEN t.typcategory = 'A' THEN '[]' ELSE '' END ORDER BY c.place)
  INTO defaults, dimensions
  FROM unnest(tables, columns) WITH ORDINALITY AS c (of_table, of_column, place)
  JOIN pg_attribute a ON a.attrelid = c.of_table AND a.attname = c.of_column
  JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.attgenerated = '';
  ALTER TYPE {name} RENAME TO {_ASIDE};
  {_creation(operation.name, operation.values, operation.schema)};
  FOR i IN 1 .. cardinality(tables) LOOP
    IF defaults[i] IS NOT NULL THEN
      EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP DEFAULT', tables[i], columns[i]);
    END IF;
    EXECUTE format('ALTER TABLE %s ALTER COLUMN %I TYPE %s%s USING %I::text%s::%s%s',
      tables[i], columns[i], {literal(name)}, dimensions[i],
      columns[i], dimensions[i], {literal(name)}, dimensions[i]);
    IF defaults[i] IS NOT NULL THEN
      EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s',
        tables[i], columns[i], defaults[i]);
    END IF;
  END LOOP;
  DROP TYPE {quoted(_ASIDE, operation.schema)};
  FOREACH statement IN ARRAY coalesce(again, '{{}}') LOOP
    EXECUTE statement;
  END LOOP;
END
"""  # noqa: S608 - names and values are quoted
    run(operations, f"DO {dollar_quoted(body)}")


_ASIDE = "ragstore_replaced_type"


def _depends(catalog: str, oid: str, name: str) -> str:
    return (
        f"SELECT FROM pg_depend d WHERE d.classid = '{catalog}'::regclass AND d.objid = {oid}"
        f" AND d.refclassid = 'pg_type'::regclass AND d.refobjid = {literal(name)}::regtype"
    )


def _column(table: str, column: str, schema: str | None = None) -> tuple[str, str]:
    return literal(quoted(table, schema)), literal(column)
