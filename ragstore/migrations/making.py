"""Statements that make a copy of the models, run so that every one that fails is found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from ragstore.migrations import diagnosis
from ragstore.migrations.catalog import quoted_name
from ragstore.migrations.facts import Name
from ragstore.migrations.statements import Statement


class Maker:
    """Runs statements: all at once and, if that fails, one by one.

    Text in the models may name a schema (``rag.number_of(id)``). What is not in that schema yet is
    looked for in its copy, which ``twins`` names. A common extension that is missing is created.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._extension_errors: dict[str, DBAPIError | None] = {}
        self.twins: Mapping[str, str] = {}

    def run(self, statements: Sequence[Statement]) -> list[str]:
        """Run statements and return what cannot be made, and why, a message for each object."""
        compiled = all(each.error is None for each in statements)
        if compiled and self.attempt(";\n".join(each.sql for each in statements)) is None:
            return []
        return list(self._one_by_one(statements))

    def attempt(self, sql: str) -> DBAPIError | None:
        """Run SQL in a savepoint; return the error that the server gives, if it does."""
        try:
            with self._connection.begin_nested():
                self._connection.exec_driver_sql(sql)
        except DBAPIError as exc:
            if exc.connection_invalidated:
                raise
            return exc
        return None

    def create_extensions(self, names: Iterable[str]) -> list[str]:
        """Create extensions that are not there; return what cannot be created, and why."""
        errors = [(name, self._create_extension(name)) for name in names]
        return [diagnosis.of_extension(name, error) for name, error in errors if error is not None]

    def _create_extension(self, name: str) -> DBAPIError | None:
        if name not in self._extension_errors:
            sql = f"CREATE EXTENSION IF NOT EXISTS {quoted_name(name)} CASCADE"
            self._extension_errors[name] = self.attempt(sql.replace("%", "%%"))
        return self._extension_errors[name]

    def _one_by_one(self, statements: Sequence[Statement]) -> Iterator[str]:
        """Run each statement that can run, again while others make something; yield the rest."""
        made: set[Name | None] = {None}
        errors: dict[int, DBAPIError] = {}
        pending, waiting = [each for each in statements if each.error is None], None
        while waiting is None or len(waiting) < len(pending):
            pending = pending if waiting is None else waiting
            waiting = []
            for each in pending:
                error = self._make(each) if each.needs <= made else None
                if error is None and each.needs <= made:
                    made.add(each.makes)
                    continue
                waiting.append(each)
                if error is not None:
                    errors[id(each)] = error
        yield from (f"{each.subject}: {each.error}" for each in statements if each.error)
        makeable = {each.makes for each in statements}
        for each in waiting:
            if id(each) in errors:
                yield self._described(each, errors[id(each)])
            else:
                yield from self._missing(each, makeable)

    def _make(self, statement: Statement) -> DBAPIError | None:
        error = self.attempt(statement.sql)
        if error is None:
            return None
        extension = diagnosis.missing_extension(error)
        if extension is not None and extension not in self._extension_errors:
            self._create_extension(extension)
            return self._make(statement)
        translated = self._with_twins(statement.sql)
        if translated != statement.sql and self.attempt(translated) is None:
            return None
        return error

    def _with_twins(self, sql: str) -> str:
        """Return SQL in which schemas that are written out are those of the copies."""
        twins = {spelled: twin for name, twin in self.twins.items() for spelled in _spelled(name)}
        spellings = "|".join(map(re.escape, sorted(twins, key=len, reverse=True)))
        found = re.compile(rf'(?<![\w$."])({spellings})\.')
        return found.sub(lambda match: f"{twins[match[1]]}.", sql) if twins else sql

    def _described(self, statement: Statement, error: DBAPIError) -> str:
        extension = diagnosis.missing_extension(error)
        reason = self._extension_errors.get(extension) if extension else None
        if extension is None or reason is None:
            return diagnosis.described(statement.subject, error, statement.sql)
        problem = diagnosis.described(statement.subject, error, statement.sql, remedy=False)
        return f"{problem}: {diagnosis.of_extension(extension, reason)}"

    def _missing(self, statement: Statement, makeable: set[Name | None]) -> Iterator[str]:
        for name in sorted(statement.needs - makeable, key=str):
            table = ".".join(part for part in name if part is not None)
            yield f"{statement.subject}: it needs the table {table}, which is not in the models"


def _spelled(name: str) -> set[str]:
    return {name, quoted_name(name)}
