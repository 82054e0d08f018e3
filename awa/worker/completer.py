"""The completer: gathers finished attempts and ends them in batches, durably, on a connection of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

import psycopg
from attrs import define, field
from psycopg.rows import TupleRow

from awa import events, trace
from awa.claim import Claim
from awa.context import JobContext
from awa.errors import from_database
from awa.postgres import flush_output
from awa.storage.claim import random_id
from awa.storage.complete import (
    Completion,
    Ending,
    NotAccepted,
    complete_jobs,
    finalize_attempts,
    not_accepted,
)
from awa.worker.identity import RuntimeIdentity

log = logging.getLogger("awa.worker")

CANCEL_WITHIN = 2.0  # seconds
PATIENCE_WITH_INTERNAL_ERRORS: Final = 5
"""How often endings are sent again that meet an error within the server."""
_RECONNECT_DELAYS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # seconds; the last is repeated


@define(eq=False)
class Flush:
    """One batch of endings. It keeps its id however often it has to be sent."""

    completions: list[Completion]
    endings: list[Ending]
    flush_id: int = field(factory=random_id)

    @property
    def size(self) -> int:
        """How many attempts it ends."""
        return sum(done.claim.n if done.items is None else len(done.items) for done in self.completions) + len(self.endings)

    def verdicts(self, answer: list[NotAccepted]) -> Iterator[tuple[Claim, int, str, str, float | None]]:
        """Every ending of it: claim, item, outcome, verdict, the delay before another try."""
        told = {(claim_id, item): verdict for claim_id, item, verdict in answer}
        for claim, items in self.completions:
            whole = told.get((claim.claim_id, None), "accepted")
            for item in range(1, claim.n + 1) if items is None else items:
                yield claim, item, "completed", told.get((claim.claim_id, item), whole), None
        for ending in self.endings:
            verdict = told.get((ending.claim.claim_id, ending.item), "accepted")
            yield ending.claim, ending.item, ending.outcome, verdict, ending.delay_after

    def halves(self) -> tuple[Flush, Flush] | None:
        """The same flush in two, or None for a single ending. Endings apart from completions, then by number."""
        if self.completions and self.endings:
            return Flush(self.completions, [], self.flush_id), Flush([], self.endings, self.flush_id)
        half = max(len(self.completions), len(self.endings)) // 2
        if half == 0:
            return None
        return (
            Flush(self.completions[:half], self.endings[:half], self.flush_id),
            Flush(self.completions[half:], self.endings[half:], self.flush_id),
        )


class Completer:
    """Executors append to `finished` and `endings` without a lock; one thread takes from them.

    A flush starts when `flush_limit` attempts wait or the first has waited `flush_after`. While one is on its way to the
    disk the next one gathers, so a slow disk makes larger flushes, not a longer line.
    """

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection[TupleRow]],
        identity: RuntimeIdentity,
        *,
        flush_limit: int,
        flush_after: float,
    ) -> None:
        self.finished: deque[tuple[Claim, int]] = deque()
        self.endings: deque[Ending] = deque()
        self.completed = 0  # attempts, durably
        self.finalized = 0
        self.refused = 0
        self.unstorable = 0
        self.flushes = 0
        self._connect = connect
        self._identity = identity
        self._watched: dict[tuple[int, int], tuple[JobContext, Ending | None]] = {}  # whose events somebody waits for
        self._flush_limit = flush_limit
        self._flush_after = flush_after
        self._conn: psycopg.Connection[TupleRow] | None = None
        self._wake = threading.Event()
        self._is_idle = True
        self._stopping = False
        self._abandon_at = float("inf")
        self._was_abandoned = False
        self._thread = threading.Thread(target=self._run, name="awa-completer", daemon=True)

    def start(self) -> None:
        """Begin to flush."""
        self._thread.start()

    def end(self, job: JobContext, ending: Ending) -> None:
        """Take an ending that is not a plain success. From any thread; `nudge` afterwards."""
        if events.listeners:
            self._watched[ending.claim.claim_id, ending.item] = (job, ending)
        self.endings.append(ending)

    def watch(self, job: JobContext, claim: Claim, item: int) -> None:
        """Tell of this success once it is durable."""
        self._watched[claim.claim_id, item] = (job, None)

    def nudge(self) -> None:
        """Call after an append: wakes the thread if it sleeps. An attribute read for the thousands of times it does not."""
        if self._is_idle:
            self._is_idle = False
            self._wake.set()

    def stop(self, timeout: float) -> bool:
        """Flush what there is, and end the thread. False when the database did not answer within `timeout` seconds."""
        self._abandon_at = time.monotonic() + timeout
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout)
        conn = self._conn
        if self._thread.is_alive() and conn is not None:
            # It waits in the server, for a lock as a rule, and nothing else ends that.
            with suppress(psycopg.Error):
                conn.cancel_safe(timeout=CANCEL_WITHIN)
            self._thread.join(CANCEL_WITHIN)
        return not (self._thread.is_alive() or self._was_abandoned or self.finished or self.endings)

    def _run(self) -> None:
        while True:
            if not self.finished and not self.endings:
                if self._stopping:
                    break
                self._wake.clear()
                self._is_idle = True
                # An append between the look above and the line above has not seen is_idle: look again before sleeping.
                if not self.finished and not self.endings and not self._stopping:
                    self._wake.wait()
                self._is_idle = False
                continue
            self._gather()
            flush = self._take()
            if not self._send(flush):
                self._was_abandoned = True
                break
        if self._conn is not None:
            self._conn.close()

    def _gather(self) -> None:
        """Let a flush grow for `flush_after`, in small steps: nobody has to signal that it is large enough."""
        deadline = time.monotonic() + self._flush_after
        while len(self.finished) + len(self.endings) < self._flush_limit and not self._stopping:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(left, 0.001))

    def _take(self) -> Flush:
        touched: dict[Claim, None] = {}
        pop = self.finished.popleft
        for _ in range(len(self.finished)):
            claim, item = pop()
            claim.finished.append(item)
            touched[claim] = None
        completions = []
        for claim in touched:
            items, claim.finished = claim.finished, []
            completions.append(Completion(claim, None if len(items) == claim.n and not claim.by_item else items))
        endings = [self.endings.popleft() for _ in range(len(self.endings))]
        return Flush(completions, endings)

    def _send(self, flush: Flush) -> bool:
        """Send until it is acknowledged, over as many connections as that takes; False when told to give up."""
        attempt = refusals = 0
        while True:
            try:
                if self._conn is None or self._conn.closed:
                    self._conn = self._connect()
                answer = self._exchange(self._conn, flush)
                break
            except psycopg.OperationalError as error:
                delay = _RECONNECT_DELAYS[min(attempt, len(_RECONNECT_DELAYS) - 1)]
                attempt += 1
                log.warning("%d endings wait for the database: %s", flush.size, str(error).strip())
                self._drop_connection()
                if time.monotonic() + delay > self._abandon_at:
                    return False
                time.sleep(delay)
            except Exception as error:
                refusals += 1
                if is_refusal(error, refusals):
                    return self._isolate(flush, error)
                # Not the connection's fault, and not to be lost either: say so loudly and go on trying.
                log.exception("ending %d attempts failed: %s", flush.size, describe(error))
                self._drop_connection()
                if time.monotonic() + _RECONNECT_DELAYS[-1] > self._abandon_at:
                    return False
                time.sleep(_RECONNECT_DELAYS[-1])
        self._settle(flush, answer)
        return True

    def _isolate(self, flush: Flush, error: BaseException) -> bool:
        """Keep one ending that the database refuses to store from holding up all others for ever."""
        parts = flush.halves()
        if parts:
            sent = [self._send(part) for part in parts]
            return all(sent)
        log.error("an ending cannot be stored, its job stays running: %s; %s", error, flush, exc_info=error)
        self.unstorable += flush.size
        return True

    def _exchange(self, conn: psycopg.Connection[TupleRow], flush: Flush) -> list[NotAccepted]:
        """One round trip; successes and other endings are a transaction each."""
        cursors = []
        with conn.pipeline() as pipeline:
            if flush.completions:
                cursors.append(complete_jobs(conn, self._identity.runtime_id, flush.flush_id, flush.completions))
                flush_output(conn)
                pipeline.sync()
            if flush.endings:
                cursors.append(finalize_attempts(conn, self._identity.runtime_id, flush.flush_id, flush.endings))
                flush_output(conn)
        return [verdict for cursor in cursors for verdict in not_accepted(cursor)]

    def _settle(self, flush: Flush, answer: list[NotAccepted]) -> None:
        self.flushes += 1
        if trace.on:
            trace.ended(flush.verdicts(answer))
        refused = busy = 0
        if answer:
            verdicts = {(claim_id, item): verdict for claim_id, item, verdict in answer}
            for done in flush.completions:
                claim_id = done.claim.claim_id
                whole = verdicts.get((claim_id, None))
                items = range(1, done.claim.n + 1) if done.items is None else done.items
                if whole == "refused" and not done.claim.by_item:
                    # The claim was pruned, and attempts of it may go on as leases: those are accepted one by one.
                    done.claim.by_item = True
                    whole = "busy"
                if whole == "busy":
                    self.finished.extend((done.claim, item) for item in items)
                    busy += len(items)
                    continue
                late = [i for i in items if (whole or verdicts.get((claim_id, i))) == "refused"]
                refused += len(late)
                if late:
                    log.warning("claim %d: the ending of %d items came too late and changed nothing", claim_id, len(late))
            self.completed -= refused + busy
            for ending in flush.endings:
                verdict = verdicts.get((ending.claim.claim_id, ending.item))
                if verdict == "busy":
                    self.endings.append(ending)
                    self.finalized -= 1
                elif verdict == "refused":
                    refused += 1
                    self.finalized -= 1
                    log.warning(
                        "claim %d item %d: ending it as %s came too late and changed nothing",
                        ending.claim.claim_id,
                        ending.item,
                        ending.outcome,
                    )
            self.refused += refused
        self.finalized += len(flush.endings)
        self.completed += flush.size - len(flush.endings)
        if self._watched:
            self._tell(flush, {(claim_id, item) for claim_id, item, _ in answer})

    def _tell(self, flush: Flush, not_ended: set[tuple[int, int | None]]) -> None:
        """Emit the events of what this flush has ended."""
        ended = [(e.claim.claim_id, e.item) for e in flush.endings]
        for done in flush.completions:
            items = range(1, done.claim.n + 1) if done.items is None else done.items
            ended += [(done.claim.claim_id, item) for item in items]
        for claim_id, item in ended:
            watched = self._watched.pop((claim_id, item), None)
            if watched is None:
                continue
            if (claim_id, item) in not_ended or (claim_id, None) in not_ended:
                if (claim_id, item) in self._still_waiting():
                    self._watched[claim_id, item] = watched
                continue
            job, ending = watched
            events.emit(events.completed(job) if ending is None else events.ended(job, ending))

    def _still_waiting(self) -> set[tuple[int, int]]:
        """What was busy and is handed in again."""
        return {(claim.claim_id, item) for claim, item in list(self.finished)} | {
            (e.claim.claim_id, e.item) for e in list(self.endings)
        }

    def _drop_connection(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()


def is_refusal(error: BaseException, times: int) -> bool:
    """Whether the database refuses what it was given, so that giving it again is of no use.

    A server that takes no writes (class 25: a standby, a transaction that was given up) will take them again. A server that
    says that something is wrong within it (XX) may mean this moment, as during a migration, or these rows, for ever.

    Args:
        error: what an attempt to store endings raised.
        times: how often these endings have met one.
    """
    if not isinstance(error, (psycopg.DataError, psycopg.IntegrityError, psycopg.InternalError)):
        return False
    reason = (error.sqlstate or "")[:2]
    return reason != "25" and (reason != "XX" or times >= PATIENCE_WITH_INTERNAL_ERRORS)


def describe(error: Exception) -> BaseException:
    """The error in the terms of this library, where it has some."""
    return (from_database(error) if isinstance(error, psycopg.Error) else None) or error
