"""A worker process: its parts, their order of starting and stopping."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from attrs import frozen
from psycopg import Connection
from psycopg.rows import TupleRow

from awa.config import WorkerSettings
from awa.migrate import check_schema, load_sql
from awa.postgres import connect, resolve_dsn
from awa.storage.claim import random_id
from awa.storage.complete import Ending
from awa.task import Task, registered_tasks
from awa.worker.completer import Completer
from awa.worker.dispatcher import Dispatcher
from awa.worker.executor import QueueExecutor
from awa.worker.handler import Handler
from awa.worker.loop import LoopThread
from awa.worker.promoter import Promoter

log = logging.getLogger("awa.worker")

CONNECTIONS = 3
"""Database connections of a worker process: to claim and listen, to complete, to promote."""


@frozen(kw_only=True)
class WorkerStats:
    """What a worker has done since it was started.

    `completed` and `failed` count endings that are durable in the database; `failed` includes attempts that will be tried
    again and jobs put back; `refused` counts endings that came too late and changed nothing.
    """

    claims: int
    claimed: int
    running: int
    waiting: int
    completed: int
    failed: int
    refused: int
    flushes: int
    promoted: int


class Worker:
    """Runs jobs of some queues in this process.

    Args:
        queues: how many jobs of each queue may run at a time, as in `{"email": 4, "default": 10}`.
        dsn: as for `Client`.
        tasks: what this worker can run; by default every task made in this process.
        settings: anything of `WorkerSettings` but the queues, as keywords.

    Raises:
        ConfigurationError: a setting makes no sense, or nothing names a database.
        SchemaOutOfDate: on start: run `awa migrate`.

    >>> import awa
    >>> @awa.task
    ... def hello(name: str) -> None: ...
    >>> with awa.Worker({"default": 2}, dsn=dsn) as worker:
    ...     worker.stats().failed
    0
    """

    def __init__(
        self,
        queues: Mapping[str, int],
        *,
        dsn: str | None = None,
        tasks: Iterable[Task[..., Any, Any]] | None = None,
        **settings: Any,
    ) -> None:
        self.settings = WorkerSettings(queues=queues, **settings)
        self.runtime_id = random_id()
        self._dsn = resolve_dsn(dsn)
        self._tasks = registered_tasks() if tasks is None else {task.kind: task for task in tasks}
        self._loop = LoopThread()
        self._stop_requested = threading.Event()
        self._started = False
        handlers = {kind: Handler(task, self._loop.get) for kind, task in self._tasks.items()}
        self._completer = Completer(
            lambda: self._connect("awa completer"),
            self.runtime_id,
            flush_limit=self.settings.flush_limit,
            flush_after=self.settings.flush_after,
        )
        self._executors = {
            queue: QueueExecutor(
                queue,
                concurrency,
                handlers,
                self._completer,
                unknown_kind_delay=self.settings.unknown_kind_delay,
                on_room=lambda: self._dispatcher.room(),  # noqa: PLW0108 - made below
            )
            for queue, concurrency in self.settings.queues.items()
        }
        self._dispatcher = Dispatcher(
            lambda: self._connect("awa dispatcher"), self.runtime_id, self._executors, self.settings
        )
        self._promoter = Promoter(
            lambda: self._connect("awa promoter"),
            promote_every=self.settings.promote_every,
            promote_limit=self.settings.promote_limit,
        )

    def start(self) -> None:
        """Check the schema and begin to work; returns at once."""
        with self._connect("awa worker") as conn:
            check_schema(conn, load_sql())
        self._started = True
        self._completer.start()
        self._dispatcher.start()
        self._promoter.start()
        log.info(
            "worker %d runs %s with %d database connections",
            os.getpid(),
            ", ".join(f"{queue}:{n}" for queue, n in self.settings.queues.items()),
            CONNECTIONS,
            extra={"awa_runtime_id": self.runtime_id},
        )

    def stop(self, timeout: float | None = None) -> bool:
        """Claim nothing more, give back what has not started, let running jobs finish, record all endings.

        Args:
            timeout: seconds that running jobs get; `settings.stop_timeout` by default. What still runs then is given back
                without counting the attempt, and its late ending will be refused.

        Returns:
            Whether every running job finished in time and every ending is durable.
        """
        if not self._started:
            return True
        self._started = False
        deadline = time.monotonic() + (self.settings.stop_timeout if timeout is None else timeout)
        self._dispatcher.stop()
        self._promoter.stop()
        for executor in self._executors.values():
            self._release(executor.drain_backlog())
            executor.stop()
        finished = True
        for executor in self._executors.values():
            finished = executor.join(deadline) and finished
        for executor in self._executors.values():
            # A job that was taken between the drain and the stop has run or is among these.
            self._release(executor.drain_backlog())
            self._release(list(executor.running.values()))
        recorded = self._completer.stop(timeout=10.0)
        if finished:
            self._loop.stop()
        return finished and recorded

    def run(self, signals: Iterable[signal.Signals] = (signal.SIGTERM, signal.SIGINT)) -> bool:
        """Start, work until one of `signals` or `request_stop`, then stop; what `stop` returns.

        Signals are handled only when called in the main thread.
        """
        with self._handling(signals):
            self.start()
            self._stop_requested.wait()
            return self.stop()

    def request_stop(self) -> None:
        """Make `run` stop. Safe in a signal handler and from any thread."""
        self._stop_requested.set()

    def wait_until_ready(self, timeout: float = 10.0) -> bool:
        """Whether the worker claims, and notifications reach it, within `timeout` seconds."""
        return self._dispatcher.listener.heard_itself.wait(timeout)

    def stats(self) -> WorkerStats:
        """What has been done so far."""
        executors = self._executors.values()
        return WorkerStats(
            claims=self._dispatcher.claims,
            claimed=self._dispatcher.claimed,
            running=sum(len(executor.running) for executor in executors),
            waiting=sum(len(executor.backlog) for executor in executors),
            completed=self._completer.completed,
            failed=self._completer.finalized,
            refused=self._completer.refused,
            flushes=self._completer.flushes,
            promoted=self._promoter.promoted,
        )

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _connect(self, name: str) -> Connection[TupleRow]:
        conn = connect(self._dsn, name)
        # A database's or a role's own default may be another, which claims and endings refuse.
        conn.execute("SET default_transaction_isolation = 'read committed'")
        return conn

    def _release(self, jobs: list[Any]) -> None:
        for claim, item, _ in jobs:
            self._completer.endings.append(Ending(claim, item, "released"))
        self._completer.nudge()

    @contextmanager
    def _handling(self, signals: Iterable[signal.Signals]) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(number: int, frame: FrameType | None) -> None:
            log.info("signal %s: stopping", signal.Signals(number).name)
            self.request_stop()

        before = {number: signal.signal(number, on_signal) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
