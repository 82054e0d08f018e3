"""A worker process: its parts, their order of starting and stopping."""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg
from attrs import frozen
from psycopg import Connection
from psycopg.rows import TupleRow

from awa.config import WorkerSettings
from awa.context import JobContext
from awa.errors import JobTimeout
from awa.migrate import check_rebase, check_schema, load_sql
from awa.partitions import AnyQueue
from awa.postgres import connect, resolve_dsn, resolve_listen_dsn, set_session
from awa.storage.complete import Ending
from awa.storage.jobs import has_work
from awa.storage.kinds import set_dead_letter
from awa.storage.runtimes import declare_dead, register_runtime, retire_runtime
from awa.task import Task, registered_tasks
from awa.version import __version__
from awa.worker.completer import Completer
from awa.worker.deadlines import Deadlines
from awa.worker.dispatcher import Dispatcher
from awa.worker.endings import describe_error, failure
from awa.worker.executor import QueueExecutor
from awa.worker.handler import Handler
from awa.worker.heart import Heart
from awa.worker.identity import RuntimeIdentity
from awa.worker.loop import LoopThread
from awa.worker.maintainer import Maintainer
from awa.worker.overseer import Overseer
from awa.worker.services import AttemptServices

log = logging.getLogger("awa.worker")

LOOK_EVERY = 0.1  # seconds between looks whether the process has run or grown enough, or its queues are empty

RECORD_FOR = 10.0  # seconds that the last endings get

CONNECTIONS = 3
"""Database connections of a worker process: to claim and listen, to complete, to maintain. One more to beat where no
supervisor does it, one to turn the rings in the process that leads, one while a handler has run for more than a second,
and what handlers ask for."""
RECYCLE = 75
"""The exit code of a process that wants to be replaced."""


@frozen
class Supervision:
    """What a supervisor shares with the process it has started."""

    supervisor_id: int
    deadlines: Deadlines


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
    rescued: int


