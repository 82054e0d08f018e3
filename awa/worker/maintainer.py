"""The chores that one process of a fleet does: who does them, and how often."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

import psycopg
from psycopg.rows import TupleRow

from awa.config import WorkerSettings
from awa.errors import from_database
from awa.maintenance.chores import Chore, run_due
from awa.maintenance.keeper import StorageKeeper
from awa.postgres import Connection
from awa.storage.promote import promote_due
from awa.storage.rescue import ExpiryPosition, rescue_dead, rescue_expired, settle_tombstones
from awa.storage.runtimes import declare_stale, elect_leader, resign_leader, server_time
from awa.storage.unique import sweep_unique_claims
from awa.worker.identity import RuntimeIdentity

log = logging.getLogger("awa.worker")

SWEEP_LIMIT: Final = 200  # unique keys a call


class Maintainer:
    """A thread and a connection that stand for election and, while they lead, do the fleet's chores.

    Every chore may be done twice at once without harm, so a leader that is paused past its expiry loses and spoils nothing.
    An error in one keeps no other from its turn.

    Args:
        connect: makes an autocommit connection.
        identity: who stands for election.
        settings: how often.
    """

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection[TupleRow]],
        identity: RuntimeIdentity,
        settings: WorkerSettings,
    ) -> None:
        self.promoted = 0
        self.rescued = 0
        self.leads = threading.Event()
        self._connect = connect
        self._identity = identity
        self._settings = settings
        self._led_since = 0.0  # monotonic
        self._searched_at: datetime | None = None  # by the server's clock
        self._was_paused = False
        self._expiry = ExpiryPosition()
        self._sweep_after: bytes | None = None
        self._chores = [
            Chore("promotion", settings.promote_every, self._promote),
            Chore("rescue of dead workers' jobs", settings.rescue_every, self._rescue_dead),
            Chore("search for silent workers", settings.rescue_every, self._declare_stale),
            Chore("rescue of overdue jobs", settings.rescue_every, self._rescue_expired),
            Chore("sweep of unique keys", 10.0, self._sweep),
            Chore("settling of tombstones", 10.0, self._settle),
        ]
        self._keeper = StorageKeeper(connect, self.leads, settings)
        self._elect_at = 0.0
        self._conn: psycopg.Connection[TupleRow] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="awa-maintainer", daemon=True)

    def start(self) -> None:
        """Stand for election."""
        self._thread.start()
        self._keeper.start()

    def stop(self) -> None:
        """End the thread; the next one leads at once."""
        self._stopping.set()
        self._keeper.stop()
        self._thread.join()

    def _run(self) -> None:
        delay = 0.1
        while not self._stopping.is_set():
            try:
                if self._conn is None or self._conn.closed:
                    self._conn = self._connect()
                    self._led_since = time.monotonic()  # whoever could not beat meanwhile gets the time to
                wait = self._turn(self._conn)
                delay = 0.1
            except psycopg.Error as error:
                log.warning("maintenance pauses for %g s: %s", delay, str(from_database(error) or error).strip())
                self._drop_connection()
                wait, delay = delay, min(delay * 2, 2.0)
            self._stopping.wait(wait)
        try:
            if self._conn is not None and self.leads.is_set():
                resign_leader(self._conn, self._identity.runtime_id)
        except psycopg.Error as error:
            log.warning("another leader has to wait for this one's expiry: %s", str(error).strip())
        self._drop_connection()

    def _turn(self, conn: psycopg.Connection[TupleRow]) -> float:
        """Do what is due; seconds until something is again."""
        now = time.monotonic()
        if now >= self._elect_at:
            self._elect(conn, now)
        if not self.leads.is_set():
            return max(0.0, self._elect_at - time.monotonic())
        # A long turn must not cost the leadership.
        wait = run_due(self._chores, conn, enough=lambda: time.monotonic() >= self._elect_at)
        return max(0.0, min(wait, self._elect_at - time.monotonic()))

    def _elect(self, conn: Connection, now: float) -> None:
        ttl = self._settings.leader_ttl
        led = self.leads.is_set()
        if elect_leader(conn, self._identity.runtime_id, ttl):
            if not led:
                log.info("this worker leads now", extra={"awa_runtime_id": self._identity.runtime_id})
                self._led_since = now
                self._expiry = ExpiryPosition()
                self.leads.set()
        elif led:
            log.info("another worker leads now", extra={"awa_runtime_id": self._identity.runtime_id})
            self.leads.clear()
        self._elect_at = now + ttl / 3

    def _promote(self, conn: Connection) -> bool:
        count = promote_due(conn, self._settings.promote_limit)
        self.promoted += count
        return count == self._settings.promote_limit

    def _rescue_dead(self, conn: Connection) -> bool:
        done = rescue_dead(conn)
        self._report(done.rescued, done.stuck, "of dead workers")
        return done.more

    def _declare_stale(self, conn: Connection) -> bool:
        # Asked for by itself: what the server stands still from here on is not to count, for it stands still for beats, too.
        now = server_time(conn)
        before, self._searched_at = self._searched_at, now
        is_paused = before is not None and (now - before).total_seconds() > self._settings.stale_after / 2
        if is_paused and not self._was_paused:  # a leader that is slow as a rule goes on searching
            self._led_since = time.monotonic()
        self._was_paused = is_paused
        if time.monotonic() - self._led_since < 2 * self._settings.beat_every:
            return False  # after an outage, a pause or a change of the clock everybody looks stale: let them beat first
        stale = declare_stale(conn, self._settings.stale_after, now)
        if stale:
            log.error(
                "%d workers were not heard of for %g s: their jobs go to others", len(stale), self._settings.stale_after
            )
            self._chores[1].due_at = 0.0
        return False

    def _rescue_expired(self, conn: Connection) -> bool:
        done, self._expiry = rescue_expired(conn, self._expiry)
        self._report(done.rescued, done.stuck, "past their deadline")
        return done.more

    def _sweep(self, conn: Connection) -> bool:
        self._sweep_after = sweep_unique_claims(conn, self._sweep_after, SWEEP_LIMIT)
        return False

    def _settle(self, conn: Connection) -> bool:
        settle_tombstones(conn)
        return False

    def _report(self, rescued: int, stuck: int, which: str) -> None:
        self.rescued += rescued
        if rescued:
            log.warning("%d jobs %s go on", rescued, which)
        if stuck:
            log.error("%d jobs %s cannot be ended, see the server's log", stuck, which)

    def _drop_connection(self) -> None:
        self.leads.clear()
        self._elect_at = 0.0
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()
