"""A copy of the models beside the user's tables, made by the same server and rolled back.

    with scratch.opened(connection) as bench:
        wanted = bench.build([SQLModel.metadata])
        found = bench.read()

Both catalogs are in the server's words, so what differs in them differs. The copy stands in
schemas of its own; where the role may not create any, in the session's temporary one, where no
function is found: those that the models call must be in the database.

What runs is made from the models, never from their events, and refers to nothing of the user's:
no lock on the user's tables is stronger than that of a SELECT.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from sqlalchemy import Connection, MetaData, Table, text
from sqlalchemy.dialects.postgresql import DOMAIN
from sqlalchemy.exc import DBAPIError

from ragstore.exceptions import CouldNotCompare
from ragstore.migrations import catalog, diagnosis, facts, queries, rebuild
from ragstore.migrations.facts import Catalog, Name
from ragstore.migrations.making import Maker
from ragstore.migrations.parts import Parts, collect, is_unlogged
from ragstore.migrations.renames import Rename
from ragstore.migrations.spelling import spelled_domain
from ragstore.migrations.statements import Statement, statements

_LOCK_TIMEOUT = "5s"  # where the session has none: a comparison must not queue for ever
_TEMPORARY = "pg_temp"
_CREATE = "ask for GRANT CREATE ON DATABASE, or compare with a role that has it"

_RIGHTS = text("""
SELECT has_database_privilege(current_database(), 'CREATE'),
  has_database_privilege(current_database(), 'TEMP'), quote_ident(current_database()),
  quote_ident(current_user)
""")
# A function's body may mention tables that are made after it.
_SETTINGS = text(f"""
SELECT set_config('check_function_bodies', 'off', true),
  set_config('client_min_messages', 'error', true),
  CASE WHEN current_setting('lock_timeout') = '0'
    THEN set_config('lock_timeout', '{_LOCK_TIMEOUT}', true) END
