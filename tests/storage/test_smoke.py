"""The shortest way through the engine."""

from __future__ import annotations

import awa
from tests.waiting import wait_for


def test_a_job_runs_once_and_is_completed(dsn: str, client: awa.Client) -> None:
    ran: list[str] = []

    @awa.task
    def greet(name: str) -> None:
        ran.append(name)

    job_id = greet.options(client=client).enqueue("Ada")
    with awa.Worker({"default": 2}, dsn=dsn):
        wait_for(lambda: client.queue_counts("default").completed == 1)
    assert ran == ["Ada"]
    job = client.get_job(job_id)
    assert job is not None
    assert (job.state, job.attempt) == ("completed", 1)
