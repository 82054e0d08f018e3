"""Enqueueing and looking: what an application's own code does with the queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Literal
from weakref import WeakKeyDictionary

import psycopg
from attrs import fields
from psycopg.rows import TupleRow, tuple_row
from psycopg_pool import ConnectionPool, PoolTimeout

from awa.arguments import encode_value
from awa.config import ClientSettings
from awa.errors import (
    DatabaseUnavailable,
    InvalidJob,
    JobBusy,
    JobNotFound,
    JobUnsuccessful,
    UniqueConflict,
    WaitTimeout,
)
from awa.job import Job, JobOptions, NewJob, QueueCounts, RuntimeInfo
from awa.migrate import InstalledSchema, check_schema, guarded_schema, load_sql
from awa.notify import NOTIFY, QuietPeriod
from awa.plan import JobTemplate, PlannedJob, Route, check_name, make_template, merge_options
from awa.postgres import Connection, engine_conninfo, has_been_closed, resolve_dsn, sibling, tuple_cursor
from awa.storage import jobs as stored
from awa.storage.cancel import cancel_job
from awa.storage.copy import copy_jobs, current_queue_slot
from awa.storage.enqueue import ENQUEUE_JOBS, enqueue_jobs, enqueue_parameters, ensure_lane, ids_in_order
from awa.storage.external import DEFAULT_DELAY, end_external
from awa.storage.kinds import set_dead_letter
from awa.storage.runtimes import list_runtimes
from awa.storage.unique import enqueue_unique
from awa.task import Task
from awa.unique import Unique

MAX_TEMPLATES: Final = 1000
"""Shapes of jobs whose validation is remembered."""
BUSY_FOR: Final = 5.0
"""Seconds to insist on ending a job whose lane or claim is locked."""


class Client:
    """Puts jobs into the queue and reads them. Safe to share between threads; connects on first use.

    Args:
        dsn: a libpq URL or keyword string; `None` takes `AWA_DSN`, `DATABASE_URL` or libpq's variables.
        min_connections: kept open by the pool.
        max_connections: opened by the pool at the most.
        connect_timeout: seconds to wait for a connection.
        max_args_bytes: the largest JSON text of a job's arguments.

    Raises:
        ConfigurationError: on first use, when nothing names a database.

    >>> import awa
    >>> with awa.Client(dsn) as client:
    ...     job_id = client.enqueue("send_email", {"to": "ada@example.com"}, queue="docs")
    ...     client.get_job(job_id).state
    'available'
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        min_connections: int = ClientSettings().min_connections,
        max_connections: int = ClientSettings().max_connections,
        connect_timeout: float = ClientSettings().connect_timeout,
        max_args_bytes: int = ClientSettings().max_args_bytes,
    ) -> None:
        self.settings = ClientSettings(
            min_connections=min_connections,
            max_connections=max_connections,
            connect_timeout=connect_timeout,
            max_args_bytes=max_args_bytes,
        )
        self._dsn = dsn
        self._pool: ConnectionPool[psycopg.Connection[TupleRow]] | None = None
        self._opening = threading.Lock()
        self._installed: WeakKeyDictionary[Connection, InstalledSchema] = WeakKeyDictionary()
        self._lanes: dict[tuple[str, Route], int] = {}  # by install: a cached lane of one database is nothing in another
        self._templates: dict[tuple[object, ...], JobTemplate] = {}
        self._quiet = QuietPeriod()

    # -- enqueueing ----------------------------------------------------------------------------------------------------

    def enqueue(
        self,
        task_or_kind: Task[..., Any, Any] | str,
        args: object = None,
        *,
        queue: str | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        run_at: datetime | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        unique: Unique | None = None,
        connection: Connection | None = None,
    ) -> int:
        """Enqueue one job and return its id. Without `connection` it is committed when this returns.

        A job whose unique key is taken returns the holder's id with `on_conflict="return_existing"`, and with `"skip"` 0,
        which is no job's id.

        Args:
            task_or_kind: a task, or a kind as text for a task this process does not import.
            args: a JSON object: a mapping, an attrs or a dataclass instance; `None` is an empty one.
            queue: 1 to 200 characters; the task's, then "default".
            priority: 1 (first) to 4.
            max_attempts: counted attempts before the job has failed, 1 to 32767.
            run_at: not before this instant (with a time zone); the past is now.
            tags: up to 32 labels of up to 100 characters.
            metadata: a JSON object that travels with the job.
            unique: at most one job of a key at a time; see `awa.Unique`.
            connection: your psycopg connection: the job commits or rolls back with its transaction, which is neither
                committed nor altered.

        Raises:
            InvalidJob: refused before the database saw it; names the field and the limit.
            UniqueConflict: another job has the unique key; nothing was enqueued.
            SchemaOutOfDate: run `awa migrate`.
            DatabaseUnavailable: no connection in time.

        >>> client.enqueue("send_email", {"to": "ada@example.com"}, priority=1) > 0
        True
        """
        options = JobOptions(
            queue=queue,
            priority=priority,
            max_attempts=max_attempts,
            run_at=run_at,
            tags=tags,
            metadata=metadata,
            unique=unique,
        )
        job = self._template(task_or_kind, options).plan({} if args is None else args, datetime.now(UTC))
        return self._append([job], connection)[0]

    def enqueue_many(
        self,
        jobs: Iterable[object],
        *,
        kind: Task[..., Any, Any] | str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        run_at: datetime | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        unique: Unique | None = None,
        connection: Connection | None = None,
    ) -> list[int]:
        """Enqueue a batch in one statement, all or nothing, and return its ids in order.

        Args:
            jobs: arguments (JSON objects), or `NewJob` where one differs from the batch.
            kind: of all jobs that do not bring their own.
            queue, priority, max_attempts, run_at, tags, metadata, unique, connection: as for `enqueue`.

        Raises:
            InvalidJob, UniqueConflict, SchemaOutOfDate, DatabaseUnavailable: as for `enqueue`; nothing was enqueued.

        >>> len(client.enqueue_many([{"n": 1}, {"n": 2}], kind="count"))
        2
        """
        options = JobOptions(
            queue=queue,
            priority=priority,
            max_attempts=max_attempts,
            run_at=run_at,
            tags=tags,
            metadata=metadata,
            unique=unique,
        )
        planned = list(self._plan_many(jobs, kind, options))
        return self._append(planned, connection) if planned else []

    def enqueue_many_copy(
        self,
        jobs: Iterable[object],
        *,
        kind: Task[..., Any, Any] | str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        run_at: datetime | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        unique: Unique | None = None,
        connection: Connection | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Enqueue any number of jobs through COPY, all or nothing, and return how many.

        Memory does not grow with the number of jobs: `jobs` is read as it is written.

        Args:
            jobs: any iterable, as for `enqueue_many`; unique ones are refused.
            kind, queue, priority, max_attempts, run_at, tags, metadata, connection: as for `enqueue_many`.
            progress: called with the number of jobs written so far, every few thousand.

        Raises:
            InvalidJob, SchemaOutOfDate, DatabaseUnavailable: as for `enqueue`; nothing was enqueued.

        >>> client.enqueue_many_copy(({"n": n} for n in range(5000)), kind="count", queue="bulk")
        5000
        """
        options = JobOptions(
            queue=queue,
            priority=priority,
            max_attempts=max_attempts,
            run_at=run_at,
            tags=tags,
            metadata=metadata,
            unique=unique,
        )
        planned = _without_unique(self._plan_many(jobs, kind, options))
        if connection is not None:
            return self._copy(connection, planned, progress, notify=True)
        with self._connection() as conn:
            return self._copy(conn, planned, progress, notify=False)

    # -- reading -------------------------------------------------------------------------------------------------------

    def get_job(self, job_id: int) -> Job | None:
        """The job of that id, or None.

        >>> client.get_job(0) is None
        True
        """
        with self._connection() as conn:
            return stored.get_job(conn, job_id)

    def queue_counts(self, queue: str) -> QueueCounts:
        """How many jobs of a queue are in each state; zeros for a queue that never had one.

        >>> client.queue_counts("nobody").available
        0
        """
        with self._connection() as conn:
            counts = stored.queue_counts(conn, check_name(queue, "queue", 200))
        if counts:
            return counts[0]
        states = [attribute.name for attribute in fields(QueueCounts)[2:]]
        return QueueCounts(queue=queue, paused=False, **dict.fromkeys(states, 0))

    def list_queues(self) -> list[QueueCounts]:
        """The counts of every queue that ever had a job, by name.

        >>> all(counts.running >= 0 for counts in client.list_queues())
        True
        """
        with self._connection() as conn:
            return stored.queue_counts(conn, None)

    def list_runtimes(self) -> list[RuntimeInfo]:
        """The worker processes, and those that died within the last day.

        >>> [runtime.pid for runtime in client.list_runtimes() if runtime.is_leader]
        []
        """
        with self._connection() as conn:
            return list_runtimes(conn)

    def result(self, job_id: int, *, timeout: float) -> Any:
        """What the job's handler returned, once it has; its task must be one with `result=True`.

        Args:
            job_id: of the job.
            timeout: seconds to wait for its end.

        Raises:
            JobNotFound: there is no such job.
            JobUnsuccessful: it failed or was cancelled.
            WaitTimeout: it has not ended in time.

        >>> client.result(client.enqueue("nobody_runs_this", queue="docs"), timeout=0)
        Traceback (most recent call last):
        awa.errors.WaitTimeout: job ... is available after 0 s
        """
        deadline = time.monotonic() + timeout
        pause = 0.005
        while True:
            job = self.get_job(job_id)
            if job is None:
                raise JobNotFound(f"there is no job {job_id}")
            if job.state == "completed":
                return job.result
            if job.state in ("failed", "cancelled", "dead_lettered"):
                raise JobUnsuccessful(job)
            left = deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeout(f"job {job_id} is {job.state} after {timeout:g} s")
            time.sleep(min(pause, left))
            pause = min(pause * 2, 0.25)

    # -- ending jobs from outside --------------------------------------------------------------------------------------

    def cancel(self, job_id: int) -> bool:
        """End a job that has not ended, wherever it is; a running handler is told within a second.

        In a short transaction of its own, never in yours.

        Args:
            job_id: of the job.

        Returns:
            Whether it was cancelled now; False when it had ended, or there is none.

        Raises:
            JobBusy: something held it for five seconds; nothing was changed.

        >>> client.cancel(client.enqueue("report", queue="docs"))
        True
        """
        with self._connection() as conn:
            return _insist(lambda: cancel_job(conn, job_id), f"job {job_id}") == "cancelled"

    def complete_external(self, id: int | str, payload: object = None) -> bool:
        """Complete a job that waits for an answer from outside; the payload is its result.

        Args:
            id: the callback id, or the job's id while it waits.
            payload: anything that is JSON, up to 64 KiB.

        Returns:
            Whether it was accepted; False when nothing waits under that id any more.

        Raises:
            InvalidJob: the payload is not JSON.
            JobBusy: something held it for five seconds; nothing was changed.

        >>> client.complete_external("2a-1-00000000000000ff", {"paid": True})
        False
        """
        result = encode_value(payload, "payload")
        return self._end_external(id, "completed", result=result)

    def fail_external(self, id: int | str, error: str, *, retry: bool = True) -> bool:
        """Fail the attempt of a job that waits for an answer from outside. It counts.

        Args:
            id: as for `complete_external`.
            error: kept with the job.
            retry: False: no other try, whatever `max_attempts` says.

        >>> client.fail_external("2a-1-00000000000000ff", "card refused")
        False
        """
        described = {
            "at": datetime.now(UTC).isoformat(),
            "type": "External",
            "message": error.replace("\x00", "\\x00")[:2000],
        }
        return self._end_external(id, "failed", error=described, delay_after=DEFAULT_DELAY if retry else None)

    def retry_external(self, id: int | str) -> bool:
        """Run the handler of a job that waits for an answer from outside again, now. Does not count.

        >>> client.retry_external("2a-1-00000000000000ff")
        False
        """
        return self._end_external(id, "released")

    def _end_external(self, id: int | str, outcome: Literal["completed", "failed", "released"], **said: Any) -> bool:
        with self._connection() as conn:
            return _insist(lambda: end_external(conn, id, outcome, **said), f"job {id}") == "accepted"

    # -- queues --------------------------------------------------------------------------------------------------------

    def pause_queue(self, queue: str) -> None:
        """Workers claim nothing of the queue until `resume_queue`; enqueues and running jobs go on.

        >>> client.pause_queue("reports"); client.resume_queue("reports")
        """
        with self._connection() as conn:
            stored.pause_queue(conn, check_name(queue, "queue", 200))

    def resume_queue(self, queue: str) -> None:
        """Undo `pause_queue`."""
        with self._connection() as conn:
            stored.resume_queue(conn, check_name(queue, "queue", 200))

    def wait_until_empty(
        self, queue: str, *, timeout: float, progress: Callable[[QueueCounts], object] | None = None
    ) -> None:
        """Wait until a queue has nothing available, running or waiting; jobs due later do not count.

        Args:
            queue: its name.
            timeout: seconds.
            progress: called with the counts at every look.

        Raises:
            WaitTimeout: it still has.

        >>> client.wait_until_empty("nobody", timeout=1)
        """
        deadline = time.monotonic() + timeout
        pause = 0.01
        while True:
            counts = self.queue_counts(queue)
            if progress is not None:
                progress(counts)
            if counts.available + counts.running + counts.waiting == 0:
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeout(
                    f"queue {queue} has {counts.available} available, {counts.running} running and {counts.waiting} waiting "
                    f"jobs after {timeout:g} s"
                )
            time.sleep(min(pause, left))
            pause = min(pause * 2, 0.5)

    def set_dead_letter(self, queue: str, dead_letter: bool | None) -> None:
        """Whether exhausted jobs of a queue go to the dead-letter queue, which is so by default; tasks may say otherwise.

        >>> client.set_dead_letter("reports", False); client.set_dead_letter("reports", None)
        """
        with self._connection() as conn:
            set_dead_letter(conn, queue=check_name(queue, "queue", 200), dead_letter=dead_letter)

    # -- lifetime ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the pool. The client may be used again and then connects anew."""
        with self._opening:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _template(self, task_or_kind: Task[..., Any, Any] | str, options: JobOptions) -> JobTemplate:
        # Web views enqueue the same few shapes for ever: validating them once saves a tenth of an enqueue.
        key = None
        if options.metadata is None and options.run_at is None and options.unique is None:
            numbers = (options.priority, options.max_attempts)
            # With their types: True equals 1, and is not a priority.
            key = (task_or_kind, options.queue, options.tags, numbers, tuple(map(type, numbers)))
            try:
                if known := self._templates.get(key):
                    return known
            except TypeError:  # an option that cannot be hashed is about to be refused
                key = None
        kind: object = task_or_kind
        merged = options
        if isinstance(task_or_kind, Task):
            kind, merged = task_or_kind.kind, merge_options(task_or_kind.defaults, options)
        template = make_template(kind, merged, max_args_bytes=self.settings.max_args_bytes)
        if key is not None and len(self._templates) < MAX_TEMPLATES:
            self._templates[key] = template
        return template

    def _plan_many(
        self, jobs: Iterable[object], kind: Task[..., Any, Any] | str | None, options: JobOptions
    ) -> Iterator[PlannedJob]:
        batch = None if kind is None else self._template(kind, options)
        now = datetime.now(UTC)
        # By identity, with the options kept so that no other can take their place; jobs of one shape share one object.
        shapes: dict[tuple[object, int], tuple[JobOptions | None, JobTemplate]] = {}
        for index, job in enumerate(jobs):
            try:
                if not isinstance(job, NewJob):
                    if batch is None:
                        raise InvalidJob("kind", "is missing: pass kind=, or NewJob with a kind each")
                    yield batch.plan(job, now)
                    continue
                own_kind = kind if job.kind is None else job.kind
                if own_kind is None:
                    raise InvalidJob("kind", "is missing, and the batch has none")
                shape = shapes.get((own_kind, id(job.options)))
                if shape is None:
                    shape = (job.options, self._template(own_kind, merge_options(options, job.options)))
                    if len(shapes) < MAX_TEMPLATES:
                        shapes[own_kind, id(job.options)] = shape
                yield shape[1].plan(job.args, now)
            except InvalidJob as error:
                raise InvalidJob(f"jobs[{index}].{error.field}", error.reason) from error

    def _append(self, planned: list[PlannedJob], connection: Connection | None) -> list[int]:
        if any(job.unique is not None for job in planned):
            return self._append_unique(planned, connection)
        woken = sorted({job.route.queue for job in planned if not job.deferred})
        if connection is not None:
            with guarded_schema():
                return enqueue_jobs(connection, planned, self._lanes_for(connection, planned), woken)
        with self._connection() as conn:
            lanes = self._lanes_for(conn, planned)
            due = [queue for queue in woken if self._quiet.is_due(queue)]
            if due:
                # Two transactions in one network flush: the wake-up must find the job committed.
                with conn.pipeline() as pipeline:
                    cursor = conn.execute(ENQUEUE_JOBS, enqueue_parameters(planned, lanes, None), prepare=True)
                    pipeline.sync()
                    for queue in due:
                        conn.execute(NOTIFY, (queue,), prepare=True)
                for queue in due:
                    self._quiet.mark(queue)
                ids = [row[0] for row in cursor.fetchall()]
            else:
                cursor = conn.execute(ENQUEUE_JOBS, enqueue_parameters(planned, lanes, None), prepare=True)
                ids = [row[0] for row in cursor.fetchall()]
            # A commit that took longer than the quiet period came too late for the look that quietness relies on.
            self._wake(conn, [queue for queue in woken if queue not in due])
            return ids_in_order(planned, ids)

    def _append_unique(self, planned: list[PlannedJob], connection: Connection | None) -> list[int]:
        """All or nothing, in a transaction, or a savepoint of the caller's: a conflict is no database error."""
        if connection is not None:
            if any(job.unique is not None and job.unique.on_conflict == "replace" for job in planned):
                raise InvalidJob("unique.on_conflict", "replace needs a transaction of its own: leave connection out")
            with guarded_schema():
                lanes = self._lanes_for(connection, planned)
                # On a caller's idle connection this begins the transaction, without which the block below would not be a
                # savepoint of it but a transaction that is committed.
                tuple_cursor(connection).execute("SELECT")
                return self._enqueue_unique(connection, planned, lanes)
        with self._connection() as conn:
            return self._enqueue_unique(conn, planned, self._lanes_for(conn, planned))

    def _enqueue_unique(self, conn: Connection, planned: list[PlannedJob], lanes: Mapping[Route, int]) -> list[int]:
        unique = [index for index, job in enumerate(planned) if job.unique is not None]
        plain = [index for index, job in enumerate(planned) if job.unique is None]
        ids = [0] * len(planned)
        woken = sorted({job.route.queue for job in planned if not job.deferred})
        with conn.transaction():
            answers = enqueue_unique(conn, [planned[index] for index in unique], lanes, woken)
            for index, (job_id, is_new) in zip(unique, answers, strict=True):
                claim = planned[index].unique
                assert claim is not None
                if not is_new and claim.on_conflict == "raise":
                    raise UniqueConflict(job_id, index)
                ids[index] = job_id if is_new or claim.on_conflict != "skip" else 0
            for index, job_id in zip(plain, enqueue_jobs(conn, [planned[i] for i in plain], lanes), strict=True):
                ids[index] = job_id
        return ids

    def _copy(
        self,
        conn: Connection,
        planned: Iterator[PlannedJob],
        progress: Callable[[int], object] | None,
        *,
        notify: bool,
    ) -> int:
        lanes: dict[Route, int] = {}

        def lane_of(route: Route) -> int:
            lane_id = lanes.get(route)
            if lane_id is None:
                lane_id = lanes[route] = self._lane(conn, installed, route)
            return lane_id

        with guarded_schema():
            installed = self._check(conn)  # before the COPY, during which the connection answers nothing else
            # Outside the block: on a caller's idle connection this begins the transaction, without which the block would
            # not be a savepoint of the caller's transaction but a transaction that it commits.
            slot = current_queue_slot(conn)
        with guarded_schema(), conn.transaction():
            written = copy_jobs(conn, planned, lane_of, slot, progress)
            # A queue that got deferred jobs only is woken in vain, which is harmless.
            woken = sorted({route.queue for route in lanes})
            if notify:
                for queue in woken:
                    tuple_cursor(conn).execute(NOTIFY, (queue,))
        if not notify:
            self._wake(conn, woken)
        return written

    def _wake(self, conn: Connection, queues: Iterable[str]) -> None:
        for queue in queues:
            if self._quiet.is_due(queue):
                conn.execute(NOTIFY, (queue,))
                self._quiet.mark(queue)

    def _lanes_for(self, conn: Connection, planned: Iterable[PlannedJob]) -> Mapping[Route, int]:
        installed = self._check(conn)
        return {route: self._lane(conn, installed, route) for route in {job.route for job in planned}}

    def _lane(self, conn: Connection, installed: InstalledSchema, route: Route) -> int:
        key = (installed.install_id, route)
        lane_id = self._lanes.get(key)
        if lane_id is None:
            lane_id = self._lanes[key] = self._make_lane(conn, route)
        return lane_id

    def _make_lane(self, conn: Connection, route: Route) -> int:
        # Committed at once on a connection of its own: in the caller's transaction the new lane's unique key would make
        # every other first user of the lane wait for that transaction's end.
        with sibling(conn) as own:
            return ensure_lane(own, route)

    def _check(self, conn: Connection) -> InstalledSchema:
        installed = self._installed.get(conn)
        if installed is None:
            installed = self._installed[conn] = check_schema(conn, load_sql())
        return installed

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[TupleRow]]:
        deadline = time.monotonic() + self.settings.connect_timeout
        pool = self._open()
        while True:
            try:
                conn = pool.getconn(timeout=max(0.001, deadline - time.monotonic()))
            except PoolTimeout as error:
                raise DatabaseUnavailable(
                    f"no database connection within {self.settings.connect_timeout:g} s: {self._reason()}"
                ) from error
            if not has_been_closed(conn):
                break
            conn.close()
            pool.putconn(conn)
        try:
            with guarded_schema():
                self._check(conn)
                yield conn
        except psycopg.OperationalError as error:
            if not conn.broken:
                raise
            raise DatabaseUnavailable(
                f"the connection was lost, and with it whether the last call took effect: {str(error).strip()}"
            ) from error
        finally:
            pool.putconn(conn)

    def _open(self) -> ConnectionPool[psycopg.Connection[TupleRow]]:
        if self._pool is None:
            with self._opening:
                if self._pool is None:
                    conninfo = engine_conninfo(
                        resolve_dsn(self._dsn), "awa client", connect_timeout=self.settings.connect_timeout
                    )
                    self._pool = ConnectionPool(
                        conninfo,
                        kwargs={"autocommit": True, "row_factory": tuple_row},
                        min_size=self.settings.min_connections,
                        max_size=self.settings.max_connections,
                        name="awa-client",
                        open=True,
                    )
        return self._pool

    def _reason(self) -> str:
        """Why the pool had no connection, which the pool does not say."""
        try:
            with psycopg.connect(engine_conninfo(resolve_dsn(self._dsn), "awa client", connect_timeout=2.0)):
                return f"all {self.settings.max_connections} connections of the pool are in use"
        except psycopg.Error as cause:
            return str(cause).strip()


def _without_unique(planned: Iterator[PlannedJob]) -> Iterator[PlannedJob]:
    for index, job in enumerate(planned):
        if job.unique is not None:
            raise InvalidJob(f"jobs[{index}].unique", "not with COPY yet: use enqueue_many")
        yield job


def _insist(ask: Callable[[], str], what: str) -> str:
    """Ask until the answer is not `busy`: locks are held for a moment."""
    deadline = time.monotonic() + BUSY_FOR
    while (verdict := ask()) == "busy":
        if time.monotonic() > deadline:
            raise JobBusy(f"{what} was locked by something for {BUSY_FOR:g} s: nothing was changed")
        time.sleep(0.01)
    return verdict


_default = Client()


def default_client() -> Client:
    """The client that `task.enqueue` uses: it finds its database in the environment.

    >>> import awa
    >>> awa.default_client() is awa.default_client()
    True
    """
    return _default
