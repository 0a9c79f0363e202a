"""What is said above an operation: what it locks, and the way that locks less."""

from __future__ import annotations

from typing import Any

import pgvector.sqlalchemy
import pytest
import sqlalchemy as sa
from alembic.autogenerate import render_python_code
from alembic.ddl.postgresql import CreateExcludeConstraintOp
from alembic.operations import MigrateOperation, ops

from ragstore.exceptions import MigrationError
from ragstore.migrations import operations as ours
from ragstore.migrations.remarks import ONLINE, allowed_rules, annotate, remarks

# The names that squawk 2.70 accepts for --exclude, of those that are about locks and rows.
SQUAWK = {
    "adding-field-with-default",
    "adding-foreign-key-constraint",
    "adding-not-nullable-field",
    "adding-required-field",
    "adding-serial-primary-key-field",
    "ban-alter-identity",
    "ban-drop-column",
    "ban-drop-constraint",
    "ban-drop-generated-expression",
    "ban-drop-not-null",
    "ban-drop-schema",
    "ban-drop-table",
    "ban-drop-type",
    "changing-column-type",
    "constraint-missing-not-valid",
    "disallowed-unique-constraint",
    "renaming-column",
    "renaming-object",
    "renaming-table",
    "require-concurrent-index-creation",
    "require-concurrent-index-deletion",
    "require-concurrent-reindex",
}


def add(*arguments: Any, **options: Any) -> ops.AddColumnOp:
    """Return the operation that adds a column named ``a`` to item."""
    return ops.AddColumnOp("item", sa.Column("a", *arguments, **options))


def alter(**options: Any) -> ops.AlterColumnOp:
    """Return the operation that alters item.a."""
    return ops.AlterColumnOp("item", "a", **options)


def retype(old: Any, new: Any, **options: Any) -> ops.AlterColumnOp:
    """Return the operation that gives item.a another type."""
    return alter(existing_type=old, modify_type=new, **options)


def constrained(constraint: sa.Constraint) -> ops.AddConstraintOp:
    """Return the operation that adds a constraint to item."""
    metadata = sa.MetaData()
    sa.Table("other", metadata, sa.Column("id", sa.Integer), schema="s")
    table = sa.Table("item", metadata, sa.Column("a", sa.Integer), sa.Column("b", sa.Integer))
    table.append_constraint(constraint)
    return ops.AddConstraintOp.from_constraint(constraint)


EXCLUSIVE = "ACCESS EXCLUSIVE on item"
REWRITTEN = f"{EXCLUSIVE} while every row is rewritten"
READ = f"{EXCLUSIVE} while every row is read"
BUILT = f"{EXCLUSIVE} while its index is built"
LOOKED_UP = "writers wait while every row is looked up"

