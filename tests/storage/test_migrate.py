"""Bringing a database's schema to a release: once, whole, and never halfway."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest
from attrs import evolve

import awa
from awa.errors import MigrationBlocked, MigrationEdited, SchemaNewer
from awa.migrate import MIGRATION_LOCK, Plan, SqlFile, SqlTree, load_sql, migrate, plan_migration, read_installed
from awa.postgres import Connection, connect
from tests.waiting import PATIENCE, wait_for

TREE = load_sql()
OBJECTS = len(TREE.functions) + len(TREE.views)


def with_migration(tree: SqlTree, text: str) -> SqlTree:
    """A tree with one more migration."""
    return evolve(tree, migrations=(*tree.migrations, SqlFile(f"migrations/{tree.version + 1:04}_next.sql", text)))


def with_function(tree: SqlTree, text: str, name: str = "zzz_probe") -> SqlTree:
    """A tree with one more function, or another text of it."""
    others = tuple(file for file in tree.functions if file.name != name)
    return evolve(tree, functions=(*others, SqlFile(f"functions/{name}.sql", text)))


def probe(result: int, parameters: str = "") -> str:
    """A function's text."""
    return f"CREATE OR REPLACE FUNCTION awa.zzz_probe({parameters}) RETURNS int LANGUAGE sql AS 'SELECT {result}';\n"


def fingerprint(conn: Connection) -> list[Any]:
    """All that a migration could have changed."""
    queries = (
        "SELECT version, checksum, applied_at FROM awa.schema_migrations ORDER BY 1",
        "SELECT path, checksum, applied_at FROM awa.schema_objects ORDER BY 1",
        "SELECT release, sql_digest FROM awa.queue_meta",
        "SELECT oid, xmin::text, proname FROM pg_proc WHERE pronamespace = 'awa'::regnamespace ORDER BY 1",
        "SELECT oid, xmin::text, relname FROM pg_class WHERE relnamespace = 'awa'::regnamespace ORDER BY 1",
    )
    return [conn.execute(query.encode()).fetchall() for query in queries]


def routines(conn: Connection, name: str) -> list[str]:
    """The signatures of a function."""
    rows = conn.execute(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'awa'::regnamespace AND proname = %s", (name,)
    )
    return [row[0] for row in rows.fetchall()]


def one(conn: Connection, query: str) -> Any:
    """The only value of a query."""
    ((value,),) = conn.execute(query.encode()).fetchall()
    return value


def test_an_empty_database_gets_every_file(empty_dsn: str) -> None:
    with connect(empty_dsn, "test") as conn:
        seen: list[tuple[int, int, str]] = []
        plan = migrate(conn, on_step=lambda index, total, step: seen.append((index, total, step.label)))
        assert (plan.from_version, plan.to_version) == (0, TREE.version)
        assert seen == [(index, len(plan.steps), step.label) for index, step in enumerate(plan.steps)]
        assert {label for _, _, label in seen} >= {
            f"apply {file.path}" for file in TREE.migrations + TREE.functions + TREE.views
        }
        assert one(conn, "SELECT count(*) FROM awa.schema_migrations") == len(TREE.migrations)
        assert one(conn, "SELECT count(*) FROM awa.schema_objects") == OBJECTS
        installed = read_installed(conn)
        assert (installed.release, installed.digest) == (TREE.release, TREE.digest)
        for file in TREE.functions:  # each has all of what it makes, under its own name
            assert len(routines(conn, file.name)) == file.text.count("CREATE OR REPLACE FUNCTION awa.") > 0
    with awa.Client(empty_dsn) as client:
        assert client.enqueue("k") > 0


def test_a_second_time_there_is_nothing_to_do(conn: Connection) -> None:
    before = fingerprint(conn)
    plan = migrate(conn)
    assert plan.steps == ()
    assert (plan.from_version, plan.to_version) == (TREE.version, TREE.version)
    assert plan.script == "-- nothing to do\n"
    assert fingerprint(conn) == before


