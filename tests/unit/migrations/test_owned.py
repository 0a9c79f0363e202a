"""What a history made, from real revision files that run without a database."""

from __future__ import annotations

import copy
import logging
import textwrap
import warnings
from pathlib import Path
from typing import Any

import alembic.context
import alembic.op
import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from ragstore.migrations.facts import Constraint
from ragstore.migrations.owned import Owned, record
from ragstore.migrations.recorder import Inert

HEAD = """\
import sqlalchemy as sa
from alembic import context, op
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql
revision = {revision!r}
down_revision = {down!r}
branch_labels = None
depends_on = None

"""
ITEM = 'op.create_table("item", sa.Column("id", sa.Integer, primary_key=True))'


class History:
    """Revision files in a directory, each one after the last unless told otherwise."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last: Any = None
        (path / "versions").mkdir()

    def add(self, body: str, revision: str | None = None, *, after: Any = "last") -> str:
        """Write a revision whose upgrade has this body, or that is this text if it has a def."""
        revision = revision or f"r{len(list((self.path / 'versions').iterdir())):03}"
        head = HEAD.format(revision=revision, down=self.last if after == "last" else after)
        body = textwrap.dedent(body).strip()
        if "def upgrade" not in body:
            body = "def upgrade():\n" + textwrap.indent(body, "    ")
        (self.path / "versions" / f"{revision}.py").write_text(head + body + "\n")
        self.last = revision
        return revision

    def script(self) -> ScriptDirectory:
        """Return Alembic's view of it."""
        config = Config()
        config.set_main_option("script_location", str(self.path))
        config.set_main_option("path_separator", "os")
        return ScriptDirectory.from_config(config)

    def record(self, **options: Any) -> Owned:
        """Return what it made."""
        return record(self.script(), **options)


@pytest.fixture
def history(tmp_path: Path) -> History:
    """Return a history without revisions."""
    return History(tmp_path)


def constraint(name: str, kind: str, *columns: str) -> Constraint:
    """Return a constraint as the database has it."""
    return Constraint(name, kind, "", columns)


TABLE = (None, "item")
COLUMNS = ITEM[:-1] + ', sa.Column("a", sa.Text), sa.Column("b", sa.Text))'


def _checks(owned: Owned) -> dict[str, Any]:
    """Return the questions of the table below, by their short names."""
    return {
        "table": lambda name: owned.owns_table(None, name),
        "column": lambda name: owned.owns_column(TABLE, name),
        "index": lambda name: owned.owns_index(None, name),
        "constraint": lambda *parts: owned.owns_constraint(TABLE, constraint(*parts)),
        "enum": lambda name, schema=None: owned.owns_enum(schema, name),
        "comment": lambda name=None: owned.owns_comment(TABLE, name),
        "option": lambda name: owned.owns_option(TABLE, name),
    }


