"""Enqueueing on a connection of another driver: the statement and its parameters, for the caller to execute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple, get_args

from awa.arguments import encode_object
from awa.errors import ConfigurationError, InvalidJob
from awa.job import JobOptions, given
from awa.partitions import AnyQueue
from awa.plan import key_hash_of, make_template, merge_options
from awa.task import Task

ParamStyle = Literal["numeric_dollar", "format", "qmark", "named"]
"""How a driver writes parameters: `$1` (asyncpg), `%s` (psycopg, psycopg2), `?` (JDBC, ODBC), `:kind` (SQLAlchemy text)."""

MAX_UNIQUE_KEY_CHARACTERS: Final = 1000

# In one spelling that every driver leaves alone; `::` is a parameter to some.
_TYPES: Final = {
    "kind": "CAST({} AS text)",
    "args": "CAST({} AS json)",
    "queue": "CAST({} AS text)",
    "priority": "CAST({} AS int4)",
    "max_attempts": "CAST({} AS int4)",
    # By way of text, so that every driver sends a text.
    "run_at": "CAST(CAST({} AS text) AS timestamptz)",
    "tags": "CAST(CAST({} AS text) AS text[])",
    "metadata": "CAST(CAST({} AS text) AS jsonb)",
    "unique_key": "CAST({} AS text)",
}


class Statement(NamedTuple):
    """A statement for another driver. Its one row has one column, the job's id.

    `parameters` are texts and integers: a tuple, and with the style `named` a dictionary.
    """

    text: str
    parameters: Any


def enqueue_sql(
    task_or_kind: Task[..., Any, Any] | str,
    args: object = None,
    *,
    paramstyle: ParamStyle = "numeric_dollar",
    queue: AnyQueue | None = None,
    priority: int | None = None,
    max_attempts: int | None = None,
    run_at: datetime | None = None,
    tags: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    ordering_key: str | bytes | None = None,
    unique_key: str | None = None,
) -> Statement:
    """What enqueues one job when it is executed: a call of `awa.enqueue`, in whatever transaction that happens to be.

    The job has been validated as by `Client.enqueue`. Jobs that differ only in values have one text, which may be prepared.

    Args:
        task_or_kind, args, queue, priority, max_attempts, run_at, tags, metadata: as for `Client.enqueue`.
        ordering_key: chooses the partition of an `awa.PartitionedQueue`; of a queue's enqueue shards SQL takes the first.
        paramstyle: `numeric_dollar` for asyncpg, `format` for psycopg2, `qmark` for JDBC and ODBC, `named` for SQLAlchemy.
        unique_key: at most one unfinished job of the kind has it; the statement returns the id of the job that does.

    Raises:
        InvalidJob: names the field and the limit.
        ConfigurationError: there is no such `paramstyle`.

    >>> enqueue_sql("send_email", {"to": "ada"}, queue="mail", paramstyle="qmark").parameters
    ('send_email', '{"to":"ada"}', 'mail', 2, 25)
    """
    if paramstyle not in get_args(ParamStyle):
        raise ConfigurationError(f"paramstyle must be one of {', '.join(get_args(ParamStyle))}, not {paramstyle!r}")
    kind: object = task_or_kind
    options = JobOptions(
        queue=given(queue),
        priority=priority,
        max_attempts=max_attempts,
        run_at=run_at,
        tags=tags,
        metadata=metadata,
        ordering_key=given(ordering_key),
    )
    if isinstance(task_or_kind, Task):
        kind, options = task_or_kind.kind, merge_options(task_or_kind.defaults, options)
    if options.unique is not None:
        raise InvalidJob("unique", "is for the client's own statements: pass unique_key")
    key_hash = key_hash_of(options.ordering_key)
    job = make_template(kind, options).plan({} if args is None else args, datetime.now(UTC), key_hash)
    values: dict[str, object] = {
        "kind": job.kind,
        "args": job.args,
        "queue": job.route.queue,
        "priority": job.route.priority,
        "max_attempts": job.max_attempts,
        "run_at": None if job.run_at is None else job.run_at.isoformat(),
        "tags": _array(options.tags) if options.tags else None,
        "metadata": encode_object(options.metadata, "metadata") if options.metadata else None,
        "unique_key": _check_key(unique_key),
    }
    present = {name: value for name, value in values.items() if value is not None}
    passed = [f"{name} => {_TYPES[name].format(_mark(paramstyle, n, name))}" for n, name in enumerate(present, 1)]
    return Statement(
        f"SELECT awa.enqueue({', '.join(passed)}) AS job_id", present if paramstyle == "named" else tuple(present.values())
    )


def _mark(paramstyle: ParamStyle, number: int, name: str) -> str:
    match paramstyle:
        case "numeric_dollar":
            return f"${number}"
        case "format":
            return "%s"
        case "qmark":
            return "?"
        case "named":
            return f":{name}"


def _array(texts: Sequence[str]) -> str:
    """A text[] as PostgreSQL writes it."""
    return "{" + ",".join('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in texts) + "}"


def _check_key(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidJob("unique_key", f"must be text, not {type(value).__name__}")
    if not 1 <= len(value) <= MAX_UNIQUE_KEY_CHARACTERS:
        raise InvalidJob("unique_key", f"{len(value)} characters: must have 1 to {MAX_UNIQUE_KEY_CHARACTERS}")
    if "\x00" in value:
        raise InvalidJob("unique_key", "contains NUL (\\x00), which PostgreSQL text cannot hold")
    return value
