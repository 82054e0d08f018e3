"""What an enqueue will write, decided in Python before the database is asked: one plan for every sink.

A plan row is a tuple, because a COPY of a million jobs makes a million of them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import count
from typing import Any, NamedTuple

from attrs import evolve, field, frozen

from awa.arguments import MAX_ARGS_BYTES, encode_object
from awa.config import DEFAULT_MAX_ATTEMPTS, DEFAULT_PRIORITY, DEFAULT_QUEUE
from awa.errors import InvalidJob
from awa.job import UNSET, JobOptions
from awa.keys import check_ordering_key, partition_of_hash
from awa.names import MAX_KIND_CHARACTERS, MAX_QUEUE_CHARACTERS, check_name
from awa.partitions import PartitionedQueue
from awa.unique import Unique, UniqueClaim

MAX_TAGS = 32
MAX_TAG_CHARACTERS = 100
SMALLINT_MAX = 32767


class Route(NamedTuple):
    """Which lane a job goes to. The shard is 0 until the number of the queue's shards is known."""

    queue: str
    priority: int
    shard: int = 0


class PlannedJob(NamedTuple):
    """A row to be."""

    route: Route
    kind: str
    args: str  # JSON text
    max_attempts: int
    run_at: datetime | None  # None: now
    payload: str | None  # JSON text
    deferred: bool
    unique: UniqueClaim | None = None
    key_hash: int | None = None  # of the ordering key; None: it has none


@frozen
class JobTemplate:
    """Validated options: all of a planned job but its arguments. Made once per batch."""

    route: Route
    kind: str
    max_attempts: int
    run_at: datetime | None
    payload: str | None
    max_args_bytes: int
    unique: Unique | None = None
    partitions: tuple[Route, ...] = ()  # of a partitioned queue, whose `route` is that of its partition 0
    turn: Iterator[int] = field(default=iter(()), eq=False, repr=False)  # of its partitions, for jobs without a key

    def plan(self, args: object, now: datetime, key_hash: int | None = None) -> PlannedJob:
        """Plan one job with these options and the ordering key of that hash.

        Raises:
            InvalidJob: naming the field and its limit.
        """
        text = encode_object(args, max_bytes=self.max_args_bytes)
        deferred = self.run_at is not None and self.run_at > now
        # By the logical queue: which partition a job lands in is not what makes it another job.
        unique = None if self.unique is None else self.unique.claim(self.kind, self.route.queue, text)
        route = self.route
        if self.partitions:
            n = len(self.partitions)
            route = self.partitions[next(self.turn) % n if key_hash is None else partition_of_hash(key_hash, n)]
        return PlannedJob(route, self.kind, text, self.max_attempts, self.run_at, self.payload, deferred, unique, key_hash)


def make_template(kind: object, options: JobOptions, *, max_args_bytes: int = MAX_ARGS_BYTES) -> JobTemplate:
    """Validate `kind` and `options`, and fill in the library's defaults.

    Raises:
        InvalidJob: naming the field and its limit.
    """
    queue: object = options.queue if options.names_queue else DEFAULT_QUEUE
    names = queue.physical_queues if isinstance(queue, PartitionedQueue) else (_check_queue(queue),)
    priority = _check_int(DEFAULT_PRIORITY if options.priority is None else options.priority, "priority", 1, 4)
    routes = tuple(Route(name, priority) for name in names)
    return JobTemplate(
        route=routes[0],
        partitions=routes if len(routes) > 1 else (),
        # From a partition by chance: producers that live for one job each shall not all begin with the same.
        turn=count(random.randrange(len(routes))) if len(routes) > 1 else iter(()),
        kind=check_name(kind, "kind", MAX_KIND_CHARACTERS),
        max_attempts=_check_int(
            DEFAULT_MAX_ATTEMPTS if options.max_attempts is None else options.max_attempts,
            "max_attempts",
            1,
            SMALLINT_MAX,
        ),
        run_at=_check_run_at(options.run_at),
        payload=_encode_payload(options.tags, options.metadata, max_args_bytes),
        max_args_bytes=max_args_bytes,
        unique=_check_unique(options.unique),
    )


def key_hash_of(ordering_key: object) -> int | None:
    """The hash of a job's ordering key, or None when it has none.

    Raises:
        InvalidJob: it is no key.
    """
    return None if ordering_key is None or ordering_key is UNSET else check_ordering_key(ordering_key)


def merge_options(base: JobOptions, over: JobOptions | None) -> JobOptions:
    """`base` with whatever `over` sets, and without what it clears."""
    if over is None:
        return base
    given = {name: value for name in _OPTION_NAMES if (value := getattr(over, name)) not in (None, ())}
    for name in ("queue", "ordering_key"):
        if (value := getattr(over, name)) is not UNSET:
            given[name] = UNSET if value is None else value
    return evolve(base, **given) if given else base


_OPTION_NAMES = ("priority", "max_attempts", "run_at", "tags", "metadata", "unique")


def _check_queue(value: object) -> str:
    return check_name(value, "queue", MAX_QUEUE_CHARACTERS)


def _check_unique(value: object) -> Unique | None:
    if value is not None and not isinstance(value, Unique):
        raise InvalidJob("unique", f"must be an awa.Unique, not {type(value).__name__}")
    return value


def _check_int(value: object, field: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidJob(field, f"must be an integer, not {type(value).__name__}")
    if not low <= value <= high:
        raise InvalidJob(field, f"must be between {low} and {high}, not {value}")
    return int(value)


def _check_run_at(value: object) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidJob("run_at", f"must be a datetime, not {type(value).__name__}")
    if value.tzinfo is None:
        raise InvalidJob("run_at", "must carry a time zone, as datetime.now(UTC) does")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise InvalidJob("run_at", f"{value} has no UTC equivalent between the years 1 and 9999") from None


def _encode_payload(tags: tuple[str, ...], metadata: Mapping[str, Any] | None, max_bytes: int) -> str | None:
    if len(tags) > MAX_TAGS:
        raise InvalidJob("tags", f"{len(tags)} tags, the limit is {MAX_TAGS}")
    for index, tag in enumerate(tags):
        check_name(tag, f"tags[{index}]", MAX_TAG_CHARACTERS)
    parts = []
    if tags:
        parts.append(f'"tags":{json.dumps(tags, ensure_ascii=False)}')
    if metadata:
        parts.append(f'"metadata":{encode_object(metadata, "metadata", max_bytes=max_bytes)}')
    return "{" + ",".join(parts) + "}" if parts else None
