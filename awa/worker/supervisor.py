"""Several worker processes under one parent: it starts them, passes signals on, and replaces any that die."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from attrs import define, field, frozen

from awa.config import WorkerSettings
from awa.errors import ConfigurationError
from awa.migrate import check_rebase, check_schema, load_sql
from awa.partitions import AnyQueue
from awa.postgres import connect
from awa.storage.claim import random_id
from awa.worker.deadlines import Deadlines, Overdue
from awa.worker.heart import Death, Heart
from awa.worker.runtime import RECYCLE, Supervision, Worker

log = logging.getLogger("awa.worker")

RESTART_DELAYS = (0.1, 0.5, 1.0, 5.0, 15.0)  # seconds; the last is repeated
LOOK_EVERY = 0.5  # seconds
STOP_SLACK = 15.0  # seconds that a process may take longer than its jobs may
OVERDUE_SLACK = 2.0  # seconds in which a process itself may end what has ignored its timeout
STABLE_AFTER = 30.0  # seconds of life that make a death count as the first again


@frozen(kw_only=True)
class WorkerSpec:
    """All that a process needs to become a worker. Picklable."""

    queues: Mapping[str, int] | Mapping[AnyQueue, int]
    dsn: str
    listen_dsn: str | None = None
    imports: Sequence[str] = ()
    log_level: str = "INFO"
    settings: Mapping[str, Any] = {}
    supervisor_id: int = field(factory=random_id)


@define
class _Child:
    process: SpawnProcess
    leash: Connection  # the child stops when its end says that this one is gone
    started_at: float
    deadlines: Deadlines
    deaths: int = 0
    overdue: list[Overdue] = field(factory=list)  # for which it was killed
    replace_at: float | None = None  # monotonic, once its death has been seen to


def import_tasks(modules: Sequence[str]) -> None:
    """Import the modules that make tasks, looking in the working directory too, as `python -m` would.

    Raises:
        ConfigurationError: one of them does not exist.
    """
    if os.getcwd() not in sys.path:  # noqa: PTH109 - sys.path holds text
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise ConfigurationError(f"cannot import {name!r}: {error}") from error


def configure_logging(level: str) -> None:
    """One line per record on standard error."""
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")


class Supervisor:
    """Runs `processes` workers from one spec until it is told to stop.

    Args:
        spec: what each of them runs.
        processes: how many.
    """

    def __init__(self, spec: WorkerSpec, processes: int) -> None:
        self.restarts = 0
        self._spec = spec
        self._settings = WorkerSettings(queues=spec.queues, **spec.settings)
        self._stop_requests = 0
        self._heart = Heart(
            lambda: connect(spec.dsn, "awa heart"),
            spec.supervisor_id,
            lambda: [child.process.pid for child in self._children if child.process.is_alive() and child.process.pid],
            beat_every=self._settings.beat_every,
        )
        self._processes = processes
        self._spawn = multiprocessing.get_context("spawn")
        self._children: list[_Child] = []
        self._wake_read, self._wake_write = multiprocessing.Pipe(duplex=False)

    def run(self) -> bool:
        """Work until SIGTERM, SIGINT or `request_stop`; whether every worker stopped cleanly.

        Raises:
            SchemaOutOfDate: before any process is started: they could only die of it, again and again.
        """
        with connect(self._spec.dsn, "awa supervisor") as conn:
            check_schema(conn, load_sql())
            check_rebase(conn)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.request_stop())
        self._children = [self._start() for _ in range(self._processes)]
        self._heart.start()
        try:
            # Not while one lives: all may die between two looks, and each of them is to be replaced.
            while not self._stop_requests and not all(self._is_done(child) for child in self._children):
                self._wait(self._until_next_look())
                self._kill_overdue()
                self._replace_dead()
            self._stop_children()
        finally:
            self._heart.stop()
        return all(child.process.exitcode in (0, RECYCLE) for child in self._children)

    def _is_done(self, child: _Child) -> bool:
        """Whether a process has ended because there is nothing left to do."""
        return child.process.exitcode == 0 and bool(self._spec.settings.get("drain"))

    def _until_next_look(self) -> float:
        """Seconds; a death ends the wait."""
        due = [child.replace_at for child in self._children if child.replace_at is not None]
        return max(0.0, min([LOOK_EVERY, *(at - time.monotonic() for at in due)]))

    def _replace_dead(self) -> None:
        """See to every death at once, and start another process when its time has come. Waits for nothing."""
        for index, child in enumerate(self._children):
            if child.process.is_alive() or self._stop_requests or self._is_done(child):
                continue
            if child.replace_at is None:
                child.replace_at = time.monotonic() + self._bury(child)
            if child.replace_at <= time.monotonic():
                self.restarts += 1
                self._children[index] = self._start(child.deaths)

    def _stop_children(self) -> None:
        """SIGTERM, for every request to stop; SIGKILL for whoever takes longer than it may."""
        told = 0
        kill_at = time.monotonic() + self._settings.stop_timeout + STOP_SLACK
        while living := [child for child in self._children if child.process.is_alive()]:
            if told < self._stop_requests or told == 0:
                told += 1
                for child in living:
                    child.process.terminate()
            if time.monotonic() > kill_at:
                for child in living:
                    log.error("worker process %s does not stop and is killed", child.process.pid)
                    child.process.kill()
            self._wait(LOOK_EVERY)
        for child in self._children:
            self._report_death(child)

    def _wait(self, seconds: float) -> None:
        """Until a request to stop, a death, or the time is over."""
        living = [child.process.sentinel for child in self._children if child.process.is_alive()]
        if self._wake_read in wait([self._wake_read, *living], seconds):
            self._wake_read.recv_bytes()

    def _kill_overdue(self) -> None:
        """End processes that do not even end what should have ended long ago: they answer nobody any more."""
        now = time.monotonic() - OVERDUE_SLACK
        for child in self._children:
            if child.process.is_alive() and not child.overdue and (late := child.deadlines.overdue(now)):
                log.error("worker process %s has ignored the timeout of %d jobs: it is killed", child.process.pid, len(late))
                child.overdue = late
                child.process.kill()

    def _report_death(self, child: _Child) -> None:
        if child.process.pid is not None:
            self._heart.report(Death(child.process.pid, bool(child.overdue), child.overdue))

    def request_stop(self) -> None:
        """Make `run` stop; asked again, without waiting for running jobs. Safe in a signal handler and from any thread."""
        self._stop_requests += 1
        self._wake_write.send_bytes(b"stop")

    @property
    def pids(self) -> list[int]:
        """The workers' process ids."""
        return [child.process.pid for child in self._children if child.process.pid is not None]

    def _start(self, deaths: int = 0) -> _Child:
        theirs, ours = self._spawn.Pipe(duplex=False)
        deadlines = Deadlines(sum(self._settings.queues.values()))
        process = self._spawn.Process(target=run_child, args=(self._spec, theirs, deadlines), name="awa-worker")
        process.start()
        theirs.close()
        return _Child(process, ours, time.monotonic(), deadlines, deaths)

    def _bury(self, child: _Child) -> float:
        """Have its jobs given to others; seconds until another process starts, more with each death in a row."""
        self._report_death(child)
        child.leash.close()
        if child.process.exitcode == RECYCLE or child.overdue:
            child.deaths = 0
            return 0.0
        stable = time.monotonic() - child.started_at > STABLE_AFTER
        child.deaths = 1 if stable else child.deaths + 1
        delay = RESTART_DELAYS[min(child.deaths, len(RESTART_DELAYS)) - 1]
        log.error(
            "worker process %s died with exit code %s, another starts in %g s",
            child.process.pid,
            child.process.exitcode,
            delay,
        )
        return delay


def run_child(spec: WorkerSpec, leash: Connection, deadlines: Deadlines) -> None:
    """A worker process's main function."""
    # A terminal's Ctrl-C reaches every process of the group; only the parent's word counts here.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure_logging(spec.log_level)
    import_tasks(spec.imports)
    supervision = Supervision(spec.supervisor_id, deadlines)
    worker = Worker(spec.queues, dsn=spec.dsn, listen_dsn=spec.listen_dsn, supervision=supervision, **spec.settings)

    def watch() -> None:
        try:
            leash.recv_bytes()
        except (EOFError, OSError):
            log.warning("the supervisor is gone: stopping")
            worker.beat_alone()
            worker.request_stop()

    threading.Thread(target=watch, name="awa-leash", daemon=True).start()
    clean = worker.run(signals=(signal.SIGTERM,))
    logging.shutdown()
    # Not sys.exit: a handler that cannot be ended would hold the interpreter's own end up.
    os._exit(RECYCLE if worker.wants_recycling else 0 if clean else 1)
