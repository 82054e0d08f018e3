"""Where a client's connections come from, and what it remembers of the databases they lead to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import ClassVar, Protocol, Self
from weakref import WeakKeyDictionary

import psycopg
from psycopg.rows import TupleRow, tuple_row
from psycopg_pool import ConnectionPool, PoolTimeout

from awa.config import ClientSettings
from awa.connections import AnyConnection
from awa.errors import DatabaseUnavailable
from awa.job import Job
from awa.migrate import InstalledSchema, check_rebase, check_schema, guarded_schema, load_sql
from awa.notify import QuietPeriod
from awa.plan import JobTemplate, PlannedJob, Route
from awa.postgres import PLAIN_ADAPTERS, Connection, engine_conninfo, has_been_closed, prepare_session, resolve_dsn, sibling
from awa.storage.lanes import LaneBook, enqueue_shards, ensure_lanes


class Diversion(Protocol):
    """Takes all jobs that clients of this process would enqueue, and is asked for them instead of the database."""

    def run(self, planned: list[PlannedJob], connection: AnyConnection) -> list[tuple[int, bool]]:
        """Take them; of each its id and True, or, where its unique key is taken, the holder's id or 0 and False."""

    def get_job(self, job_id: int) -> Job | None:
        """A job that was taken."""


class Sessions:
    """A pool that connects on first use, and the lanes known so far."""

    diversion: ClassVar[Diversion | None] = None  # set by awa.testing.inline

    def __init__(
        self,
        dsn: str | None = None,
        *,
        min_connections: int = ClientSettings().min_connections,
        max_connections: int = ClientSettings().max_connections,
        connect_timeout: float = ClientSettings().connect_timeout,
        max_args_bytes: int = ClientSettings().max_args_bytes,
        on_enqueued: Callable[[Mapping[str, int]], object] | None = None,
    ) -> None:
        self.settings = ClientSettings(
            min_connections=min_connections,
            max_connections=max_connections,
            connect_timeout=connect_timeout,
            max_args_bytes=max_args_bytes,
        )
        self.on_enqueued = on_enqueued
        self._dsn = dsn
        self._pool: ConnectionPool[psycopg.Connection[TupleRow]] | None = None
        self._opening = threading.Lock()
        self._installed: WeakKeyDictionary[Connection, InstalledSchema] = WeakKeyDictionary()
        self._usable: set[str] = set()  # installations that need no rebase
        # By install and place: a cached lane of one database is nothing in another, and a copy of a database has its id.
        self._lane_books: dict[InstalledSchema, LaneBook] = {}
        self._templates: dict[tuple[object, ...], JobTemplate] = {}
        self._quiet = QuietPeriod()

    # -- lifetime ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the pool. The client may be used again and then connects anew."""
        with self._opening:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _place(self, conn: Connection, planned: Sequence[PlannedJob]) -> tuple[Sequence[PlannedJob], Mapping[Route, int]]:
        """The jobs with their shards, and the lanes of their routes."""
        book = self._lane_book(conn)
        return book.place(planned, {route: self._lanes_of(conn, book, route) for route in {job.route for job in planned}})

    def _lane_book(self, conn: Connection) -> LaneBook:
        installed = self._check(conn)
        return self._lane_books.get(installed) or self._lane_books.setdefault(installed, LaneBook())

    def _lanes_of(self, conn: Connection, book: LaneBook, route: Route, *, busy: bool = False) -> tuple[int, ...]:
        lanes = book.known(route)
        if lanes is None and not busy:
            lanes = book.renew(route, enqueue_shards(conn, route.queue))
        if lanes is None:
            # Committed at once on a connection of its own: in the caller's transaction the new lane's unique key would make
            # every other first user of the lane wait for that transaction's end.
            with sibling(conn) as own:
                lanes = book.learn(route, ensure_lanes(own, route))
        return lanes

    def _check(self, conn: Connection) -> InstalledSchema:
        installed = self._installed.get(conn)
        if installed is None:
            installed = check_schema(conn, load_sql())
            if installed.incarnation not in self._usable:
                # Once in a server's life, on a connection of its own: the caller's transaction must not lock the rings.
                with sibling(conn) as own:
                    check_rebase(own)
                self._usable.add(installed.incarnation)
            self._installed[conn] = installed
        return installed

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[TupleRow]]:
        deadline = time.monotonic() + self.settings.connect_timeout
        pool = self._open()
        while True:
            try:
                conn = pool.getconn(timeout=max(0.001, deadline - time.monotonic()))
            except PoolTimeout as error:
                raise DatabaseUnavailable(
                    f"no database connection within {self.settings.connect_timeout:g} s: {self._reason()}"
                ) from error
            if not has_been_closed(conn):
                break
            conn.close()
            pool.putconn(conn)
        try:
            with guarded_schema():
                self._check(conn)
                yield conn
        except psycopg.OperationalError as error:
            if not conn.broken:
                raise
            raise DatabaseUnavailable(
                f"the connection was lost, and with it whether the last call took effect: {str(error).strip()}"
            ) from error
        finally:
            pool.putconn(conn)

    def _reading(self) -> AbstractContextManager[Connection]:
        """A connection to look with: the one whose transaction the caller is in, where a client knows of such a thing."""
        return self._connection()

    def _open(self) -> ConnectionPool[psycopg.Connection[TupleRow]]:
        if self._pool is None:
            with self._opening:
                if self._pool is None:
                    conninfo = engine_conninfo(
                        resolve_dsn(self._dsn), "awa client", connect_timeout=self.settings.connect_timeout
                    )
                    self._pool = ConnectionPool(
                        conninfo,
                        kwargs={"autocommit": True, "row_factory": tuple_row, "context": PLAIN_ADAPTERS},
                        min_size=self.settings.min_connections,
                        max_size=self.settings.max_connections,
                        configure=prepare_session,
                        name="awa-client",
                        open=True,
                    )
        return self._pool

    def _reason(self) -> str:
        """Why the pool had no connection, which the pool does not say."""
        try:
            with psycopg.connect(engine_conninfo(resolve_dsn(self._dsn), "awa client", connect_timeout=2.0)):
                return f"all {self.settings.max_connections} connections of the pool are in use"
        except psycopg.Error as cause:
            return str(cause).strip()
