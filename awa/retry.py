"""When a failed attempt is tried again."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from attrs import Attribute, field, frozen

from awa.errors import ConfigurationError
from awa.outcome import MAX_DELAY, check_delay

log = logging.getLogger("awa.worker")


def _seconds(instance: object, attribute: Attribute[Any], value: float) -> None:
    check_delay(value, attribute.name)


def _factor(instance: object, attribute: Attribute[Any], value: float) -> None:
    if not 1 <= value <= 100:
        raise ConfigurationError(f"factor must be between 1 and 100, not {value!r}")


def _share(instance: object, attribute: Attribute[Any], value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigurationError(f"jitter must be between 0 and 1, not {value!r}")


@frozen
class Backoff:
    """Delays that grow: `base * factor ** (attempt - 1)` seconds up to `cap`, give or take the share `jitter`.

    Args:
        base: seconds after the first attempt.
        cap: seconds at the most, before the jitter.
        factor: by which the delay grows with every attempt.
        jitter: 0 to 1; jobs that failed together should not come back together.

    >>> Backoff(base=2, cap=60, jitter=0).delay(4)
    16.0
    """

    base: float = field(default=1.0, validator=_seconds)
    cap: float = field(default=3600.0, validator=_seconds)
    factor: float = field(default=2.0, validator=_factor)
    jitter: float = field(default=0.25, validator=_share)

    def delay(self, attempt: int) -> float:
        """Seconds until the next try after attempt number `attempt`, which counts from 1."""
        if self.base == 0:
            return 0.0
        try:
            grown = self.base * self.factor ** (attempt - 1)
        except OverflowError:
            grown = self.cap
        return float(min(self.cap, grown)) * random.uniform(1 - self.jitter, 1 + self.jitter)


DelayFunction = Callable[[int, BaseException], float | None]
RetryPolicy = Backoff | Sequence[float] | DelayFunction | Literal[False]
"""A backoff, a table of seconds (the last is repeated), a function of attempt and error (None: no other try), or False."""

DEFAULT_BACKOFF = Backoff()


def check_policy(policy: object, field_name: str) -> None:
    """Refuse at import what would surprise at the first failure.

    Raises:
        ConfigurationError: no policy.
    """
    if policy is False or isinstance(policy, Backoff) or callable(policy):
        return
    if isinstance(policy, Sequence) and not isinstance(policy, str) and policy:
        for index, seconds in enumerate(policy):
            check_delay(seconds, f"{field_name}[{index}]")
        return
    raise ConfigurationError(
        f"{field_name} must be a Backoff, a list of seconds, a function of attempt and error, or False, not {policy!r}"
    )


def resolve_delay(
    policy: RetryPolicy | None,
    per_exception: Mapping[type[BaseException], RetryPolicy],
    attempt: int,
    error: BaseException,
) -> float | None:
    """Seconds until the next try, or None for no other try.

    Args:
        policy: the task's; `None` is `Backoff()`.
        per_exception: the entry of the error's most specific class wins over `policy`.
        attempt: the one that failed, from 1.
        error: what it raised.

    >>> resolve_delay([1, 5], {}, 7, ValueError())
    5.0
    >>> resolve_delay(None, {LookupError: False}, 1, KeyError()) is None
    True
    """
    for cls in type(error).__mro__:
        if cls in per_exception:
            policy = per_exception[cls]
            break
    if policy is False:
        return None
    if policy is None:
        return DEFAULT_BACKOFF.delay(attempt)
    if isinstance(policy, Backoff):
        return policy.delay(attempt)
    if isinstance(policy, Sequence):
        return float(policy[min(attempt, len(policy)) - 1])
    try:
        seconds = policy(attempt, error)
        return None if seconds is None else min(max(0.0, check_delay(seconds, "retry")), MAX_DELAY)
    except Exception:
        log.exception("a retry policy failed on attempt %d: the default backoff is taken", attempt)
        return DEFAULT_BACKOFF.delay(attempt)
