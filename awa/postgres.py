"""Where the database is and how awa connects to it."""

from __future__ import annotations

import os
import re
import select
from collections.abc import Mapping
from typing import Any, Final

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow, tuple_row

from awa.errors import NO_DATABASE, ConfigurationError

Connection = psycopg.Connection[Any]
"""A connection of any row factory: storage functions never rely on the caller's."""

_LIBPQ_VARIABLES: Final = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE")

# A peer that vanished without a word is noticed within half a minute rather than the kernel's two hours.
_KEEPALIVE: Final = {
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}


def resolve_dsn(dsn: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """The connection string to use: the argument, `AWA_DSN`, `DATABASE_URL`, or empty when libpq's own variables are set.

    Args:
        dsn: a libpq URL or keyword string; it wins over the environment.
        environ: read instead of the process's environment.

    Raises:
        ConfigurationError: nothing names a database, or what does is not a connection string.

    >>> resolve_dsn(None, {"DATABASE_URL": "postgresql+psycopg://db/app"})
    'postgresql://db/app'
    """
    environ = os.environ if environ is None else environ
    found = dsn or environ.get("AWA_DSN") or environ.get("DATABASE_URL")
    if found is None or found == "":
        if any(environ.get(name) for name in _LIBPQ_VARIABLES):
            return ""
        raise ConfigurationError(NO_DATABASE)
    # SQLAlchemy writes its driver into the scheme, which libpq does not know.
    found = re.sub(r"^(postgres(?:ql)?)\+\w+://", r"\1://", found)
    try:
        conninfo_to_dict(found)
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(f"not a connection string: {error}") from error
    return found


def engine_conninfo(dsn: str, application_name: str, *, connect_timeout: float = 10.0) -> str:
    """`dsn` with awa's defaults for what it leaves open.

    Args:
        dsn: a resolved connection string.
        application_name: shown in pg_stat_activity.
        connect_timeout: seconds.
    """
    defaults = {
        **_KEEPALIVE,
        "application_name": application_name,
        "connect_timeout": str(max(2, round(connect_timeout))),
    }
    given = conninfo_to_dict(dsn)
    return make_conninfo(dsn, **{key: value for key, value in defaults.items() if key not in given})


def connect(dsn: str, application_name: str, *, connect_timeout: float = 10.0) -> psycopg.Connection[TupleRow]:
    """An engine connection: autocommit, because an implicit BEGIN would pin the horizon that the engine must not pin."""
    conn = psycopg.connect(
        engine_conninfo(dsn, application_name, connect_timeout=connect_timeout), autocommit=True, row_factory=tuple_row
    )
    # The views' cost estimates count every slot of every ring: where the server has JIT it would compile for seconds what
    # it runs in three milliseconds. Not by a start-up option: connection poolers refuse those.
    conn.execute("SET jit = off")
    return conn


def sibling(conn: Connection) -> psycopg.Connection[TupleRow]:
    """A new autocommit connection to the database and user of `conn`, for what must not wait for its transaction."""
    return psycopg.connect(conn.info.dsn, password=conn.info.password or None, autocommit=True, row_factory=tuple_row)


def tuple_cursor(conn: Connection, *, binary: bool = False) -> psycopg.Cursor[TupleRow]:
    """A plain cursor on anybody's connection, whatever row and cursor factories it was given."""
    cursor = psycopg.Cursor(conn, row_factory=tuple_row)
    cursor.format = pq.Format.BINARY if binary else pq.Format.TEXT
    return cursor


def flush_output(conn: Connection) -> None:
    """Wait until what was executed in a pipeline has left for the server. To be called before a pipeline is synced or left.

    From then on psycopg waits for answers only, and the answer to a statement larger than the socket's buffer, of which half
    is still here, never comes (psycopg issue 685).
    """
    poll = select.poll()
    poll.register(conn.fileno(), select.POLLOUT | select.POLLHUP | select.POLLERR)
    while conn.pgconn.flush():
        poll.poll()


def has_been_closed(conn: Connection) -> bool:
    """Whether an idle connection has something to read, which is nearly always the server's goodbye.

    A system call instead of a round trip: cheap enough to ask before every use of a pooled connection.
    """
    if conn.closed:
        return True
    poll = select.poll()
    poll.register(conn.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))
