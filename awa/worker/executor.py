"""One queue's threads and the jobs waiting for them."""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from attrs import define

from awa import events
from awa.claim import ARGS, KIND, Claim, ClaimedRow
from awa.context import JobContext
from awa.errors import JobInterrupted
from awa.storage.complete import Ending
from awa.worker.completer import Completer
from awa.worker.deadlines import Deadlines
from awa.worker.endings import Verdict, judge
from awa.worker.handler import Handler
from awa.worker.services import AttemptServices

log = logging.getLogger("awa.worker")

FAST: Final = 20e-6  # seconds: under this a second thread only fights for the interpreter
UNKNOWN_KIND_LOG_EVERY: Final = 10.0  # seconds between two lines about one kind

ClaimedJob = tuple[Claim, int, ClaimedRow]


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
        timeout: float | None = None,
        hard_stop_after: float = 10.0,
        services: AttemptServices | None = None,
        deadlines: Deadlines | None = None,
        first_cell: int = 0,
    ) -> None:
        self.queue = queue
        self.concurrency = concurrency
        self.backlog: deque[ClaimedJob] = deque()
        self.running: dict[int, JobContext | None] = {}  # by thread; a thread's key stays, so that others may iterate
        self.timeout = timeout  # seconds, of tasks that have none of their own
        self.mean_duration: float | None = None  # seconds, a moving average
        self.fed = 0
        self.low_mark = 0  # at so few waiting jobs the dispatcher is told, and again when a thread finds none
        self._handlers = handlers
        self._completer = completer
        self._unknown_kind_delay = unknown_kind_delay
        self._on_room = on_room
        self._hard_stop_after = hard_stop_after
        self._services = services
        self._deadlines = deadlines
        self._first_cell = first_cell
        self._flagged: dict[int, JobContext] = {}  # threads that are being interrupted
        self._interrupting = threading.Lock()
        self._unwanted: set[tuple[int, int]] = set()  # claim id and item of what ended before it began
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

    def join(self, deadline: float, aborted: threading.Event) -> bool:
        """Wait for running handlers until the monotonic `deadline` or until `aborted`; whether all have ended."""
        for thread in self._threads:
            while thread.is_alive() and not aborted.is_set() and (left := deadline - time.monotonic()) > 0:
                thread.join(min(left, 0.05))
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
                try:
                    thread.start()
                except RuntimeError as error:  # the system has no more threads: those that there are do the work
                    self._threads.pop()
                    log.error("queue %s works with %d threads: %s", self.queue, len(self._threads), error)
                    return
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

    # -- interrupting --------------------------------------------------------------------------------------------------

    def timeout_of(self, job: JobContext) -> float | None:
        """Seconds that this attempt may run."""
        handler = self._handlers.get(job.kind)
        own = None if handler is None else handler.policy.timeout
        return self.timeout if own is None else own

    @property
    def longest_timeout(self) -> float | None:
        """Of all that may run here; None when anything has none."""
        timeouts = [self.timeout if h.policy.timeout is None else h.policy.timeout for h in self._handlers.values()]
        known = [timeout for timeout in timeouts if timeout is not None]
        return max(known) if known and len(known) == len(timeouts) else None

    @property
    def has_timeouts(self) -> bool:
        """Whether anything that may run here has a timeout."""
        return self.timeout is not None or any(h.policy.timeout is not None for h in self._handlers.values())

    def attempts(self) -> list[tuple[int, JobContext]]:
        """What runs now, with its thread."""
        return [(thread, job) for thread, job in list(self.running.items()) if job is not None]

    def receipts(self) -> list[tuple[Claim, int]]:
        """Of what runs now."""
        return [(job._claim, job._item) for _, job in self.attempts()]

    def forget(self, claim_id: int, item: int) -> None:
        """This job has ended: if it still waits here, it is not to be started."""
        if len(self._unwanted) > 10_000:
            self._unwanted.clear()
        self._unwanted.add((claim_id, item))

    def interrupt(self, thread: int, job: JobContext, reason: type[JobInterrupted]) -> bool:
        """Raise `reason` in the handler of this attempt, and nowhere else; False when it has ended.

        The flag is set before the look at `running`, and a thread looks at the flag after it has taken its attempt from
        `running`: so either this sees that the handler has ended, or the thread sees the flag and absorbs what may come.
        """
        with self._interrupting:
            self._flagged[thread] = job
            if self.running.get(thread) is not job:
                del self._flagged[thread]
                return False
            state = job.attempt_state()
            state.told = reason
            if state.future is not None:
                del self._flagged[thread]
                state.future.cancel()
            else:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(reason))
            return True

    def _absorb(self, me: int) -> None:
        while True:
            try:
                with self._interrupting:
                    self._flagged.pop(me, None)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(me), None)
                return
            except JobInterrupted:
                continue

    # -- the threads' loop ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        parked = threading.Lock()
        parked.acquire()
        me = threading.get_ident()
        pop = self.backlog.popleft
        backlog, running, completer, handlers = self.backlog, self.running, self._completer, self._handlers
        flagged, unwanted, services = self._flagged, self._unwanted, self._services
        finished = completer.finished.append
        clock = time.perf_counter
        timed, listeners = self.has_timeouts, events.listeners
        cell = self._first_cell + self._threads.index(threading.current_thread())
        running[me] = None
        while not self._stopping:
            try:
                job = pop()
            except IndexError:
                self._park(parked)
                continue
            claim, item, row = job
            context = running[me] = JobContext(claim, item, row, services)
            if len(backlog) <= self.low_mark and not self._told_low:
                self._told_low = True
                self._on_room()
            handler = handlers.get(row[KIND])
            if handler is None:
                self._put_back(context, claim, item)
                running[me] = None
                continue
            if unwanted and (claim.claim_id, item) in unwanted:
                unwanted.discard((claim.claim_id, item))
                running[me] = None
                continue
            if claim.deadline_at is not None and self._comes_too_late(claim, handler):
                completer.end(context, Ending(claim, item, "released"))
                completer.nudge()
                running[me] = None
                continue
            if listeners:
                events.emit(events.started(context))
            if timed:
                self._set_deadline(cell, context, claim, item)
            value = None
            # An interrupt that arrives outside the handler is caught by the outer clause and leaves this as it was.
            error: BaseException | None = _NO_WORD
            began = clock()
            try:
                try:
                    value = handler.run(context, row[ARGS])
                    error = None
                except BaseException as raised:  # noqa: BLE001 - SystemExit of a handler must not end the thread either
                    error = raised
                running[me] = None
                if me in flagged:
                    self._absorb(me)
            except JobInterrupted as late:
                running[me] = None
                self._absorb(me)
                error = late if error is _NO_WORD else error
            duration = clock() - began
            if timed and self._deadlines is not None:
                self._deadlines.clear(cell)
            if error is None and value is None and context._attempt_state is None and not handler.stores_result:
                finished((claim, item))
                if listeners:
                    completer.watch(context, claim, item)
            else:
                self._end(context, handler, error, value, duration)
            mean = self.mean_duration
            self.mean_duration = duration if mean is None else mean + (duration - mean) * 0.05
            completer.nudge()

    def _end(self, job: JobContext, handler: Handler, error: BaseException | None, value: object, duration: float) -> None:
        """Everything but a plain success."""
        claim, item = job._claim, job._item
        verdict, ending = judge(job, claim, item, handler.policy, error, value, duration, self._services)
        if verdict is Verdict.FINISHED:
            self._completer.finished.append((claim, item))
            if events.listeners:
                self._completer.watch(job, claim, item)
        elif verdict is Verdict.DURABLE:
            if events.listeners:
                events.emit(events.completed(job))
        elif ending is not None:
            self._completer.end(job, ending)

    def _comes_too_late(self, claim: Claim, handler: Handler) -> bool:
        """Whether the claim's deadline would fall into the attempt's own time: it is given back unharmed."""
        timeout = handler.policy.timeout if handler.policy.timeout is not None else self.timeout
        assert claim.deadline_at is not None
        # The server's clock gives the span and this host's measures it: the two may be minutes apart.
        left = (claim.deadline_at - claim.claimed_at) / 1e6 - (time.monotonic() - claim.received_at)
        return left < (timeout or 0.0)

    def _set_deadline(self, cell: int, job: JobContext, claim: Claim, item: int) -> None:
        timeout = self.timeout_of(job)
        if timeout is not None and self._deadlines is not None:
            self._deadlines.set(cell, time.monotonic() + timeout + self._hard_stop_after, claim.claim_id, item)

    def _put_back(self, job: JobContext, claim: Claim, item: int) -> None:
        """A rolling deploy meets kinds that only the new release knows: never a failure."""
        self._note_unknown(job)
        self._completer.end(job, Ending(claim, item, "released", delay_after=self._unknown_kind_delay))
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


@define(eq=False)
class _UnknownKind:
    jobs: int = 0  # since the last line
    quiet_until: float = 0.0  # monotonic


_NO_WORD: Final = RuntimeError("the handler has not ended")
