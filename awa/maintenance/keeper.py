"""The storage keeper: a thread of the leading process that turns the rings."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import psycopg
from psycopg.rows import TupleRow

from awa.config import WorkerSettings
from awa.errors import from_database
from awa.maintenance.chores import Chore, run_due
from awa.maintenance.rings import RingKeeper

log = logging.getLogger("awa.maintenance")

LONGEST_WAIT = 0.5  # seconds until it notices that it leads no more, or is to stop


class StorageKeeper:
    """Seals, materialises, prunes, folds and purges while its process leads, on a connection of its own.

    Apart from the other chores, because counting a large slot takes a while and promotion must not wait for it. Two at once
    do no harm.

    Args:
        connect: makes an autocommit connection.
        leads: set while this process leads.
        settings: how often.
    """

    def __init__(
        self, connect: Callable[[], psycopg.Connection[TupleRow]], leads: threading.Event, settings: WorkerSettings
    ) -> None:
        self._connect = connect
        self._leads = leads
        self._rings = RingKeeper()
        self._chores = [
            Chore("rotation of rings", settings.rotate_every, self._rings.rotate),
            Chore("pruning of rings", settings.prune_every, self._rings.prune),
            Chore("materialising of long attempts", settings.rotate_every, self._rings.materialize),
            Chore("counting of completions", 2.0, self._rings.count),
            Chore("folding of counters", 10.0, self._rings.fold),
            Chore("purge of dead letters", 60.0, self._rings.purge),
        ]
        self._conn: psycopg.Connection[TupleRow] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="awa-keeper", daemon=True)

    @property
    def pruned(self) -> int:
        """Slots emptied so far."""
        return self._rings.pruned

    def start(self) -> None:
        """Begin when this process leads."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what is under way, and end the thread."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        delay = 0.1
        while not self._stopping.is_set():
            if not self._leads.is_set():
                self._drop_connection()
                self._stopping.wait(LONGEST_WAIT)
                continue
            try:
                if self._conn is None or self._conn.closed:
                    self._conn = self._connect()
                wait, delay = run_due(self._chores, self._conn, enough=self._is_over), 0.1
            except psycopg.Error as error:
                log.warning("the storage keeper pauses for %g s: %s", delay, str(from_database(error) or error).strip())
                self._drop_connection()
                wait, delay = delay, min(delay * 2, 2.0)
            self._stopping.wait(min(wait, LONGEST_WAIT))
        self._drop_connection()

    def _is_over(self) -> bool:
        return self._stopping.is_set() or not self._leads.is_set()

    def _drop_connection(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()
