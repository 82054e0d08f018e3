"""One queue's threads and the jobs waiting for them."""

from __future__ import annotations

import logging
import random
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from attrs import define

from awa.context import JobContext
from awa.storage.claim import KIND, Claim, ClaimedRow
from awa.storage.complete import Ending
from awa.worker.completer import Completer
from awa.worker.handler import Handler, args_of, context_of

log = logging.getLogger("awa.worker")

FAST: Final = 20e-6  # seconds: under this a second thread only fights for the interpreter
RETRY_BASE: Final = 1.0  # seconds; doubles with every attempt
RETRY_CAP: Final = 3600.0
MAX_MESSAGE: Final = 2000  # characters of an error kept with the job
UNKNOWN_KIND_LOG_EVERY: Final = 10.0  # seconds between two lines about one kind

ClaimedJob = tuple[Claim, int, ClaimedRow]


def retry_delay(attempt: int) -> float:
    """Seconds before the next try: exponential, capped, with a jitter of a quarter so that failures do not march in step."""
    delay: float = min(RETRY_CAP, RETRY_BASE * 2.0 ** min(attempt - 1, 30))
    return delay * random.uniform(0.75, 1.25)


class QueueExecutor:
    """Runs one queue's jobs on at most `concurrency` threads.

    The threads take jobs from one deque, whose popleft is atomic, so there is no lock per job and no job waits beside an
    idle thread. A thread that finds it empty parks on a lock of its own. Threads are started only as they are needed, and
    while handlers take microseconds only one is woken: the interpreter runs one at a time anyway.
    """

    def __init__(
        self,
        queue: str,
        concurrency: int,
        handlers: Mapping[str, Handler],
        completer: Completer,
        *,
        unknown_kind_delay: float,
        on_room: Callable[[], None],
    ) -> None:
        self.queue = queue
        self.concurrency = concurrency
        self.backlog: deque[ClaimedJob] = deque()
        self.running: dict[int, ClaimedJob] = {}  # by thread
        self.mean_duration: float | None = None  # seconds, a moving average
        self.fed = 0
        self.low_mark = 0  # at so few waiting jobs the dispatcher is told, and again when a thread finds none
        self._handlers = handlers
        self._completer = completer
        self._unknown_kind_delay = unknown_kind_delay
        self._on_room = on_room
        self._told_low = True
        self._told_empty = True
        self._idle: deque[threading.Lock] = deque()
        self._threads: list[threading.Thread] = []
        self._stopping = False
        self._seen_at_escalation = -1
        self._unknown_kinds: dict[str, _UnknownKind] = {}
        self._noting_unknown = threading.Lock()

    @property
    def busy(self) -> int:
        """Threads that are not parked."""
        return len(self._threads) - len(self._idle)

    @property
    def free(self) -> int:
        """Jobs that could start at once."""
        return self.concurrency - self.busy

    @property
    def started(self) -> int:
        """Jobs ever taken by a thread."""
        return self.fed - len(self.backlog)

    def feed(self, jobs: list[ClaimedJob]) -> None:
        """Hand over claimed jobs. Called by the dispatcher only."""
        self.fed += len(jobs)
        self.backlog.extend(jobs)
        self.low_mark = len(self.backlog) // 2
        self._told_low = self._told_empty = False
        fast = self.mean_duration is not None and self.mean_duration < FAST
        self._wake(1 if fast else len(jobs))

    def escalate(self) -> bool:
        """Wake all that jobs wait for when none has started since the last call: a handler that used to be fast blocks.

        Returns whether jobs wait beside idle threads, and so whether to call again soon.
        """
        if not self.backlog or self.free == 0:
            return False
        if self.started == self._seen_at_escalation:
            self._wake(len(self.backlog))
        self._seen_at_escalation = self.started
        return True

    def drain_backlog(self) -> list[ClaimedJob]:
        """Take back what no thread has started."""
        jobs = []
        while True:
            try:
                jobs.append(self.backlog.popleft())
            except IndexError:
                return jobs

    def stop(self) -> None:
        """Threads end when they next look for a job."""
        self._stopping = True
        self._wake(self.concurrency, start=False)

    def join(self, deadline: float) -> bool:
        """Wait for running handlers until the monotonic `deadline`; whether all have ended."""
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _wake(self, count: int, *, start: bool = True) -> None:
        for _ in range(count):
            try:
                parked = self._idle.pop()  # the last to park: its memory is still warm
            except IndexError:
                if not start or len(self._threads) >= self.concurrency:
                    return
                thread = threading.Thread(target=self._run, name=f"awa-{self.queue}-{len(self._threads) + 1}", daemon=True)
                self._threads.append(thread)
                thread.start()
            else:
                parked.release()

    def _park(self, parked: threading.Lock) -> None:
        self._idle.append(parked)
        if not self._told_empty:
            self._told_empty = True
            self._on_room()
        if self.backlog or self._stopping:
            # Fed between the empty pop and the append above: whoever fed may not have seen us.
            try:
                self._idle.remove(parked)
            except ValueError:
                parked.acquire()  # somebody did and releases it
            return
        parked.acquire()

    def _run(self) -> None:
        parked = threading.Lock()
        parked.acquire()
        me = threading.get_ident()
        pop = self.backlog.popleft
        backlog, running, completer, handlers = self.backlog, self.running, self._completer, self._handlers
        finished = completer.finished.append
        clock = time.perf_counter
        while not self._stopping:
            try:
                job = pop()
            except IndexError:
                self._park(parked)
                continue
            running[me] = job
            if len(backlog) <= self.low_mark and not self._told_low:
                self._told_low = True
                self._on_room()
            claim, item, row = job
            handler = handlers.get(row[KIND])
            if handler is None:
                self._put_back(claim, item, row)
                continue
            began = clock()
            try:
                handler.run(context_of(claim, row), args_of(row))
            except BaseException as error:  # noqa: BLE001 - SystemExit of a handler must not end the thread either
                self._fail(claim, item, row, error)
            else:
                finished((claim, item))
            mean = self.mean_duration
            duration = clock() - began
            self.mean_duration = duration if mean is None else mean + (duration - mean) * 0.05
            del running[me]
            completer.nudge()

    def _put_back(self, claim: Claim, item: int, row: ClaimedRow) -> None:
        """A rolling deploy meets kinds that only the new release knows: never a failure."""
        self._note_unknown(context_of(claim, row))
        self._completer.endings.append(Ending(claim, item, "released", delay_after=self._unknown_kind_delay))
        self.running.pop(threading.get_ident(), None)
        self._completer.nudge()

    def _note_unknown(self, job: JobContext) -> None:
        """Say it once per kind and `UNKNOWN_KIND_LOG_EVERY` with the number of jobs: there may be a million of them."""
        now = time.monotonic()
        with self._noting_unknown:
            seen = self._unknown_kinds.setdefault(job.kind, _UnknownKind())
            seen.jobs += 1
            if now < seen.quiet_until:
                return
            jobs, seen.jobs, seen.quiet_until = seen.jobs, 0, now + UNKNOWN_KIND_LOG_EVERY
        log.error(
            "no task for kind %r here: %d jobs since the last such line, now job %d, go back for %g s. "
            "Is the module that defines it among --import?",
            job.kind,
            jobs,
            job.id,
            self._unknown_kind_delay,
            extra=job.log_fields(),
        )

    def _fail(self, claim: Claim, item: int, row: ClaimedRow, error: BaseException) -> None:
        job = context_of(claim, row)
        delay = retry_delay(job.attempt)
        log.warning(
            "job %d (%s) failed on attempt %d of %d: %s",
            job.id,
            job.kind,
            job.attempt,
            job.max_attempts,
            error,
            exc_info=error,
            extra=job.log_fields(),
        )
        self._completer.endings.append(
            Ending(claim, item, "failed", delay_after=delay, error=describe_error(job.attempt, error))
        )


@define(eq=False)
class _UnknownKind:
    jobs: int = 0  # since the last line
    quiet_until: float = 0.0  # monotonic


def describe_error(attempt: int, error: BaseException) -> dict[str, Any]:
    """What a job keeps of an exception."""
    # Survives a __str__ that raises, and leaves out notes.
    message = str(traceback.TracebackException(type(error), error, None)) or type(error).__name__
    return {
        "attempt": attempt,
        "at": datetime.now(UTC).isoformat(),
        "type": type(error).__name__,
        # NUL and lone surrogates are legal in an exception and not in jsonb.
        "message": message.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()[:MAX_MESSAGE],
    }