class Worker:
    """Runs jobs of some queues in this process.

    Args:
        queues: how many jobs of each queue may run at a time, as in `{"email": 4, "default": 10}`; of an
            `awa.PartitionedQueue` so many of each partition.
        dsn: as for `Client`.
        listen_dsn: a direct connection for wake-ups, where `dsn` leads to a transaction pooler, which lets none through;
            `None` takes `AWA_LISTEN_DSN`. Without either the worker polls there.
        tasks: what this worker can run; by default every task made in this process.
        supervision: what a supervisor shares with the process it has started; without one the worker beats for itself.
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
        queues: Mapping[str, int] | Mapping[AnyQueue, int],
        *,
        dsn: str | None = None,
        listen_dsn: str | None = None,
        tasks: Iterable[Task[..., Any, Any]] | None = None,
        supervision: Supervision | None = None,
        **settings: Any,
    ) -> None:
        self.settings = WorkerSettings(queues=queues, **settings)
        self.identity = RuntimeIdentity() if supervision is None else RuntimeIdentity(supervision.supervisor_id)
        self.wants_recycling = False
        self._supervision = supervision
        self._dsn = resolve_dsn(dsn)
        self._listen_dsn = resolve_listen_dsn(listen_dsn)
        self._tasks = registered_tasks() if tasks is None else {task.kind: task for task in tasks}
        self._loop = LoopThread()
        self._stop_requested = threading.Event()
        self._aborted = threading.Event()
        self._signals: list[int] = []
        self._started = False
        self._given_up: set[tuple[int, int]] = set()  # claim id and item of attempts that ignore their timeout
        self._services = AttemptServices(
            lambda: self._connect("awa handler"), self.identity, default_queue=self.settings.default_queue
        )
        self._completer = Completer(
            lambda: self._connect("awa completer"),
            self.identity,
            flush_limit=self.settings.flush_limit,
            flush_after=self.settings.flush_after,
        )
        self._executors = self._make_executors()
        self._overseer = Overseer(
            self._executors,
            lambda: self._connect("awa overseer"),
            hard_stop_after=self.settings.hard_stop_after,
            on_hung=self._on_hung,
        )
        self._dispatcher = Dispatcher(
            lambda: self._connect("awa dispatcher"),
            self.identity,
            self._executors,
            self.settings,
            on_declared_dead=self._renew,
            on_cancel=self._overseer.cancel,
            connect_listener=None if self._listen_dsn is None else self._connect_listener,
        )
        self._maintainer = Maintainer(lambda: self._connect("awa maintainer"), self.identity, self.settings)
        self._heart: Heart | None = self._make_heart() if supervision is None else None

    def _make_heart(self) -> Heart:
        return Heart(
            lambda: self._connect("awa heart"),
            self.identity.supervisor_id,
            lambda: [self.identity.pid],
            beat_every=self.settings.beat_every,
        )

    def beat_alone(self) -> None:
        """The supervisor is gone: say oneself that one lives, for as long as running jobs take to finish."""
        if self._heart is None:
            self._heart = self._make_heart()
            self._heart.start()

    def _make_executors(self) -> dict[str, QueueExecutor]:
        handlers = {kind: Handler(task, self._loop.get) for kind, task in self._tasks.items()}
        executors = {}
        first_cell = 0
        for queue, concurrency in self.settings.queues.items():
            executors[queue] = QueueExecutor(
                queue,
                concurrency,
                handlers,
                self._completer,
                unknown_kind_delay=self.settings.unknown_kind_delay,
                on_room=lambda: self._dispatcher.room(),  # noqa: PLW0108 - made later
                timeout=self.settings.timeouts.get(queue),
                hard_stop_after=self.settings.hard_stop_after,
                services=self._services,
                deadlines=None if self._supervision is None else self._supervision.deadlines,
                first_cell=first_cell,
            )
            first_cell += concurrency
        return executors

    @property
    def runtime_id(self) -> int:
        """Who this worker is in the database at present."""
        return self.identity.runtime_id

    def start(self) -> None:
        """Check the schema and begin to work; returns at once."""
        with self._connect("awa worker") as conn:
            check_schema(conn, load_sql())
            check_rebase(conn)
            self.identity.pid = os.getpid()
            self._register(conn)
            for task in self._tasks.values():
                if task.policy.dead_letter is not None:
                    set_dead_letter(conn, kind=task.kind, dead_letter=task.policy.dead_letter)
        self._started = True
        if self._heart is not None:
            self._heart.start()
        self._completer.start()
        self._overseer.start()
        self._dispatcher.start()
        self._maintainer.start()
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
        for executor in self._executors.values():
            self._release(executor.drain_backlog())
            executor.stop()
        finished = True
        for executor in self._executors.values():
            finished = executor.join(deadline, self._aborted) and finished
        self._overseer.stop()
        self._maintainer.stop()  # until now it may have led
        for executor in self._executors.values():
            # A job that was taken between the drain and the stop has run or is among these.
            self._release(executor.drain_backlog())
            given_back = [r for r in executor.receipts() if (r[0].claim_id, r[1]) not in self._given_up]
            self._release([(claim, item, ()) for claim, item in given_back])
        recorded = self._completer.stop(timeout=RECORD_FOR)
        if finished:
            self._loop.stop()
        self._services.close()
        self._retire()
        if self._heart is not None:
            self._heart.stop()
        return finished and recorded and not self._given_up

    def run(self, signals: Iterable[signal.Signals] = (signal.SIGTERM, signal.SIGINT)) -> bool:
        """Start, work until one of `signals` or `request_stop`, then stop; what `stop` returns.

        Signals are handled only when called in the main thread.
        """
        with self._handling(signals):
            self.start()
            while not (self._stop_requested.wait(LOOK_EVERY) or self._signals):
                if self._should_end():
                    break
            if self._signals:
                log.info("signal %s: stopping", signal.Signals(self._signals[0]).name)
            return self.stop()

    def request_stop(self) -> None:
        """Make `run` stop; asked again, without waiting for running jobs. From any thread."""
        if self._stop_requested.is_set():
            self._aborted.set()
        self._stop_requested.set()

    def _should_end(self) -> bool:
        settings = self.settings
        if settings.max_jobs is not None and self._completer.completed + self._completer.finalized >= settings.max_jobs:
            log.info("this process has run %d jobs and is to be replaced", self._completer.completed)
            self.wants_recycling = True
        elif settings.max_memory is not None and resident_mib() > settings.max_memory:
            log.warning("this process uses %.0f MiB and is to be replaced", resident_mib())
            self.wants_recycling = True
        return self.wants_recycling or (settings.drain and self._is_drained())

    def _is_drained(self) -> bool:
        """Nothing runs or waits here, and nothing is to be had."""
        if not self._dispatcher.found_nothing or any(e.backlog or e.attempts() for e in self._executors.values()):
            return False
        if self._completer.finished or self._completer.endings:
            return False
        try:
            with self._connect("awa worker") as conn:
                return not has_work(conn, list(self.settings.queues))
        except psycopg.OperationalError:
            return False

    def _register(self, conn: Connection[TupleRow]) -> None:
        register_runtime(
            conn,
            runtime_id=self.identity.runtime_id,
            supervisor_id=self.identity.supervisor_id,
            pid=self.identity.pid,
            hostname=self.identity.hostname,
            release=__version__,
            queues=self.settings.queues,
        )

    def _renew(self) -> None:
        """This worker was declared dead: what it has was given to others. Drop it, and go on as somebody else."""
        for executor in self._executors.values():
            executor.drain_backlog()
        self._overseer.cancel_all()
        self.identity.renew()
        with self._connect("awa worker") as conn:
            self._register(conn)

    def _retire(self) -> None:
        try:
            with self._connect("awa worker") as conn:
                if self._dispatcher.has_lost_claims:
                    # The dead are looked after for longer than such a claim can take; who has retired is forgotten at once.
                    declare_dead(conn, self.identity.supervisor_id, [self.identity.pid])
                else:
                    retire_runtime(conn, self.identity.runtime_id)
        except psycopg.Error as error:
            log.warning("the worker could not sign off, and will count as dead: %s", str(error).strip())

    def _on_hung(self, executor: QueueExecutor, job: JobContext, ran: float) -> None:
        """A handler ignores that it was told to stop. Its thread cannot be ended, but its process can."""
        log.error(
            "job %d (%s) does not stop: its attempt has failed%s",
            job.id,
            job.kind,
            "" if self._supervision is None else ", and its process is replaced",
            extra=job.log_fields(),
        )
        claim, item = job._claim, job._item
        error = JobTimeout(f"it ran for {ran:.1f} s and did not stop when it was told to")
        policy = self._tasks[job.kind].policy
        described = describe_error(job.attempt, error, ran)
        self._given_up.add((claim.claim_id, item))
        self._completer.end(job, failure(job, claim, item, policy, error, described))
        self._completer.nudge()
        if self._supervision is not None:
            self.wants_recycling = True
            self._aborted.set()
            self._stop_requested.set()

    def wait_until_ready(self, timeout: float = 10.0) -> bool:
        """Whether the worker claims, and notifications reach it, within `timeout` seconds.

        Behind a pooler and without `listen_dsn` none reach it, and it is ready when it claims.
        """
        return self._dispatcher.wait_until_ready(timeout)

    def stats(self) -> WorkerStats:
        """What has been done so far."""
        executors = self._executors.values()
        return WorkerStats(
            claims=self._dispatcher.claims,
            claimed=self._dispatcher.claimed,
            running=sum(len(executor.attempts()) for executor in executors),
            waiting=sum(len(executor.backlog) for executor in executors),
            completed=self._completer.completed,
            failed=self._completer.finalized,
            refused=self._completer.refused,
            flushes=self._completer.flushes,
            promoted=self._maintainer.promoted,
            rescued=self._maintainer.rescued + (0 if self._heart is None else self._heart.rescued),
        )

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _connect_listener(self) -> Connection[TupleRow]:
        assert self._listen_dsn is not None
        return connect(self._listen_dsn, "awa listener")

    def _connect(self, name: str) -> Connection[TupleRow]:
        conn = connect(self._dsn, name)
        # A database's or a role's own default may be another, which claims and endings refuse.
        set_session(conn, "default_transaction_isolation", "read committed")
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
            # No lock, no log line: the code that the signal interrupts may be within either, and would wait for itself.
            self._signals.append(number)
            if len(self._signals) == 2 or (len(self._signals) == 1 and self._stop_requested.is_set()):
                self._aborted.set()

        before = {number: signal.signal(number, on_signal) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def resident_mib() -> float:
    """The memory that this process has resident, in MiB."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:  # no /proc: the most it ever had is the next best
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 2**20 if sys.platform == "darwin" else peak / 1024
    return pages * resource.getpagesize() / 2**20
