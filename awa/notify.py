"""Wake-ups. They make the queue quick and are never needed for it to be correct: workers poll all the same."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import Final

import psycopg

from awa.postgres import Connection

CHANNEL: Final = "awa"
CANCEL_CHANNEL: Final = "awa_cancel"
MAX_RECEIPT_CHARACTERS: Final = 30  # an int8, a colon, an int2
NOTIFY: Final = "SELECT pg_notify('awa', %s)"
QUIET_AFTER: Final = 0.005
"""Seconds a producer that has woken a queue stays quiet: whoever it woke looks again that soon after its last job."""

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
    """Listens on a connection that its owner uses for other things, too, or on one of its own.

    As a rule the claiming connection listens itself: the server process that brings the news is then awake for the claim
    that follows, and there is one process, one thread and one connection less between an enqueue and its handler.

    Every `probe_every` seconds it sends itself a notification. One that has not come back by the next (a transaction
    pooler, a server that lost its listeners) is reported, and LISTEN is said again; polling goes on all the while.

    Args:
        on_wake: called with the name of a queue that has new jobs, or None for any queue.
        probe_every: seconds.
        on_cancel: called with claim id and item of a running job that was cancelled.
    """

    def __init__(
        self,
        on_wake: Callable[[str | None], None],
        *,
        probe_every: float,
        on_cancel: Callable[[int, int], None] = lambda claim_id, item: None,
    ) -> None:
        self.heard_itself = threading.Event()
        self.probes_returned = 0
        self.probes_lost = 0
        self._on_wake = on_wake
        self._on_cancel = on_cancel
        self._probe_every = probe_every
        self._probe_channel = f"awa_probe_{secrets.token_hex(8)}"
        self._probe: str | None = None
        self._probe_at = 0.0
        self._listening: Connection | None = None

    def attach(self, conn: Connection) -> None:
        """Listen on a new connection. Whatever was said while nobody listened counts as said now."""
        conn.add_notify_handler(self._on_notify)
        self.heard_itself.clear()
        self._probe, self._probe_at = None, 0.0
        self._listening = conn
        self._listen(conn)
        self._on_wake(None)

    def read(self, conn: Connection) -> None:
        """Take what has arrived, without waiting."""
        conn.pgconn.consume_input()
        while notify := conn.pgconn.notifies():
            self._handle(notify.relname.decode(), notify.extra.decode())

    def probe_if_due(self, conn: Connection) -> None:
        """Check that notifications sent on `conn` arrive where we listen, and repair what can be repaired."""
        now = time.monotonic()
        if now < self._probe_at:
            return
        if self._probe is not None:
            self.probes_lost += 1
            self.heard_itself.clear()
            log.warning(
                "a notification sent to ourselves did not come back within %g s (a transaction pooler?): polling goes on",
                self._probe_every,
            )
            self._listen(self._listening or conn)
        self._probe, self._probe_at = secrets.token_hex(8), now + self._probe_every
        conn.execute("SELECT pg_notify(%s, %s)", (self._probe_channel, self._probe))

    def _listen(self, conn: Connection) -> None:
        conn.execute(f"LISTEN {CHANNEL}")
        conn.execute(f"LISTEN {CANCEL_CHANNEL}")
        conn.execute(f"LISTEN {self._probe_channel}")

    def _on_notify(self, notify: psycopg.Notify) -> None:
        self._handle(notify.channel, notify.payload)

    def _handle(self, channel: str, payload: str) -> None:
        if channel == CHANNEL:
            self._on_wake(payload)
        elif channel == CANCEL_CHANNEL:
            claim_id, _, item = payload.partition(":")
            # Anybody may notify: digits without end are an error to int().
            if len(payload) <= MAX_RECEIPT_CHARACTERS and claim_id.isdecimal() and item.isdecimal():
                self._on_cancel(int(claim_id), int(item))
        elif payload == self._probe:
            self._probe = None
            self.probes_returned += 1
            self.heard_itself.set()
