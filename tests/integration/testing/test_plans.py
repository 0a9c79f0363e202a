"""Does a statement use an index?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import Session, select
from sqlmodel.ext.asyncio.session import AsyncSession

from ragstore import DatabaseConnection
from ragstore.exceptions import InvalidQuery
from ragstore.models import Collection, Embedding
from ragstore.space import space_of


@pytest.mark.parametrize("index", [None, "ragstore_collection_name_key"])
def test_index_is_found(assert_uses_index: Callable[..., None], index: str | None) -> None:
    """A statement with an index passes, SQLAlchemy's or SQL, whichever of them is named."""
    assert_uses_index(select(Collection).where(Collection.name == "x"), index)
    assert_uses_index(
        "SELECT id FROM ragstore_collection WHERE name = :name AND name NOT LIKE '100%'",
        index,
        parameters={"name": "x"},
    )


def test_missing_index_is_shown(
    assert_uses_index: Callable[..., None], db_session: Session
) -> None:
    """The failure shows the plan; the transaction and its settings are as before."""
    by_language = select(Collection).where(Collection.language == "german")
    with pytest.raises(AssertionError, match=r"does not use an index:\n *Seq Scan on ragstore_c"):
        assert_uses_index(by_language, on=db_session)
    with pytest.raises(AssertionError, match="does not use the index ragstore_collection_pkey"):
        assert_uses_index(
            select(Collection).where(Collection.name == "x"), "ragstore_collection_pkey"
        )
    with pytest.raises(InvalidQuery, match="no index nothing_idx"):
        assert_uses_index(by_language, "nothing_idx")

    assert db_session.connection().scalar(text("SHOW enable_seqscan")) == "on"


def test_small_tables_are_no_excuse(
    assert_uses_index: Callable[..., None], db_fresh: DatabaseConnection
) -> None:
    """An index counts that the planner takes only once the table has grown."""
    by_name = select(Collection).where(Collection.name == "x")
    with db_fresh.session() as session:
        session.add(Collection(name="x"))
        session.commit()
        session.connection().execute(text("ANALYZE ragstore_collection"))
        plan = session.connection().scalars(
            text("EXPLAIN SELECT * FROM ragstore_collection WHERE name = 'x'")
        )

        assert "Seq Scan" in "\n".join(plan)
        assert_uses_index(by_name, "ragstore_collection_name_key", on=session)


async def test_index_of_a_partition(
    assert_uses_index: Callable[..., Any],
    db_async_session: AsyncSession,
    collection_factory: Callable[..., Any],
) -> None:
    """The index of the partitioned table may be named, and the async side is planned on itself."""
    collection = await collection_factory(db_async_session)
    statement = select(Embedding.chunk_id).where(
        Embedding.collection_id == collection.id, Embedding.space_id == collection.space_id
    )

    await assert_uses_index(statement, "ragstore_embedding_pkey", on=db_async_session)
    await assert_uses_index(
        statement, f"{space_of(collection.space).partition}_pkey", on=db_async_session
    )
