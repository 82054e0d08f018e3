"""When the attempts of a process are overdue, in memory that its supervisor can read when the process answers nobody."""

from __future__ import annotations

import multiprocessing
from typing import Any, NamedTuple


class Overdue(NamedTuple):
    """An attempt that should have ended."""

    claim_id: int
    item: int


class Deadlines:
    """A cell per handler thread; shared by inheritance, so it is made by the parent and passed to the child.

    One thread writes a cell and one process reads it, without a lock: the deadline is written last and cleared first.

    Args:
        cells: how many threads there may be.
    """

    def __init__(self, cells: int) -> None:
        self._at: Any = multiprocessing.RawArray("d", cells)
        self._claim_ids: Any = multiprocessing.RawArray("q", cells)
        self._items: Any = multiprocessing.RawArray("i", cells)

    def set(self, cell: int, at: float, claim_id: int, item: int) -> None:
        """The attempt of this cell's thread should have ended by `at` (CLOCK_MONOTONIC, which processes share)."""
        self._claim_ids[cell] = claim_id
        self._items[cell] = item
        self._at[cell] = at

    def clear(self, cell: int) -> None:
        """It has."""
        self._at[cell] = 0.0

    def overdue(self, now: float) -> list[Overdue]:
        """What should have ended before `now`."""
        return [Overdue(self._claim_ids[cell], self._items[cell]) for cell, at in enumerate(self._at) if at and at < now]
