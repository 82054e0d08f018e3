"""`awa migrate`: exit codes and outputs."""

from __future__ import annotations

import psycopg
import pytest
from attrs import evolve

import awa
from awa.migrate import load_sql, migrate
from awa.postgres import connect
from tests.cli.commands import one_object, run, run_json

VERSION = load_sql().version


def test_check_plan_and_migrate_agree_on_an_empty_database(empty_dsn: str) -> None:
    checked = run(empty_dsn, "migrate", "--check", "--json")
    assert checked.returncode == 3
    assert one_object(checked.stdout)["status"] == "behind"
    planned = run_json(empty_dsn, "migrate", "--plan")
    assert (planned["applied"], planned["from_version"], planned["to_version"]) == (False, 0, VERSION)
    assert run(empty_dsn, "migrate", "--check").returncode == 3
    done = run_json(empty_dsn, "migrate")
    assert done == {**planned, "applied": True}
    checked = run(empty_dsn, "migrate", "--check", "--json")
    assert (checked.returncode, one_object(checked.stdout)["status"]) == (0, "current")


def test_on_a_current_database_there_is_nothing_to_do(dsn: str) -> None:
    assert run_json(dsn, "migrate") == {"applied": True, "from_version": VERSION, "to_version": VERSION, "steps": []}
    for arguments in ((), ("--plan",)):
        done = run(dsn, "migrate", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"nothing to do: the schema is at version {VERSION}" in done.stdout


def test_the_printed_sql_migrates(empty_dsn: str) -> None:
    script = run(empty_dsn, "migrate", "--sql")
    assert (script.returncode, script.stderr) == (0, "")
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute(script.stdout.encode())
    assert run(empty_dsn, "migrate", "--check").returncode == 0
    assert run(empty_dsn, "migrate", "--sql").stdout == "-- nothing to do\n"


def test_a_later_schema_is_ahead_and_is_not_migrated(dsn: str) -> None:
    tree = load_sql()
    with connect(dsn, "later") as conn:
        fewer = tuple(file for file in tree.functions if file.name != "window_rows")  # which no view calls
        migrate(conn, evolve(tree, functions=fewer, release="99.0.0"))
    checked = run(dsn, "migrate", "--check", "--json")
    assert (checked.returncode, one_object(checked.stdout)["status"]) == (3, "ahead")
    done = run(dsn, "migrate")
    assert (done.returncode, done.stdout) == (1, "")
    assert "upgrade the awa-queue package" in done.stderr


def test_a_blocked_migration_fails_with_the_options_that_help(empty_dsn: str) -> None:
    tree = load_sql()
    with connect(empty_dsn, "earlier") as conn:
        migrate(conn, evolve(tree, views=tree.views[:-1], release="0.0.1"))
        conn.execute("BEGIN")
        conn.execute("LOCK TABLE awa.schema_objects")
        done = run(empty_dsn, "migrate", "--lock-timeout", "0.05")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "--lock-timeout" in done.stderr


@pytest.mark.parametrize("flags", [("--plan", "--sql"), ("--plan", "--check"), ("--sql", "--check")])
def test_two_ways_of_only_looking_exclude_each_other(dsn: str, flags: tuple[str, str]) -> None:
    done = run(dsn, "migrate", *flags)
    assert done.returncode == 2
    assert "exclude each other" in done.stderr


@pytest.mark.parametrize("words", [("migrate",), ("queue", "list"), ("worker", "--queues", "q:1"), ("bench", "drain")])
def test_without_a_database_one_line_names_both_ways_out(words: tuple[str, ...]) -> None:
    done = run(None, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert all(part in done.stderr for part in ("--dsn", "AWA_DSN", "DATABASE_URL", "PG*", "--embedded"))


def test_dsn_and_embedded_exclude_each_other(dsn: str) -> None:
    done = run(dsn, "migrate", "--embedded")
    assert (done.returncode, done.stderr) == (2, "error: --dsn and --embedded exclude each other\n")


def test_a_server_that_is_not_there_is_one_line_too() -> None:
    done = run("postgresql://postgres@/db?host=/nonexistent", "migrate")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_database_url_is_understood_as_sqlalchemy_writes_it(dsn: str) -> None:
    parameters = psycopg.conninfo.conninfo_to_dict(dsn)
    query = "&".join(f"{name}={parameters[name]}" for name in ("host", "port", "user", "password") if name in parameters)
    done = run(None, "migrate", "--check", env={"DATABASE_URL": f"postgresql+psycopg:///{parameters['dbname']}?{query}"})
    assert (done.returncode, done.stderr) == (0, "")
    assert awa.__version__