""")
_TEMPORARY_SCHEMA = text("SELECT nspname FROM pg_namespace WHERE oid = pg_my_temp_schema()")
_EXTENSIONS = text("SELECT extname FROM pg_extension")


@contextmanager
def opened(connection: Connection) -> Iterator[Scratch]:
    """Yield a place to build in; undo all of it at the end, whatever happens.

    It is a savepoint of the connection's transaction, or a transaction if there is none. The
    connection's settings, too, are afterwards what they were.

    Raises:
        CouldNotCompare: the server refuses; nothing was changed.
    """
    with _undone(connection):
        connection.execute(_SETTINGS)
        yield Scratch(connection)


class Scratch:
    """Schemas that hold a copy of the models until the end of ``opened``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._default, self._own, extensions = catalog.search_path(connection)
        self._own = list(dict.fromkeys([*(self._own or [self._default]), *extensions]))
        self._extensions = frozenset(connection.scalars(_EXTENSIONS))
        self._maker = Maker(connection)
        self._token = secrets.token_hex(4)
        self._made = 0
        self._temporary = False
        self._parts = Parts()
        self._copy = Catalog()
        self._twins: dict[str, str] = {}  # the scratch schema of each real one

    # --- the models ----------------------------------------------------------------------------

    def build(
        self, metadatas: Sequence[MetaData], needed: Collection[Table] | None = None
    ) -> Catalog:
        """Make a copy of the models and return what it consists of.

        With ``needed`` only those tables, and what they use, are in the result. It is called once.

        Raises:
            CouldNotCompare: naming every object that the server cannot make, and why.
        """
        dialect, default = self._connection.dialect, self._default
        self._parts = collect(metadatas, needed, dialect=dialect, default_schema=default)
        _refuse(self._parts.problems)
        self._twins = self._new_schemas([default, *sorted(self._parts.schemas - {default})])
        _refuse(self._unfit_for_temporary() if self._temporary else [])
        self._search(self._path_of_models())
        schemas = {name: self._twins[name] for name in self._parts.schemas}
        self._maker.twins = self._twins
        _refuse(self._maker.create_extensions(self._parts.extensions))
        made = statements(
            self._parts,
            dialect=dialect,
            default_schema=default,
            schemas=schemas,
            temporary=self._temporary,
        )
        hint = f"; no function is found in the temporary schema: {_CREATE}"
        _refuse(
            [
                problem + hint if self._temporary and ": function " in problem else problem
                for problem in self._maker.run(made)
            ]
        )
        copy = self._read_models(self._renamed_back())
        tables = {name: self._as_modelled(table) for name, table in copy.tables.items()}
        domains = {
            name: spelled_domain(domain, model) if isinstance(model, DOMAIN) else domain
            for name, domain in copy.domains.items()
            for model in [self._parts.types.get(name)]
        }
        self._copy = replace(copy, tables=tables, domains=domains)
        return self._asked(self._copy)

    def read(self, schemas: Iterable[str | None] | None = None) -> Catalog:
        """Return what is in the database itself: in the models' schemas, or in those named.

        The extensions are those that were there before the models were built.
        """
        wanted = [None, *self._parts.schemas] if schemas is None else schemas
        names = {name or self._default: self._name_of(name) for name in wanted}
        found = catalog.read(self._connection, names, path=self._path_of_database())
        ours = set(self._twins.values())
        return replace(found, extensions=self._extensions, schemas=found.schemas - ours)

    def key(self, table: Table) -> Name:
        """Return the name that a model's table has in the catalogs."""
        return (self._name_of(table.schema), str(table.name))

    # --- once more, from text ------------------------------------------------------------------

    def rebuild(
        self, found: Catalog, tables: Collection[Name], renames: Collection[Rename] = ()
    ) -> dict[Name, facts.Table]:
        """Return tables of the database as they would be under new names, by those.

        Their text is read and printed once more, as by a dump and restore: two spellings that
        differ before may be equal then.
        """
        path = self._path_of_database()
        built = self._once_more([found.tables[name] for name in tables], renames, path, {})
        return self._restored(found, tables, renames, built)

    def rebuild_models(self, tables: Collection[Name]) -> dict[Name, facts.Table]:
        """Return tables of the models with their text read and printed once more."""
        raw = self._read_models({}).tables  # its text names the scratch schemas, as it must here
        path = self._path_of_models()
        built = self._once_more([raw[name] for name in tables], [], path, self._renamed_back())
        return self._restored(self._copy, tables, [], built)

    def _once_more(
        self,
        sources: Sequence[facts.Table],
        renames: Collection[Rename],
        path: Sequence[str],
        rename: Mapping[str, str],
    ) -> dict[Name, facts.Table]:
        with self._connection.begin_nested() as savepoint:
            if self._temporary:
                self._drop_temporary_tables()
            schemas = self._new_schemas({source.schema or self._default for source in sources})
            steps = [
                step
                for source in sources
                for schema in [schemas[source.schema or self._default]]
                for step in (
                    *rebuild.statements(source, schema),
                    *rebuild.renaming(source, schema, renames),
                )
            ]
            self._search(path)
            made = [Statement(step.replace("%", "%%"), step.partition("(")[0]) for step in steps]
            _refuse(self._maker.run(made))
            names = rebuild.NewNames.of(renames)
            new = [names.table(source.key) for source in sources]
            built = self._read_twins(schemas, path, rename, new).tables
            savepoint.rollback()
        return built

    def _restored(
        self,
        source: Catalog,
        tables: Iterable[Name],
        renames: Collection[Rename],
        built: Mapping[Name, facts.Table],
    ) -> dict[Name, facts.Table]:
        """Return what was built, with the facts that its source has beside the text."""
        sources = [source.tables[name] for name in tables]
        names = rebuild.NewNames.of(renames)
        quoted = catalog.quoted(self._connection, rebuild.names_in(sources, renames))
        new = {names.table(each.key): each for each in sources}
        return {
            name: rebuild.restored(each, built[name], names, quoted.__getitem__)
            for name, each in new.items()
        }

    # --- schemas and paths ---------------------------------------------------------------------

    def _name_of(self, schema: str | None) -> str | None:
        return None if schema == self._default else schema

    def _new_schemas(self, names: Iterable[str]) -> dict[str, str]:
        """Return a new schema for each name; all have the session's if the role may not create."""
        may_create, may_use_temporary, database, role = self._connection.execute(_RIGHTS).one()
        if may_create:
            return {name: self._new_schema() for name in names}
        if may_use_temporary:
            self._temporary = True
            return dict.fromkeys(names, _TEMPORARY)
        problem = f"the role {role} may create neither schemas nor temporary tables"
        raise CouldNotCompare([f"{problem}: GRANT TEMPORARY ON DATABASE {database} TO {role}"])

    def _new_schema(self) -> str:
        name = f"ragstore_scratch_{self._token}_{self._made}"
        self._made += 1
        error = self._maker.attempt(f"CREATE SCHEMA {name}")
        if error is not None:
            raise CouldNotCompare([diagnosis.described("a schema to compare in", error)]) from error
        return name

    def _path_of_models(self) -> list[str]:
        """Return the search path with a copy of each schema before it, the default one first."""
        path = [self._twins[self._default]]
        for schema in self._own:
            path += [self._twins.get(schema, schema), schema]
        return list(dict.fromkeys(path))

    def _path_of_database(self) -> list[str]:
        """Return the search path; unless it says otherwise, what is temporary is found first."""
        return [*self._own, _TEMPORARY] if self._temporary else self._own

    def _search(self, path: Sequence[str]) -> None:
        quoted = ", ".join(map(catalog.quoted_name, path))
        setting = text("SELECT set_config('search_path', :path, true)")
        self._connection.execute(setting, {"path": quoted})

    def _renamed_back(self) -> dict[str, str]:
        """Return the real schema of each scratch one, which text may still name."""
        if self._temporary:
            schema = self._connection.scalar(_TEMPORARY_SCHEMA)
            return {_TEMPORARY: self._default, str(schema): self._default}
        return {twin: name for name, twin in self._twins.items()}

    # --- reading -------------------------------------------------------------------------------

    def _read_models(self, rename: Mapping[str, str]) -> Catalog:
        path, tables = self._path_of_models(), [*self._parts.tables]
        return self._read_twins(self._twins, path, rename, tables)

    def _read_twins(
        self,
        twins: Mapping[str, str],
        path: Sequence[str],
        rename: Mapping[str, str],
        tables: Iterable[Name],
    ) -> Catalog:
        if not self._temporary:
            names = {twin: self._name_of(name) for name, twin in twins.items()}
            return catalog.read(self._connection, names, path=path, rename=rename)
        schema = self._connection.scalar(_TEMPORARY_SCHEMA)
        places = {name: place for place, name in tables}
        return catalog.read(
            self._connection, {str(schema): None}, path=path, rename=rename, places=places
        )

    def _asked(self, made: Catalog) -> Catalog:
        """Return what was asked for: some of what was made was only needed to make it."""
        parts = self._parts
        schemas = {name[0] for name in parts.asked_tables | parts.asked_types}
        return replace(
            made,
            tables={name: each for name, each in made.tables.items() if name in parts.asked_tables},
            enums={name: each for name, each in made.enums.items() if self._is_asked(name)},
            domains={name: each for name, each in made.domains.items() if self._is_asked(name)},
            sequences={
                name: each for name, each in made.sequences.items() if name in parts.asked_sequences
            },
            routines={
                key: each
                for key, each in made.routines.items()
                if each.name in parts.asked_functions
            },
            schemas=frozenset(schema for schema in schemas if schema is not None),
            extensions=self._used_extensions(),
            others=(),
        )

    def _is_asked(self, kind: Name) -> bool:
        return kind in self._parts.asked_types and kind in self._parts.types

    def _as_modelled(self, table: facts.Table) -> facts.Table:
        """Return a table as the model has it: a temporary one cannot be UNLOGGED."""
        return replace(table, unlogged=is_unlogged(self._parts.tables[table.key]))

    def _used_extensions(self) -> frozenset[str]:
        schemas = [*self._renamed_back()]
        query = text(queries.USED_EXTENSIONS)
        used = self._connection.scalars(query, {"schemas": schemas})
        return frozenset({*used, *self._parts.extensions})

    # --- the temporary schema ------------------------------------------------------------------

    def _unfit_for_temporary(self) -> list[str]:
        """Return what one schema cannot hold, or would print without the schema it has."""
        parts = self._parts
        named = {*parts.types, *parts.given_types, *parts.sequences}
        problems = [f"{schema}.{name}" for schema, name in sorted(named, key=str) if schema]
        tables = [name for _, name in parts.tables]
        problems += sorted({name for name in tables if tables.count(name) > 1})
        reason = f"the session's temporary schema can hold no copy of it: {_CREATE}"
        return [f"{name}: {reason}" for name in problems]

    def _drop_temporary_tables(self) -> None:
        for _, name in self._parts.tables:
            sql = f"DROP TABLE IF EXISTS pg_temp.{catalog.quoted_name(name)} CASCADE"
            self._connection.exec_driver_sql(sql.replace("%", "%%"))


@contextmanager
def _undone(connection: Connection) -> Iterator[None]:
    """Roll the block back, and leave the connection in the transaction that it was in, if any."""
    undo = _begin(connection)
    try:
        yield
    except BaseException:
        with suppress(DBAPIError):  # of a connection that is lost, there is nothing to undo
            undo()
        raise
    undo()


def _begin(connection: Connection) -> Callable[[], None]:
    """Begin a savepoint or transaction, and return what undoes it."""
    if not _is_idle_in_autocommit(connection):
        nested = connection.in_transaction()
        return (connection.begin_nested() if nested else connection.begin()).rollback
    began = connection.in_transaction()  # SQLAlchemy's idea of one: the server has none
    connection.exec_driver_sql("BEGIN")

    def undo() -> None:
        connection.exec_driver_sql("ROLLBACK")
        if not began:
            connection.rollback()

    return undo


def _is_idle_in_autocommit(connection: Connection) -> bool:
    driver = connection.connection.driver_connection
    status = getattr(getattr(driver, "info", None), "transaction_status", None)
    return bool(getattr(driver, "autocommit", False)) and not status


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise CouldNotCompare(problems)
