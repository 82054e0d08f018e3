"""`awa bench crash`: kill workers and time how soon their jobs run elsewhere."""

from __future__ import annotations

import os
import secrets
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

import click
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from awa import AwaError, Client, Job
from awa.job import RuntimeInfo
from awa_cli.bench.databases import database
from awa_cli.bench.tasks import bench_hold
from awa_cli.options import database_options, err, json_option, option, out, print_json

HELD_FOR: Final = 600.0  # seconds: longer than any round
TIMEOUT: Final = 120.0  # seconds for anything to happen
LOOK_EVERY: Final = 0.005  # seconds


@click.command()
@database_options
@option("--jobs", type=click.IntRange(2), default=8, help="Long jobs that run when the kill comes.")
@option("--rounds", type=click.IntRange(1), default=3, help="Kills of each kind.")
@json_option
def crash(dsn: str | None, embedded: bool, jobs: int, rounds: int, as_json: bool) -> None:
    """Kill -9 workers that run jobs and time how soon all of those jobs run elsewhere.

    Two `awa worker` of two processes each run beside each other. Killed are: one process; a whole worker (its supervisor
    and both processes at one instant, as when a machine dies); the process that leads.

    \b
    Example:
      awa bench crash --embedded --rounds 3
    """
    with database(dsn, embedded) as url, Client(url) as client, _spinner() as progress:
        figures = {
            name: [_round(url, client, jobs, kill, progress, f"{name}, {n + 1} of {rounds}") for n in range(rounds)]
            for name, kill in (
                ("one process", _kill_process),
                ("the leading process", _kill_leader),
                ("a whole worker", _kill_worker),
            )
        }
    if as_json:
        print_json({"scenario": "crash", "jobs": jobs, "seconds_until_all_run_elsewhere": figures})
        return
    table = Table(title="awa bench crash: seconds from kill -9 until all of its jobs run elsewhere")
    for heading in ("killed", "median", "worst", "rounds"):
        table.add_column(heading, justify="left" if heading == "killed" else "right")
    for name, seconds in figures.items():
        table.add_row(name, f"{statistics.median(seconds):.3f}", f"{max(seconds):.3f}", str(len(seconds)))
    out.print(table)


def _kill_process(living: list[RuntimeInfo], held: list[Job]) -> set[int]:
    runtimes = {runtime.runtime_id: runtime for runtime in living}
    victim = held[0].runtime_id
    assert victim is not None
    os.kill(runtimes[victim].pid, signal.SIGKILL)
    return {victim}


def _kill_leader(living: list[RuntimeInfo], held: list[Job]) -> set[int]:
    (leader,) = (runtime for runtime in living if runtime.is_leader)
    os.kill(leader.pid, signal.SIGKILL)
    return {leader.runtime_id}


def _kill_worker(living: list[RuntimeInfo], held: list[Job]) -> set[int]:
    runtimes = {runtime.runtime_id: runtime for runtime in living}
    victim = held[0].runtime_id
    assert victim is not None
    group = os.getpgid(runtimes[victim].pid)
    dead = {id for id, runtime in runtimes.items() if os.getpgid(runtime.pid) == group}
    os.killpg(group, signal.SIGKILL)
    return dead


def _round(
    url: str,
    client: Client,
    jobs: int,
    kill: Callable[[list[RuntimeInfo], list[Job]], set[int]],
    progress: Progress,
    title: str,
) -> float:
    bar = progress.add_task(title, total=None)
    queue = f"crash_{secrets.token_hex(4)}"
    ids: list[int] = []
    workers = [_start_worker(url, queue, jobs) for _ in range(2)]
    try:
        _wait(lambda: len(_living(client, queue)) == 4 and any(r.is_leader for r in _living(client, queue)), "workers start")
        # Jobs come one by one, so that they spread over the processes as an idle one is woken.
        _wait(lambda: _spread(client, queue, ids, jobs), "every process runs a job")
        held = [job for id in ids if (job := client.get_job(id)) is not None]
        began = time.monotonic()
        dead = kill(_living(client, queue), held)
        moved = [job.id for job in held if job.runtime_id in dead]
        if not moved:
            raise AwaError("nothing ran in the process that was killed: the round shows nothing")
        _wait(lambda: all(_runs_elsewhere(client, id, dead) for id in moved), "its jobs run elsewhere")
        return round(time.monotonic() - began, 4)
    finally:
        for worker in workers:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        for id in ids:
            client.cancel(id)
        progress.remove_task(bar)


def _living(client: Client, queue: str) -> list[RuntimeInfo]:
    return [runtime for runtime in client.list_runtimes() if runtime.dead_at is None and queue in runtime.queues]


def _spread(client: Client, queue: str, ids: list[int], jobs: int) -> bool:
    """Whether `jobs` jobs at least run and every process has one; enqueues another as long as that is not so."""
    running = [job for id in ids if (job := client.get_job(id)) is not None and job.state == "running"]
    if len(running) < len(ids):
        return False
    if len(ids) >= jobs and len({job.runtime_id for job in running}) == 4:
        return True
    if len(ids) < 4 * jobs:
        ids.append(client.enqueue(bench_hold, {"seconds": HELD_FOR}, queue=queue))
    return False


def _runs_elsewhere(client: Client, id: int, dead: set[int]) -> bool:
    job = client.get_job(id)
    return job is not None and job.state == "running" and job.runtime_id not in dead


def _wait(fact: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not fact():
        if time.monotonic() > deadline:
            raise AwaError(f"not within {TIMEOUT:g} s: {what}")
        time.sleep(LOOK_EVERY)


def _start_worker(url: str, queue: str, jobs: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "awa_cli", "worker", "--queues", f"{queue}:{8 * jobs}", "--processes", "2"]
    command += ["--import", "awa_cli.bench.tasks", "--log-level", "error"]
    # By the environment: a password belongs on no command line.
    environment = {**os.environ, "AWA_DSN": url}
    return subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)


def _spinner() -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
