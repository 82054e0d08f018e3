"""Enqueueing: one job, a batch, a COPY. Options are validated and jobs planned here; `awa.client.appending` writes them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from datetime import datetime
from inspect import isgenerator
from typing import Any, Final, Literal, overload

from awa.client.appending import Appending
from awa.clock import utc_now
from awa.connections import AnyConnection
from awa.errors import InvalidJob
from awa.job import UNSET, JobOptions, NewJob, given
from awa.partitions import AnyQueue
from awa.plan import JobTemplate, PlannedJob, key_hash_of, make_template, merge_options
from awa.shapes import Opts, Shapes, with_options
from awa.task import Task
from awa.unique import Unique

MAX_TEMPLATES: Final = 1000
"""Shapes of jobs whose validation is remembered."""


class Enqueueing(Appending):
    """The ways in."""

    def enqueue(
        self,
        task_or_kind: Task[..., Any, Any] | str,
        args: object = None,
        *,
        queue: AnyQueue | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        run_at: datetime | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        unique: Unique | None = None,
        ordering_key: str | bytes | None = None,
        connection: AnyConnection = None,
    ) -> int:
        """Enqueue one job and return its id. Without `connection` it is committed when this returns.

        A job whose unique key is taken returns the holder's id with `on_conflict="return_existing"`, and with `"skip"` 0,
        which is no job's id.

        Args:
            task_or_kind: a task, or a kind as text for a task this process does not import.
            args: a JSON object: a mapping, an attrs or a dataclass instance; `None` is an empty one.
            queue: 1 to 200 characters, or a `PartitionedQueue`; the task's, then "default".
            priority: 1 (first) to 4.
            max_attempts: counted attempts before the job has failed, 1 to 32767.
            run_at: not before this instant (with a time zone); the past is now.
            tags: up to 32 labels of up to 100 characters.
            metadata: a JSON object that travels with the job.
            unique: at most one job of a key at a time; see `awa.Unique`.
            ordering_key: text or bytes, up to 1024 bytes. Jobs of one key go to one partition and one shard, where they are
                claimed in their order; in a queue that has neither it does nothing.
            connection: yours: a psycopg connection or cursor, a Django alias or connection, a SQLAlchemy session or
                connection on psycopg. The job commits or rolls back with its transaction, which is neither committed nor
                altered; see `awa.connections.unwrap_connection`.

        Raises:
            InvalidJob: refused before the database saw it; names the field and the limit.
            TypeError: `connection` is none of those.
            UnusableConnection: it is closed or busy, or its transaction has failed.
            UniqueConflict: another job has the unique key; nothing was enqueued.
            SchemaOutOfDate: run `awa migrate`.
            DatabaseUnavailable: no connection in time.

        >>> client.enqueue("send_email", {"to": "ada@example.com"}, priority=1) > 0
        True
        """
        options = JobOptions(
            queue=given(queue),
            priority=priority,
            max_attempts=max_attempts,
            run_at=run_at,
            tags=tags,
            metadata=metadata,
            unique=unique,
            ordering_key=given(ordering_key),
        )
        template = self._template(task_or_kind, options)
        job = template.plan({} if args is None else args, utc_now(), key_hash_of(options.ordering_key))
        return self._append([job], connection)[0]

    def enqueue_many(
        self,
        jobs: Iterable[object],
        *,
        kind: Task[..., Any, Any] | str | None = None,
        queue: AnyQueue | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        run_at: datetime | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        unique: Unique | None = None,
        ordering_key: str | bytes | None = None,
        opts: Opts | None = None,
        connection: AnyConnection = None,
    ) -> list[int]:
        """Enqueue a batch in one statement, all or nothing, and return its ids in order.

        Args:
            jobs: arguments (JSON objects), or `NewJob` where one differs from the batch.
            kind: of all jobs that do not bring their own.
            opts: options of each job: a function of what `jobs` holds, or an iterable beside `jobs` with one for each;
                `JobOptions` or None. A `NewJob` that brings options keeps its own.
            queue, priority, max_attempts, run_at, tags, metadata, unique, ordering_key, connection: as for `enqueue`.

        Raises:
            InvalidJob, UniqueConflict, SchemaOutOfDate, DatabaseUnavailable: as for `enqueue`; nothing was enqueued.

        >>> len(client.enqueue_many([{"n": 1}, {"n": 2}], kind="count"))
        2
        """
        options = JobOptions(
            queue=given(queue),
            priority=priority,
            max_attempts=max_attempts,
            run_at=run_at,
            tags=tags,
            metadata=metadata,
            unique=unique,
            ordering_key=given(ordering_key),
        )
        planned = list(self._plan_many(jobs, kind, options, opts))
        return self._append(planned, connection) if planned else []

    @overload
    def enqueue_many_copy(
        self,
        jobs: Iterable[object],
        *,
        kind: Task[..., Any, Any] | str | None = None,
        queue: AnyQueue | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        run_at: datetime | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        unique: Unique | None = None,
        ordering_key: str | bytes | None = None,
        opts: Opts | None = None,
        connection: AnyConnection = None,
        progress: Callable[[int], object] | None = None,
        return_ids: Literal[False] = False,
    ) -> int: ...

    @overload
    def enqueue_many_copy(
        self,
        jobs: Iterable[object],
        *,
        kind: Task[..., Any, Any] | str | None = None,
        queue: AnyQueue | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        run_at: datetime | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        unique: Unique | None = None,
        ordering_key: str | bytes | None = None,
        opts: Opts | None = None,
        connection: AnyConnection = None,
        progress: Callable[[int], object] | None = None,
        return_ids: Literal[True],
    ) -> array[int]: ...

    @overload
    def enqueue_many_copy(
        self,
        jobs: Iterable[object],
        *,
        kind: Task[..., Any, Any] | str | None = None,
        queue: AnyQueue | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        run_at: datetime | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        unique: Unique | None = None,
        ordering_key: str | bytes | None = None,
        opts: Opts | None = None,
        connection: AnyConnection = None,
        progress: Callable[[int], object] | None = None,
        return_ids: bool = False,
    ) -> int | array[int]: ...

    def enqueue_many_copy(
        self,
        jobs: Iterable[object],
        *,
        kind: Task[..., Any, Any] | str | None = None,
        queue: AnyQueue | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        run_at: datetime | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        unique: Unique | None = None,
        ordering_key: str | bytes | None = None,
        opts: Opts | None = None,
        connection: AnyConnection = None,
        progress: Callable[[int], object] | None = None,
        return_ids: bool = False,
    ) -> int | array[int]:
        """Enqueue any number of jobs through COPY, all or nothing, and return how many.

        Memory does not grow with the number of jobs: `jobs` is read as it is written, a few thousand at a time at the most.
        The ids, where they are wanted, come as an `array('q')`: eight bytes a job, by the place of the job.

        A job whose unique key is taken is not counted; its id is the holder's with `on_conflict="return_existing"`, and with
        `"skip"` 0. `"replace"` takes 5,000 jobs at the most, and no connection of yours.

        Args:
            jobs: any iterable, as for `enqueue_many`.
            kind, queue, priority, max_attempts, run_at, tags, metadata, unique, ordering_key, opts, connection: as for
                `enqueue_many`.
            progress: called with the number of jobs written so far, every few thousand.
            return_ids: return the jobs' ids instead of their number.

        Raises:
            InvalidJob, UniqueConflict, SchemaOutOfDate, DatabaseUnavailable: as for `enqueue`; nothing was enqueued.

        >>> client.enqueue_many_copy(({"n": n} for n in range(5000)), kind="count", queue="bulk")
        5000
        >>> len(client.enqueue_many_copy([{"n": 1}, {"n": 2}], kind="count", queue="bulk", return_ids=True))
        2
        """
        options = JobOptions(
            queue=given(queue),
            priority=priority,
            max_attempts=max_attempts,
            run_at=run_at,
            tags=tags,
            metadata=metadata,
            unique=unique,
            ordering_key=given(ordering_key),
        )
        copied = self._append_copy(self._plan_many(jobs, kind, options, opts), connection, progress, with_ids=return_ids)
        return copied.count if copied.ids is None else copied.ids

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
        self,
        jobs: Iterable[object],
        kind: Task[..., Any, Any] | str | None,
        options: JobOptions,
        opts: Opts | None = None,
    ) -> Generator[PlannedJob, None, None]:
        batch = None if kind is None else self._template(kind, options)
        now = utc_now()
        shapes = Shapes(self._template, options)
        key_hash = key_hash_of(options.ordering_key)
        for index, job in enumerate(jobs if opts is None else with_options(jobs, opts)):
            try:
                if not isinstance(job, NewJob):
                    if batch is None:
                        raise InvalidJob("kind", "is missing: pass kind=, or NewJob with a kind each")
                    yield batch.plan(job, now, key_hash)
                    continue
                own, own_kind = job.options, kind if job.kind is None else job.kind
                if own_kind is None:
                    raise InvalidJob("kind", "is missing, and the batch has none")
                own_hash = key_hash if own is None or own.ordering_key is UNSET else key_hash_of(own.ordering_key)
                yield shapes.template(own_kind, own).plan(job.args, now, own_hash)
            except InvalidJob as error:
                raise InvalidJob(f"jobs[{index}].{error.field}", error.reason) from error
            except GeneratorExit:
                # The call has failed, and what its source is in the middle of may keep the connection from a rollback.
                if isgenerator(jobs):
                    jobs.close()
                raise