LOCKING: dict[str, tuple[MigrateOperation, list[tuple[str, str]]]] = {
    "drop table": (
        ops.DropTableOp("item"),
        [("ban-drop-table", f"{EXCLUSIVE}, and its rows are lost")],
    ),
    "rename table": (
        ops.RenameTableOp("item", "thing", schema="s"),
        [
            (
                "renaming-table",
                "ACCESS EXCLUSIVE on s.item for a moment; code that uses the old name fails",
            )
        ],
    ),
    "our rename of a table": (
        ours.RenameTableOp("item", "thing"),
        [("renaming-table", f"{EXCLUSIVE} for a moment; code that uses the old name fails")],
    ),
    "drop column": (
        ops.DropColumnOp("item", "a"),
        [
            (
                "ban-drop-column",
                f"{EXCLUSIVE} for a moment; code that uses a fails, and its values are lost",
            )
        ],
    ),
    "rename column": (
        alter(modify_name="b"),
        [("renaming-column", f"{EXCLUSIVE} for a moment; code that uses a fails")],
    ),
    "our rename of a column": (
        ours.RenameColumnOp("item", "a", "b"),
        [("renaming-column", f"{EXCLUSIVE} for a moment; code that uses a fails")],
    ),
    "type": (retype(sa.Integer(), sa.BigInteger()), [("changing-column-type", REWRITTEN)]),
    "type class": (retype(sa.Integer, sa.BigInteger), [("changing-column-type", REWRITTEN)]),
    "unknown old type": (alter(modify_type=sa.Text()), [("changing-column-type", REWRITTEN)]),
    "unread old type": (
        retype(sa.types.NullType(), sa.Text()),
        [("changing-column-type", REWRITTEN)],
    ),
    "type with a conversion": (
        retype(sa.String(5), sa.Text(), postgresql_using="lower(a)"),
        [("changing-column-type", REWRITTEN)],
    ),
    "vector dimension": (
        retype(pgvector.sqlalchemy.VECTOR(3), pgvector.sqlalchemy.VECTOR(4)),
        [("changing-column-type", REWRITTEN)],
    ),
    "type and not null": (
        retype(sa.Integer(), sa.Text(), modify_nullable=False),
        [("changing-column-type", REWRITTEN), ("adding-not-nullable-field", READ)],
    ),
    "our conversion": (
        ours.ConvertColumnOp(
            "item", "a", existing_type=sa.Text(), modify_type=sa.Integer(), using="a::int"
        ),
        [("changing-column-type", REWRITTEN)],
    ),
    "required column": (
        add(sa.Text(), nullable=False),
        [("adding-required-field", f"{EXCLUSIVE}, and it fails if there are rows")],
    ),
    "volatile default": (
        add(sa.Uuid(), server_default=sa.text("gen_random_uuid()")),
        [("adding-field-with-default", REWRITTEN)],
    ),
    "volatile default of a required column": (
        add(sa.DateTime(), server_default=sa.func.clock_timestamp(), nullable=False),
        [("adding-field-with-default", REWRITTEN)],
    ),
    "identity": (
        add(sa.BigInteger(), sa.Identity()),
        [("adding-field-with-default", REWRITTEN)],
    ),
    "serial key": (
        ops.AddColumnOp(
            "item", sa.Column("id", sa.Integer, primary_key=True), inline_primary_key=True
        ),
        [
            ("adding-field-with-default", REWRITTEN),
            ("adding-serial-primary-key-field", BUILT),
        ],
    ),
    "stored column": (
        add(sa.Text(), sa.Computed("lower(b)", persisted=True)),
        [("adding-field-with-default", REWRITTEN)],
    ),
    "column with a foreign key": (
        add(sa.Integer(), sa.ForeignKey("s.other.id")),
        [
            (
                "adding-foreign-key-constraint",
                f"SHARE ROW EXCLUSIVE on item and s.other: {LOOKED_UP}",
            )
        ],
    ),
    "unique column": (
        add(sa.Integer(), unique=True),
        [("disallowed-unique-constraint", BUILT)],
    ),
    "indexed column": (
        add(sa.Integer(), index=True),
        [
            (
                "require-concurrent-index-creation",
                "SHARE on item: writers wait while the index is built",
            )
        ],
    ),
    "checked column": (
        add(sa.Enum("x", native_enum=False, create_constraint=True, name="ck")),
        [("constraint-missing-not-valid", READ)],
    ),
    "restored column": (
        ours.RestoreColumnOp("item", sa.Column("a", sa.Uuid()), filler="gen_random_uuid()"),
        [("adding-field-with-default", REWRITTEN)],
    ),
    "index": (
        ops.CreateIndexOp("by_a", "item", ["a"]),
        [
            (
                "require-concurrent-index-creation",
                "SHARE on item: writers wait while the index is built",
            )
        ],
    ),
    "drop index": (
        ops.DropIndexOp("by_a", "item"),
        [("require-concurrent-index-deletion", f"{EXCLUSIVE} for a moment")],
    ),
    "drop index of some table": (
        ops.DropIndexOp("by_a"),
        [
            (
                "require-concurrent-index-deletion",
                "ACCESS EXCLUSIVE on the table of by_a for a moment",
            )
        ],
    ),
    "foreign key": (
        constrained(sa.ForeignKeyConstraint(["a"], ["s.other.id"])),
        [
            (
                "adding-foreign-key-constraint",
                f"SHARE ROW EXCLUSIVE on item and s.other: {LOOKED_UP}",
            )
        ],
    ),
    "foreign key to itself": (
        constrained(sa.ForeignKeyConstraint(["a"], ["item.b"])),
        [("adding-foreign-key-constraint", f"SHARE ROW EXCLUSIVE on item: {LOOKED_UP}")],
    ),
    "unique": (
        ops.CreateUniqueConstraintOp("one", "item", ["a"]),
        [("disallowed-unique-constraint", BUILT)],
    ),
    "primary key": (
        ops.CreatePrimaryKeyOp("pk", "item", ["a"]),
        [("adding-serial-primary-key-field", BUILT)],
    ),
    "check": (
        ops.CreateCheckConstraintOp("ck", "item", "a > 0"),
        [("constraint-missing-not-valid", READ)],
    ),
    "exclusion": (
        CreateExcludeConstraintOp("x", "item", [(sa.column("a"), "=")]),
        [("constraint-missing-not-valid", BUILT)],
    ),
    "key by definition": (
        ours.CreateConstraintOp("pk", "item", "PRIMARY KEY (a) DEFERRABLE"),
        [("adding-serial-primary-key-field", BUILT)],
    ),
    "foreign key by definition": (
        ours.CreateConstraintOp("f", "item", 'FOREIGN KEY (a) REFERENCES s."other"(id)'),
        [
            (
                "adding-foreign-key-constraint",
                f"SHARE ROW EXCLUSIVE on item and s.other: {LOOKED_UP}",
            )
        ],
    ),
    "generated expression": (
        ours.SetGeneratedOp("item", "a", "lower(b)"),
        [("adding-field-with-default", REWRITTEN)],
    ),
    "replaced enum": (
        ours.ReplaceEnumOp("mood", ["x"], [("item", "a"), ("item", "b"), ("thing", "c", "s")]),
        [
            ("changing-column-type", REWRITTEN),
            ("changing-column-type", "ACCESS EXCLUSIVE on s.thing while every row is rewritten"),
        ],
    ),
    "unlogged": (ours.SetLoggedOp("item", logged=False), [("rewriting-table", REWRITTEN)]),
}

