"""set_dead_letter: which kinds and queues keep exhausted jobs in the dead-letter queue."""

from __future__ import annotations

from typing import Final

from awa.postgres import Connection, tuple_cursor

SET_DEAD_LETTER: Final = "SELECT awa.set_dead_letter(%s::text, %s::text, %s::bool)"


def set_dead_letter(
    conn: Connection, *, kind: str | None = None, queue: str | None = None, dead_letter: bool | None
) -> None:
    """Switch the dead-letter queue for a kind or a queue; `None` leaves it to the next rule (the queue's, then: yes)."""
    tuple_cursor(conn).execute(SET_DEAD_LETTER, (kind, queue, dead_letter))
