"""`awa storage`: looking, setting, mending."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import psycopg
import pytest

import awa
from awa.postgres import Connection, connect
from awa.storage.rings import prune_ring, rotate_ring
from tests.cli.commands import run, run_json, started
from tests.sql.engine import claim, complete, fail, finalize, jobs, read
from tests.waiting import PATIENCE, wait_for

WIDE = {"COLUMNS": "200"}


def a_history(conn: Connection, client: awa.Client) -> None:
    """Two completed jobs in a claim slot that is proved closed, one failed."""
    client.set_dead_letter("q", False)
    client.enqueue_many(jobs(*range(3)), kind="work", queue="q", max_attempts=1)
    taken = claim(conn, 3).claim
    assert complete(conn, (taken, [1, 2])) == []
    assert finalize(conn, fail(taken, 3)) == []
    assert rotate_ring(conn, "claim", force=True) == "rotated"
    assert [verdict.reason for verdict in prune_ring(conn, "claim")] == ["retention"]


def test_the_status_shows_every_slot_and_what_holds_it(dsn: str, conn: Connection, client: awa.Client) -> None:
    a_history(conn, client)
    shown = run_json(dsn, "storage", "status")
    assert (len(shown["slots"]), shown["needs_rebase"]) == (32, False)
    assert [(slot["ring"], slot["slot"]) for slot in shown["slots"] if slot["is_current"]] == [
        ("queue", 0),
        ("claim", 1),
        ("lease", 0),
        ("terminal", 0),
    ]
    assert [(slot["slot"], slot["held_reason"]) for slot in shown["slots"] if slot["held_reason"]] == [(0, "retention")]
    assert shown["history_bytes"] >= sum(slot["bytes"] for slot in shown["slots"] if slot["ring"] == "claim")
    assert shown["settings"]["completed_retention"] == 3600.0
    table = run(dsn, "storage", "status", env=WIDE)
    assert (table.returncode, table.stderr) == (0, "")
    assert "retention" in table.stdout
    assert "of 1 GiB, kept for 1h" in table.stdout


def test_the_status_waits_for_nobody_who_holds_the_tables(dsn: str, conn: Connection) -> None:
    with psycopg.connect(dsn) as other:
        other.execute("LOCK TABLE awa.leases_3 IN ACCESS EXCLUSIVE MODE")
        shown = run_json(dsn, "storage", "status")
    assert [(slot["ring"], slot["slot"]) for slot in shown["slots"] if slot["bytes"] is None] == [("lease", 3)]


def test_settings_are_shown_and_set_as_people_write_them(dsn: str, client: awa.Client) -> None:
    given = {
        "completed_retention": ("1h30m", 5400.0),
        "history_max_bytes": ("2GiB", 2 << 30),
        "terminal_retention": ("3d", 259200.0),
        "dead_letter_retention": ("4w", 2419200.0),
        "materialize_after": ("90", 90.0),
        "lease_rotate_bytes": ("64kB", 64000),
    }
    options = [part for name, (text, _) in given.items() for part in (f"--{name.replace('_', '-')}", text)]
    assert run_json(dsn, "storage", "settings", *options) == {name: value for name, (_, value) in given.items()}
    assert run_json(dsn, "storage", "settings") == {name: value for name, (_, value) in given.items()}
    assert client.storage_settings().completed_retention == 5400.0
    table = run(dsn, "storage", "settings", env={"AWA_STORAGE_SETTINGS_COMPLETED_RETENTION": "2h"}).stdout
    assert "2h" in table
    assert "2 GiB" in table


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        ("--completed-retention", "soon", "'soon' is no span of time: write it as 90s, 30m, 2h, 1h30m or 7d"),
        ("--completed-retention", "5 parsecs", "'5 parsecs' is no span of time"),
        ("--completed-retention", "-1h", "'-1h' is no span of time"),
        ("--completed-retention", "11000d", "completed_retention must be a number of seconds from 0 to ten years"),
        ("--history-max-bytes", "2G", "'2G' is no size: write it as 1048576, 512MiB, 2GiB or 2GB"),
        ("--history-max-bytes", "1KiB", "history_max_bytes must be a number of bytes, at least 1048576, not 1024"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(dsn: str, option: str, text: str, said: str) -> None:
    done = run(dsn, "storage", "settings", option, text, env=WIDE)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())


def test_counters_are_checked_and_rebuilt(dsn: str, conn: Connection, client: awa.Client) -> None:
    a_history(conn, client)
    checked = run_json(dsn, "storage", "rebuild-terminal-counters", "--check")
    assert (checked["wrong"], checked["rebuilt"]) == (0, False)
    assert [(row["ring"], row["state"], row["counted"]) for row in checked["counters"]] == [
        ("claim", "completed", 2),
        ("terminal", "failed", 1),
    ]
    conn.execute("UPDATE awa.queue_terminal_live_counts SET n = n + 5")  # the accident
    check = run(dsn, "storage", "rebuild-terminal-counters", "--check", env=WIDE)
    assert check.returncode == 1
    assert "+5" in check.stdout
    assert client.queue_counts("q", exact=False).completed == 7  # --check changes nothing
    rebuilt = run_json(dsn, "storage", "rebuild-terminal-counters")
    assert (rebuilt["wrong"], rebuilt["rebuilt"]) == (1, True)
    assert client.queue_counts("q", exact=False).completed == 2
    assert run(dsn, "storage", "rebuild-terminal-counters", "--check").returncode == 0


def test_a_rebuild_waits_for_the_one_before_it(dsn: str, conn: Connection, client: awa.Client, tmp_path: Path) -> None:
    a_history(conn, client)
    conn.execute("UPDATE awa.queue_terminal_live_counts SET n = n + 5")
    with psycopg.connect(dsn) as first:
        first.execute("SELECT awa.rebuild_terminal_counters()")  # and does not commit yet
        with started(dsn, "storage", "rebuild-terminal-counters", cwd=tmp_path, log=tmp_path / "log") as second:
            asked = (
                "SELECT 1 FROM pg_stat_activity WHERE application_name = 'awa client' AND query LIKE '%%rebuild_terminal%%'"
            )
            wait_for(lambda: read(conn, asked), what="the second asks")
            assert second.poll() is None
            assert read(conn, "SELECT n FROM awa.queue_terminal_live_counts WHERE ring = 'claim'") == [(7,)]
            first.commit()
            assert second.wait(PATIENCE) == 0
    assert client.queue_counts("q", exact=False).completed == 2


def test_a_ring_is_turned_and_emptied_by_hand(dsn: str, conn: Connection, client: awa.Client) -> None:
    assert run_json(dsn, "storage", "rotate", "claim") == {"ring": "claim", "verdict": "idle"}
    assert run(dsn, "storage", "prune", "claim").stdout == "ring claim: no sealed slot holds anything\n"
    client.enqueue_many(jobs(1, 2), kind="work", queue="q")
    assert complete(conn, (claim(conn, 2).claim, None)) == []
    assert run(dsn, "storage", "rotate", "claim").stdout == "ring claim: young\n"
    assert run(dsn, "storage", "rotate", "claim", "--force").stdout == "ring claim: rotated\n"
    assert run(dsn, "storage", "prune", "claim").stdout == "ring claim, slot 0: retention\n"
    run_json(dsn, "storage", "settings", "--completed-retention", "0")
    pruned = {"slot": 0, "pruned": True, "reason": None}
    assert run_json(dsn, "storage", "prune", "claim") == {"ring": "claim", "slots": [pruned]}
    assert client.queue_counts("q").completed == 2
    assert run(dsn, "storage", "rotate", "saturn").returncode == 2


def test_a_rebase_that_is_not_needed_does_nothing(dsn: str, conn: Connection, client: awa.Client) -> None:
    job_id = client.enqueue("work", queue="q")
    before = read(conn, "SELECT * FROM awa.ready_entries")
    assert run_json(dsn, "storage", "rebase") == {"rebased": False, "running": 0, "available": 0, "completed": 0}
    assert run(dsn, "storage", "rebase").stdout.startswith("nothing to do")
    assert read(conn, "SELECT * FROM awa.ready_entries") == before
    assert client.get_job(job_id) is not None


def test_a_rebase_is_refused_while_clients_are_connected_and_names_them(dsn: str, client: awa.Client) -> None:
    client.enqueue("work", queue="q")
    done = run(dsn, "storage", "rebase", "--unneeded", "--yes")
    assert (done.returncode, done.stdout) == (1, "")
    assert "awa client (server process" in done.stderr
    assert run(dsn, "storage", "rebase", "--unneeded", "--yes", "--force").returncode == 0


def test_a_rebase_is_asked_for(dsn: str) -> None:
    with connect(dsn, "test") as conn, closing(awa.Client(dsn)) as client:
        client.enqueue("work", queue="q")
        client.enqueue("work", queue="q")
        claim(conn, 1)
    declined = run(dsn, "storage", "rebase", "--unneeded")
    assert (declined.returncode, "Rebase database" in declined.stderr) == (1, True)
    assert run_json(dsn, "storage", "rebase", "--unneeded", "--yes") == {
        "rebased": True,
        "running": 1,
        "available": 1,
        "completed": 0,
    }
    with awa.Client(dsn) as client:
        assert client.queue_counts("q").available == 2


def test_without_a_schema_the_command_to_run_is_named(empty_dsn: str) -> None:
    for words in (("status",), ("rebase",), ("rotate", "claim"), ("settings",)):
        done = run(empty_dsn, "storage", *words)
        assert done.returncode == 1
        assert "awa migrate" in done.stderr
