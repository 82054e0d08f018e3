"""How a handler says that its attempt did not simply succeed: raised or returned."""

from __future__ import annotations

import math
from typing import Final

from awa.errors import ConfigurationError

MAX_DELAY: Final = 10 * 365 * 86400.0
"""Seconds that a job may be put off: ten years."""


class Outcome(Exception):
    """What a handler says of its attempt; may be raised or returned."""


class Retry(Outcome):
    """The attempt failed; try again. It counts, and the last one is the last.

    Args:
        after: seconds until the next try; `None` leaves it to the task's policy.
        reason: kept with the job's errors.

    >>> raise Retry(after=30, reason="the service is busy")
    Traceback (most recent call last):
    awa.outcome.Retry: the service is busy
    """

    def __init__(self, after: float | None = None, reason: str = "") -> None:
        self.after = None if after is None else check_delay(after, "after")
        self.reason = reason
        super().__init__(reason or "the handler asked for another try")


class Snooze(Outcome):
    """Not now; the attempt does not count.

    Args:
        seconds: until the next try.

    >>> Snooze(300).seconds
    300.0
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = check_delay(seconds, "seconds")
        super().__init__(f"not before {seconds:g} s from now")


class Cancel(Outcome):
    """Nobody wants the job any more: it ends as cancelled.

    >>> str(Cancel("the order was withdrawn"))
    'the order was withdrawn'
    """

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason or "the handler cancelled the job")


class Fail(Outcome):
    """The job cannot succeed: no other try, whatever `max_attempts` says.

    >>> str(Fail("no such address"))
    'no such address'
    """

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason or "the handler gave the job up")


Discard = Fail


class Park(Outcome):
    """The job waits for an answer from outside; `timeout` in seconds, `None` for ever. Raised by `wait_for_callback`."""

    def __init__(self, timeout: float | None) -> None:
        self.timeout = None if timeout is None else check_delay(timeout, "timeout")
        super().__init__("waits for an answer from outside")


def check_delay(value: float, field: str) -> float:
    """A number of seconds that a job may be put off.

    Raises:
        ConfigurationError: not a number between 0 and ten years.

    >>> check_delay(1.5, "after")
    1.5
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigurationError(f"{field} must be a number of seconds, not {value!r}")
    if not 0 <= value <= MAX_DELAY:
        raise ConfigurationError(f"{field} must be between 0 and {MAX_DELAY:.0f} seconds, not {value!r}")
    return float(value)
