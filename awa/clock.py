"""What time it is for this process: the machine's time, unless a test has moved it ahead (`awa.testing.Clock`)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_ahead = 0.0  # seconds


def utc_now() -> datetime:
    """Now, moved or not.

    >>> utc_now().tzinfo
    datetime.timezone.utc
    """
    now = datetime.now(UTC)
    return now + timedelta(seconds=_ahead) if _ahead else now


def moved_now() -> datetime | None:
    """Now, when it has been moved; else None, for which SQL takes the server's own clock.

    >>> moved_now() is None
    True
    """
    return utc_now() if _ahead else None


def seconds_ahead() -> float:
    """How far the process's time is ahead of the machine's.

    >>> seconds_ahead()
    0.0
    """
    return _ahead


def set_ahead(seconds: float) -> None:
    """Move the process's time; 0 puts it right again. For tests: a worker's chores keep the server's time."""
    global _ahead  # noqa: PLW0603 - a process has one time
    _ahead = seconds
