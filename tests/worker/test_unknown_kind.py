"""A kind that this worker does not know is put back, and said once."""

from __future__ import annotations

import logging

import pytest

import awa
from tests.waiting import wait_for
from tests.worker.support import job_in_state, wait_for_counts


def test_an_unknown_kind_goes_back_with_its_attempt_not_counted(dsn: str, client: awa.Client) -> None:
    job_id = client.enqueue("from_the_future", {"n": 1}, max_attempts=1)
    with awa.Worker({"default": 1}, dsn=dsn, tasks=[], promote_every=0.01, unknown_kind_delay=0.01):
        wait_for(lambda: (job := client.get_job(job_id)) and job.run_lease >= 3, what="the third claim")
    job = client.get_job(job_id)
    assert job is not None
    assert job.state in {"scheduled", "available"}
    assert (job.attempt, job.errors) == (0, ())

    ran: list[int] = []

    @awa.task
    def from_the_future(n: int) -> None:
        ran.append(n)

    with awa.Worker({"default": 1}, dsn=dsn, promote_every=0.01):
        assert job_in_state(client, job_id, "completed").attempt == 1
    assert ran == [1]


def test_many_jobs_of_an_unknown_kind_are_one_line(
    dsn: str, client: awa.Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.enqueue_many([{}] * 300, kind="alpha")
    client.enqueue_many([{}] * 300, kind="beta")
    with caplog.at_level(logging.ERROR, "awa.worker"), awa.Worker({"default": 4}, dsn=dsn, tasks=[]):
        wait_for_counts(client, "default", scheduled=600)
        lines = [record for record in caplog.records if "no task for kind" in record.getMessage()]
        assert sorted(vars(line)["awa_kind"] for line in lines) == ["alpha", "beta"]
        assert all("--import" in line.getMessage() for line in lines)

        monkeypatch.setattr("awa.worker.executor.UNKNOWN_KIND_LOG_EVERY", 0.0)
        caplog.clear()
        clock = _Later()
        monkeypatch.setattr("awa.worker.executor.time", clock)
        client.enqueue("alpha")
        wait_for_counts(client, "default", scheduled=601)
    (line,) = [record for record in caplog.records if "no task for kind" in record.getMessage()]
    assert "'alpha' here: 300 jobs since the last such line" in line.getMessage()


class _Later:
    """The time module, eleven seconds on."""

    def __init__(self) -> None:
        from time import monotonic, perf_counter

        self.perf_counter = perf_counter
        self._monotonic = monotonic

    def monotonic(self) -> float:
        return self._monotonic() + 11.0
