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
        job = wait_for(lambda: (job := client.get_job(job_id)) and job.state == "completed" and job)
    assert ran == ["Ada"]
    assert job is not True
    assert client.queue_counts("default").completed == 1
