"""assert_enqueued: what should wait in the queue, and what waits there instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, get_args

from attrs import frozen

from awa.arguments import as_mapping
from awa.client import Client, default_client
from awa.connections import unwrap_connection
from awa.errors import ConfigurationError
from awa.job import Job, JobState
from awa.migrate import guarded_schema
from awa.partitions import AnyQueue, physical_queues
from awa.storage.jobs import select_jobs
from awa.task import Task

ENQUEUED: Final = ("available", "scheduled", "retryable")
"""The states of jobs that wait to be run."""
SHOWN: Final = 20
"""Jobs that a message lists."""
OTHER_KIND: Final = 100
"""How much farther a job of another kind is than one with another argument."""

TaskOrKind = Task[..., Any, Any] | str
Found = tuple[Job, bool]  # with whether it has a unique key


@frozen(kw_only=True)
class Expected:
    """What a job should be like; None: anything."""

    kind: str | None
    args: Mapping[str, Any] | None
    queue: AnyQueue | None
    priority: int | None
    run_at: datetime | None
    within: float
    tags: Sequence[str]
    unique: bool | None

    def differences(self, found: Found) -> list[tuple[int, str]]:
        """Why a job is another: how far, and in words."""
        job, has_key = found
        reasons: list[tuple[int, str]] = []
        if self.kind is not None and job.kind != self.kind:
            reasons.append((OTHER_KIND, f"kind is {job.kind!r}"))
        if self.args is not None:
            reasons += [(1, reason) for reason in _unlike(self.args, job.args, "args")]
        if self.queue is not None and job.queue not in physical_queues(self.queue):
            reasons.append((1, f"queue is {job.queue!r}"))
        if self.priority is not None and job.priority != self.priority:
            reasons.append((1, f"priority is {job.priority!r}"))
        if self.run_at is not None and (off := abs((job.run_at - self.run_at).total_seconds())) > self.within:
            reasons.append((1, f"run_at is {job.run_at.isoformat()}, {off:g} s off"))
        reasons += [(1, f"tag {tag!r} is missing") for tag in self.tags if tag not in job.tags]
        if self.unique is not None and self.unique != has_key:
            reasons.append((1, "it has a unique key" if has_key else "it has no unique key"))
        return reasons

    def __str__(self) -> str:
        parts = ["any job" if self.kind is None else self.kind]
        if self.args is not None:
            parts.append(f"with args {_short(self.args)}")
        if self.queue is not None:
            parts.append(f"in queue {str(self.queue)!r}")
        if self.priority is not None:
            parts.append(f"with priority {self.priority}")
        if self.run_at is not None:
            parts.append(f"at {self.run_at.isoformat()} (within {self.within:g} s)")
        if self.tags:
            parts.append(f"with tags {list(self.tags)}")
        if self.unique is not None:
            parts.append("with a unique key" if self.unique else "without a unique key")
        return " ".join(parts)


def assert_enqueued(
    task_or_kind: TaskOrKind | None = None,
    *,
    args: object = None,
    queue: AnyQueue | None = None,
    priority: int | None = None,
    run_at: datetime | None = None,
    within: float = 1.0,
    tags: Sequence[str] = (),
    unique: bool | None = None,
    count: int | None = None,
    connection: Any = None,
    client: Client | None = None,
) -> list[Job]:
    """Fail unless a job like this waits to be run; returns those that do, oldest first.

    Args:
        task_or_kind: the task or its kind; `None` is any.
        args: what the arguments must contain: objects may have more keys, all else is compared with `==`.
        queue, priority: equal to these; in any partition of a `PartitionedQueue`.
        run_at: due at this instant, give or take `within` seconds.
        tags: all of these, and perhaps more.
        unique: whether it has a unique key.
        count: exactly so many; without it, at least one.
        connection: look through this connection's transaction, which sees what it has enqueued and not yet committed;
            what `Client.enqueue` takes.
        client: look into this client's database; without either, the default client's.

    Raises:
        AssertionError: none, or not so many; lists what waits, the closest first.

    >>> from awa.testing import assert_enqueued
    >>> _ = client.enqueue("send_welcome", {"to": "ada@example.com", "name": "Ada"}, queue="email")
    >>> [job] = assert_enqueued("send_welcome", args={"name": "Ada"}, client=client)
    >>> job.queue
    'email'
    """
    __tracebackhide__ = True
    expected = _expected(task_or_kind, args, queue, priority, run_at, within, tags, unique)
    found = _look(ENQUEUED, None, connection, client)
    matching = [job for job, has_key in found if not expected.differences((job, has_key))]
    if count is None and matching:
        return matching
    if count is not None and len(matching) == count:
        return matching
    wanted = "at least one" if count is None else str(count)
    number = len(matching) or "none"
    lines = [f"expected {wanted} waiting, found {number}: {expected}", *_listing(expected, found)]
    if not matching and expected.kind is not None:
        lines += _elsewhere(expected, connection, client)
    raise AssertionError("\n".join(lines))


def refute_enqueued(
    task_or_kind: TaskOrKind | None = None,
    *,
    args: object = None,
    queue: AnyQueue | None = None,
    priority: int | None = None,
    run_at: datetime | None = None,
    within: float = 1.0,
    tags: Sequence[str] = (),
    unique: bool | None = None,
    connection: Any = None,
    client: Client | None = None,
) -> None:
    """Fail if a job like this waits to be run. Arguments as for `assert_enqueued`.

    >>> from awa.testing import refute_enqueued
    >>> refute_enqueued("send_goodbye", client=client)
    """
    __tracebackhide__ = True
    expected = _expected(task_or_kind, args, queue, priority, run_at, within, tags, unique)
    found = [pair for pair in _look(ENQUEUED, None, connection, client) if not expected.differences(pair)]
    if found:
        number = "a job waits" if len(found) == 1 else f"{len(found)} jobs wait"
        raise AssertionError("\n".join([f"{number} that should not: {expected}", *_listing(expected, found)]))


def all_enqueued(
    task_or_kind: TaskOrKind | None = None,
    *,
    queue: AnyQueue | None = None,
    connection: Any = None,
    client: Client | None = None,
) -> list[Job]:
    """The jobs that wait to be run, oldest first: all, or those of a task or kind, and of a queue.

    Args:
        task_or_kind, queue, connection, client: as for `assert_enqueued`.

    >>> from awa.testing import all_enqueued
    >>> _ = client.enqueue("send_welcome", {"to": "ada@example.com"}, queue="all")
    >>> [job.args for job in all_enqueued("send_welcome", queue="all", client=client)]
    [{'to': 'ada@example.com'}]
    """
    expected = _expected(task_or_kind, None, queue, None, None, 0, (), None)
    return [job for job, has_key in _look(ENQUEUED, None, connection, client) if not expected.differences((job, has_key))]


def _expected(
    task_or_kind: TaskOrKind | None,
    args: object,
    queue: AnyQueue | None,
    priority: int | None,
    run_at: datetime | None,
    within: float,
    tags: Sequence[str],
    unique: bool | None,
) -> Expected:
    if run_at is not None and run_at.tzinfo is None:
        raise ConfigurationError("run_at must carry a time zone, as datetime.now(UTC) does")
    return Expected(
        kind=task_or_kind.kind if isinstance(task_or_kind, Task) else task_or_kind,
        args=None if args is None else as_mapping(args),
        queue=queue,
        priority=priority,
        run_at=run_at,
        within=within,
        tags=[tags] if isinstance(tags, str) else tags,
        unique=unique,
    )


def _look(states: Sequence[str], kind: str | None, connection: Any, client: Client | None) -> list[Found]:
    if connection is not None:
        if client is not None:
            raise ConfigurationError("pass a client or a connection, not both")
        with guarded_schema():
            return select_jobs(unwrap_connection(connection), states, kind)
    with (client or default_client())._reading() as conn:
        return select_jobs(conn, states, kind)


def _unlike(expected: object, found: object, path: str) -> list[str]:
    """Where `found` lacks what `expected` has."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        reasons: list[str] = []
        for key, value in expected.items():
            if key not in found:
                reasons.append(f"{path}.{key} is missing")
            else:
                reasons += _unlike(value, found[key], f"{path}.{key}")
        return reasons
    if isinstance(expected, list | tuple) and isinstance(found, list) and len(expected) == len(found):
        return [r for n, (e, f) in enumerate(zip(expected, found, strict=True)) for r in _unlike(e, f, f"{path}[{n}]")]
    return [] if expected == found else [f"{path} is {_short(found)}, not {_short(expected)}"]