def test_of_two_at_once_one_waits_and_then_finds_nothing_to_do(empty_dsn: str) -> None:
    waiting_query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
    plans: dict[str, Plan] = {}
    with connect(empty_dsn, "first") as first, connect(empty_dsn, "second") as second, connect(empty_dsn, "eye") as eye:
        other = threading.Thread(target=lambda: plans.update(second=migrate(second, lock_timeout=0.05)))

        def on_step(index: int, total: int, step: object) -> None:
            if index == 0:
                other.start()
            if index == total - 1:
                wait_for(
                    lambda: eye.execute(waiting_query, (MIGRATION_LOCK,)).fetchall()[0][0] == 1, what="a waiting migration"
                )
                waiter = eye.execute(
                    "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'second'"
                ).fetchall()
                assert waiter == [(second.info.backend_pid,)]

        plans["first"] = migrate(first, on_step=on_step)
        other.join(PATIENCE)
        assert len(plans["first"].steps) > OBJECTS
        assert plans["second"].steps == ()


def test_an_edited_migration_is_refused_and_nothing_changes(conn: Connection) -> None:
    before = fingerprint(conn)
    edited = evolve(TREE, migrations=(evolve_text(TREE.migrations[0], "-- edited\n"), *TREE.migrations[1:]))
    with pytest.raises(MigrationEdited, match=r"migrations/0001_schema.sql was edited after it had been applied"):
        migrate(conn, with_function(edited, probe(1)))
    assert fingerprint(conn) == before


def evolve_text(file: SqlFile, more: str) -> SqlFile:
    """The file with more text."""
    return SqlFile(file.path, file.text + more)


def test_a_schema_of_a_later_version_is_refused_and_nothing_changes(conn: Connection) -> None:
    later = evolve(with_migration(TREE, "CREATE TABLE awa.zzz_next (n int);"), release="99.0.0")
    migrate(conn, later)
    before = fingerprint(conn)
    with pytest.raises(SchemaNewer, match=rf"version {TREE.version + 1} of awa 99.0.0, .*upgrade the awa-queue package"):
        migrate(conn)
    assert fingerprint(conn) == before


def test_a_later_release_with_other_functions_is_refused_and_nothing_changes(conn: Connection) -> None:
    migrate(conn, evolve(with_function(TREE, probe(1)), release="99.0.0"))
    before = fingerprint(conn)
    with pytest.raises(SchemaNewer, match=r"awa 99.0.0"):
        plan_migration(conn)
    with pytest.raises(SchemaNewer):
        migrate(conn)
    assert fingerprint(conn) == before


def test_a_changed_function_is_applied_again_and_migrations_are_not(conn: Connection) -> None:
    migrate(conn, with_function(TREE, probe(1)))
    assert one(conn, "SELECT awa.zzz_probe()") == 1
    ledger = one(conn, "SELECT array_agg(applied_at) FROM awa.schema_migrations")
    tables = one(
        conn, "SELECT array_agg(oid ORDER BY oid) FROM pg_class WHERE relnamespace = 'awa'::regnamespace AND relkind = 'r'"
    )
    plan = migrate(conn, with_function(TREE, probe(2)))
    labels = [step.label for step in plan.steps]
    assert "apply functions/zzz_probe.sql" in labels
    assert not [label for label in labels if label.startswith("apply ") and label.split("/")[0] == "apply migrations"]
    assert [label for label in labels if label.startswith("apply functions/")] == ["apply functions/zzz_probe.sql"]
    assert one(conn, "SELECT awa.zzz_probe()") == 2
    assert one(conn, "SELECT array_agg(applied_at) FROM awa.schema_migrations") == ledger
    assert tables == one(
        conn, "SELECT array_agg(oid ORDER BY oid) FROM pg_class WHERE relnamespace = 'awa'::regnamespace AND relkind = 'r'"
    )
    assert one(conn, "SELECT count(*) FROM awa.jobs") == 0


def test_a_changed_signature_leaves_no_overload(conn: Connection) -> None:
    migrate(conn, with_function(TREE, probe(1)))
    migrate(conn, with_function(TREE, probe(2, "p_n int")))
    assert routines(conn, "zzz_probe") == ["awa.zzz_probe(integer)"]


def test_a_function_that_views_call_can_be_changed(conn: Connection) -> None:
    closed_items = next(file for file in TREE.functions if file.name == "closed_items")
    changed = with_function(TREE, closed_items.text + "\n-- another text\n", "closed_items")
    plan = migrate(conn, changed)
    assert "apply functions/closed_items.sql" in [step.label for step in plan.steps]
    assert one(conn, "SELECT count(*) FROM awa.jobs") == 0


