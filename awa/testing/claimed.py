"""The jobs of a client's database, claimed and ended by the engine under a runtime of the drain's own."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import psycopg
from attrs import evolve
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from awa.claim import Claim, ClaimedRow
from awa.client import Client
from awa.clock import moved_now
from awa.config import WorkerSettings
from awa.errors import AwaError
from awa.postgres import connect, set_session
from awa.storage import jobs as stored
from awa.storage.claim import claim_jobs, prepare_claiming, random_id, read_claims
from awa.storage.complete import Completion, Ending, complete_jobs, finalize_attempts, not_accepted
from awa.storage.kinds import set_dead_letter
from awa.storage.promote import promote_due
from awa.storage.rescue import rescue_dead, rescue_expired
from awa.storage.runtimes import beat, declare_stale, register_runtime, retire_runtime
from awa.task import registered_tasks
from awa.testing.attempts import Attempts, Ran
from awa.version import __version__
from awa.worker.identity import RuntimeIdentity
from awa.worker.services import AttemptServices

PROMOTE_LIMIT: Final = 10_000
BEAT_EVERY: Final = 1.0  # seconds
BUSY_FOR: Final = 5.0  # seconds to insist on an ending whose claim is locked
STALE_AFTER: Final = WorkerSettings(queues={"default": 1}).stale_after


class ClaimedJobs:
    """A drain's source: see `awa.testing.draining.Source`."""

    def __init__(self, client: Client, queues: Sequence[str] | None) -> None:
        # Asked of a connection, because a client may get its connections from elsewhere than a connection string.
        with client._connection() as conn:
            self._dsn = make_conninfo(conn.info.dsn, password=conn.info.password or None)
        self._queues = queues
        self._identity = RuntimeIdentity()
        self._beat_at = time.monotonic()
        self._services = AttemptServices(self._connect, self._identity)
        self._conn = self._connect()
        try:
            prepare_claiming(self._conn)
            for task in registered_tasks().values():
                if task.policy.dead_letter is not None:
                    set_dead_letter(self._conn, kind=task.kind, dead_letter=task.policy.dead_letter)
            if (now := moved_now()) is not None:
                self._do_chores(now)
            # After the chores: a clock that is far ahead would find the drain's own runtime stale.
            self._register()
        except BaseException:
            self._conn.close()
            raise

    def promote(self, now: datetime | None) -> None:
        while promote_due(self._conn, PROMOTE_LIMIT, now) == PROMOTE_LIMIT:
            pass

    def take(self) -> tuple[Claim, int, ClaimedRow] | None:
        if time.monotonic() - self._beat_at > BEAT_EVERY:
            self._beat_at = time.monotonic()
            beat(self._conn, self._identity.supervisor_id, [self._identity.pid])
        queues = self._queues or [counts.queue for counts in stored.queue_counts(self._conn, None)]
        for queue in queues:
            # A job that was cancelled before is passed over by a claim, which then hands out nothing.
            while rows := claim_jobs(self._conn, queue, 1, self._identity.runtime_id, token := random_id()):
                for claimed in read_claims(rows, queue, token):
                    return claimed
        return None

    def run(self, attempts: Attempts, claim: Claim, item: int, row: ClaimedRow) -> Ran:
        try:
            return attempts.run(claim, item, row, self._services)
        except BaseException:
            # The test is being ended: as by a stopped worker, the job goes back without counting.
            self._end(Ending(claim, item, "released"))
            raise

    def record(self, ran: Ran, ahead: float) -> str:
        if ran.ending is not None:
            ending = ran.ending
            if ending.outcome != "completed" and ending.delay_after is not None:
                ending = evolve(ending, delay_after=ending.delay_after + ahead)
            self._end(ending, is_plain=ran.is_plain)
        job = stored.get_job(self._conn, ran.job.id)
        return "unknown" if job is None else job.state

    def close(self) -> None:
        try:
            retire_runtime(self._conn, self._identity.runtime_id)
        finally:
            self._conn.close()
            self._services.close()

    def _end(self, ending: Ending, *, is_plain: bool = False) -> None:
        flush_id = random_id()
        runtime_id = self._identity.runtime_id
        deadline = time.monotonic() + BUSY_FOR
        while True:
            if is_plain:
                cursor = complete_jobs(self._conn, runtime_id, flush_id, [Completion(ending.claim, None)])
            else:
                cursor = finalize_attempts(self._conn, runtime_id, flush_id, [ending])
            answer = not_accepted(cursor)
            if not answer or answer[0].verdict == "refused":  # it was cancelled, or ended otherwise, while it ran
                return
            if time.monotonic() > deadline:
                raise AwaError(f"the claim of a drained job was locked by something for {BUSY_FOR:g} s")
            time.sleep(0.002)

    def _do_chores(self, now: datetime) -> None:
        """What a leader does about who is gone or late, by the moved clock. By the server's it stays a leader's business."""
        declare_stale(self._conn, STALE_AFTER, now)
        while rescue_dead(self._conn, now=now).more:
            pass
        rescued, position = rescue_expired(self._conn, now=now)
        while rescued.more:
            rescued, position = rescue_expired(self._conn, position, now=now)

    def _register(self) -> None:
        register_runtime(
            self._conn,
            runtime_id=self._identity.runtime_id,
            supervisor_id=self._identity.supervisor_id,
            pid=os.getpid(),
            hostname=self._identity.hostname,
            release=__version__,
            queues=dict.fromkeys(self._queues or (), 1),
        )
        self._beat_at = time.monotonic()

    def _connect(self) -> psycopg.Connection[TupleRow]:
        conn = connect(self._dsn, "awa drain")
        set_session(conn, "default_transaction_isolation", "read committed")  # as a worker's, whatever the role's own is
        return conn