def _listing(expected: Expected, found: list[Found]) -> list[str]:
    """The jobs that wait, the closest first."""
    if not found:
        return ["nothing is enqueued (what a transaction has not committed is seen with its connection= only)"]
    ranked = sorted(
        (
            (sum(far for far, _ in reasons), job.id, job, reasons)
            for job, has_key in found
            for reasons in [expected.differences((job, has_key))]
        ),
        key=lambda entry: entry[:2],
    )
    lines = [f"enqueued {'is' if len(found) == 1 else 'are'}, the closest first:"]
    for _, _, job, reasons in ranked[:SHOWN]:
        why = "; ".join(reason for _, reason in reasons)
        lines.append(f"  {_described(job)}{f'  <- {why}' if why else ''}")
    if len(found) > SHOWN:
        lines.append(f"  and {len(found) - SHOWN} more")
    return lines


def _elsewhere(expected: Expected, connection: Any, client: Client | None) -> list[str]:
    """Jobs of the kind that run or have ended already."""
    states = [state for state in get_args(JobState) if state not in ENQUEUED]
    found = _look(states, expected.kind, connection, client)
    if not found:
        return []
    lines = [f"of that kind there {'is' if len(found) == 1 else 'are'} too:"]
    return lines + [f"  {_described(job)}" for job, _ in found[-SHOWN:]]


def _described(job: Job) -> str:
    described = f"{job.id} {job.kind} {_short(job.args)} queue={job.queue!r} priority={job.priority} {job.state}"
    if job.state in ENQUEUED:
        described += f" run_at={job.run_at.isoformat(timespec='seconds')}"
    if job.tags:
        described += f" tags={list(job.tags)}"
    return described


def _short(value: object, limit: int = 300) -> str:
    text = repr(dict(value)) if isinstance(value, Mapping) else repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
