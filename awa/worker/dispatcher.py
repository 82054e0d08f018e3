"""The dispatcher: one thread and one connection that claim for all queues of a worker."""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping

import psycopg
from attrs import define
from psycopg.rows import TupleRow

from awa import trace
from awa.config import WorkerSettings
from awa.errors import RuntimeDeclaredDead, from_database
from awa.notify import Listener
from awa.postgres import is_pooled
from awa.storage.claim import Settings, claim_jobs, prepare_claiming, random_id, read_claims, redeliver_claims
from awa.worker.executor import QueueExecutor
from awa.worker.identity import RuntimeIdentity

log = logging.getLogger("awa.worker")

ESCALATE_AFTER = 0.005  # seconds that a job may wait beside an idle thread
DEADLINE_SLACK = 30.0  # seconds a claimed job may wait for its start
LOST_CLAIM_WATCH = 30.0  # seconds a claim whose answer was lost may still be committed by its orphaned backend
LISTEN_AGAIN_AFTER = 5.0  # seconds between tries to open a listening connection
CLAIM_STATEMENT_TIMEOUT = 20.0  # seconds; less than the watch, so that the watch sees the end of every claim


@define(eq=False)
class _Queue:
    executor: QueueExecutor
    next_claim_at: float = 0.0  # monotonic
    backoff: float = 0.0  # seconds; 0 while jobs keep coming
    woken: bool = False
    deadline_after: float | None = None  # seconds, of its claims
    found_nothing: bool = False  # by the last claim


@define(eq=False)
class _LostClaim:
    queue: _Queue
    token: int
    after_claim_id: int
    watch_until: float
    look_at: float


