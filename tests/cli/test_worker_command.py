"""`awa worker` as a process: it runs, stops, and replaces what dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import awa
from awa.postgres import Connection
from tests.cli.commands import ROOT, run, started
from tests.waiting import PATIENCE, wait_for

TASKS = """
import os
import awa

@awa.task
def touch(name: str) -> None:
    with open(name, "a") as file:
        file.write(f"{os.getpid()}\\n")

@awa.task
def begin(ctx: awa.JobContext) -> None:
    ctx.enqueue("next", ordering_key="ada")

@awa.task
def hold(pipe: str) -> None:
    with open(pipe) as file:  # until somebody opens it for writing and closes it
        file.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with a module of tasks, as an application has it."""
    (tmp_path / "app_tasks.py").write_text(TASKS)
    return tmp_path


@pytest.fixture
def workers(conn: Connection) -> Callable[[], int]:
    """How many worker processes are connected and claim."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND datname = current_database()"
    return lambda: int(conn.execute(query, ("awa dispatcher",)).fetchall()[0][0])


def children(pid: int) -> set[int]:
    """The worker processes that a supervisor has started; those that wait to be buried do not count."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if int(parent) == pid and state != "Z" and b"spawn_main" in command:
                found.add(int(entry.name))
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs: one that has ended and waits to be buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def log_of(folder: Path) -> str:
    """What the worker has said."""
    return (folder / "log").read_text()


def completed(client: awa.Client, count: int) -> Callable[[], bool]:
    """Whether so many jobs are done."""
    return lambda: client.queue_counts("default").completed == count


def test_a_worker_runs_jobs_of_an_imported_module_and_ends_with_sigterm(
    dsn: str, client: awa.Client, folder: Path, workers: Callable[[], int]
) -> None:
    client.enqueue("touch", {"name": str(folder / "ran")})
    with started(dsn, "worker", "--queues", "default:2", "--import", "app_tasks", cwd=folder, log=folder / "log") as process:
        wait_for(completed(client, 1), what="a completed job")
        assert {int((folder / "ran").read_text())} == children(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert workers() == 0
    assert "default (2 at a time); 1 process, 4 database connections in all" in log_of(folder)


def test_follow_up_jobs_without_a_queue_go_to_a_partitioned_default(dsn: str, client: awa.Client, folder: Path) -> None:
    client.enqueue("begin", queue="start")
    arguments = ("--queues", "start:1", "--default-queue", "later/2", "--import", "app_tasks", "--drain")
    done = run(dsn, "worker", *arguments, env={"PYTHONPATH": f"{folder}:{ROOT}"})
    assert done.returncode == 0, done.stderr
    later = awa.PartitionedQueue("later", 2)
    assert [(job.kind, job.queue) for job in client.list_jobs(queue=later)] == [("next", later.queue_for_key("ada"))]


@pytest.mark.parametrize(("stop_timeout", "exit_code", "state"), [("30", 0, "completed"), ("0", 1, "available")])
def test_a_running_job_gets_its_time_and_the_exit_code_says_whether_it_was_enough(
    dsn: str, client: awa.Client, folder: Path, stop_timeout: str, exit_code: int, state: str
) -> None:
    os.mkfifo(folder / "pipe")
    job_id = client.enqueue("hold", {"pipe": str(folder / "pipe")})
    arguments = ("worker", "--queues", "default:1", "--import", "app_tasks", "--stop-timeout", stop_timeout)
    with started(dsn, *arguments, cwd=folder, log=folder / "log") as process:
        wait_for(lambda: client.queue_counts("default").running == 1, what="a running job")
        pipe = (folder / "pipe").open("w")  # returns when the handler has opened it, too
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: "SIGTERM" in log_of(folder), what="the worker's word that it stops")
        if stop_timeout != "0":
            pipe.close()
        assert process.wait(PATIENCE) == exit_code
        pipe.close()
    job = client.get_job(job_id)
    assert job is not None
    assert job.state == state


def test_processes_are_replaced_when_they_die_and_end_with_sigterm(
    dsn: str, client: awa.Client, folder: Path, workers: Callable[[], int]
) -> None:
    arguments = ("worker", "--queues", "default:2", "--import", "app_tasks", "--processes", "2")
    with started(dsn, *arguments, cwd=folder, log=folder / "log") as process:
        wait_for(lambda: workers() == 2, what="two workers")
        first = children(process.pid)
        assert len(first) == 2
        client.enqueue_many([{"name": str(folder / "ran")}] * 20, kind="touch")
        wait_for(completed(client, 20), what="completed jobs")
        assert {int(pid) for pid in (folder / "ran").read_text().split()} <= first

        victim = min(first)
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: len(children(process.pid)) == 2 and victim not in children(process.pid), what="a replacement")
        wait_for(lambda: workers() == 2, what="two workers again")
        assert "died with exit code -9" in log_of(folder)
        assert len(children(process.pid) & first) == 1
        client.enqueue("touch", {"name": str(folder / "ran")})
        wait_for(completed(client, 21), what="a completed job after the death")

        last = children(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert not [pid for pid in last if is_alive(pid)]
    assert workers() == 0


def test_processes_end_when_their_supervisor_is_killed(
    dsn: str, client: awa.Client, folder: Path, workers: Callable[[], int]
) -> None:
    arguments = ("worker", "--queues", "default:1", "--import", "app_tasks", "--processes", "2")
    with started(dsn, *arguments, cwd=folder, log=folder / "log") as process:
        wait_for(lambda: workers() == 2, what="two workers")
        orphans = children(process.pid)
        assert len(orphans) == 2
        process.kill()
        process.wait(PATIENCE)
        wait_for(lambda: not any(map(is_alive, orphans)), what="the end of the orphans")
    wait_for(lambda: workers() == 0, what="the end of their connections")
    assert log_of(folder).count("the supervisor is gone: stopping") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--queues", "email"), "'email' is not name:jobs, as in email:4"),
        (("--queues", "email:0"), "'email:0' is not name:jobs"),
        (("--queues", ":3"), "':3' is not name:jobs"),
        (("--queues", "a:1,a:2"), "queue 'a' is named twice"),
        (("--queues", "a:1,"), "is not name:jobs"),
        (("--queues", "a:10001"), "concurrency must be between 1 and 10000, not 10001"),
        ((), "Missing option '--queues'"),
        (("--queues", "a:1", "--import", "no_such_module"), "cannot import 'no_such_module'"),
        (("--queues", "a:1", "--processes", "0"), "0 is not in the range"),
    ],
)
def test_a_command_line_that_makes_no_sense_ends_with_2(dsn: str, arguments: tuple[str, ...], message: str) -> None:
    done = run(dsn, "worker", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_queue_name_may_hold_colons_and_sigint_stops_a_worker_too(dsn: str, client: awa.Client, folder: Path) -> None:
    client.enqueue("touch", {"name": str(folder / "ran")}, queue="mail:eu")
    log = folder / "log"
    with started(dsn, "worker", "--queues", "mail:eu:1", "--import", "app_tasks", cwd=folder, log=log) as process:
        wait_for(lambda: client.queue_counts("mail:eu").completed == 1, what="a completed job")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_worker_without_a_schema_names_the_command(empty_dsn: str, processes: str) -> None:
    done = run(empty_dsn, "worker", "--queues", "a:1", "--processes", processes)
    assert done.returncode == 1
    assert "awa migrate" in done.stderr
    assert "Traceback" not in done.stderr
