"""The heart: says that processes live, and sees to what the dead have left."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

import psycopg
from attrs import frozen
from psycopg.rows import TupleRow

from awa.errors import from_database
from awa.storage.rescue import expire_attempt, rescue_dead
from awa.storage.runtimes import beat, declare_dead
from awa.worker.deadlines import Overdue

log = logging.getLogger("awa.worker")

RECONNECT_AFTER = 0.5  # seconds


@frozen
class Death:
    """A process that has ended, and how its jobs are to be taken."""

    pid: int
    on_purpose: bool = False  # ended by its supervisor: what it ran does not count
    overdue: Sequence[Overdue] = ()  # but for these


class Heart:
    """A thread and a connection of its own that beat for processes, best from a process that runs no handlers.

    Args:
        connect: makes an autocommit connection.
        supervisor_id: under which the processes are registered.
        pids: who lives now.
        beat_every: seconds.
    """

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection[TupleRow]],
        supervisor_id: int,
        pids: Callable[[], list[int]],
        *,
        beat_every: float,
    ) -> None:
        self.rescued = 0
        self._connect = connect
        self._supervisor_id = supervisor_id
        self._pids = pids
        self._every = beat_every
        self._deaths: deque[Death] = deque()
        self._conn: psycopg.Connection[TupleRow] | None = None
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="awa-heart", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """See to the deaths reported so far, and end the thread."""
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout)

    def report(self, death: Death) -> None:
        """A process has ended: its jobs are given to others at once, as soon as the database answers."""
        self._deaths.append(death)
        self._wake.set()

    def _run(self) -> None:
        wait = self._every  # who has just registered has just been seen
        while True:
            self._wake.wait(wait)
            self._wake.clear()
            if self._stopping and not self._deaths:
                break
            wait = self._every
            try:
                if self._conn is None or self._conn.closed:
                    self._conn = self._connect()
                while self._deaths:
                    self._bury(self._conn, self._deaths[0])
                    self._deaths.popleft()
                pids = self._pids()
                if pids:
                    for pid in beat(self._conn, self._supervisor_id, pids):
                        log.error("worker process %d was declared dead while it lives: its jobs were given to others", pid)
            except psycopg.Error as error:
                log.warning("the heart skips a beat: %s", str(from_database(error) or error).strip())
                self._drop_connection()
                wait = min(RECONNECT_AFTER, self._every)
                if self._stopping:
                    break
        self._drop_connection()

    def _bury(self, conn: psycopg.Connection[TupleRow], death: Death) -> None:
        """Repeatable: the database may go away between any two of these."""
        for runtime_id in declare_dead(conn, self._supervisor_id, [death.pid]):
            for late in death.overdue:
                expire_attempt(conn, runtime_id, late.claim_id, late.item)
            while True:
                done = rescue_dead(conn, runtime_id=runtime_id, outcome="released" if death.on_purpose else "rescued")
                self.rescued += done.rescued
                if done.rescued:
                    log.warning("%d jobs of worker process %d go to others", done.rescued, death.pid)
                if done.stuck:
                    log.error("%d jobs of worker process %d cannot be ended; the leader keeps trying", done.stuck, death.pid)
                if not done.more:
                    break

    def _drop_connection(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()
