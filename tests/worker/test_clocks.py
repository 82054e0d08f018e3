"""Hosts whose clocks disagree."""

from __future__ import annotations

import time

import pytest

import awa
from tests.worker.support import wait_for_counts


@pytest.mark.parametrize("ahead", [-600.0, 600.0])
def test_jobs_with_a_timeout_run_whatever_the_workers_clock_says(
    dsn: str, client: awa.Client, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    @awa.task(timeout=5)
    def quick() -> None: ...

    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + ahead)
    client.enqueue(quick)
    with awa.Worker({"default": 1}, dsn=dsn):
        wait_for_counts(client, "default", completed=1)