QUIET: dict[str, MigrateOperation] = {
    "new table": ops.CreateTableOp("item", [sa.Column("a", sa.Text)]),
    "nullable column": add(sa.Text()),
    "constant default": add(sa.Text(), server_default="clock_timestamp()", nullable=False),
    "steady default": add(sa.DateTime(), server_default=sa.func.now(), nullable=False),
    "default from elsewhere": add(sa.Text(), server_default=sa.FetchedValue()),
    "virtual column": add(sa.Text(), sa.Computed("lower(b)", persisted=False)),
    "native enum": add(sa.Enum("x", name="mood", create_constraint=True)),
    "key said but not made": add(sa.Integer(), primary_key=True, autoincrement=False,
                                 server_default="1"),
    "default set": alter(modify_server_default=sa.text("gen_random_uuid()")),
    "default dropped": alter(modify_server_default=None),
    "null allowed": alter(modify_nullable=True),
    "comment": alter(modify_comment="x"),
    "same name": alter(modify_name="a"),
    "longer varchar": retype(sa.String(10), sa.String(20)),
    "varchar to text": retype(sa.String(10), sa.Text()),
    "plain conversion": retype(sa.String(10), sa.Text(), postgresql_using='"a"::text'),
    "table comment": ops.CreateTableCommentOp("item", "x"),
    "dropped constraint": ops.DropConstraintOp("ck", "item"),
    "statement": ops.ExecuteSQLOp("SELECT 1"),
    "rows": ops.BulkInsertOp(sa.table("item"), []),
    "concurrent index": ops.CreateIndexOp("by_a", "item", ["a"], postgresql_concurrently=True),
    "concurrent drop": ops.DropIndexOp("by_a", "item", postgresql_concurrently=True),
    "online index": ours.CreateIndexOnlineOp("by_a", "item", ["a"]),
    "online drop": ours.DropIndexOnlineOp("by_a", "item"),
    "check not validated": ops.CreateCheckConstraintOp(
        "ck", "item", "a > 0", postgresql_not_valid=True
    ),
    "foreign key not validated": ops.CreateForeignKeyOp(
        "f", "item", "other", ["a"], ["id"], postgresql_not_valid=True
    ),
    "definition not validated": ours.CreateConstraintOp("ck", "item", "CHECK (a > 0) NOT VALID"),
    "definition not enforced": ours.CreateConstraintOp("c", "item", "CHECK (a > 0) NOT ENFORCED"),
    "renamed index": ours.RenameIndexOp("by_a", "by_b"),
    "renamed constraint": ours.RenameConstraintOp("item", "a", "b"),
    "kept expression": ours.DropGeneratedOp("item", "a"),
    "new enum": ours.CreateEnumOp("mood", ["x"]),
    "new value": ours.AddEnumValueOp("mood", "y"),
    "table options": ours.SetTableOptionsOp("item", {"fillfactor": 70}),
    "schema": ours.EnsureSchemaOp("s"),
}  # fmt: skip


@pytest.mark.parametrize("case", LOCKING)
def test_remarks_name_the_rule_and_the_lock(case: str) -> None:
    """An operation that locks or rewrites a table has a remark of the rule, and its lock."""
    operation, expected = LOCKING[case]
    assert [(each.rule, each.lock) for each in remarks(operation)] == expected


@pytest.mark.parametrize("case", QUIET)
def test_quiet_operations_have_no_remark(case: str) -> None:
    """What only changes the catalog, or is online already, has no remark."""
    assert remarks(QUIET[case]) == []


@pytest.mark.parametrize("case", LOCKING)
def test_new_tables_have_no_remark(case: str) -> None:
    """Nobody waits for a table that the same script made."""
    operation, _ = LOCKING[case]
    tables = {each.table for each in remarks(operation)}
    assert remarks(operation, tables) == []


