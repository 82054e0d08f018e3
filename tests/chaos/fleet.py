"""Real `awa worker` processes, and ways to hurt them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import awa
from awa.job import RuntimeInfo
from tests.waiting import wait_for


class Fleet:
    """Some `awa worker`, each the leader of a process group of its own."""

    def __init__(self, dsn: str, log: Path, *, jobs: int, processes: int, more: Sequence[str]) -> None:
        self.dsn = dsn
        self.workers: list[subprocess.Popen[bytes]] = []
        self._arguments = [
            "--queues",
            f"default:{jobs},deaf:1",
            "--processes",
            str(processes),
            "--import",
            "tests.chaos.tasks",
        ]
        self._arguments += more
        self._log = log.open("ab")

    def start(self) -> subprocess.Popen[bytes]:
        """One more worker."""
        worker = subprocess.Popen(
            [sys.executable, "-m", "awa_cli", "worker", *self._arguments],
            env={**os.environ, "AWA_DSN": self.dsn},
            cwd=Path(__file__).parents[2],
            stderr=self._log,
            start_new_session=True,
        )
        self.workers.append(worker)
        return worker

    def signal_group(self, worker: subprocess.Popen[bytes], number: signal.Signals) -> None:
        """To a worker and all of its processes at once, as when the machine is meant."""
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, number)

    def close(self) -> None:
        """Kill what is left."""
        for worker in self.workers:
            self.signal_group(worker, signal.SIGKILL)
            worker.wait()
        self._log.close()


@contextmanager
def fleet(
    dsn: str, log: Path, *, workers: int = 2, jobs: int = 8, processes: int = 2, more: Sequence[str] = ()
) -> Iterator[Fleet]:
    """So many workers, killed at the latest at the end."""
    made = Fleet(dsn, log, jobs=jobs, processes=processes, more=more)
    try:
        for _ in range(workers):
            made.start()
        yield made
    finally:
        made.close()


def living(client: awa.Client) -> list[RuntimeInfo]:
    """The processes that count as alive, without the runtime that every test database has."""
    return [runtime for runtime in client.list_runtimes() if runtime.dead_at is None and runtime.hostname != "test"]


def kill_a_process(fleet: Fleet, client: awa.Client) -> None:
    """Kill -9 one process that runs jobs; when all wait for their restart, the next to live."""
    chosen = random.choice(wait_for(lambda: living(client), what="a living process"))
    with suppress(ProcessLookupError):
        os.kill(chosen.pid, signal.SIGKILL)


def kill_the_leader(fleet: Fleet, client: awa.Client) -> None:
    """Kill -9 the process that leads, if any does."""
    for runtime in living(client):
        if runtime.is_leader:
            with suppress(ProcessLookupError):
                os.kill(runtime.pid, signal.SIGKILL)


def kill_a_supervisor(fleet: Fleet, client: awa.Client) -> None:
    """Kill -9 a supervisor, whose processes then stop by themselves, and start another worker."""
    victim = fleet.workers.pop(0)
    victim.kill()
    victim.wait()
    fleet.start()


def kill_a_worker(fleet: Fleet, client: awa.Client) -> None:
    """Kill -9 a worker with all of its processes, and start another."""
    victim = fleet.workers.pop(0)
    fleet.signal_group(victim, signal.SIGKILL)
    victim.wait()
    fleet.start()
