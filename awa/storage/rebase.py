"""rebase: making a database that was restored from a dump fit to work."""

from __future__ import annotations

from typing import Final, NamedTuple

from awa.migrate import NEEDS_REBASE
from awa.postgres import Connection, tuple_cursor

REBASE: Final = "SELECT running, available, completed FROM awa.rebase(%s::bool)"


class Rebased(NamedTuple):
    """How many jobs were put back because they ran, kept waiting, and kept as completed."""

    running: int
    available: int
    completed: int


def needs_rebase(conn: Connection) -> bool:
    """Whether the database stores transaction ids from the future."""
    return bool(tuple_cursor(conn).execute(NEEDS_REBASE).fetchall()[0][0])


def rebase(conn: Connection, *, force: bool = False) -> Rebased:
    """Tell anew what is told by transaction ids, in one transaction; zeros where that is not needed, unless `force`.

    Args:
        conn: a connection that commits at once; nobody else may use the database.
        force: also where nothing shows that it is needed.
    """
    return Rebased(*tuple_cursor(conn).execute(REBASE, (force,)).fetchall()[0])
