"""A process that dies again and again beside one that dies once."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import psycopg

import awa
from tests.chaos.fleet import fleet, living
from tests.waiting import wait_for

DEAD = "SELECT dead_at IS NOT NULL FROM awa.runtime_instances WHERE runtime_id = %s"


def test_the_pause_before_a_restart_keeps_nobody_elses_death_from_being_seen(
    dsn: str, client: awa.Client, conn: psycopg.Connection[Any], tmp_path: Path
) -> None:
    with fleet(dsn, tmp_path / "log", workers=1, processes=2):

        def kill(runtime_id: int, pid: int, timeout: float = 30) -> None:
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: conn.execute(DEAD, (runtime_id,)).fetchall()[0][0], timeout, "its supervisor reports its death")

        for _ in range(4):
            wait_for(lambda: len(living(client)) == 2, what="both processes")
            steady, newest = sorted(living(client), key=lambda runtime: runtime.started_at)
            kill(newest.runtime_id, newest.pid)
        # After the fourth death it is five seconds until the next try.
        kill(steady.runtime_id, steady.pid, timeout=2)
        # Both come back, each in its time.
        wait_for(lambda: len(living(client)) == 2, what="both processes")
