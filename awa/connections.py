"""The caller's connection, in whatever wrapping it comes: psycopg's own, Django's or SQLAlchemy's.

Neither framework is imported here: whoever passes an object of one has imported it.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus

from awa.errors import ConfigurationError, UnusableConnection
from awa.postgres import Connection

AnyConnection = Any
"""What `connection=` takes: see `unwrap_connection`. No narrower, because the frameworks' types are not awa's to import."""

BUSY_FOR: Final = 5.0
"""Seconds to wait for another thread's statement on the connection."""

_WHAT_TO_PASS: Final = (
    "pass a psycopg 3 Connection or Cursor, a Django alias or connection, or a SQLAlchemy Session or Connection on "
    "postgresql+psycopg"
)
_OTHER_DRIVER: Final = "execute what awa.enqueue_sql returns on it instead"
_REFUSED: Final = {
    "psycopg.AsyncConnection": f"is asynchronous: {_OTHER_DRIVER}",
    "psycopg.AsyncCursor": f"is asynchronous: {_OTHER_DRIVER}",
    "sqlalchemy.ext.asyncio.": f"is asynchronous: {_OTHER_DRIVER}",
    "psycopg2.": f"belongs to psycopg2, and awa speaks psycopg 3: {_OTHER_DRIVER}",
    "asyncpg.": f"belongs to asyncpg, and awa speaks psycopg 3: {_OTHER_DRIVER}",
    "psycopg_pool.": "is a pool, which has no transaction: pass the connection you took from it",
    "sqlalchemy.engine.base.Engine": "has no transaction: pass engine.begin()'s connection",
    "sqlalchemy.orm.session.sessionmaker": "has no transaction: pass the Session it makes",
}


def unwrap_connection(connection: AnyConnection, *, for_copy: bool = False) -> Connection:
    """The psycopg connection behind what an application calls its connection, fit to enqueue on.

    A framework's transaction that begins lazily (SQLAlchemy's) has begun when this returns; a Django connection outside
    `atomic()` commits each statement at once, and so does what is enqueued on it. Nothing else about it is changed.

    Args:
        connection: a psycopg 3 `Connection` or `Cursor`; the alias of a Django connection, the connection or its cursor; a
            SQLAlchemy 2 `Session`, `scoped_session` or `Connection` on `postgresql+psycopg`.
        for_copy: a COPY is to run on it, which cannot be in pipeline mode.

    Raises:
        TypeError: it is something else, which is named with what to pass instead.
        ConfigurationError: Django knows no connection of that alias.
        UnusableConnection: it is closed or busy, or its transaction has failed.

    >>> import psycopg
    >>> with psycopg.connect(dsn) as conn:
    ...     unwrap_connection(conn.cursor()) is conn
    True
    """
    if isinstance(connection, psycopg.Connection):
        conn = connection
    elif isinstance(connection, psycopg.Cursor):
        conn = connection.connection
    else:
        found = _from_sqlalchemy(connection) or _from_django(connection)
        if not isinstance(found, psycopg.Connection):
            raise TypeError(_refusal(connection, found))
        conn = found
    check_usable(conn, for_copy=for_copy)
    return conn


def check_usable(conn: Connection, *, for_copy: bool) -> None:
    """Whether a statement can be executed on a connection that others use, too.

    Raises:
        UnusableConnection: it is closed or busy, or its transaction has failed; or a COPY (`for_copy`) cannot run on it.
    """
    status = conn.pgconn.transaction_status
    pipeline = conn.pgconn.pipeline_status
    if conn.closed:
        raise UnusableConnection("the connection is closed")
    if status == TransactionStatus.INERROR or pipeline == PipelineStatus.ABORTED:
        raise UnusableConnection("the connection's transaction has failed: roll it back, then enqueue")
    if for_copy and pipeline != PipelineStatus.OFF:
        raise UnusableConnection("COPY cannot run in pipeline mode: use enqueue_many, or leave the pipeline first")
    if status == TransactionStatus.ACTIVE and pipeline == PipelineStatus.OFF:
        wait_for_lock(conn)
        if conn.pgconn.transaction_status == TransactionStatus.ACTIVE:
            raise UnusableConnection("the connection is in the middle of a COPY or of a streamed result: finish that first")


def wait_for_lock(conn: Connection) -> bool:
    """Wait until no other thread executes on a connection, for a while: whether none does.

    A stream holds psycopg's lock between its rows: to wait for it without end would be to wait for ourselves.
    """
    if is_free := conn.lock.acquire(timeout=BUSY_FOR):
        conn.lock.release()
    return is_free


def _from_sqlalchemy(given: Any) -> object:
    orm, engine = sys.modules.get("sqlalchemy.orm"), sys.modules.get("sqlalchemy.engine")
    if orm is not None and isinstance(given, orm.scoped_session):
        given = given()
    if orm is not None and isinstance(given, orm.Session):
        try:
            given = given.connection()
        except sys.modules["sqlalchemy.exc"].PendingRollbackError as error:
            raise UnusableConnection("the session's transaction has failed: roll it back and enqueue then") from error
    if engine is None or not isinstance(given, engine.Connection):
        return None
    if given.closed:
        raise UnusableConnection("the connection is closed")
    dialect = f"{given.dialect.name}+{given.dialect.driver}"
    if dialect != "postgresql+psycopg":
        remedy = "use postgresql+psycopg" if given.dialect.name == "postgresql" else "awa's jobs live in PostgreSQL"
        raise TypeError(f"connection: SQLAlchemy's dialect here is {dialect}: {remedy}, or {_OTHER_DRIVER}")
    for transaction in (given.get_transaction(), given.get_nested_transaction()):
        if transaction is not None and not transaction.is_active:
            raise UnusableConnection("the connection's transaction has failed: roll it back and enqueue then")
    if not given.in_transaction():
        given.begin()  # what the first statement through SQLAlchemy would do: without it, its commit() would commit nothing
    return given.connection.driver_connection


def _from_django(given: Any) -> object:
    base, db = sys.modules.get("django.db.backends.base.base"), sys.modules.get("django.db")
    if base is None or db is None:
        return None
    if isinstance(given, str):
        try:
            given = db.connections[given]
        except sys.modules["django.utils.connection"].ConnectionDoesNotExist as error:
            known = ", ".join(map(repr, db.connections))
            raise ConfigurationError(f"connection: Django has no database {given!r}, only {known}") from error
    elif isinstance(given, sys.modules["django.utils.connection"].ConnectionProxy):  # what django.db.connection is
        given = db.connections[given.alias]
    elif isinstance(given, sys.modules["django.db.backends.utils"].CursorWrapper):
        given = given.db
    if not isinstance(given, base.BaseDatabaseWrapper):
        return None
    if given.vendor != "postgresql":
        raise TypeError(f"connection: Django's {given.alias!r} is {given.vendor}: awa's jobs live in PostgreSQL")
    given.validate_thread_sharing()
    if given.needs_rollback:
        raise UnusableConnection("an error has doomed the atomic block: leave it and enqueue then")
    given.ensure_connection()
    return given.connection


def _refusal(given: object, found: object) -> str:
    for cls in type(given if found is None else found).__mro__:
        name = f"{cls.__module__}.{cls.__qualname__}"
        for prefix, why in _REFUSED.items():
            if name == prefix or (prefix.endswith(".") and name.startswith(prefix)):
                return f"connection: {type(given).__name__ if found is None else repr(given)} {why}"
    what = "a text, which names a Django connection where Django is in use" if isinstance(given, str) else repr(type(given))
    return f"connection: this is {what}: {_WHAT_TO_PASS}"
