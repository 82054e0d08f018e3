"""What a worker meets that is nobody's fault: it goes on, and no ending is lost."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

import psycopg
import pytest

import awa
from awa.worker.completer import is_refusal
from tests.waiting import PATIENCE, wait_for
from tests.worker.support import job_in_state, terminate


def test_a_server_that_takes_no_writes_for_a_while_costs_no_ending(
    dsn: str, client: awa.Client, conn: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    started, go_on = threading.Event(), threading.Event()

    @awa.task
    def work() -> None:
        started.set()
        go_on.wait(PATIENCE)

    job_id = client.enqueue(work)
    with awa.Worker({"default": 1}, dsn=dsn) as worker:
        assert started.wait(PATIENCE)
        name = psycopg.sql.Identifier(conn.info.dbname)
        conn.execute(psycopg.sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
        terminate(conn, ("awa completer",))
        go_on.set()
        wait_for(lambda: "read-only transaction" in caplog.text, what="the server's refusal of an ending")
        conn.execute(psycopg.sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name))
        job_in_state(client, job_id, "completed")
        assert worker._completer.unstorable == 0


def error_of(code: str) -> psycopg.Error:
    """An error with this SQLSTATE."""
    return psycopg.errors.lookup(code)()


@pytest.mark.parametrize(
    ("code", "times", "refused"),
    [
        ("22P02", 1, True),
        ("23514", 1, True),
        ("25006", 1000, False),
        ("25P04", 1000, False),
        ("XX000", 1, False),
        ("XX000", 5, True),
        ("57014", 1000, False),
    ],
)
def test_only_what_the_database_will_never_take_is_given_up(code: str, times: int, refused: bool) -> None:
    try:
        error = error_of(code)
    except KeyError:  # newer than this psycopg, which makes it of its class
        pytest.skip(f"psycopg does not know {code}")
    assert is_refusal(error, times) is refused


def test_what_anybody_can_send_stops_no_worker(dsn: str, client: awa.Client, conn: psycopg.Connection[Any]) -> None:
    @awa.task
    def work() -> None: ...

    with awa.Worker({"default": 1}, dsn=dsn) as worker:
        assert worker.wait_until_ready(PATIENCE)
        for payload in ("9" * 5000 + ":1", "1:" + "9" * 5000, "x:y", ":", "", "1:1:1", "٣:٣"):
            conn.execute("SELECT pg_notify('awa_cancel', %s)", (payload,))
        before = worker._dispatcher.listener.probes_returned
        job_in_state(client, client.enqueue(work), "completed")
        assert worker._dispatcher._thread.is_alive()
        assert worker._dispatcher.listener.probes_returned >= before


def test_a_handler_that_has_completed_itself_is_not_told_to_stop(dsn: str, client: awa.Client) -> None:
    ended, go_on = threading.Event(), threading.Event()
    after: list[str] = []

    @awa.task
    def work(ctx: awa.JobContext) -> None:
        with ctx.transaction():
            pass
        ended.set()
        go_on.wait(PATIENCE)
        after.append("done")

    with awa.Worker({"default": 1}, dsn=dsn) as worker:
        job_id = client.enqueue(work)
        assert ended.wait(PATIENCE)
        job_in_state(client, job_id, "completed")
        worker._overseer.look(time.monotonic() - 60)
        for seen in worker._overseer._seen.values():
            seen.since -= 60  # it has run for long
        worker._overseer.ask(time.monotonic())
        go_on.set()
        wait_for(lambda: after, what="the rest of the handler")


def test_a_signal_that_comes_while_run_holds_its_lock_stops_the_worker() -> None:
    worker = awa.Worker({"default": 1}, dsn="host=nowhere")
    with worker._handling([signal.SIGTERM]), worker._stop_requested._cond:  # type: ignore[attr-defined]
        signal.raise_signal(signal.SIGTERM)
        assert worker._signals == [signal.SIGTERM]
        assert not worker._aborted.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert worker._aborted.is_set()
