"""Indexes are built beside readers and writers, repaired, and left to whoever may build them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from sqlalchemy.engine import URL

from ragstore import (
    DatabaseConnection,
    NewChunk,
    NewDocument,
    Store,
    exceptions,
    indexing,
    unindexing,
)
from ragstore.conf import override_settings
from ragstore.driver import connect
from ragstore.indexing import index_after_load
from ragstore.load import FIRST_ANALYSIS
from ragstore.procedure import perform
from ragstore.space import Space
from ragstore.testing.factories import make_collection, make_space
from ragstore.tuning import IndexOptions
from ragstore.work import do

INDEXES = """
SELECT i.relname, x.indisvalid, pg_get_indexdef(i.oid) FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid WHERE i.relname LIKE '%\\_ann%' ORDER BY i.relname
"""


def fill(store: Any, collection: str, count: int, dimensions: int = 8) -> None:
    """Give a collection so many random vectors."""
    vectors = np.random.default_rng(count).normal(size=(count, dimensions))
    chunks = [NewChunk(str(at), vector) for at, vector in enumerate(vectors)]
    store.ingest(collection, [NewDocument("a", chunks)], build_index="never")


def indexes(connection: DatabaseConnection) -> list[tuple[Any, ...]]:
    """Return the indexes of spaces: name, validity, definition."""
    with connection.transaction() as cursor:
        return cursor.execute(INDEXES.encode()).fetchall()


@pytest.fixture
def space(store: Store) -> Space:
    """Return a space with a collection above its limit, and one below."""
    made = store.create_space("s", model="m", dimensions=8, exact_limit=20)
    for name, count in (("large", 21), ("small", 20)):
        store.create_collection(name, space="s")
        fill(store, name, count)
    return made


def test_each_large_collection_gets_an_index(
    either: Any, space: Space, connection: DatabaseConnection
) -> None:
    """Above exact_limit a collection has an index of its own; the space's is made on request."""
    large = either.collection("large")
    name = f"{space.partition}_ann_{large.id}"

    first = either.ensure_indexes("s")
    second = either.ensure_indexes("s", whole=True)

    assert [(each.state, each.name, each.collection) for each in first] == [
        ("built", name, "large")
    ]
    assert first[0].seconds > 0
    assert [(each.state, each.name) for each in second] == [
        ("built", f"{space.partition}_ann"),
        ("present", name),
    ]
    (whole, _, whole_definition), (one, _, one_definition) = indexes(connection)
    assert (whole, one) == (f"{space.partition}_ann", name)
    using = "USING hnsw (((vector)::halfvec(8)) halfvec_cosine_ops) WITH (ef_construction='128')"
    assert whole_definition.endswith(using)
    assert one_definition.endswith(f"{using} WHERE (collection_id = {large.id})")