# Upgrade bodies; what is ours after them; what is not. A question and its arguments.
CASES: dict[str, tuple[list[str], list[str], list[str]]] = {
    "table with its parts": (
        [
            """
            op.create_table(
                "item",
                sa.Column("id", sa.Integer, primary_key=True),
                sa.Column("a", sa.Text, index=True, comment="the first"),
                sa.Column("b", sa.Text, unique=True),
                sa.Column("other_id", sa.ForeignKey("other.id", name="to_other")),
                sa.Column("flag", sa.Boolean(create_constraint=True)),
                sa.CheckConstraint("id > 0", name="positive"),
                postgresql.ExcludeConstraint((sa.column("a"), "="), name="no_two"),
                sa.Index("by_both", "a", "b"),
                comment="things",
                postgresql_with={"fillfactor": 70},
                prefixes=["unlogged"],
            )
            """
        ],
        [
            "table item", "column id", "column a", "column b", "column other_id",
            "index ix_item_a", "index by_both", "constraint item_pkey p id",
            "constraint item_b_key u b", "constraint to_other f other_id",
            "constraint positive c", "constraint no_two x", "comment", "comment a",
            "option fillfactor", "option unlogged",
        ],
        [
            "table other", "column c", "index ix_item_b", "constraint item_a_key u a",
            "constraint item_b_check c b x", "constraint positive u", "constraint mine c",
            "comment b", "option autovacuum_enabled", "constraint item_b_key f b",
            "constraint item_flag_check c flag",
        ],
    ),
    "parts of a table that was there": (
        ['op.add_column("item", sa.Column("a", sa.Text, index=True, unique=True))'],
        ["column a", "index ix_item_a"],
        ["table item", "column id", "constraint item_pkey p", "constraint item_a_key u a"],
    ),
    "a column that is the key": (
        [
            ('op.create_table("item", sa.Column("a", sa.Text))\n'
            'op.add_column("item", sa.Column("id", sa.Integer, primary_key=True),'
            " inline_primary_key=True)")
        ],
        ["constraint item_pkey p id"],
        ["constraint item_pkey p a"],
    ),
    "a column said to be the key": (
        ['op.add_column("item", sa.Column("id", sa.Integer, primary_key=True))'],
        ["column id"],
        ["constraint item_pkey p id"],
    ),
    "drops": (
        [
            COLUMNS,
            """
            op.create_index("by_a", "item", ["a"])
            op.create_index("by_b", "item", ["b"])
            op.create_unique_constraint("one_a", "item", ["a"])
            op.create_check_constraint("short", "item", "length(b) < 9")
            op.create_foreign_key("to_b", "item", "other", ["b"], ["id"])
            op.create_unique_constraint(None, "item", ["b"])
            """,
            """
            op.drop_column("item", "a")
            op.drop_constraint("to_b", "item", type_="foreignkey")
            op.drop_constraint("item_b_key", "item", type_="unique")
            op.drop_constraint("never_there", "item")
            """,
        ],
        ["table item", "column b", "index by_b", "constraint short c"],
        [
            "column a", "index by_a", "constraint one_a u a", "constraint to_b f b",
            "constraint item_b_key u b",
        ],
    ),
    "a dropped table": (
        [COLUMNS, 'op.create_index("by_a", "item", ["a"])', 'op.drop_table("item")'],
        [],
        ["table item", "column id", "index by_a", "constraint item_pkey p id"],
    ),
    "a dropped index": (
        [COLUMNS, 'op.create_index("by_a", "item", ["a"])', 'op.drop_index("by_a")'],
        ["column a"],
        ["index by_a"],
    ),
    "a renamed table": (
        [
            COLUMNS.replace('"item"', '"old"'),
            'op.create_index("by_a", "old", ["a"])\nop.rename_table("old", "item")',
        ],
        ["table item", "column a", "index by_a", "constraint old_pkey p id"],
        ["table old"],
    ),
    "a table renamed and dropped": (
        [
            COLUMNS.replace('"item"', '"old"') + '\nop.create_index("by_a", "old", ["a"])',
            'op.rename_table("old", "item")\nop.drop_table("item")',
        ],
        [],
        ["table item", "table old", "index by_a"],
    ),
    "a renamed column": (
        [
            COLUMNS + '\nop.create_unique_constraint(None, "item", ["a"])'
            '\nop.create_index("by_a", "item", ["a"])'
            '\nop.alter_column("item", "a", comment="x")',
            'op.alter_column("item", "a", new_column_name="c")',
        ],
        ["column c", "comment c", "constraint item_a_key u c", "index by_a"],
        ["column a", "comment a", "constraint item_a_key u a"],
    ),
    "a renamed column and its index": (
        [
            COLUMNS + '\nop.create_index("by_a", "item", ["a"])',
            'op.alter_column("item", "a", new_column_name="c")\nop.drop_column("item", "c")',
        ],
        ["column b"],
        ["index by_a"],
    ),
    "comments": (
        [
            COLUMNS,
            """
            op.create_table_comment("item", "things")
            op.alter_column("item", "a", comment="first")
            op.alter_column("item", "b", comment="second")
            op.alter_column("item", "b", nullable=False)
            """,
            'op.alter_column("item", "a", comment=None)',
        ],
        ["comment", "comment b"],
        ["comment a"],
    ),
    "comments that went": (
        [
            COLUMNS + '\nop.create_table_comment("item", "things")',
            'op.drop_table_comment("item")',
        ],
        ["table item"],
        ["comment"],
    ),
    "a comment set to nothing": (
        [
            COLUMNS + '\nop.create_table_comment("item", "things")',
            'op.create_table_comment("item", None)',
        ],
        ["table item"],
        ["comment"],
    ),
    "enums of a new table": (
        [
            """
            class Mine(sa.TypeDecorator):
                impl = sa.Enum("x", name="decorated")
                cache_ok = True

            op.create_table(
                "item",
                sa.Column("a", sa.Enum("x", name="plain")),
                sa.Column("b", postgresql.ENUM("x", name="schemed", schema="s")),
                sa.Column("c", postgresql.ARRAY(sa.Enum("x", name="listed"))),
                sa.Column("d", postgresql.ENUM("x", name="there", create_type=False)),
                sa.Column("e", sa.Enum("x", name="text", native_enum=False)),
                sa.Column("f", Mine),
            )
            """
        ],
        ["enum plain", "enum schemed s", "enum listed", "enum decorated"],
        ["enum schemed", "enum there", "enum text"],
    ),
    "a dropped table leaves its enum": (
        [
            'op.create_table("item", sa.Column("a", sa.Enum("x", name="plain")))',
            'op.drop_table("item")',
        ],
        ["enum plain"],
        ["table item"],
    ),
    "a new column does not make its enum": (
        ['op.add_column("item", sa.Column("a", sa.Enum("x", name="plain")))'],
        ["column a"],
        ["enum plain"],
    ),
    "enums through the connection": (
        [
            """
            sa.Enum("x", name="one").create(op.get_bind())
            postgresql.ENUM("x", name="two").create(op.get_bind(), checkfirst=True)
            sa.Enum("x", name="three").create(op.get_bind(), checkfirst=True)
            """,
            'sa.Enum("x", name="one").drop(op.get_bind(), checkfirst=True)',
        ],
        ["enum two", "enum three"],
        ["enum one"],
    ),
    "raw statements": (
        [
            """
            op.execute("CREATE TABLE item (id int)")
            op.execute(sa.text("CREATE INDEX by_a ON item (a)"))
            op.get_bind().execute(sa.text("CREATE TYPE mood AS ENUM ('x')"))
            sa.Table("item", sa.MetaData(), sa.Column("id", sa.Integer)).create(op.get_bind())
            """
        ],
        [],
        ["table item", "index by_a", "enum mood"],
    ),
    "batches": (
        [
            ITEM,
            """
            with op.batch_alter_table("item", recreate="always") as batch:
                batch.add_column(sa.Column("a", sa.Text))
                batch.create_index("by_a", ["a"])
                batch.create_unique_constraint("one_a", ["a"])
                batch.alter_column("id", new_column_name="key")
            """,
        ],
        ["column a", "column key", "index by_a", "constraint one_a u a"],
        ["column id"],
    ),
    "what the context gives": (
        [
            """
            with op.get_context().autocommit_block():
                op.create_index("by_a", "item", ["a"], postgresql_concurrently=True)
            with op.get_context().begin_transaction():
                op.get_context().execute("SELECT 1")
            assert op.get_context().get_current_revision() is None
            assert op.get_context().get_current_heads() == ()
            assert not context.is_offline_mode() and not op.get_context().as_sql
            assert context.get_x_argument() == []
            assert context.get_x_argument(as_dictionary=True).get("tenant") is None
            context.execute("SELECT 1")
            context.configure(connection=context.get_bind())
            context.run_migrations()
            op.run_async(None)
            table = op.create_table("item", sa.Column("a", sa.Text, server_default="x"))
            op.bulk_insert(table, [{"a": "x"}, {"a": op.inline_literal("y")}])
            op.execute(table.update().values(a=op.inline_literal("z")))
            op.create_index("by_b", "item", [sa.text("lower(a)")])
            """
        ],
        ["index by_a", "index by_b", "table item"],
        [],
    ),
    "data migrations": (
        [
            COLUMNS,
            """
            bind = op.get_bind()
            item = sa.table("item", sa.column("id"), sa.column("a"))
            for row in bind.execute(sa.select(item)):
                bind.execute(item.update().values(a=row.a.upper()))
            for (key,) in bind.execute(sa.select(item.c.id)).fetchall():
                raise AssertionError(key)
            assert [row.id for row in bind.execute(sa.text("SELECT 1")).mappings()] == []
            while row := bind.exec_driver_sql("SELECT id FROM item").fetchone():
                raise AssertionError
            if bind.execute(sa.text("SELECT to_regclass('item')")).scalar() is None:
                op.add_column("item", sa.Column("one", sa.Text))
            if bind.scalar(sa.text("SELECT count(*) FROM item")) == 0:
                op.add_column("item", sa.Column("two", sa.Text))
            if bind.execute(sa.text("SELECT count(*) FROM item")).fetchone()[0] > 100:
                op.add_column("item", sa.Column("three", sa.Text))
            total = int(bind.execute(sa.text("SELECT max(id) FROM item")).scalar_one())
            assert bind and not bind.execute(sa.text("SELECT 1")).all()
            assert "item" not in bind.connect().engine.table_names()
            assert total + 1 == 1 and float(bind.scalars(sa.text("SELECT 1.5")).one()) == 0
            with bind.begin_nested(), bind.begin():
                op.add_column("item", sa.Column("four", sa.Text))
            """,
        ],
        ["column one", "column two", "column four"],
        ["column three"],
    ),
    "sessions": (
        [
            COLUMNS,
            """
            session = orm.Session(bind=op.get_bind())
            for row in session.execute(sa.text("SELECT * FROM item")):
                raise AssertionError(row)
            session.execute(sa.text("UPDATE item SET a = 'x'"))
            session.commit()

            class Base(orm.DeclarativeBase):
                pass

            class Item(Base):
                __tablename__ = "item"
                id = sa.Column(sa.Integer, primary_key=True)
                a = sa.Column(sa.Text)

            for item in session.query(Item).filter(Item.a == "x"):
                raise AssertionError(item)
            assert session.scalars(sa.select(Item)).all() == []
            assert session.get(Item, 1) is None
            session.add(Item(a="x"))
            session.commit()
            assert session.execute(sa.update(Item).values(a="y")).rowcount == 0
            session.close()
            op.add_column("item", sa.Column("c", sa.Text))
            """,
        ],
        ["column c"],
        [],
    ),
    "inspectors": (
        [
            """
            found = sa.inspect(op.get_bind())
            if not found.has_table("item"):
                op.create_table("item", sa.Column("id", sa.Integer))
            if "a" not in [column["name"] for column in found.get_columns("item")]:
                op.add_column("item", sa.Column("a", sa.Text))
            if "item" in found.get_table_names():
                op.drop_table("item")
            """
        ],
        ["table item", "column a"],
        [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_owned_follows_the_history(case: str, history: History) -> None:
    """What the operations made is owned, what they dropped or never made is not."""
    bodies, ours, foreign = CASES[case]
    for body in bodies:
        history.add(body)
    owned = history.record()
    assert owned.unreadable == {}

    def answer(question: str) -> bool:
        what, *arguments = question.split()
        return bool(_checks(owned)[what](*arguments))

    assert {question for question in ours if not answer(question)} == set()
    assert {question for question in foreign if answer(question)} == set()


OF_OURS: dict[str, tuple[str, list[str], list[str]]] = {
    "types": (
        """
        op.create_enum("mood", ["x"])
        op.create_enum("gone", ["x"], schema="s")
        op.replace_enum("foreign", ["x"], columns=[("item", "a")])
        op.drop_enum("gone", schema="s")
        """,
        ["enum mood", "enum foreign"],
        ["enum gone s"],
    ),
    "names": (
        """
        op.create_table("item", sa.Column("id", sa.Integer, primary_key=True))
        op.create_index("by_a", "item", ["a"])
        op.create_unique_constraint("one_a", "item", ["a"])
        op.rename_index("by_a", "over_a")
        op.rename_index("by_b", "over_b")
        op.rename_constraint("item", "one_a", "single_a")
        op.rename_constraint("item", "item_pkey", "pk_item")
        op.rename_constraint("item", "foreign", "still_foreign")
        """,
        ["index over_a", "constraint single_a u", "constraint pk_item p"],
        ["index by_a", "index over_b", "constraint one_a u", "constraint still_foreign u"],
    ),
    "options": (
        """
        op.set_table_options("item", {"fillfactor": 70, "autovacuum_enabled": "off"})
        op.set_table_options("item", {"toast_tuple_target": 256})
        op.set_table_options("item", {"toast_tuple_target": None})
        op.reset_table_options("item", ["fillfactor"])
        """,
        ["option autovacuum_enabled"],
        ["option fillfactor", "option toast_tuple_target", "table item"],
    ),
    "logging": (
        'op.set_unlogged("item")\nop.set_unlogged("other")\nop.set_logged("other")',
        ["option unlogged"],
        ["table item"],
    ),
    "constraints by definition": (
        """
        op.create_constraint("key", "item", "PRIMARY KEY (id)")
        op.create_constraint("apart", "item", "EXCLUDE USING gist (during WITH &&)")
        op.drop_constraint("apart", "item")
        """,
        ["constraint key p id"],
        ["constraint apart x", "constraint key u id"],
    ),
    "online indexes": (
        """
        op.create_index_online("by_a", "item", ["a"])
        op.create_index_online("by_b", "item", ["b"])
        op.drop_index_online("by_b", "item")
        """,
        ["index by_a"],
        ["index by_b"],
    ),
    "things that make nothing": (
        """
        op.require_decision("Which?", "item", "a IS NULL")
        op.add_enum_value("mood", "y")
        op.set_generated("item", "a", "b || 'x'")
        op.ensure_extension("vector")
        """,
        [],
        ["column a", "enum mood", "table item"],
    ),
}


@pytest.mark.parametrize("case", OF_OURS)
def test_owned_knows_our_operations(case: str, history: History) -> None:
    """Operations of ragstore's own count like Alembic's."""
    body, ours, foreign = OF_OURS[case]
    history.add("import ragstore.migrations.operations\n" + textwrap.dedent(body))
    owned = history.record()
    assert owned.unreadable == {}

    def answer(question: str) -> bool:
        what, *arguments = question.split()
        return bool(_checks(owned)[what](*arguments))

    assert [question for question in ours if not answer(question)] == []
    assert [question for question in foreign if answer(question)] == []


def test_owned_knows_schemas_sequences_and_functions(history: History) -> None:
    """What is known by schema and name alone follows its operations."""
    history.add(
        """
        import ragstore.migrations.operations
        op.ensure_schema("kept")
        op.ensure_schema("gone")
        op.drop_schema_if_empty("gone")
        op.create_sequence("counter", schema="kept")
        op.create_sequence("ended")
        op.drop_sequence("ended")
        op.create_function("twice", [("n", "integer")], "integer", "SELECT 2 * n")
        op.create_function("Folded", [], "integer", "SELECT 1", schema="kept")
        op.create_function('"Quoted"', [], "integer", "SELECT 1")
        op.create_function("ended", [], "integer", "SELECT 1")
        op.drop_function("ended", [])
        op.define_function("CREATE OR REPLACE FUNCTION kept.\\"De\\"\\"fined\\"(n integer) ...")
        op.define_function("nothing that is known")
        """
    )
    owned = history.record()
    assert owned.unreadable == {}
    assert owned.owns_schema("kept")
    assert not owned.owns_schema("gone")
    assert owned.owns_sequence("kept", "counter")
    assert not owned.owns_sequence(None, "counter")
    assert not owned.owns_sequence(None, "ended")
    assert owned.made.routines == {
        (None, "twice"),
        ("kept", "folded"),
        (None, "Quoted"),
        ("kept", 'De"fined'),
    }
    assert owned.owns_routine(None, "twice")
    assert not owned.owns_routine("kept", "twice")


CONVENTION = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def test_names_follow_the_naming_convention(history: History) -> None:
    """Names are those that Alembic gives with the metadata's convention; op.f() is final."""
    history.add(
        """
        op.create_table(
            "item",
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("a", sa.Text, unique=True),
            sa.Column("c", sa.Text, index=True),
            sa.Column("b", sa.ForeignKey("other.id")),
            sa.CheckConstraint("id > 0", name="positive"),
            sa.CheckConstraint("id > 1", name=op.f("final")),
        )
        op.create_check_constraint("dropped", "item", "id > 2")
        op.drop_constraint("dropped", "item", type_="check")
        """
    )
    owned = history.record(target_metadata=sa.MetaData(naming_convention=CONVENTION))
    names = {(c.kind, c.name) for c in owned.made.tables[TABLE].constraints}
    assert names == {
        ("p", "pk_item"),
        ("u", "uq_item_a"),
        ("f", "fk_item_b_other"),
        ("c", "ck_item_positive"),
        ("c", "final"),
    }
    assert owned.owns_index(None, "ix_item_c")


def test_schemas_are_told_apart(history: History) -> None:
    """Objects are known by their schema; those of the default schema by None."""
    history.add(
        """
        op.create_table("item", sa.Column("a", sa.Text, index=True), schema="rag")
        op.create_table("here", sa.Column("a", sa.Text), schema="public")
        op.rename_table("item", "thing", schema="rag")
        """
    )
    owned = history.record(default_schema="public")
    assert owned.tables() == {("rag", "thing"), (None, "here")}
    assert owned.owns_index("rag", "ix_rag_item_a")
    assert not owned.owns_index(None, "ix_rag_item_a")
    assert owned.owns_column(("public", "here"), "a")


def test_failed_script_counts_as_far_as_it_ran(history: History) -> None:
    """A script that raises or exits is kept with its error, and the rest of the history runs."""
    history.add(f"{ITEM}\nraise RuntimeError('no rows')\nop.drop_table('item')", "broken")
    history.add("raise SystemExit(3)", "leaving")
    history.add("op.no_such_operation()", "unknown")
    history.add("def no_upgrade(): pass\n# def upgrade", "empty")
    history.add('op.add_column("item", sa.Column("a", sa.Text))', "after")
    owned = history.record()
    assert owned.owns_table(None, "item")
    assert owned.owns_column(TABLE, "a")
    assert owned.unreadable.keys() == {"broken", "leaving", "unknown", "empty"}
    assert owned.unreadable["broken"] == "RuntimeError: no rows"
    assert owned.unreadable["leaving"] == "SystemExit: 3"


def test_interruption_is_not_held_up(history: History) -> None:
    """Ctrl-C ends the recording, and ``op`` is as it was."""
    history.add("raise KeyboardInterrupt")
    before = dict(vars(alembic.op)), dict(vars(alembic.context))
    with pytest.raises(KeyboardInterrupt):
        history.record()
    assert (vars(alembic.op), vars(alembic.context)) == before


def test_branches_run_before_their_merge(history: History) -> None:
    """Each revision runs after all that it comes from, and every branch runs."""
    base = history.add(ITEM, "zzz")
    left = history.add('op.add_column("item", sa.Column("a", sa.Text))', "yyy", after=base)
    right = history.add('op.rename_table("item", "thing")', "aaa", after=base)
    history.add('op.drop_column("thing", "b")', "bbb", after=(left, right))
    history.add('op.create_table("apart", sa.Column("id", sa.Integer))', "ccc", after=None)
    owned = history.record()
    assert owned.unreadable == {}
    assert owned.tables() == {(None, "thing"), (None, "apart")}


def test_every_database_of_a_history_counts(history: History) -> None:
    """With Alembic's template for several databases, the functions of all of them run."""
    history.add(
        """
        def upgrade(engine_name: str) -> None:
            globals()[f"upgrade_{engine_name}"]()

        def upgrade_one() -> None:
            op.create_table("item", sa.Column("id", sa.Integer))

        def upgrade_two() -> None:
            op.create_table("other", sa.Column("id", sa.Integer))
        """
    )
    history.add(
        """
        def upgrade(schema="x", **options):
            pass

        def upgrade_rows():
            op.drop_table("item")
        """
    )
    assert history.record().tables() == {(None, "item"), (None, "other")}


def test_operation_of_operations_counts(history: History) -> None:
    """An operation that a project registered counts by the operations that it consists of."""
    history.add(
        """
        from alembic.operations import MigrateOperation, Operations

        class Audited(MigrateOperation):
            @classmethod
            def create_audited(cls, operations, name):
                return operations.invoke(cls(name))

            def __init__(self, name):
                self.name = name

        if not hasattr(Operations, "create_audited"):
            Operations.register_operation("create_audited")(Audited)

            @Operations.implementation_for(Audited)
            def create(operations, operation):
                operations.create_table(operation.name, sa.Column("at", sa.DateTime))

        op.create_audited("item")
        """
    )
    try:
        owned = history.record()
        assert owned.unreadable == {}
        assert owned.tables() == {TABLE}
    finally:
        del Operations.create_audited  # type: ignore[attr-defined]
        del alembic.op.create_audited  # type: ignore[attr-defined]


def test_recording_says_nothing(
    history: History, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever scripts print, log or warn of is dropped, and logging goes on afterwards."""
    history.add(
        """
        import logging, sys, warnings
        print("out")
        print("err", file=sys.stderr)
        logging.getLogger("alembic").critical("log")
        warnings.warn("an error elsewhere", stacklevel=1)
        """
    )
    with caplog.at_level(logging.INFO):
        assert history.record().unreadable == {}
        logging.getLogger("after").info("heard")
    assert [message.getMessage() for message in caplog.records] == ["heard"]
    assert capsys.readouterr() == ("", "")


def test_running_command_keeps_its_op_and_context(history: History) -> None:
    """Inside a running command, scripts see its arguments but not its database."""
    history.add(
        """
        assert context.get_x_argument() == ["tenant=a"]
        assert op.get_bind().execute(sa.text("SELECT 1")).all() is not None
        assert context.get_bind() is op.get_bind() is context.get_context().connection
        op.create_table("item", sa.Column("id", sa.Integer, primary_key=True))
        """
    )
    config = Config()
    config.cmd_opts = type("Options", (), {"x": ["tenant=a"]})()  # type: ignore[assignment]
    script, out = history.script(), []
    with EnvironmentContext(config, script) as environment:
        environment.configure(
            url="postgresql+psycopg://",
            as_sql=True,
            output_buffer=type("Buffer", (), {"write": out.append, "flush": lambda _: None})(),
        )
        context: MigrationContext = environment.get_context()
        with Operations.context(context) as operations:
            before = dict(vars(alembic.op)), dict(vars(alembic.context))
            owned = record(script, target_metadata=sa.MetaData(naming_convention=CONVENTION))
            assert (vars(alembic.op), vars(alembic.context)) == before
            assert vars(alembic.op)["_proxy"] is operations
            assert alembic.op.get_context() is context
    assert owned.unreadable == {}
    assert owned.owns_constraint(TABLE, constraint("pk_item", "p", "id"))
    assert out == []


def test_op_is_restored_where_no_command_ran(history: History) -> None:
    """Without a command, ``op`` is as unusable after the recording as before."""
    before = dict(vars(alembic.op)), dict(vars(alembic.context))
    history.add(ITEM)
    history.record()
    assert (vars(alembic.op), vars(alembic.context)) == before


def test_warnings_filters_are_restored(history: History) -> None:
    """The recording leaves the filters of warnings as they were."""
    history.add(ITEM)
    before = list(warnings.filters)
    history.record()
    assert list(warnings.filters) == before


def test_nothing_behaves_like_nothing() -> None:
    """A result that does not exist is empty, false and 0, whatever is asked of it."""
    nothing = Inert()
    assert not nothing
    assert (len(nothing), int(nothing), float(nothing), str(nothing)) == (0, 0, 0.0, "")
    assert (list(nothing), "x" in nothing, {nothing: 1}[nothing]) == ([], False, 1)
    assert nothing == 0 == nothing["key"].attribute(1)
    assert nothing != 1
    assert (nothing < 1, nothing <= 0, nothing > 0, nothing >= 0) == (True, True, False, True)
    assert (nothing + 3, 3 + nothing) == (3, 3)
    with nothing as entered:
        assert entered is nothing
    with pytest.raises(AttributeError):
        nothing.__array__  # noqa: B018
    assert copy.copy(nothing) == 0
