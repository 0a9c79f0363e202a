"""Domains: their default, whether they take NULL, and their checks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from alembic.operations import MigrateOperation

from ragstore.exceptions import CouldNotCompare
from ragstore.migrations.conversions import of_value
from ragstore.migrations.facts import Domain, Name
from ragstore.migrations.objects import printed
from ragstore.migrations.operations import (
    AlterDomainOp,
    CreateDomainOp,
    DropDomainOp,
    RequireDecisionOp,
)
from ragstore.migrations.plan.context import Context
from ragstore.migrations.plan.renamed import columns_after
from ragstore.migrations.plan.steps import Difference, Phase, changed, place


def drop_domains(context: Context) -> None:
    """Plan the domains that this history made and no model has."""
    for key in _sorted(context.found.domains.keys() - context.wanted.domains.keys()):
        if not context.owned.owns_enum(*key):
            context.plan.foreign.append(f"domain {place(key)}")
            continue
        domain = context.found.domains[key]
        drop = DropDomainOp(domain.name, schema=domain.schema, existing=_definition(domain))
        difference = Difference("domain", place(key), "is not in the models")
        context.plan.add(difference, (Phase.DROP_TYPES, drop))


def compare_domains(context: Context) -> None:
    """Plan the domains that are new, and those that change.

    Raises:
        CouldNotCompare: one changes in a way that no ALTER DOMAIN can make.
    """
    found, wanted = context.found.domains, context.wanted.domains
    for key in _sorted(wanted.keys()):
        domain = wanted[key]
        if key not in found:
            create = CreateDomainOp(
                domain.name, domain.written or _definition(domain), schema=domain.schema
            )
            difference = Difference("domain", place(key), "is not in the database")
            context.plan.add(difference, (Phase.TYPES, create))
        elif _bare(found[key]) != _bare(domain):
            _change(context, found[key], domain)


def _change(context: Context, found: Domain, wanted: Domain) -> None:
    name = place(wanted.key)
    what = changed(_rules(found), _rules(wanted))
    remedy = "which no ALTER DOMAIN changes: give the new one another name"
    if (found.type, found.collation) != (wanted.type, wanted.collation):
        what = f"its type {changed(_typed(found), _typed(wanted))}"
        raise CouldNotCompare([f"domain {name}: {what}, {remedy}"])
    arrays = [
        place(key, column)
        for key, column in found.used_by
        if context.found.tables[key].columns[column].type.endswith("[]")
    ]
    if arrays and (found.nullable, found.checks) != (wanted.nullable, wanted.checks):
        raise CouldNotCompare(
            [f"domain {name} {what}, and {arrays[0]} is an array of it, {remedy}"]
        )
    steps = list(_steps(context, found, wanted))
    context.plan.add(Difference("domain", name, what), *((Phase.TYPES, step) for step in steps))


def _steps(context: Context, found: Domain, wanted: Domain) -> Iterator[MigrateOperation]:
    def alter(action: str, existing: str) -> MigrateOperation:
        return AlterDomainOp(wanted.name, action, schema=wanted.schema, existing=existing)

    if found.default != wanted.default:
        yield alter(_default(wanted), _default(found))
    for name, check in (each for each in found.checks if each not in wanted.checks):
        yield alter(f"DROP CONSTRAINT {printed(None, name)}", _adding(name, check))
    if found.nullable != wanted.nullable:
        if found.nullable:
            yield from _questions(context, found, "becomes NOT NULL", "{} IS NOT NULL")
        verbs = ("DROP", "SET") if wanted.nullable else ("SET", "DROP")
        yield alter(f"{verbs[0]} NOT NULL", f"{verbs[1]} NOT NULL")
    for name, check in (each for each in wanted.checks if each not in found.checks):
        condition = of_value(check.removeprefix("CHECK "))
        yield from _questions(context, found, f"gets the check {name}", condition)
        added = _adding(name, f"CHECK ({wanted.written_check})" if wanted.written_check else check)
        yield alter(added, f"DROP CONSTRAINT {printed(None, name)}")


def _questions(
    context: Context, domain: Domain, what: str, condition: str
) -> Iterator[MigrateOperation]:
    """Yield a question for each column that has the domain; ``condition`` has its place as {}."""
    for key, name in columns_after(context, domain.used_by):
        column = printed(None, name)
        where = f"NOT ({condition.format(column)})"
        question = (
            f"{place(key, name)} is of the domain {place(domain.key)}, which {what}: what do rows"
            " that are not so get instead?"
        )
        advice = f'op.execute("UPDATE {printed(*key)} SET {column} = … WHERE {where}")'  # noqa: S608 - for people
        yield RequireDecisionOp(question, key[1], where, schema=key[0], advice=advice)


def _adding(name: str, check: str) -> str:
    return f"ADD CONSTRAINT {printed(None, name)} {check}"


def _default(domain: Domain) -> str:
    return "DROP DEFAULT" if domain.default is None else f"SET DEFAULT {domain.default}"


def _typed(domain: Domain) -> str:
    return f"{domain.type} COLLATE {domain.collation}" if domain.collation else domain.type


def _rules(domain: Domain) -> str:
    parts = [f"DEFAULT {domain.default}"] if domain.default is not None else []
    parts += [] if domain.nullable else ["NOT NULL"]
    parts += [f"CONSTRAINT {printed(None, name)} {check}" for name, check in domain.checks]
    return " ".join(parts)


def _definition(domain: Domain) -> str:
    return f"{_typed(domain)} {_rules(domain)}".strip()


def _bare(domain: Domain) -> Domain:
    return replace(domain, used_by=())


def _sorted(keys: Iterable[Name]) -> list[Name]:
    return sorted(keys, key=lambda key: (key[0] or "", key[1]))
