"""Where the database is and how awa connects to it."""

from __future__ import annotations

import os
import re
import select
from collections.abc import Mapping
from typing import Any, Final, Self
from weakref import WeakSet

import psycopg
from psycopg import pq
from psycopg.abc import Params
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.postgres import register_default_adapters
from psycopg.rows import TupleRow, tuple_row
from psycopg.types.array import register_all_arrays

from awa.errors import NO_DATABASE, ConfigurationError

Connection = psycopg.Connection[Any]
"""A connection of any row factory: storage functions never rely on the caller's."""

_LIBPQ_VARIABLES: Final = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE")

PLAIN_ADAPTERS: Final = AdaptersMap(types=psycopg.adapters.types)
"""psycopg's own conversions, whatever the application has registered on its connections or for all of them."""
register_default_adapters(PLAIN_ADAPTERS)
register_all_arrays(PLAIN_ADAPTERS)

SET_SESSION: Final = "SELECT set_config(%s, %s, false)"

_pooled: WeakSet[Connection] = WeakSet()

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
    return _checked(found)


def resolve_listen_dsn(dsn: str | None = None, environ: Mapping[str, str] | None = None) -> str | None:
    """Where to listen for wake-ups, if not where everything else happens: the argument, then `AWA_LISTEN_DSN`.

    Raises:
        ConfigurationError: it is not a connection string.
    """
    found = dsn or (os.environ if environ is None else environ).get("AWA_LISTEN_DSN")
    return _checked(found) if found else None


def _checked(found: str) -> str:
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
    prepare_session(conn)
    # The views' cost estimates count every slot of every ring: where the server has JIT it would compile for seconds what
    # it runs in three milliseconds. Not by a start-up option: connection poolers refuse those.
    set_session(conn, "jit", "off")
    return conn


def prepare_session(conn: Connection) -> None:
    """What every new connection of awa's own needs, before anything is asked of it."""
    recognise_pooler(conn)
    # Whatever the role's default: psycopg reads no other style, and abbreviations of time zones are ambiguous.
    set_session(conn, "datestyle", "ISO")
    set_session(conn, "default_transaction_isolation", "read committed")  # the engine refuses every other


def recognise_pooler(conn: Connection) -> None:
    """Find out, once on every new connection of awa's, whether a server process is behind it or a pooler.

    A pooler answers with a process number of its own invention, because which process serves a transaction changes. There
    whatever is left behind in a session meets the next transaction of somebody else: nothing is prepared or set any more.
    """
    if conn.execute("SELECT pg_backend_pid()").fetchall()[0][0] != conn.info.backend_pid:
        conn.prepare_threshold = None
        _pooled.add(conn)


def is_pooled(conn: Connection) -> bool:
    """Whether a connection of awa's was found to lead to a pooler, where a session lasts no longer than a transaction."""
    return conn in _pooled


def set_session(conn: Connection, name: str, value: str) -> bool:
    """Set a parameter for the whole session; whether there is a session to set it for."""
    if is_pooled(conn):
        return False
    conn.execute(SET_SESSION, (name, value))
    return True


def sibling(conn: Connection) -> psycopg.Connection[TupleRow]:
    """A new autocommit connection to the database and user of `conn`, for what must not wait for its transaction."""
    return psycopg.connect(conn.info.dsn, password=conn.info.password or None, autocommit=True, row_factory=tuple_row)


class PlainCursor(psycopg.Cursor[TupleRow]):
    """A cursor that knows nothing of what the application has taught its connection."""

    __slots__ = ()

    @property
    def adapters(self) -> AdaptersMap:
        return PLAIN_ADAPTERS

    def execute(
        self, query: Any, params: Params | None = None, *, prepare: bool | None = False, binary: bool | None = None
    ) -> Self:
        """As ever, but prepared only on demand: prepared statements are state of the session, which may be a caller's."""
        return super().execute(query, params, prepare=prepare, binary=binary)


def tuple_cursor(conn: Connection, *, binary: bool = False) -> PlainCursor:
    """A plain cursor on anybody's connection, whatever factories, loaders and dumpers that was given."""
    cursor = PlainCursor(conn, row_factory=tuple_row)
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
