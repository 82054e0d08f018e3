"""How many run at a time, how many are claimed at a time, and who gets what is left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import awa
from tests.waiting import PATIENCE, wait_for
from tests.worker.support import handed_out_twice, wait_for_counts


class Gate:
    """Counts who is inside, and keeps them there until it opens."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.now = 0
        self.most = 0
        self.total = 0
        self._lock = threading.Lock()

    @contextmanager
    def inside(self) -> Iterator[None]:
        with self._lock:
            self.now += 1
            self.total += 1
            self.most = max(self.most, self.now)
        try:
            assert self.opened.wait(PATIENCE)
            yield
        finally:
            with self._lock:
                self.now -= 1


def test_never_more_than_the_limit_and_all_of_the_limit(dsn: str, client: awa.Client) -> None:
    gates = {"narrow": Gate(), "wide": Gate()}

    @awa.task
    def enter(gate: str) -> None:
        with gates[gate].inside():
            pass

    for queue in gates:
        client.enqueue_many([{"gate": queue}] * 40, kind=enter, queue=queue)
    with awa.Worker({"narrow": 3, "wide": 7}, dsn=dsn) as worker:
        wait_for(lambda: (gates["narrow"].now, gates["wide"].now) == (3, 7), what="full queues")
        assert worker.stats().running == 10
        for gate in gates.values():
            gate.opened.set()
        for queue in gates:
            wait_for_counts(client, queue, completed=40)
    assert (gates["narrow"].most, gates["wide"].most) == (3, 7)


def test_slow_handlers_leave_the_rest_to_another_worker(dsn: str, client: awa.Client) -> None:
    gate = Gate()

    @awa.task
    def enter() -> None:
        with gate.inside():
            pass

    client.enqueue_many([{}] * 10, kind=enter)
    try:
        with awa.Worker({"default": 4}, dsn=dsn) as first:
            wait_for(lambda: gate.now == 4)
            with awa.Worker({"default": 6}, dsn=dsn) as second:
                wait_for(lambda: gate.now == 10, what="all ten at once")
                assert (first.stats().claimed, second.stats().claimed) == (4, 6)
                assert (first.stats().waiting, second.stats().waiting) == (0, 0)
                gate.opened.set()
                wait_for_counts(client, "default", completed=10)
    finally:
        gate.opened.set()


def test_a_handler_that_turns_slow_gets_no_more_than_its_threads(dsn: str, client: awa.Client) -> None:
    gate = Gate()

    @awa.task
    def quick() -> None: ...

    @awa.task
    def enter() -> None:
        with gate.inside():
            pass

    with awa.Worker({"default": 8}, dsn=dsn):
        client.enqueue_many([{}] * 3000, kind=quick)  # now one thread does it all
        wait_for_counts(client, "default", completed=3000)
        client.enqueue_many([{}] * 8, kind=enter)
        try:
            wait_for(lambda: gate.now == 8, what="every thread awake although the queue was fast")
        finally:
            gate.opened.set()
        wait_for_counts(client, "default", completed=3008)


def test_fast_handlers_are_claimed_in_large_batches(dsn: str, client: awa.Client) -> None:
    @awa.task
    def quick() -> None: ...

    client.enqueue_many_copy([{}] * 20_000, kind=quick)
    with awa.Worker({"default": 4}, dsn=dsn) as worker:
        wait_for_counts(client, "default", completed=20_000)
        stats = worker.stats()
    assert stats.claimed == 20_000
    assert stats.claims < 200
    assert stats.flushes < 1000
    assert handed_out_twice(dsn) == []


def test_sixty_four_threads_on_one_queue_run_each_job_once(dsn: str, client: awa.Client) -> None:
    ran: list[int] = []

    @awa.task
    def note(n: int) -> None:
        ran.append(n)

    client.enqueue_many_copy([{"n": n} for n in range(6000)], kind=note)
    with awa.Worker({"default": 64}, dsn=dsn) as worker:
        client.enqueue_many([{"n": n} for n in range(6000, 8000)], kind=note)
        wait_for_counts(client, "default", completed=8000)
        wait_for(lambda: worker.stats().completed == 8000)
        stats = worker.stats()
    assert sorted(ran) == list(range(8000))
    assert (stats.claimed, stats.failed, stats.refused) == (8000, 0, 0)
    assert handed_out_twice(dsn) == []


def test_two_workers_share_a_queue_without_sharing_a_job(dsn: str, client: awa.Client) -> None:
    ran: list[int] = []

    @awa.task
    def note(n: int) -> None:
        ran.append(n)

    with awa.Worker({"default": 4}, dsn=dsn) as first, awa.Worker({"default": 4}, dsn=dsn) as second:
        for start in range(0, 4000, 200):
            client.enqueue_many([{"n": n} for n in range(start, start + 200)], kind=note)
        wait_for_counts(client, "default", completed=4000)
        claimed = first.stats().claimed + second.stats().claimed
    assert claimed == 4000
    assert sorted(ran) == list(range(4000))