def test_options_are_those_of_the_index(either: Any, space: Space) -> None:
    """What is given for HNSW stands in the index; a small collection is not indexed."""
    report = either.build_index("s", m=4, ef_construction=20, memory="32MB", workers=0)
    small = either.build_index("s", "small")

    assert (report.state, report.space, report.collection) == ("built", "s", None)
    definition = indexes(either.connection)[0][2]
    assert definition.endswith("WITH (m='4', ef_construction='20')")
    assert (small.state, small.collection) == ("not needed", "small")
    assert "no more than 20 vectors" in small.reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"m": 1}, "m is 1: it takes a number, 2 to 100"),
        ({"ef_construction": 1_001}, "4 to 1,000"),
        (
            {"m": 40, "ef_construction": 64},
            "ef_construction is 64: pgvector takes no less than twice m, which is 40",
        ),
        ({"lists": 0}, "lists is 0"),
        ({"workers": True}, "workers is True"),
        ({"memory": "2 gigabytes"}, "memory is '2 gigabytes': it takes a size"),
        ({"memory": 2_048}, "memory is 2048"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    """What pgvector would refuse after waiting is refused at once."""
    with pytest.raises(exceptions.InvalidInput, match=message):
        IndexOptions(**options)


def test_invalid_index_is_built_again(
    store: Store, space: Space, connection: DatabaseConnection, caplog: pytest.LogCaptureFixture
) -> None:
    """What a failed build left behind is dropped, with a warning, and built."""
    name = f"{space.partition}_ann"
    build = f"CREATE INDEX CONCURRENTLY {name} ON {space.partition} (collection_id)".encode()
    with connect(connection.migration_url, autocommit=True) as session:
        session.execute("SET statement_timeout = '300ms'")
        with connection.transaction() as writer:
            writer.execute(f"LOCK {space.partition} IN ROW EXCLUSIVE MODE".encode())
            with pytest.raises(psycopg.errors.QueryCanceled):
                session.execute(build)
    assert [row[:2] for row in indexes(connection)] == [(name, False)]

    report = store.build_index("s")

    assert report.state == "built"
    assert [row[:2] for row in indexes(connection)] == [(name, True)]
    assert "left from a build that failed" in caplog.text


def test_partition_is_vacuumed_after_a_build(store: Store, space: Space) -> None:
    """Its vectors are counted without a look at each, as a move does while writers wait."""
    store.build_index("s")

    with store.connection.transaction() as cursor:
        visible = cursor.execute(
            b"SELECT relpages, relallvisible FROM pg_class WHERE relname = %s", [space.partition]
        ).fetchall()
    assert visible == [(1, 1)]


def test_build_that_ended_a_deadlock_is_made_again(
    store: Store, space: Space, connection: DatabaseConnection, caplog: pytest.LogCaptureFixture
) -> None:
    """What it left is dropped, and the index built when the other transaction is over."""
    caplog.set_level(logging.INFO, "ragstore")
    reports: list[Any] = []
    thread = threading.Thread(target=lambda: reports.append(store.build_index("s", "large")))
    with connect(connection.migration_url) as other:
        other.execute("SET LOCAL deadlock_timeout = '60s'")  # the build is the one to be ended
        other.execute(f"LOCK {space.partition} IN ROW EXCLUSIVE MODE".encode())
        thread.start()
        while not indexes(connection):  # it is being built, and waits for the lock above
            time.sleep(0.01)
        other.execute(f"LOCK {space.partition} IN SHARE MODE".encode())
    thread.join()

    assert [each.state for each in reports] == ["built"]
    assert [(name, valid) for name, valid, _ in indexes(connection)] == [(reports[0].name, True)]
    assert "Other sessions are in the way (40P01): trying again" in caplog.text
    assert "left from a build that failed" in caplog.text


def test_builds_of_one_space_take_turns(either: Any, space: Space) -> None:
    """Two builds at once both end well, where the server would find a deadlock between them."""
    names: list[str | None] = [None, "large", None, "large"]
    reports: list[Any] = []
    stores = [Store(DatabaseConnection(either.connection.url)) for _ in names]

    def build(store: Store, name: str | None) -> None:
        reports.append(store.build_index("s", name))

    threads = [
        threading.Thread(target=build, args=pair) for pair in zip(stores, names, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        store.connection.close()

    assert sorted(report.state for report in reports) == ["built", "built", "present", "present"]
    assert all(valid for _, valid, _ in indexes(either.connection))


def test_build_waits_for_another_session(
    store: Store, space: Space, connection: DatabaseConnection, caplog: pytest.LogCaptureFixture
) -> None:
    """While another session builds in the space, this one looks again until that ends."""
    caplog.set_level(logging.INFO, "ragstore")
    with connect(connection.migration_url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(hashtext('ragstore.ann'), %s::int)", [space.id])
        thread = threading.Thread(target=store.build_index, args=["s"])
        thread.start()
        thread.join(1)
        assert thread.is_alive()
        assert indexes(connection) == []
    thread.join()

    assert [row[1] for row in indexes(connection)] == [True]
    assert "Waiting for another session to build in the space 's'" in caplog.text


def test_load_goes_on_beside_a_build(
    store: Store, space: Space, connection: DatabaseConnection
) -> None:
    """A load that is analysed waits for no build in its space, and the build ends well."""
    reports: list[Any] = []
    build = threading.Thread(target=lambda: reports.append(store.build_index("s", "large")))
    with connection.transaction() as writer:
        writer.execute("LOCK TABLE ragstore_embedding IN ROW EXCLUSIVE MODE")
        build.start()
        build.join(1)
        assert build.is_alive()
        load = threading.Thread(target=fill, args=(store, "small", FIRST_ANALYSIS))
        load.start()
        load.join(10)
        is_done = not load.is_alive()
    build.join()
    load.join()

    assert is_done
    assert [report.state for report in reports] == ["built"]
    assert [row[1] for row in indexes(connection)] == [True]


def test_no_room_for_workers_is_survived(
    store: Store,
    space: Space,
    connection: DatabaseConnection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where parallel workers find no shared memory, the index is built without them, and logged."""
    built = indexing._built

    def full(space: Space, collection: Any, options: IndexOptions) -> Any:
        if options.workers != 0:
            raise exceptions.QueryFailed("could not resize shared memory", sqlstate="53100")
        return (yield from built(space, collection, options))

    monkeypatch.setattr(indexing, "_built", full)

    assert store.build_index("s", workers=2).state == "built"
    assert "built without: could not resize shared memory" in caplog.text
    assert indexes(connection)[0][1] is True


def test_space_without_index_has_none(either: Any) -> None:
    """Asking for the index of such a space is refused; there is never one due."""
    either.create_space("bare", model="m", dimensions=8, index="none", exact_limit=1)
    either.create_collection("c", space="bare")
    fill(either, "c", 3)

    with pytest.raises(exceptions.InvalidInput, match="index='none'"):
        either.build_index("bare")
    assert either.ensure_indexes("bare") == []


def test_row_with_an_index_that_cannot_be(store: Store) -> None:
    """A space made with the models may name any index: nothing is due, and building is refused."""
    wide = make_space(store, "wide", dimensions=4_001)
    make_collection(store, "c", space=wide)
    with store.connection.transaction() as cursor:
        cursor.execute("UPDATE ragstore_embedding_space SET exact_limit = 1")
    store.ingest("c", [NewDocument("a", [NewChunk(text, np.ones(4_001)) for text in "ab"])])

    assert store.ensure_indexes("wide") == []
    assert after_load(store, "c").state == "not needed"
    assert not store.space_stats("wide").collections[0].is_due
    with pytest.raises(exceptions.InvalidInput, match="up to 4,000 dimensions as 'halfvec'"):
        store.build_index("wide")


def test_missing_things_are_named(either: Any, space: Space) -> None:
    """A space, a collection or a partition that is not there is an error that names it."""
    with pytest.raises(exceptions.SpaceNotFound, match="'t'"):
        either.build_index("t")
    with pytest.raises(exceptions.CollectionNotFound, match="'t'"):
        either.build_index("s", "t")
    with either.connection.transaction() as cursor:
        cursor.execute(f"DROP TABLE {space.partition}".encode())
    with pytest.raises(exceptions.SpaceNotReady, match="'s' has no partition to index"):
        either.build_index("s")


def test_ivfflat_is_built_with_a_warning(store: Store, connection: DatabaseConnection) -> None:
    """Its lists follow from the rows, and a pgvector with a defect in the build is named."""
    store.create_space("i", model="m", dimensions=8, index="ivfflat", exact_limit=10)
    store.create_collection("c", space="i")
    fill(store, "c", 2_000)

    options: list[dict[str, Any]] = [{}, {"collection": "c", "lists": 7}]
    for each in options:
        with pytest.warns(exceptions.OldExtensionWarning, match=r"IVFFlat.*update to 0\.8\.7"):
            store.build_index("i", **each)

    assert [row[2].rpartition("lists")[2][:4] for row in indexes(connection)] == ["='2'", "='7'"]


@pytest.mark.filterwarnings("error")
def test_warning_as_an_error_leaves_the_invalid_index(
    store: Store, connection: DatabaseConnection
) -> None:
    """The warning of IVFFlat comes before anything is dropped."""
    space = store.create_space("i", model="m", dimensions=8, index="ivfflat")
    name = f"{space.partition}_ann"
    with connection.transaction() as driver:
        driver.execute(f"CREATE INDEX {name} ON {space.partition} (chunk_id)".encode())
        driver.execute(
            b"UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", [name]
        )

    with pytest.raises(exceptions.OldExtensionWarning):
        store.build_index("i")

    assert [(row[0], row[1]) for row in indexes(connection)] == [(name, False)]


@pytest.mark.parametrize(("rows", "lists"), [(10, 1), (50_000, 50), (4_000_000, 2_000)])
def test_lists_follow_from_rows(rows: int, lists: int) -> None:
    """A thousandth of the vectors, and the square root beyond a million."""
    space = Space(1, "s", "m", 8, "cosine", "ivfflat")
    assert IndexOptions().of(space, rows) == {"lists": lists}


# --- after a load ------------------------------------------------------------------------------


@pytest.fixture
def guest(connection: DatabaseConnection) -> Iterator[URL]:
    """Yield the URL of a role that may use the tables, but does not own them."""
    role = "indexing_guest"
    with connection.transaction() as cursor:
        cursor.execute(f"DROP ROLE IF EXISTS {role}".encode())
        cursor.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'".encode())
        cursor.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}".encode())
        cursor.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}".encode())
    yield connection.url.set(username=role, password="secret")
    with connection.transaction() as cursor:
        cursor.execute(f"DROP OWNED BY {role}".encode())
        cursor.execute(f"DROP ROLE {role}".encode())


def after_load(store: Store, collection: str) -> Any:
    """Do what an ingest does at its end."""
    return do(index_after_load(store.collection(collection)), perform(store.connection))


def test_index_after_a_load(store: Store, space: Space) -> None:
    """The first load that makes a collection large builds its index; others find it there."""
    assert after_load(store, "small").state == "not needed"
    assert [after_load(store, "large").state for _ in range(2)] == ["built", "present"]
    store.create_collection("bare")
    assert after_load(store, "bare") is None


def test_index_is_due_for_a_role_that_may_not_build_it(
    store: Store, space: Space, guest: URL, caplog: pytest.LogCaptureFixture
) -> None:
    """A load by a guest does not fail: the report and the log say what the owner is to run."""
    with DatabaseConnection(guest) as theirs:
        report = after_load(Store(theirs), "large")
        with pytest.raises(exceptions.PermissionDenied, match="DB_MIGRATION_DATABASE_URL"):
            Store(theirs).build_index("s", "large")

    assert (report.state, report.collection) == ("due", "large")
    assert "store.ensure_indexes('s')" in report.reason
    assert report.name in caplog.text
    with DatabaseConnection(guest, migration_url=store.connection.url) as both:
        assert Store(both).build_index("s", "large").state == "built"


def test_pooler_needs_a_url_beside_it(either: Any, space: Space) -> None:
    """Through a transaction pooler nothing is built: its session would be shared with strangers."""
    with override_settings(POOLER="transaction"):
        with pytest.raises(exceptions.ImproperlyConfigured, match="DB_MIGRATION_DATABASE_URL"):
            either.build_index("s")
        report = after_load(Store(either.connection), "large")
    assert report.state == "due"
    assert "DB_MIGRATION_DATABASE_URL" in report.reason


def test_a_load_builds_the_index(store: Store) -> None:
    """Ingest gives a collection its index once it has outgrown exact search, and then leaves it."""
    store.create_space("small", model="m", dimensions=3, exact_limit=10)
    store.create_collection("grown", space="small")
    documents = [
        NewDocument(f"d{number}", [NewChunk("text", vector=[number, 1, 1])]) for number in range(11)
    ]

    store.ingest("grown", documents[:10])
    before = store.space_stats("small").indexes
    store.ingest("grown", documents)
    built = store.build_index("small", collection="grown")

    assert before == ()
    assert built.state == "present"


def test_a_load_whose_index_fails_is_stored(
    either: Any, space: Space, caplog: pytest.LogCaptureFixture
) -> None:
    """The report comes all the same, a warning says what to run, and searches find everything."""
    taken = f"{space.partition}_ann_{either.collection('small').id}"
    with either.connection.transaction() as cursor:
        cursor.execute(f"CREATE TABLE {taken} ()".encode())
    chunks = [NewChunk(str(at), [at] * 8) for at in range(1, 31)]

    report = either.ingest("small", [NewDocument("b", chunks)])

    assert report.chunks == 30
    assert "run ensure_indexes()" in caplog.text
    assert len(either.search("small", vector=[1] * 8, k=60)) == 50


def test_a_load_without_an_index(store: Store) -> None:
    """With build_index="never" the index is left to the caller."""
    store.create_space("small", model="m", dimensions=3, exact_limit=1)
    store.create_collection("grown", space="small")
    documents = [
        NewDocument(f"d{number}", [NewChunk("text", vector=[number, 1, 1])]) for number in range(9)
    ]

    store.ingest("grown", documents, build_index="never")

    assert store.space_stats("small").indexes == ()


def test_own_indexes_go_with_their_collection(either: Any, space: Space) -> None:
    """The index over a collection is dropped in each space, and those of others stay."""
    connection = either.connection
    either.create_space("t", model="n", dimensions=4, exact_limit=5)
    either.create_collection("other", space="s")
    fill(either, "other", 22)
    either.ensure_indexes("s", whole=True)
    other = either.collection("other").id
    either.reembed("large", to="t", embed=lambda texts: [[1, 2, 3, 4]] * len(texts))
    assert len(indexes(connection)) == 4

    assert either.delete_collection("large") == 1

    left = [name for name, *_ in indexes(connection)]
    assert left == [f"{space.partition}_ann", f"{space.partition}_ann_{other}"]


def test_collection_is_deleted_by_a_role_that_may_not_drop_its_index(
    store: Store, space: Space, guest: URL, caplog: pytest.LogCaptureFixture
) -> None:
    """The rows go all the same, and a warning names the index that stays."""
    store.ensure_indexes("s")
    name = f"{space.partition}_ann_{store.collection('large').id}"

    with DatabaseConnection(guest) as theirs:
        assert Store(theirs).delete_collection("large") == 1

    with pytest.raises(exceptions.CollectionNotFound):
        store.collection("large")
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert (record.__dict__["index"], record.__dict__["space"]) == (name, "s")
    assert f"DROP INDEX CONCURRENTLY {name}" in record.getMessage()
    assert [each[0] for each in indexes(store.connection)] == [name]


def test_collection_is_deleted_behind_a_pooler(
    store: Store, space: Space, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no session of its own can be had, the index stays, with a warning that says why."""
    store.ensure_indexes("s")
    with override_settings(POOLER="transaction"):
        assert store.delete_collection("large") == 1
    assert f"{space.partition}_ann_" in caplog.text
    assert "transaction pooler" in caplog.text


def test_collection_is_deleted_while_another_session_builds(
    store: Store, space: Space, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the other's turn to end only for so long, then goes on with a warning."""
    store.ensure_indexes("s")
    monkeypatch.setattr(unindexing, "LOCK_PAUSES", (0.01,))
    with connect(store.connection.migration_url, autocommit=True) as session:
        session.execute(indexing.TRY_TURN, [space.id])
        assert store.delete_collection("large") == 1
    assert "Another session builds an index in the space 's'" in caplog.text
