"""Settings, grouped by who reads them, each default written once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import Attribute, field, frozen

from awa.arguments import MAX_ARGS_BYTES
from awa.errors import ConfigurationError
from awa.names import MAX_QUEUE_CHARACTERS
from awa.partitions import AnyQueue, expand_queues, physical_queues

DEFAULT_QUEUE: Final = "default"
DEFAULT_PRIORITY: Final = 2
DEFAULT_MAX_ATTEMPTS: Final = 25


def _positive(instance: object, attribute: Attribute[Any], value: float) -> None:
    if not value > 0:
        raise ConfigurationError(f"{attribute.name} must be positive, not {value!r}")


def _not_negative(instance: object, attribute: Attribute[Any], value: float) -> None:
    if not value >= 0:
        raise ConfigurationError(f"{attribute.name} must not be negative, not {value!r}")


def _queue(instance: object, attribute: Attribute[Any], value: AnyQueue) -> None:
    if isinstance(value, str) and not 1 <= len(value) <= MAX_QUEUE_CHARACTERS:
        raise ConfigurationError(f"{attribute.name} {value!r}: a queue's name has 1 to {MAX_QUEUE_CHARACTERS} characters")


def _queues(instance: object, attribute: Attribute[Mapping[str, int]], value: Mapping[str, int]) -> None:
    if not value:
        raise ConfigurationError("a worker needs at least one queue, as in {'default': 10}")
    for queue, concurrency in value.items():
        if not queue or len(queue) > MAX_QUEUE_CHARACTERS:
            raise ConfigurationError(f"queue {queue!r}: a name has 1 to {MAX_QUEUE_CHARACTERS} characters")
        if not isinstance(concurrency, int) or not 1 <= concurrency <= 10_000:
            raise ConfigurationError(f"queue {queue!r}: concurrency must be between 1 and 10000, not {concurrency!r}")


def _claimable(instance: object, attribute: Attribute[Any], value: int) -> None:
    if not 1 <= value <= 32767:
        raise ConfigurationError(f"{attribute.name} must be between 1 and 32767, not {value!r}")


def _expand_timeouts(timeouts: Mapping[AnyQueue, float]) -> Mapping[str, float]:
    return {name: seconds for queue, seconds in timeouts.items() for name in physical_queues(queue)}


def _timeouts(instance: object, attribute: Attribute[Any], value: Mapping[str, float]) -> None:
    for queue, seconds in value.items():
        if not seconds > 0:
            raise ConfigurationError(f"timeouts[{queue!r}] must be positive, not {seconds!r}")


def _optional_positive(instance: object, attribute: Attribute[Any], value: float | None) -> None:
    if value is not None and not value > 0:
        raise ConfigurationError(f"{attribute.name} must be positive, not {value!r}")


@frozen(kw_only=True)
class ClientSettings:
    """How a client connects and what it lets through."""

    min_connections: int = field(default=1, validator=_not_negative)
    max_connections: int = field(default=8, validator=_positive)
    connect_timeout: float = field(default=10.0, validator=_positive)  # seconds, for a connection from the pool too
    max_args_bytes: int = field(default=MAX_ARGS_BYTES, validator=_positive)


@frozen(kw_only=True)
class WorkerSettings:
    """How a worker process claims, runs and completes."""

    queues: Mapping[str, int] = field(converter=expand_queues, validator=_queues)  # name -> jobs at a time
    poll_every: float = field(default=1.0, validator=_positive)  # seconds, when notifications say nothing
    stop_timeout: float = field(default=30.0, validator=_not_negative)  # seconds running jobs get to finish
    claim_limit: int = field(default=1000, validator=_claimable)  # jobs per claim
    claim_spacing: float = field(default=0.005, validator=_positive)  # seconds after a claim that found the queue's end
    prefetch_span: float = field(default=0.1, validator=_not_negative)  # seconds of work to hold ready
    flush_limit: int = field(default=1000, validator=_positive)  # finished jobs that end the wait for more
    flush_after: float = field(default=0.005, validator=_positive)  # seconds a finished job waits for others
    promote_every: float = field(default=0.1, validator=_positive)  # seconds between looks at due deferred jobs
    promote_limit: int = field(default=2000, validator=_positive)
    beat_every: float = field(default=2.0, validator=_positive)  # seconds
    stale_after: float = field(default=10.0, validator=_positive)  # seconds without a beat until a worker counts as dead
    leader_ttl: float = field(default=3.0, validator=_positive)  # seconds until another leads when the leader is gone
    rescue_every: float = field(default=1.0, validator=_positive)  # seconds between looks for the dead and the late
    rotate_every: float = field(default=1.0, validator=_positive)  # seconds between looks whether a slot is full
    prune_every: float = field(default=0.5, validator=_positive)  # seconds between looks whether one may be emptied
    timeouts: Mapping[str, float] = field(factory=dict, converter=_expand_timeouts, validator=_timeouts)  # queue -> seconds
    hard_stop_after: float = field(default=10.0, validator=_positive)  # seconds between telling a handler and giving it up
    max_jobs: int | None = field(default=None, validator=_optional_positive)  # after which the process stops
    max_memory: float | None = field(default=None, validator=_optional_positive)  # MiB resident, the same
    drain: bool = False  # stop when the queues are empty
    probe_every: float = field(default=15.0, validator=_positive)  # seconds between self-probes of LISTEN
    unknown_kind_delay: float = field(default=30.0, validator=_positive)  # seconds until the next try
    default_queue: AnyQueue = field(default=DEFAULT_QUEUE, validator=_queue)  # of follow-up jobs that name none
    durable_claims: bool = False  # True: a claim waits for its WAL flush, too
