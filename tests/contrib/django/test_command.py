"""`manage.py awa`: the commands of `awa`, on Django's database."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest
from django.core.management import call_command
from django.test import override_settings

import awa
from awa.contrib.django import client, conninfo
from awa.contrib.django.management.commands.awa import defaults, without_options_of_django
from awa_cli.main import cli
from tests.contrib.django.shop.tasks import ship
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.usefixtures("djangos_database")

EXAMPLE = Path(__file__).parents[3] / "examples" / "django_orders"


def manage(dsn: str, *arguments: str, **env: str) -> subprocess.Popen[str]:
    """A command of the example's manage.py."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "AWA_", "DJANGO_"))}
    return subprocess.Popen(
        [sys.executable, "manage.py", *arguments],
        cwd=EXAMPLE,
        env={**kept, "PYTHONPATH": str(EXAMPLE.parents[1]), "ORDERS_DSN": dsn, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(dsn: str, *arguments: str, code: int = 0, **env: str) -> str:
    """What a command says, standard error included."""
    process = manage(dsn, *arguments, **env)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, out + err
    return out + err


def queues(text: str) -> dict[str, Any]:
    """The counts of `awa queue list --json`, by queue."""
    return {counts["queue"]: counts for counts in json.loads(text)["queues"]}


def test_it_offers_the_commands_of_awa(dsn: str) -> None:
    helped = said(dsn, "awa", "--help")
    assert helped.startswith("Usage: manage.py awa [OPTIONS] COMMAND [ARGS]...")
    assert all(f"  {name} " in helped for name in cli.commands)


def test_the_database_is_djangos(dsn: str, outside: awa.Client, empty_dsn: str) -> None:
    outside.enqueue("x", queue="mail")
    listed = said(dsn, "awa", "queue", "list", "--json", AWA_DSN=empty_dsn, DATABASE_URL=empty_dsn)
    assert queues(listed)["mail"]["available"] == 1
    assert queues(said(dsn, "awa", "queue", "list", "--json", "--settings", "project.settings"))["mail"]["available"] == 1


def test_a_database_that_is_given_wins(dsn: str, outside: awa.Client, empty_dsn: str) -> None:
    outside.enqueue("x", queue="mail")
    assert queues(said(empty_dsn, "awa", "queue", "list", "--json", "--dsn", dsn))["mail"]["available"] == 1


def test_the_help_shows_no_password(dsn: str) -> None:
    helped = said(psycopg.conninfo.make_conninfo(dsn, password="pa55word"), "awa", "worker", "--help")
    assert "pa55word" not in helped
    assert "--dsn URL" in helped


def test_a_private_server_may_be_asked_for(dsn: str) -> None:
    assert "exclude each other" in said(dsn, "awa", "queue", "list", "--embedded", "--dsn", dsn, code=2)
    assert "dsn" not in defaults(["queue", "list", "--embedded"])["queue"]["list"]


def test_exit_codes_are_awas(dsn: str, empty_dsn: str) -> None:
    assert "schema is current" in said(dsn, "awa", "migrate", "--check")
    assert "schema is behind" in said(empty_dsn, "awa", "migrate", "--check", code=3)
    assert "No such command" in said(dsn, "awa", "wrok", code=2)


def test_a_worker_finds_queues_and_tasks_by_itself_and_stops_cleanly(empty_dsn: str) -> None:
    said(empty_dsn, "migrate")
    with psycopg.connect(empty_dsn) as conn:
        conn.execute("INSERT INTO orders_order (item, quantity) VALUES ('teapot', 1)")
    with awa.Client(empty_dsn) as client:
        job_id = client.enqueue("ship_order", {"order_id": 1}, queue="shipping")
        worker = manage(empty_dsn, "awa", "worker")
        try:
            wait_for(lambda: client.queue_counts("shipping").completed == 1, what=f"job {job_id} completed")
            worker.send_signal(signal.SIGTERM)
            _, err = worker.communicate(timeout=PATIENCE)
        finally:
            worker.kill()
            worker.wait()
    assert worker.returncode == 0
    assert "shipping (8 at a time)" in err


def test_call_command_works_and_ends_in_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    ship.enqueue("a")
    call_command("awa", "queue", "list", "--json")
    assert queues(capsys.readouterr().out)["default"]["available"] == 1
    with pytest.raises(SystemExit) as end:
        call_command("awa", "job", "cancel", "0")
    assert end.value.code == 1


@pytest.mark.parametrize("queue", ["web", "web/2"])
def test_jobs_that_are_enqueued_go_to_the_default_queue_unless_they_name_one(queue: str, tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text('{"kind": "ship"}\n{"kind": "ship", "queue": "mail"}\n')
    with override_settings(AWA={"DEFAULT_QUEUE": queue}):
        call_command("awa", "enqueue", "ship")
        call_command("awa", "enqueue", "ship", "--queue", "mail")
        call_command("awa", "enqueue", "--file", str(tmp_path / "jobs"))
    assert [job.queue for job in client().list_jobs()] == ["mail", queue, "mail", queue]


def test_a_setting_that_makes_no_sense_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with override_settings(AWA={"DATABASE": "lite"}), pytest.raises(SystemExit) as end:
        call_command("awa", "queue", "list")
    assert end.value.code == 2
    assert "awa needs PostgreSQL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (["queue", "list", "--settings", "s", "--json"], ["queue", "list", "--json"]),
        (["--pythonpath=x", "queue", "list", "--settings=s"], ["queue", "list"]),
        (["queue", "list", "--settings"], ["queue", "list"]),
    ],
)
def test_djangos_own_options_are_not_awas(arguments: list[str], kept: list[str]) -> None:
    assert without_options_of_django(arguments) == kept


def test_every_command_that_needs_a_database_gets_djangos() -> None:
    def missing(command: click.Command, known: dict[str, Any], path: str) -> list[str]:
        if isinstance(command, click.Group):
            return [
                found for name, below in command.commands.items() for found in missing(below, known[name], f"{path} {name}")
            ]
        has = {option.name for option in command.params}
        return [path] if "dsn" in has and known["dsn"]() != conninfo() else []

    assert missing(cli, defaults([]), "awa") == []
