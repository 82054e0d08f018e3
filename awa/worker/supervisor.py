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

from attrs import define, frozen

from awa.errors import ConfigurationError
from awa.migrate import check_schema, load_sql
from awa.postgres import connect
from awa.worker.runtime import Worker

log = logging.getLogger("awa.worker")

RESTART_DELAYS = (0.1, 0.5, 1.0, 5.0, 15.0)  # seconds; the last is repeated
STABLE_AFTER = 30.0  # seconds of life that make a death count as the first again


@frozen(kw_only=True)
class WorkerSpec:
    """All that a process needs to become a worker. Picklable."""

    queues: Mapping[str, int]
    dsn: str
    imports: Sequence[str] = ()
    log_level: str = "INFO"
    settings: Mapping[str, Any] = {}


@define
class _Child:
    process: SpawnProcess
    leash: Connection  # the child stops when its end says that this one is gone
    started_at: float
    deaths: int = 0


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
        self._processes = processes
        self._spawn = multiprocessing.get_context("spawn")
        self._children: list[_Child] = []
        self._stop_requested = threading.Event()
        self._wake_read, self._wake_write = multiprocessing.Pipe(duplex=False)

    def run(self) -> bool:
        """Work until SIGTERM, SIGINT or `request_stop`; whether every worker stopped cleanly.

        Raises:
            SchemaOutOfDate: before any process is started: they could only die of it, again and again.
        """
        with connect(self._spec.dsn, "awa supervisor") as conn:
            check_schema(conn, load_sql())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.request_stop())
        self._children = [self._start() for _ in range(self._processes)]
        while not self._stop_requested.is_set():
            wait([self._wake_read, *(child.process.sentinel for child in self._children)])
            for index, child in enumerate(self._children):
                if not child.process.is_alive() and not self._stop_requested.is_set():
                    self._children[index] = self._replace(child)
        for child in self._children:
            if child.process.is_alive():
                child.process.terminate()
        for child in self._children:
            child.process.join()
        return all(child.process.exitcode == 0 for child in self._children)

    def request_stop(self) -> None:
        """Make `run` stop. Safe in a signal handler and from any thread."""
        if not self._stop_requested.is_set():
            self._stop_requested.set()
            self._wake_write.send_bytes(b"stop")

    @property
    def pids(self) -> list[int]:
        """The workers' process ids."""
        return [child.process.pid for child in self._children if child.process.pid is not None]

    def _start(self, deaths: int = 0) -> _Child:
        theirs, ours = self._spawn.Pipe(duplex=False)
        process = self._spawn.Process(target=run_child, args=(self._spec, theirs), name="awa-worker")
        process.start()
        theirs.close()
        return _Child(process, ours, time.monotonic(), deaths)

    def _replace(self, child: _Child) -> _Child:
        stable = time.monotonic() - child.started_at > STABLE_AFTER
        deaths = 1 if stable else child.deaths + 1
        delay = RESTART_DELAYS[min(deaths, len(RESTART_DELAYS)) - 1]
        log.error(
            "worker process %s died with exit code %s, another starts in %g s",
            child.process.pid,
            child.process.exitcode,
            delay,
        )
        child.leash.close()
        self._stop_requested.wait(delay)
        self.restarts += 1
        return self._start(deaths)


def run_child(spec: WorkerSpec, leash: Connection) -> None:
    """A worker process's main function."""
    # A terminal's Ctrl-C reaches every process of the group; only the parent's word counts here.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure_logging(spec.log_level)
    import_tasks(spec.imports)
    worker = Worker(spec.queues, dsn=spec.dsn, **spec.settings)

    def watch() -> None:
        try:
            leash.recv_bytes()
        except (EOFError, OSError):
            log.warning("the supervisor is gone: stopping")
            worker.request_stop()

    threading.Thread(target=watch, name="awa-leash", daemon=True).start()
    sys.exit(0 if worker.run(signals=(signal.SIGTERM,)) else 1)
