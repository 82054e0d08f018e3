"""A clock that tests move."""

from __future__ import annotations

from datetime import datetime
from types import TracebackType

from awa.clock import seconds_ahead, set_ahead, utc_now
from awa.errors import ConfigurationError


class Clock:
    """The time of this process while the block lasts; it goes on running, and can be moved ahead.

    What is enqueued is judged by it (is `run_at` in the future, has a unique period passed?), and `drain` promotes, retries
    and rescues by it. Threads share it. A worker's chores and the times kept with jobs are the server's, as ever.

    >>> from awa.testing import Clock
    >>> with Clock() as clock:
    ...     before = clock.now()
    ...     after = clock.move(hours=2)
    ...     (after - before).total_seconds() >= 7200
    True
    """

    def __enter__(self) -> Clock:
        if seconds_ahead():
            raise ConfigurationError("another awa.testing.Clock has moved the time: move that one")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        set_ahead(0.0)

    def now(self) -> datetime:
        """The time here."""
        return utc_now()

    def move(self, *, seconds: float = 0.0, minutes: float = 0.0, hours: float = 0.0, days: float = 0.0) -> datetime:
        """Move ahead by all of these together; the time it is then.

        Raises:
            ConfigurationError: backwards: what is recorded already cannot be undone.
        """
        span = seconds + 60 * minutes + 3600 * hours + 86400 * days
        if not 0 <= span < 100 * 365 * 86400:
            raise ConfigurationError(f"the clock moves ahead, by up to a hundred years, not by {span:g} s")
        set_ahead(seconds_ahead() + span)
        return utc_now()

    def travel_to(self, instant: datetime) -> datetime:
        """Move ahead to an instant (with a time zone).

        Raises:
            ConfigurationError: it is past, or has no time zone.
        """
        if instant.tzinfo is None:
            raise ConfigurationError("travel_to needs an instant with a time zone, as datetime(2030, 1, 1, tzinfo=UTC)")
        return self.move(seconds=(instant - utc_now()).total_seconds())