def test_a_removed_function_leaves_the_database(conn: Connection) -> None:
    migrate(conn, with_function(TREE, probe(1)))
    plan = migrate(conn)
    assert "remove functions/zzz_probe.sql" in [step.label for step in plan.steps]
    assert routines(conn, "zzz_probe") == []
    assert one(conn, "SELECT count(*) FROM awa.schema_objects WHERE path LIKE '%zzz_probe%'") == 0
    assert migrate(conn).steps == ()


def test_a_removed_view_leaves_the_database(conn: Connection) -> None:
    more = SqlFile("views/90_zzz_probe.sql", "CREATE VIEW awa.zzz_probe AS SELECT count(*) AS n FROM awa.jobs;\n")
    migrate(conn, evolve(TREE, views=(*TREE.views, more)))
    assert one(conn, "SELECT n FROM awa.zzz_probe") == 0
    migrate(conn)
    assert one(conn, "SELECT to_regclass('awa.zzz_probe') IS NULL")
    assert one(conn, "SELECT count(*) FROM awa.jobs") == 0
    assert migrate(conn).steps == ()


@pytest.mark.parametrize("changed", [False, True], ids=["fresh", "upgrade"])
def test_the_script_run_by_hand_does_what_migrate_does(empty_dsn: str, changed: bool) -> None:
    target = with_migration(with_function(TREE, probe(1)), "CREATE TABLE awa.zzz_next (n int);") if changed else TREE
    with connect(empty_dsn, "hand") as conn:
        if changed:
            migrate(conn)
        conn.execute(plan_migration(conn, target).script.encode())
        assert plan_migration(conn, target).steps == ()
        assert migrate(conn, target).steps == ()
        assert read_installed(conn).digest == target.digest


@pytest.mark.parametrize("broken", ["migration", "function"])
def test_a_failing_step_takes_everything_back(conn: Connection, broken: str) -> None:
    before = fingerprint(conn)
    target = with_function(with_migration(TREE, "CREATE TABLE awa.zzz_next (n int);"), probe(1))
    if broken == "migration":
        target = with_migration(target, "SELECT 1/0;")
    else:
        target = with_function(target, "CREATE FUNCTION awa.zzz_broken() RETURNS nosuch LANGUAGE sql AS '';", "zzz_broken")
    with pytest.raises(psycopg.Error):
        migrate(conn, target)
    assert fingerprint(conn) == before


def test_a_lock_held_by_live_traffic_ends_the_migration_with_a_clear_message(dsn: str, conn: Connection) -> None:
    before = fingerprint(conn)
    target = with_migration(TREE, "ALTER TABLE awa.queue_lanes ADD COLUMN zzz int;")
    with psycopg.connect(dsn) as traffic:
        traffic.execute("SELECT count(*) FROM awa.queue_lanes")
        with pytest.raises(MigrationBlocked) as caught:
            migrate(conn, target, lock_timeout=0.05)
        message = str(caught.value)
        assert "lock timeout" in message
        assert all(part in message for part in ("changed nothing", "--lock-timeout", "--statement-timeout"))
        assert fingerprint(conn) == before
    assert migrate(conn, target, lock_timeout=5).to_version == TREE.version + 1


def test_a_statement_that_takes_too_long_ends_the_migration(conn: Connection) -> None:
    before = fingerprint(conn)
    with pytest.raises(MigrationBlocked, match="statement timeout"):
        migrate(conn, with_migration(TREE, "SELECT pg_sleep(60);"), statement_timeout=0.05)
    assert fingerprint(conn) == before


def test_the_timeouts_end_with_the_migration(conn: Connection) -> None:
    migrate(conn, with_function(TREE, probe(1)), lock_timeout=1, statement_timeout=2)
    assert (one(conn, "SHOW lock_timeout"), one(conn, "SHOW statement_timeout")) == ("0", "0")
    assert one(conn, "SHOW check_function_bodies") == "on"


def test_the_digest_follows_every_file() -> None:
    trees = [
        TREE,
        with_migration(TREE, "SELECT 1;"),
        with_function(TREE, probe(1)),
        with_function(TREE, probe(2)),
        evolve(TREE, views=TREE.views[1:]),
    ]
    assert len({tree.digest for tree in trees}) == len(trees)
    assert evolve(TREE, release="99.0").digest == TREE.digest
