"""The client's own connections: lost ones, too few, none at all, and another database behind the same name."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

import awa
from awa.migrate import migrate
from awa.postgres import connect
from tests.servers import create_database, drop_database
from tests.waiting import PATIENCE, wait_for

Connection = psycopg.Connection[Any]

TERMINATE = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE application_name = 'awa client' AND datname = current_database()"
)


def test_a_client_goes_on_after_its_connections_were_terminated(conn: Connection, client: awa.Client) -> None:
    client.enqueue("work", {"n": 1}, queue="q")
    wait_for(lambda: conn.execute(TERMINATE).fetchall() == [(0,)], what="all pooled backends are gone")
    client.enqueue("work", {"n": 2}, queue="q")
    client.enqueue_many_copy([{"n": 3}], kind="work", queue="q")
    assert client.queue_counts("q").available == 3


def test_a_recreated_database_gets_its_own_lanes(server: str, empty_dsn: str) -> None:
    name = str(conninfo_to_dict(empty_dsn)["dbname"])
    with connect(empty_dsn, "awa migrate") as conn:
        migrate(conn)
    with awa.Client(empty_dsn) as client:
        client.enqueue("work", queue="first")
        client.enqueue("work", {"n": 1}, queue="second")
        drop_database(server, name)
        create_database(server, name)
        with connect(empty_dsn, "awa migrate") as conn:
            migrate(conn)
        job_id = client.enqueue("work", {"n": 2}, queue="second")
        job = client.get_job(job_id)
        assert job is not None
        assert (job.queue, job.args) == ("second", {"n": 2})
        assert [counts.queue for counts in client.list_queues()] == ["second"]


def test_a_copy_of_a_database_gets_its_own_lanes(server: str, template: str, empty_dsn: str, client: awa.Client) -> None:
    name = str(conninfo_to_dict(empty_dsn)["dbname"])
    drop_database(server, name)
    create_database(server, name, template)  # as the test's database was: it has the same install id
    client.enqueue("work", queue="only here")
    with psycopg.connect(empty_dsn) as conn:
        client.enqueue("other", queue="only there", connection=conn)
        client.enqueue("work", queue="only here", connection=conn)
    with awa.Client(empty_dsn) as there:
        assert {counts.queue: counts.available for counts in there.list_queues()} == {"only there": 1, "only here": 1}


def test_a_pool_in_use_up_to_its_limit_says_so_in_time(dsn: str) -> None:
    with awa.Client(dsn, max_connections=1, connect_timeout=0.5) as client:
        client.enqueue("work", queue="q")
        holding, enough = threading.Event(), threading.Event()

        def hold(_: int) -> None:
            holding.set()
            assert enough.wait(PATIENCE)

        holder = threading.Thread(target=lambda: client.enqueue_many_copy([{"n": 1}], kind="work", queue="q", progress=hold))
        holder.start()
        assert holding.wait(PATIENCE)
        started = time.monotonic()
        with pytest.raises(awa.DatabaseUnavailable, match=r"0\.5 s: all 1 connections of the pool are in use"):
            client.enqueue("work", queue="q")
        assert time.monotonic() - started < 5
        enough.set()
        holder.join()
        assert client.queue_counts("q").available == 2


def send_buffer(conn: Connection, size: int) -> None:
    """Let the kernel take so many bytes at a time, as a slow network does."""
    with socket.socket(fileno=os.dup(conn.fileno())) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)


def test_a_batch_larger_than_the_socket_s_buffer_is_sent_whole(dsn: str, conn: Connection) -> None:
    with awa.Client(dsn, max_connections=1) as client:
        client.enqueue("work", queue="warm")
        with client._connection() as own:
            send_buffer(own, 4096)
            pid = own.info.backend_pid
        batch = [{"n": n, "body": "x" * 1000} for n in range(3000)]
        sending = threading.Thread(target=lambda: client.enqueue_many(batch, kind="work", queue="q"), daemon=True)
        sending.start()
        sending.join(20)
        stuck = sending.is_alive()
        if stuck:  # so that the client can be closed
            conn.execute("SELECT pg_terminate_backend(%s)", (pid,))
            sending.join()
        assert not stuck
        assert client.queue_counts("q").available == 3000


def test_an_unreachable_server_is_reported_in_time() -> None:
    started = time.monotonic()
    with (
        awa.Client("postgresql://nobody@127.0.0.1:1/nothing", connect_timeout=1) as client,
        pytest.raises(awa.DatabaseUnavailable, match=r"within 1 s: .*refused"),
    ):
        client.enqueue("work", queue="q")
    assert time.monotonic() - started < 10


def test_a_database_without_the_schema_names_the_command(empty_dsn: str) -> None:
    with awa.Client(empty_dsn) as client, pytest.raises(awa.SchemaOutOfDate, match="awa migrate"):
        client.enqueue("work", queue="q")


def test_a_closed_client_connects_anew(client: awa.Client) -> None:
    client.enqueue("work", queue="q")
    client.close()
    client.enqueue("work", queue="q")
    assert client.queue_counts("q").available == 2
