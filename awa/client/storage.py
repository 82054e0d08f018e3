"""Storage: its rings, for how long what is kept, and its counters."""

from __future__ import annotations

import time
from typing import Any, Final

import psycopg
from attrs import asdict

from awa.client.sessions import Sessions
from awa.errors import StorageBusy
from awa.rings import SlotStatus, StorageSettings
from awa.storage.counters import TerminalCount, check_terminal_counters, rebuild_terminal_counters
from awa.storage.rings import read_settings, storage_status, write_settings

BUSY_FOR: Final = 30.0
"""Seconds to insist on locks that live traffic holds."""


class Storage(Sessions):
    """What operators look at and set."""

    def storage_status(self) -> list[SlotStatus]:
        """Every slot of every ring: what it occupies, and what keeps it from being emptied.

        >>> sum(slot.is_current for slot in client.storage_status())
        4
        """
        with self._connection() as conn:
            return storage_status(conn)

    def storage_settings(self, **changes: Any) -> StorageSettings:
        """For how long what is kept, after the changes given. They hold for all processes, from their next turn on.

        Args:
            changes: any attributes of `awa.rings.StorageSettings`.

        Raises:
            ConfigurationError: a value out of its limits.
            TypeError: no such setting.

        >>> client.storage_settings(completed_retention=600.0).completed_retention
        600.0
        """
        with self._connection() as conn:
            settings = read_settings(conn)
            if changes:
                settings = StorageSettings(**{**asdict(settings), **changes})
                write_settings(conn, settings)
            return settings

    def check_terminal_counters(self) -> list[TerminalCount]:
        """The counters of ended jobs beside the truth. Changes nothing.

        >>> [count for count in client.check_terminal_counters() if count.drift]
        []
        """
        with self._connection() as conn:
            return check_terminal_counters(conn)

    def rebuild_terminal_counters(self) -> list[TerminalCount]:
        """Make the counters of ended jobs say the truth; what they said before.

        Raises:
            StorageBusy: live traffic or maintenance held what it needs for thirty seconds; nothing was changed.

        >>> [count for count in client.rebuild_terminal_counters() if count.drift]
        []
        """
        deadline = time.monotonic() + BUSY_FOR
        with self._connection() as conn:
            while True:
                try:
                    return rebuild_terminal_counters(conn)
                except psycopg.errors.LockNotAvailable as error:
                    if time.monotonic() > deadline:
                        raise StorageBusy from error
                time.sleep(0.05)
