"""What an enqueue will write, decided in Python before the database is asked: one plan for every sink.

A plan row is a tuple, because a COPY of a million jobs makes a million of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from attrs import evolve, frozen

from awa.arguments import MAX_ARGS_BYTES, encode_object
from awa.config import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_PRIORITY,
    DEFAULT_QUEUE,
    MAX_KIND_CHARACTERS,
    MAX_QUEUE_CHARACTERS,
)
from awa.errors import InvalidJob
from awa.job import JobOptions
from awa.unique import Unique, UniqueClaim

MAX_TAGS = 32
MAX_TAG_CHARACTERS = 100
SMALLINT_MAX = 32767


class Route(NamedTuple):
    """Which lane a job goes to."""

    queue: str
    priority: int


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

    def plan(self, args: object, now: datetime) -> PlannedJob:
        """Plan one job with these options."""
        text = encode_object(args, max_bytes=self.max_args_bytes)
        deferred = self.run_at is not None and self.run_at > now
        unique = None if self.unique is None else self.unique.claim(self.kind, self.route.queue, text)
        return PlannedJob(self.route, self.kind, text, self.max_attempts, self.run_at, self.payload, deferred, unique)


def make_template(kind: object, options: JobOptions, *, max_args_bytes: int = MAX_ARGS_BYTES) -> JobTemplate:
    """Validate `kind` and `options`, and fill in the library's defaults.

    Raises:
        InvalidJob: naming the field and its limit.
    """
    return JobTemplate(
        route=Route(
            check_name(DEFAULT_QUEUE if options.queue is None else options.queue, "queue", MAX_QUEUE_CHARACTERS),
            _check_int(DEFAULT_PRIORITY if options.priority is None else options.priority, "priority", 1, 4),
        ),
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


def merge_options(base: JobOptions, over: JobOptions | None) -> JobOptions:
    """`base` with whatever `over` sets."""
    if over is None:
        return base
    given = {name: value for name in _OPTION_NAMES if (value := getattr(over, name)) not in (None, ())}
    return evolve(base, **given) if given else base


def check_name(value: object, field: str, max_characters: int) -> str:
    """A queue's or a kind's name.

    >>> check_name("email", "queue", 200)
    'email'
    """
    if not isinstance(value, str):
        raise InvalidJob(field, f"must be text, not {type(value).__name__}")
    if not value:
        raise InvalidJob(field, "must not be empty")
    if len(value) > max_characters:
        raise InvalidJob(field, f"{len(value)} characters, the limit is {max_characters}")
    _check_plain(value, field)
    return value


_OPTION_NAMES = ("queue", "priority", "max_attempts", "run_at", "tags", "metadata", "unique")


def _check_unique(value: object) -> Unique | None:
    if value is not None and not isinstance(value, Unique):
        raise InvalidJob("unique", f"must be an awa.Unique, not {type(value).__name__}")
    return value


def _check_plain(value: str, field: str) -> None:
    if not value.isprintable():
        raise InvalidJob(field, "contains control or unprintable characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidJob(field, "contains a lone surrogate") from None


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