def test_remarks_leave_the_operation_as_it_is() -> None:
    """A column of an operation is not put into a table by looking at it."""
    operation = add(sa.Integer(), sa.ForeignKey("other.id"), index=True)
    assert remarks(operation)
    assert operation.column.table is None


def test_rules_have_the_names_of_squawk() -> None:
    """Every rule is one of squawk's, but for what squawk has no rule for."""
    assert ONLINE.keys() - SQUAWK == {"rewriting-table"}
    used = {rule for _, expected in LOCKING.values() for rule, _ in expected}
    assert used == ONLINE.keys()


def test_exclusion_has_an_alternative_of_its_own() -> None:
    """An exclusion constraint cannot be NOT VALID, and its remark does not say so."""
    operation, _ = LOCKING["exclusion"]
    assert "NOT VALID" not in remarks(operation)[0].text
    assert "no other way" in remarks(operation)[0].text


def rendered(container: ops.UpgradeOps) -> list[str]:
    """Return the comment lines of a function, as the file has them, and the calls as ``-``."""
    code = render_python_code(container)
    lines = [line.strip() for line in code.splitlines() if "###" not in line]
    return [
        line if line.startswith("#") else "-" for line in lines if line.startswith(("#", "op."))
    ]


def test_annotate_writes_comments_above_operations() -> None:
    """The file says what an operation locks and how to do it online."""
    container = ops.UpgradeOps([retype(sa.Integer(), sa.BigInteger())])
    annotate(container)
    assert rendered(container) == [
        "# changing-column-type: ACCESS EXCLUSIVE on item while every row is rewritten.",
        "# Online: add a new column, fill it, swap.",
        "-",
    ]


def test_annotate_records_what_is_allowed() -> None:
    """A rule that was allowed is recorded in the file instead of explained."""
    container = ops.UpgradeOps([retype(sa.Integer(), sa.BigInteger()), ops.DropTableOp("item")])
    annotate(container, {"changing-column-type"})
    assert rendered(container)[:2] == ["# allowed: changing-column-type on item", "-"]
    assert rendered(container)[2].startswith("# ban-drop-table: ")


def test_annotate_says_the_same_once_to_neighbours() -> None:
    """Equal words stand once above neighbours, and again after something else."""

    def drop(name: str) -> ops.DropIndexOp:
        return ops.DropIndexOp(name, "item")

    container = ops.UpgradeOps(
        [
            drop("one"),
            ops.ModifyTableOps("item", [drop("two"), drop("three")]),
            drop("four"),
            ops.ExecuteSQLOp("SELECT 1"),
            drop("five"),
        ]
    )
    annotate(container)
    comments = [
        line.startswith("# require") for line in rendered(container) if "Online" not in line
    ]
    assert comments == [True, False, False, False, False, False, True, False]


def test_annotate_follows_new_tables_and_their_renames() -> None:
    """A table that the script made is new under each of its names; its order counts."""
    container = ops.UpgradeOps(
        [
            ops.CreateTableOp("new", [sa.Column("a", sa.Text)]),
            ops.ModifyTableOps("new", [ops.CreateIndexOp("by_a", "new", ["a"])]),
            ours.RenameTableOp("new", "newer"),
            ops.CreateIndexOp("by_b", "newer", ["a"]),
            ops.CreateIndexOp("by_c", "old", ["a"]),
            ours.RenameTableOp("old", "older"),
            ops.CreateIndexOp("by_d", "older", ["a"]),
        ]
    )
    annotate(container)
    rules = [line.split(":")[0] for line in rendered(container) if "# r" in line]
    assert rules == [
        "# require-concurrent-index-creation",
        "# renaming-table",
        "# require-concurrent-index-creation",
    ]


@pytest.mark.parametrize(
    ("arguments", "rules"),
    [
        ([], set()),
        (["tenant=a", "allowed=x", "allow"], set()),
        (["allow=ban-drop-table"], {"ban-drop-table"}),
        (
            ["allow=ban-drop-table, renaming-table,", "allow=changing-column-type"],
            {"ban-drop-table", "renaming-table", "changing-column-type"},
        ),
    ],
)
def test_allowed_rules_are_read_from_arguments(arguments: list[str], rules: set[str]) -> None:
    """``-x allow=`` takes one or more rules, once or more often."""
    assert allowed_rules(arguments) == rules


def test_unknown_rule_is_refused() -> None:
    """A rule that does not exist is named, with those that do."""
    with pytest.raises(MigrationError, match="no-such-rule: there is no such rule") as caught:
        allowed_rules(["allow=ban-drop-table,no-such-rule"])
    assert all(rule in str(caught.value) for rule in ONLINE)
