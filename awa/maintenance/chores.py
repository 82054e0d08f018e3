"""A table of chores: what is due, in its order, an error in one keeping no other from its turn."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import psycopg
from attrs import define
from psycopg.rows import TupleRow

from awa.postgres import Connection

log = logging.getLogger("awa.maintenance")


@define
class Chore:
    """Something to be done again and again."""

    name: str
    every: float  # seconds
    run_once: Callable[[Connection], bool]  # whether more is waiting
    due_at: float = 0.0  # monotonic


def run_due(
    chores: Sequence[Chore], conn: psycopg.Connection[TupleRow], *, enough: Callable[[], bool] = lambda: False
) -> float:
    """Do what is due; seconds until something is again.

    Args:
        chores: in the order of their importance, which decides between two that are due since the same time.
        conn: an autocommit connection.
        enough: asked after each: whether the rest has to wait.

    Raises:
        psycopg.Error: the connection was lost.
    """
    # Whoever has waited longest comes first: one that always finds more must not take every turn that others' time allows.
    for chore in sorted(chores, key=lambda chore: chore.due_at):
        now = time.monotonic()
        if now < chore.due_at:
            continue
        try:
            more = chore.run_once(conn)
        except psycopg.Error as error:
            if conn.closed:
                raise
            log.error("%s failed, and is tried again: %s", chore.name, str(error).strip())
            more = False
        chore.due_at = now if more else time.monotonic() + chore.every
        if enough():
            break
    return max(0.0, min(chore.due_at for chore in chores) - time.monotonic())
