"""Wake-ups: heard, lost and repaired."""

from __future__ import annotations

import logging
from typing import Any

import psycopg
import pytest

import awa
from awa.notify import NOTIFY, Listener
from tests.waiting import PATIENCE, wait_for
from tests.worker.support import wait_for_counts


def _heard(listener: Listener, conn: psycopg.Connection[Any], fact: Any) -> None:
    def look() -> bool:
        listener.read(conn)
        return bool(fact())

    wait_for(look)


def test_a_probe_comes_back(conn: psycopg.Connection[Any]) -> None:
    listener = Listener(lambda queue: None, probe_every=600)
    listener.attach(conn)
    assert not listener.heard_itself.is_set()
    listener.probe_if_due(conn)
    _heard(listener, conn, listener.heard_itself.is_set)
    assert (listener.probes_returned, listener.probes_lost) == (1, 0)
    listener.probe_if_due(conn)  # not due
    assert listener.probes_returned == 1


def test_a_lost_probe_is_reported_and_listening_begins_anew(
    conn: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    woken: list[str | None] = []
    listener = Listener(woken.append, probe_every=0.02)
    listener.attach(conn)
    listener.probe_if_due(conn)
    _heard(listener, conn, lambda: listener.probes_returned == 1)
    conn.execute("UNLISTEN *")

    def probe() -> bool:
        listener.probe_if_due(conn)
        return listener.probes_lost == 1

    with caplog.at_level(logging.WARNING, "awa.notify"):
        wait_for(probe, what="the loss to be noticed")
    assert "did not come back within 0.02 s" in caplog.text
    # It listens again at once, to its own probes and to wake-ups.
    _heard(listener, conn, lambda: listener.probes_returned >= 2)
    assert listener.heard_itself.is_set()
    woken.clear()
    conn.execute(NOTIFY, ("email",))
    _heard(listener, conn, lambda: woken == ["email"])


def test_attaching_counts_as_news_for_every_queue(conn: psycopg.Connection[Any]) -> None:
    woken: list[str | None] = []
    Listener(woken.append, probe_every=600).attach(conn)
    assert woken == [None]


def test_a_notification_wakes_a_worker_that_would_poll_much_later(dsn: str, client: awa.Client) -> None:
    @awa.task
    def quick() -> None: ...

    with awa.Worker({"default": 1}, dsn=dsn, poll_every=600) as worker:
        assert worker.wait_until_ready(PATIENCE)
        for n in range(1, 4):
            # Every look so far found nothing and made the next one later, up to ten minutes.
            client.enqueue(quick)
            wait_for_counts(client, "default", completed=n)


def test_polling_finds_what_nobody_announced(dsn: str, client: awa.Client, conn: psycopg.Connection[Any]) -> None:
    @awa.task
    def quick() -> None: ...

    with awa.Worker({"default": 1}, dsn=dsn, poll_every=0.05) as worker:
        assert worker.wait_until_ready(PATIENCE)
        lane = conn.execute("SELECT awa.ensure_lane('default', 2::int2)").fetchone()
        assert lane is not None
        # The verb itself, told to notify nobody.
        conn.execute(
            "SELECT awa.enqueue_jobs(%s::json, NULL, NULL)",
            (f'[{{"lane_id": {lane[0]}, "kind": "quick", "max_attempts": 1, "args": {{}}}}]',),
        )
        wait_for_counts(client, "default", completed=1)
