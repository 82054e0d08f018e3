"""Clients and workers refuse a database whose schema does not fit, and name the command."""

from __future__ import annotations

import os

import pytest
from attrs import evolve

import awa
from awa.errors import MigrationBlocked
from awa.migrate import SqlFile, check_schema, load_sql, migrate, plan_migration, read_installed
from awa.postgres import Connection, connect

TREE = load_sql()
PROBE = SqlFile("functions/zzz_probe.sql", "CREATE FUNCTION awa.zzz_probe() RETURNS int LANGUAGE sql AS 'SELECT 1';")


def outdate(dsn: str) -> None:
    """Leave in the database what an earlier release would have."""
    with connect(dsn, "earlier") as conn:
        migrate(conn, evolve(TREE, functions=(*TREE.functions, PROBE), release="0.0.1"))


def overtake(dsn: str) -> None:
    """Leave in the database what a later release would have."""
    with connect(dsn, "later") as conn:
        migrate(conn, evolve(TREE, functions=(*TREE.functions, PROBE), release="99.0.0"))


def test_a_client_names_the_command_when_there_is_no_schema(empty_dsn: str) -> None:
    with awa.Client(empty_dsn) as client:
        for call in (lambda: client.enqueue("k"), lambda: client.get_job(1), client.list_queues):
            with pytest.raises(
                awa.SchemaOutOfDate, match=r"there is no awa schema in database 'awa_empty_.*: run `awa migrate`"
            ):
                call()


def test_a_worker_names_the_command_when_there_is_no_schema(empty_dsn: str) -> None:
    with pytest.raises(awa.SchemaOutOfDate, match="run `awa migrate`"):
        awa.Worker({"q": 1}, dsn=empty_dsn).start()


def test_a_worker_whose_start_was_refused_keeps_nothing_open(empty_dsn: str) -> None:
    open_before = set(os.listdir("/dev/fd"))  # noqa: PTH208 - names are all that matters
    worker = awa.Worker({"q": 1}, dsn=empty_dsn)
    with pytest.raises(awa.SchemaOutOfDate):
        worker.start()
    assert set(os.listdir("/dev/fd")) == open_before  # noqa: PTH208


def test_a_clients_callers_connection_is_checked_too(empty_dsn: str) -> None:
    with connect(empty_dsn, "mine") as conn, awa.Client(empty_dsn) as client, pytest.raises(awa.SchemaOutOfDate):
        client.enqueue("k", connection=conn)


def test_a_client_names_the_command_when_the_schema_is_behind(empty_dsn: str) -> None:
    outdate(empty_dsn)
    with (
        awa.Client(empty_dsn) as client,
        pytest.raises(awa.SchemaOutOfDate, match=rf"is not that of awa {TREE.release}: run `awa"),
    ):
        client.enqueue("k")


def test_a_worker_names_the_command_when_the_schema_is_behind(empty_dsn: str) -> None:
    outdate(empty_dsn)
    with pytest.raises(awa.SchemaOutOfDate, match="run `awa migrate`"):
        awa.Worker({"q": 1}, dsn=empty_dsn).start()


def test_a_schema_of_this_release_with_other_functions_is_refused(conn: Connection) -> None:
    migrate(conn, evolve(TREE, functions=(*TREE.functions, PROBE)))
    with pytest.raises(awa.SchemaOutOfDate):
        check_schema(conn, TREE)


def test_a_schema_that_goes_away_under_a_client_is_explained(dsn: str, conn: Connection) -> None:
    with awa.Client(dsn) as client:
        client.enqueue("k")
        conn.execute("DROP SCHEMA awa CASCADE")
        with pytest.raises(awa.SchemaOutOfDate, match="awa migrate"):
            client.enqueue("k")
        with pytest.raises(awa.SchemaOutOfDate, match="awa migrate"):
            client.get_job(1)


def test_during_a_rolling_deploy_the_earlier_release_works_on_the_later_schema(dsn: str) -> None:
    overtake(dsn)
    ran: list[int] = []

    @awa.task
    def note(n: int) -> None:
        ran.append(n)

    with connect(dsn, "test") as conn:
        assert check_schema(conn, TREE).release == "99.0.0"
        assert read_installed(conn).digest != TREE.digest
    with awa.Client(dsn) as client:
        note.options(client=client).enqueue(1)
        with awa.Worker({"default": 1}, dsn=dsn):
            pass
        assert client.queue_counts("default").failed == 0


@pytest.mark.parametrize(
    ("installed", "accepted"), [("0.1.1", True), ("0.10.0", True), ("1.0", True), ("0.0.9", False), ("0.1.0", False)]
)
def test_releases_are_compared_by_their_numbers(empty_dsn: str, installed: str, accepted: bool) -> None:
    here = evolve(TREE, release="0.1.0")
    with connect(empty_dsn, "test") as conn:
        migrate(conn, evolve(TREE, functions=(*TREE.functions, PROBE), release=installed))
        if accepted:
            assert check_schema(conn, here).release == installed
        else:
            with pytest.raises(awa.SchemaOutOfDate):
                check_schema(conn, here)


def test_a_view_of_the_user_s_own_on_awa_s_is_named_and_nothing_is_changed(dsn: str) -> None:
    tree = load_sql()
    view = tree.views[-1]
    changed = evolve(tree, views=(*tree.views[:-1], SqlFile(view.path, f"{view.text}\n-- changed\n")))
    with connect(dsn, "awa test") as conn:
        conn.execute("CREATE VIEW public.my_jobs AS SELECT job_id FROM awa.jobs")
        with pytest.raises(MigrationBlocked, match="view my_jobs depends on view awa"):
            migrate(conn, changed)
        assert plan_migration(conn, tree).steps == ()


def test_a_role_that_defaults_to_repeatable_read_migrates_all_the_same(empty_dsn: str) -> None:
    with connect(empty_dsn, "awa test") as conn:
        conn.execute("SET default_transaction_isolation = 'repeatable read'")
        assert migrate(conn).steps
        assert migrate(conn).steps == ()
