"""Turning the rings: when to seal, materialise, prune and fold."""

from __future__ import annotations

import logging
import time
from typing import Final

import psycopg
from attrs import define, field

from awa.postgres import Connection
from awa.rings import PRUNE_ORDER, RINGS, Ring
from awa.storage.counters import count_closed_claims, fold_terminal_counts
from awa.storage.dead_letters import purge_dead_letters
from awa.storage.rings import materialize_attempts, prune_ring, rotate_ring

log = logging.getLogger("awa.maintenance")

MATERIALIZE_LIMIT: Final = 500  # attempts a call
PURGE_LIMIT: Final = 1000  # dead letters a call
COUNT_CLAIMS: Final = (
    1000  # claims not counted yet that make counting them worth a row version: a millisecond of a fast count
)
FOLD_ROWS: Final = 5000  # deltas that make a fold worth its catalog rows
FIRST_PAUSE: Final = 0.25  # seconds until a slot that was held is looked at again; doubled each time
LONGEST_PAUSE: Final = 5.0


@define
class _Hold:
    until: float  # monotonic
    pause: float


@define
class RingKeeper:
    """The chores of the rings. Each does a bounded amount and says whether more is waiting.

    A slot that is held is left alone for a while that grows, so that a slot pinned for hours costs a look every few seconds.
    """

    pruned: int = 0
    _holds: dict[tuple[Ring, int], _Hold] = field(factory=dict)

    def rotate(self, conn: Connection) -> bool:
        """Seal what is old or large enough."""
        for ring in RINGS:
            verdict = rotate_ring(conn, ring)
            if verdict == "held":
                log.debug("every slot of the %s ring is in use: the current one goes on being filled", ring)
        return False

    def materialize(self, conn: Connection) -> bool:
        """Give long attempts leases."""
        return materialize_attempts(conn, MATERIALIZE_LIMIT) == MATERIALIZE_LIMIT

    def prune(self, conn: Connection) -> bool:
        """Empty at most one slot of each ring. An error in one keeps no other from its turn."""
        more = False
        for ring in PRUNE_ORDER:
            try:
                more |= self._prune(conn, ring)
            except psycopg.Error as error:
                if conn.closed:
                    raise
                log.error("pruning of the %s ring failed, and is tried again: %s", ring, str(error).strip())
        return more

    def _prune(self, conn: Connection, ring: Ring) -> bool:
        now = time.monotonic()
        skip = [slot for (of, slot), hold in self._holds.items() if of == ring and now < hold.until]
        is_pruned = False
        for verdict in prune_ring(conn, ring, skip=skip):
            key = (ring, verdict.slot)
            if verdict.is_pruned:
                self._holds.pop(key, None)
                self.pruned += 1
                is_pruned = True
                log.info("slot %d of the %s ring is empty again", verdict.slot, ring)
            else:
                held = self._holds.get(key)
                pause = FIRST_PAUSE if held is None else min(held.pause * 2, LONGEST_PAUSE)
                self._holds[key] = _Hold(time.monotonic() + pause, pause)
        return is_pruned

    def count(self, conn: Connection) -> bool:
        """Count completions, so that fast counts need not."""
        count_closed_claims(conn, COUNT_CLAIMS)
        return False

    def fold(self, conn: Connection) -> bool:
        """Fold what has gathered of deltas."""
        fold_terminal_counts(conn, FOLD_ROWS)
        return False

    def purge(self, conn: Connection) -> bool:
        """Remove dead letters past their time."""
        return purge_dead_letters(conn, PURGE_LIMIT) == PURGE_LIMIT
