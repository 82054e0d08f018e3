"""A supervisor and its processes: every death is seen to at once, whatever the supervisor is waiting for."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import awa
from awa.worker import supervisor
from awa.worker.supervisor import Supervisor, WorkerSpec, _Child
from tests.waiting import wait_for
from tests.worker.support import job_in_state

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def handlers_of_signals() -> Iterator[None]:
    """A supervisor takes the signals of its process; here they are given back."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def spec(dsn: str) -> WorkerSpec:
    """Processes that run one job at a time."""
    return WorkerSpec(queues={"default": 1}, dsn=dsn, imports=["tests.chaos.tasks"])


def run_until(supervisor: Supervisor, fact: Callable[[], object]) -> None:
    """Let it work, in this thread because it handles signals, until another thread has seen the fact."""

    def watch() -> None:
        try:
            fact()
        finally:
            supervisor.request_stop()

    with ThreadPoolExecutor(1) as pool:
        seen = pool.submit(watch)
        supervisor.run()
        assert seen.done(), "the supervisor has ended by itself"
        seen.result()


class FirstDiesUnseen(Supervisor):
    """Its first process is dead before it has looked for the first time, so that there is a moment without any."""

    def _start(self, deaths: int = 0) -> _Child:
        child = super()._start(deaths)
        if deaths == 0:
            child.process.kill()
            child.process.join()
        return child


def test_a_supervisor_outlives_the_moment_in_which_all_of_its_processes_are_dead(dsn: str, client: awa.Client) -> None:
    job_id = client.enqueue("patient", {"seconds": 0})
    run_until(FirstDiesUnseen(spec(dsn), 1), lambda: job_in_state(client, job_id, "completed"))


def test_a_process_that_is_replaced_later_does_not_hide_the_death_of_another(
    dsn: str, client: awa.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "RESTART_DELAYS", (600.0,))
    ids = client.enqueue_many([{"step": "before"}] * 2, kind="exactly_once")  # each kills the process that runs it first

    def died_with(job_id: int) -> list[object]:
        job = client.get_job(job_id)
        return [] if job is None or job.state == "running" else [error["type"] for error in job.errors]

    run_until(
        Supervisor(spec(dsn), 2),
        lambda: wait_for(lambda: [died_with(job_id) for job_id in ids] == [["WorkerDied"]] * 2, what="both deaths' end"),
    )
