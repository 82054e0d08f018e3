"""Moves due deferred jobs to their lanes. Every worker process looks; what one has locked the others pass over."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import psycopg
from psycopg.rows import TupleRow

from awa.errors import from_database
from awa.storage.promote import promote_due

log = logging.getLogger("awa.worker")


class Promoter:
    """A thread and a connection of its own, so that a mass of due jobs delays no claim."""

    def __init__(
        self, connect: Callable[[], psycopg.Connection[TupleRow]], *, promote_every: float, promote_limit: int
    ) -> None:
        self.promoted = 0
        self._connect = connect
        self._every = promote_every
        self._limit = promote_limit
        self._conn: psycopg.Connection[TupleRow] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="awa-promoter", daemon=True)

    def start(self) -> None:
        """Begin to promote."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join()

    def run_once(self) -> bool:
        """Promote one batch; whether more is waiting."""
        if self._conn is None:
            self._conn = self._connect()
        count = promote_due(self._conn, self._limit)
        self.promoted += count
        return count == self._limit

    def _run(self) -> None:
        delay = self._every
        while not self._stopping.is_set():
            try:
                wait = 0.0 if self.run_once() else self._every
                delay = self._every
            except psycopg.Error as error:
                log.warning("promotion pauses for %g s: %s", delay, str(from_database(error) or error).strip())
                self._close()
                wait, delay = delay, min(delay * 2, 5.0)
            self._stopping.wait(wait)
        self._close()

    def _close(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()
