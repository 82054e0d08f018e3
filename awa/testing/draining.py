"""drain: run what is enqueued, here and now."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from awa import events
from awa.claim import Claim, ClaimedRow
from awa.client import Client, default_client
from awa.clock import moved_now, seconds_ahead
from awa.errors import AwaError, ConfigurationError
from awa.partitions import AnyQueue, PartitionedQueue, physical_queues
from awa.testing.attempts import Attempts, Ran
from awa.testing.claimed import ClaimedJobs
from awa.testing.own import OwnJobs
from awa.testing.summary import Drained, DrainedJob

MAX_ATTEMPTS: Final = 10_000
"""Attempts that a drain without a limit runs before it suspects that jobs enqueue themselves."""
_ALL_TIME: Final = datetime(9999, 12, 31, tzinfo=UTC)


class Source(Protocol):
    """Where a drain takes jobs from, and where it records how they ended."""

    def promote(self, now: datetime | None) -> None:
        """Make due what is due at `now`; None is the server's clock."""

    def take(self) -> tuple[Claim, int, ClaimedRow] | None:
        """The next job."""

    def run(self, attempts: Attempts, claim: Claim, item: int, row: ClaimedRow) -> Ran:
        """Run it."""

    def record(self, ran: Ran, ahead: float) -> str:
        """Record its ending, delays counted from a clock that is so many seconds ahead; the job's state then."""

    def close(self) -> None:
        """That was all."""


def drain(
    *,
    client: Client | None = None,
    connection: Any = None,
    queue: AnyQueue | Iterable[AnyQueue] | None = None,
    limit: int | None = None,
    with_scheduled: bool = False,
    raises: bool = True,
) -> Drained:
    """Run the enqueued jobs in this thread until none is left, as a worker would: same handlers, decoding and endings.

    With `client` (or neither: the default client) the jobs of its database are claimed and ended by the engine, and
    committed. With `connection` only the jobs that the connection's open transaction has enqueued itself are run, and their
    endings are part of that transaction: rolling it back undoes everything, committing it keeps everything. Jobs that were
    committed before are not touched. `ctx.transaction()` is a savepoint there, and so is each attempt: what a handler's
    failed statement broke is undone.

    Jobs that handlers enqueue are run too. What is put off during the drain waits for the next one, or for a moved
    `awa.testing.Clock`. Timeouts are not enforced: the handler runs in the calling thread. Paused queues are left alone.

    Args:
        client: whose database.
        connection: what `Client.enqueue` takes, in a transaction: of psycopg, a Django alias, a SQLAlchemy session.
        queue: one, several, or all queues; of a `PartitionedQueue` all its partitions.
        limit: attempts to run; without one a drain gives up after 10 000.
        with_scheduled: makes everything due first that waits for its time, retries included, whenever that is.
        raises: raise the first exception of a handler, after it has been recorded. What a handler says with `Retry`,
            `Snooze`, `Cancel` or `Fail` is no exception in this sense.

    Raises:
        UnknownKind: no task of this process has a job's kind (with `raises`).
        ConfigurationError: both `client` and `connection`, or a connection without a transaction.
        IsolationError: the connection's transaction is not READ COMMITTED.
        AwaError: 10 000 attempts and no end.

    >>> import awa
    >>> from awa.testing import drain
    >>> @awa.task(queue="docs")
    ... def greet(name: str) -> None:
    ...     print(f"hello {name}")
    >>> _ = greet.options(client=client).enqueue("Ada")
    >>> drain(client=client, queue="docs").completed
    hello Ada
    1
    """
    __tracebackhide__ = True
    if client is not None and connection is not None:
        raise ConfigurationError("drain takes a client or a connection, not both")
    if limit is not None and limit < 1:
        raise ConfigurationError(f"limit must be positive, not {limit}")
    given = [queue] if isinstance(queue, str | PartitionedQueue) else queue
    queues = None if given is None else [name for one in given for name in physical_queues(one)]
    source: Source
    if connection is not None:
        source = OwnJobs(connection, queues)
    else:
        source = ClaimedJobs(default_client() if client is None else client, queues)
    attempts = Attempts()
    try:
        return _run(source, attempts, limit, with_scheduled=with_scheduled, raises=raises)
    finally:
        attempts.close()
        source.close()


def _run(source: Source, attempts: Attempts, limit: int | None, *, with_scheduled: bool, raises: bool) -> Drained:
    __tracebackhide__ = True
    done: list[DrainedJob] = []
    if with_scheduled:
        source.promote(_ALL_TIME)
    while limit is None or len(done) < limit:
        if limit is None and len(done) >= MAX_ATTEMPTS:
            kinds = ", ".join(sorted({job.kind for job in done[-100:]}))
            raise AwaError(f"{MAX_ATTEMPTS:,} attempts and no end: does {kinds} enqueue itself? Pass limit=")
        source.promote(moved_now())
        taken = source.take()
        if taken is None:
            break
        ran = source.run(attempts, *taken)
        state = source.record(ran, seconds_ahead())
        job = ran.job
        done.append(DrainedJob(id=job.id, kind=job.kind, queue=job.queue, attempt=job.attempt, state=state, error=ran.error))
        if events.listeners:
            events.emit(events.completed(job) if ran.ending is None else events.ended(job, ran.ending))
        if raises and ran.surprise is not None:
            raise ran.surprise
    return Drained(tuple(done))
