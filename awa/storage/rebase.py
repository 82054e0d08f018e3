"""rebase: making a database that was restored from a dump fit to work."""

from __future__ import annotations

from typing import Final, NamedTuple

from awa.migrate import NEEDS_REBASE
from awa.postgres import Connection, tuple_cursor

REBASE: Final = "SELECT running, available, completed FROM awa.rebase(%s::bool)"


LIVE_SESSIONS: Final = """
    SELECT pid, application_name FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'awa %%'
    ORDER BY application_name, pid
"""


class LiveSession(NamedTuple):
    """A connection that awa's clients, workers or commands have to the database."""

    pid: int  # of the server process
    application_name: str


class Rebased(NamedTuple):
    """How many jobs were put back because they ran, kept waiting, and kept as completed."""

    running: int
    available: int
    completed: int


def needs_rebase(conn: Connection) -> bool:
    """Whether the database stores transaction ids from the future."""
    return bool(tuple_cursor(conn).execute(NEEDS_REBASE).fetchall()[0][0])


def live_sessions(conn: Connection) -> list[LiveSession]:
    """Who else of awa is connected. Connections that were given another application_name are not seen."""
    return [LiveSession(*row) for row in tuple_cursor(conn).execute(LIVE_SESSIONS, ()).fetchall()]


def rebase(conn: Connection, *, force: bool = False) -> Rebased:
    """Tell anew what is told by transaction ids, in one transaction; zeros where that is not needed, unless `force`.

    Args:
        conn: a connection that commits at once; nobody else may use the database.
        force: also where nothing shows that it is needed.
    """
    return Rebased(*tuple_cursor(conn).execute(REBASE, (force,)).fetchall()[0])
