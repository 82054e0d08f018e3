"""Wake-ups. They make the queue quick and are never needed for it to be correct: workers poll all the same."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import psycopg

from awa.postgres import connect

CHANNEL: Final = "awa"
NOTIFY: Final = "SELECT pg_notify('awa', %s)"
QUIET_AFTER: Final = 0.005
"""Seconds a producer that has woken a queue stays quiet: whoever it woke looks again that soon after its last job."""

_STOP_LATENCY: Final = 0.25  # seconds between looks at whether to stop

log = logging.getLogger("awa.notify")


class QuietPeriod:
    """Which queues this producer has woken a moment ago. NOTIFY serialises commits in the server, so fewer are better."""

    def __init__(self) -> None:
        self._woken_at: dict[str, float] = {}

    def is_due(self, queue: str) -> bool:
        """Whether the queue should be woken for a job that is visible now."""
        return time.monotonic() - self._woken_at.get(queue, 0.0) >= QUIET_AFTER

    def mark(self, queue: str) -> None:
        """The queue has just been woken."""
        if len(self._woken_at) > 10_000:
            self._woken_at.clear()
        self._woken_at[queue] = time.monotonic()


class Listener:
    """A thread that listens on a connection of its own and says which queue was named.

    It reconnects by itself, and every `probe_every` seconds sends itself a notification: one that does not come back
    (a transaction pooler, a half-open connection) counts as a lost connection.
    """

    def __init__(self, dsn: str, on_wake: Callable[[str | None], None], *, probe_every: float) -> None:
        self._dsn = dsn
        self._on_wake = on_wake
        self._probe_every = probe_every
        self._probe_channel = f"awa_probe_{secrets.token_hex(8)}"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="awa-listener", daemon=True)
        self.connected = threading.Event()
        self.probes_returned = 0
        self.reconnects = -1

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and its connection."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        delay = 0.1
        while not self._stopping.is_set():
            try:
                with connect(self._dsn, "awa listener") as conn:
                    conn.execute(f"LISTEN {CHANNEL}")
                    conn.execute(f"LISTEN {self._probe_channel}")
                    self.reconnects += 1
                    self.connected.set()
                    self._on_wake(None)  # whatever was said while nobody listened
                    delay = 0.1
                    self._listen(conn)
            except psycopg.Error as error:
                log.warning("listener lost its connection, polling until it is back: %s", error)
            finally:
                self.connected.clear()
            self._stopping.wait(delay)
            delay = min(delay * 2, 5.0)

    def _listen(self, conn: psycopg.Connection[Any]) -> None:
        probe: str | None = None
        probe_at = time.monotonic()
        while not self._stopping.is_set():
            now = time.monotonic()
            if now >= probe_at:
                if probe is not None:
                    raise psycopg.OperationalError("a notification sent to ourselves did not come back")
                probe = secrets.token_hex(8)
                probe_at = now + self._probe_every
                conn.execute("SELECT pg_notify(%s, %s)", (self._probe_channel, probe))
            for notify in conn.notifies(timeout=min(_STOP_LATENCY, probe_at - now)):
                if notify.channel == CHANNEL:
                    self._on_wake(notify.payload)
                elif notify.payload == probe:
                    probe = None
                    self.probes_returned += 1