class Dispatcher:
    """Claims no more than the threads can soon run, and looks again when they have run half of it.

    After a full claim it claims again as soon as there is room, after one that reached the queue's end a little later (so
    that a steady trickle is claimed in batches), after an empty one at growing intervals up to `poll_every`, and at once
    when the queue is woken.
    """

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection[TupleRow]],
        identity: RuntimeIdentity,
        executors: Mapping[str, QueueExecutor],
        settings: WorkerSettings,
        *,
        on_declared_dead: Callable[[], None],
        on_cancel: Callable[[int, int], None],
        connect_listener: Callable[[], psycopg.Connection[TupleRow]] | None = None,
    ) -> None:
        self.claims = 0
        self.claimed = 0
        self.connected = threading.Event()
        self._connect = connect
        self._identity = identity
        self._on_declared_dead = on_declared_dead
        self._settings = settings
        self._queues = {
            name: _Queue(executor, deadline_after=self._deadline_of(executor)) for name, executor in executors.items()
        }
        self._newest_claim_id = 0
        self._lost: list[_LostClaim] = []
        self._conn: psycopg.Connection[TupleRow] | None = None
        self._local: Settings = ()  # for each claim's transaction
        self._connect_listener = connect_listener
        self._listening: psycopg.Connection[TupleRow] | None = None  # the claiming connection, but for poolers' sake
        self._listen_at = 0.0
        self.listener = Listener(self._woken, probe_every=settings.probe_every, on_cancel=on_cancel)
        self._nudged = False
        self._nudging = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="awa-dispatcher", daemon=True)

    def start(self) -> None:
        """Begin to claim."""
        # A byte here ends a wait that watches the connection's socket at the same time.
        self._nudge_read, self._nudge_write = socket.socketpair()
        self._nudge_read.setblocking(False)
        self._thread.start()

    def stop(self) -> None:
        """Claim nothing more, and end the thread."""
        self._stopping = True
        self.room()
        self._thread.join()
        with self._nudging:  # executors go on for a while, and their nudges must not meet a closed socket
            self._nudged = True
            self._nudge_read.close()
            self._nudge_write.close()

    def room(self) -> None:
        """An executor can take more, or something else has changed. From any thread."""
        if not self._nudged:
            with self._nudging:
                if not self._nudged:
                    self._nudged = True
                    self._nudge_write.send(b"!")

    @property
    def found_nothing(self) -> bool:
        """Whether the last claim of every queue came back empty."""
        return all(state.found_nothing for state in self._queues.values())

    @property
    def has_lost_claims(self) -> bool:
        """Whether a claim whose answer was lost may still be committed."""
        return bool(self._lost)

    def _deadline_of(self, executor: QueueExecutor) -> float | None:
        """A claim's jobs share a deadline, by which the slowest has been told, given up and waited for."""
        longest = executor.longest_timeout
        return None if longest is None else longest + self._settings.hard_stop_after + DEADLINE_SLACK

    def wanted(self, executor: QueueExecutor) -> int:
        """How many jobs to claim now: what could start at once, and what will start within `prefetch_span`.

        While more than half of that waits it is none, so that claims stay large however busy the threads are.
        """
        waiting = len(executor.backlog)
        prefetch = 0
        if executor.mean_duration is not None:
            per_second = executor.concurrency / max(executor.mean_duration, 1e-6)
            prefetch = min(2 * self._settings.claim_limit, int(per_second * self._settings.prefetch_span))
        if waiting > prefetch // 2:
            return 0
        return max(0, min(self._settings.claim_limit, executor.free + prefetch - waiting))

    def _run(self) -> None:
        delay = 0.1
        while not self._stopping:
            try:
                if self._conn is None:
                    self._conn = self._connect()
                    self._newest_claim_id = 0  # after a crash of the server claim ids may come again
                    self._local = prepare_claiming(
                        self._conn, durable=self._settings.durable_claims, statement_timeout=CLAIM_STATEMENT_TIMEOUT
                    )
                    self._listen_on_claiming(self._conn)
                    self.connected.set()
                self._listen_apart()
                self._probe_listening(self._conn)
                wait = self._claim_due(self._conn)
                delay = 0.1
            except RuntimeDeclaredDead as error:
                log.error("%s", error)
                wait = delay = min(delay * 2, 5.0)
                try:
                    self._on_declared_dead()
                    wait = 0.0
                except psycopg.Error as failed:
                    log.warning("cannot register anew: %s", str(failed).strip())
                self._lost.clear()
            except psycopg.Error as error:
                log.warning("claiming pauses for %g s: %s", delay, str(from_database(error) or error).strip())
                self._drop_connection()
                wait, delay = delay, min(delay * 2, 5.0)
            except Exception:
                log.exception("claiming stumbled, and goes on in %g s", delay)
                self._drop_connection()
                wait, delay = delay, min(delay * 2, 5.0)
            self._wait(wait)
        self._look_for_lost_at_last()
        self._drop_connection()
        self._drop_listening()

    def wait_until_ready(self, timeout: float) -> bool:
        """Whether it claims, and is told of new jobs if there is a way to tell it, within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        if not self.connected.wait(timeout):
            return False
        if self._connect_listener is None and self._listening is None:
            return True
        return self.listener.heard_itself.wait(max(0.0, deadline - time.monotonic()))

    def _listen_on_claiming(self, conn: psycopg.Connection[TupleRow]) -> None:
        if self._connect_listener is not None:
            return
        if is_pooled(conn):
            log.warning(
                "a pooler is between here and PostgreSQL, and lets no notification through: polling every %g s at most. "
                "Give --listen-dsn (AWA_LISTEN_DSN) a direct connection for wake-ups",
                self._settings.poll_every,
            )
            return
        self._listening = conn
        self.listener.attach(conn)

    def _listen_apart(self) -> None:
        """On a connection of its own, without which the worker polls and tries again."""
        now = time.monotonic()
        if self._connect_listener is None or self._listening is not None or now < self._listen_at:
            return
        self._listen_at = now + LISTEN_AGAIN_AFTER
        try:
            self._listening = self._connect_listener()
            if is_pooled(self._listening):
                log.error("--listen-dsn (AWA_LISTEN_DSN) leads to a pooler, too, which lets no notification through")
                self._drop_listening()
                return
            self.listener.attach(self._listening)
        except psycopg.Error as error:
            log.warning("no wake-ups for now, polling goes on: %s", str(error).strip())
            self._drop_listening()

    def _probe_listening(self, conn: psycopg.Connection[TupleRow]) -> None:
        if self._listening is None:
            return
        try:
            self.listener.probe_if_due(conn)
        except psycopg.Error as error:
            # One of its own that has died without a word is noticed here first, and is no reason to stop claiming.
            if self._listening is conn or not self._listening.closed:
                raise
            log.warning("the listening connection was lost, polling goes on: %s", str(error).strip())
            self._drop_listening()

    def _drop_listening(self) -> None:
        conn, self._listening = self._listening, None
        if conn is not None and conn is not self._conn:
            conn.close()

    def _drop_connection(self) -> None:
        conn, self._conn = self._conn, None
        self.connected.clear()
        if conn is not None:
            if self._listening is conn:
                self._listening = None
            conn.close()

    def _wait(self, seconds: float) -> None:
        """Until a nudge, a notification, or the time is over."""
        if self._conn is None:
            self._pause(seconds)
            return
        if any(state.woken and state.backoff for state in self._queues.values()):
            return  # woken by what arrived together with a claim's answer
        poll = select.poll()
        poll.register(self._nudge_read, select.POLLIN)
        conns = {conn.fileno(): conn for conn in (self._conn, self._listening) if conn is not None}
        for fd in conns:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(seconds * 1000):
            if fd == self._nudge_read.fileno():
                self._nudge_read.recv(64)
                self._nudged = False
                continue
            try:
                self.listener.read(conns[fd])
            except psycopg.OperationalError as error:
                # Dropped here and now: a broken connection has no socket to wait on any more.
                if conns[fd] is self._conn:
                    log.warning("the claiming connection was lost: %s", str(error).strip())
                    self._drop_connection()
                else:
                    log.warning("the listening connection was lost, polling goes on: %s", str(error).strip())
                    self._drop_listening()

    def _pause(self, seconds: float) -> None:
        """Without a connection to claim on nudges and wake-ups are no reason to try again before the time is over."""
        until = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._nudge_read, select.POLLIN)
        while not self._stopping and (left := until - time.monotonic()) > 0:
            if poll.poll(left * 1000):
                self._nudge_read.recv(64)
                self._nudged = False

    def _woken(self, queue: str | None) -> None:
        for name, state in self._queues.items():
            if queue is None or queue == name:
                state.woken = True

    def _claim_due(self, conn: psycopg.Connection[TupleRow]) -> float:
        """Claim for every queue whose time has come; seconds until the next one's."""
        self._look_for_lost(conn)
        wait = self._settings.poll_every
        for state in self._queues.values():
            now = time.monotonic()
            if state.woken:
                state.woken = False
                if state.backoff:
                    state.backoff, state.next_claim_at = 0.0, now
            if state.next_claim_at <= now and (limit := self.wanted(state.executor)) > 0:
                self._claim(conn, state, limit)
            if self._stopping:
                break
            now = time.monotonic()
            if state.next_claim_at > now:
                wait = min(wait, state.next_claim_at - now)
            elif self.wanted(state.executor) > 0:
                wait = 0.0
            if state.executor.escalate():
                wait = min(wait, ESCALATE_AFTER)
        return wait

    def _claim(self, conn: psycopg.Connection[TupleRow], state: _Queue, limit: int) -> None:
        queue = state.executor.queue
        token = random_id()
        try:
            rows = claim_jobs(conn, queue, limit, self._identity.runtime_id, token, state.deadline_after, self._local)
        except psycopg.OperationalError:
            now = time.monotonic()
            self._lost.append(_LostClaim(state, token, self._newest_claim_id, now + LOST_CLAIM_WATCH, now))
            raise
        now = time.monotonic()
        self.claims += 1
        state.found_nothing = not rows
        if len(rows) >= limit:
            state.backoff, state.next_claim_at = 0.0, now
        elif rows:
            state.backoff, state.next_claim_at = 0.0, now + self._settings.claim_spacing
        else:
            state.backoff = min(max(state.backoff * 2, self._settings.claim_spacing), self._settings.poll_every)
            state.next_claim_at = now + state.backoff
        if rows:
            self._feed(state, rows, token)

    def _feed(self, state: _Queue, rows: list[tuple[object, ...]], token: int) -> None:
        jobs = read_claims(rows, state.executor.queue, token)
        if trace.on:
            trace.claimed(jobs, self._identity.runtime_id)
        if not jobs:
            return  # all of them were cancelled while they waited
        self.claimed += len(jobs)
        self._newest_claim_id = jobs[-1][0].claim_id
        state.executor.feed(jobs)

    def _look_for_lost_at_last(self) -> None:
        """Before the end, so that the jobs of a lost claim are given back with the rest."""
        for lost in self._lost:
            lost.look_at = 0.0
        try:
            if self._lost:
                self._conn = self._conn or self._connect()
                prepare_claiming(self._conn)
                self._look_for_lost(self._conn)
        except psycopg.Error as error:
            log.warning("%d claims whose answers were lost may stay running: %s", len(self._lost), str(error).strip())

    def _look_for_lost(self, conn: psycopg.Connection[TupleRow]) -> None:
        """Run the jobs of a claim that was committed while its answer was lost: nobody else will."""
        for lost in list(self._lost):
            now = time.monotonic()
            if now < lost.look_at:
                continue
            rows = redeliver_claims(conn, self._identity.runtime_id, lost.token, lost.after_claim_id)
            if rows:
                log.warning(
                    "%d jobs of queue %r were claimed by a call whose answer was lost",
                    len(rows),
                    lost.queue.executor.queue,
                )
                self._feed(lost.queue, rows, lost.token)
            if rows or now > lost.watch_until:
                self._lost.remove(lost)
            else:
                lost.look_at = now + 5.0
