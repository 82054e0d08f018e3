"""The Django example as its readers run it: over HTTP, with real `manage.py awa worker` processes, which are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

import awa
from tests.waiting import PATIENCE, wait_for

pytest.importorskip("django")

EXAMPLE = Path(__file__).parents[2] / "examples" / "django_orders"
CLIENTS = 8
ORDERS = 40  # by each
IN_STOCK = 100


def environment(dsn: str, **more: str) -> dict[str, str]:
    """This process's, with the example's database and no other."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "AWA_", "DJANGO_"))}
    return {**kept, "ORDERS_DSN": dsn, "PYTHONPATH": str(EXAMPLE.parents[1]), "PYTHONUNBUFFERED": "1", **more}


def manage(dsn: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One command of manage.py's, to its end."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=EXAMPLE,
        env=environment(dsn),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{arguments} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(dsn: str, log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command of manage.py's that runs until the end of the block, in a process group of its own."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=EXAMPLE,
            env=environment(dsn),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Shop:
    """The example's web server, as a browser sees it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, body: object = None) -> tuple[int, Any]:
        """The status of an answer, and its JSON."""
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data), timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                text = error.read()
            return error.code, json.loads(text) if text.startswith(b"{") else text

    def answers(self) -> bool:
        """Whether it is up."""
        try:
            self.ask("/orders/0")
        except OSError:
            return False
        return True


@contextmanager
def shop(dsn: str, log: Path) -> Iterator[Shop]:
    """The example, migrated and served."""
    manage(dsn, "migrate")
    made = Shop(free_port())
    with running(dsn, log, "runserver", "--noreload", made.url.removeprefix("http://")):
        wait_for(made.answers, what="the web server answers")
        yield made


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    """What the database says."""
    with psycopg.connect(dsn) as conn:
        return conn.execute(query.encode()).fetchall()


def test_the_one_command_of_the_readme_works(empty_dsn: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE / "run.py"), "--once"],
        env=environment(empty_dsn, PORT=str(free_port())),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "POST 2 teapots: 201" in done.stdout
    assert "POST 1000 teapots: 409" in done.stdout
    assert "order 1 is shipped" in done.stdout
    assert "WARNING: This is a development server" in done.stdout + done.stderr
    assert "awa.W" not in done.stderr


def test_an_order_that_is_rolled_back_enqueues_nothing(empty_dsn: str, tmp_path: Path) -> None:
    with shop(empty_dsn, tmp_path / "log") as served:
        assert served.ask("/orders", {"item": "teapot", "quantity": IN_STOCK + 1})[0] == 409
        assert rows(empty_dsn, "SELECT count(*) FROM orders_order") == [(0,)]
        assert rows(empty_dsn, "SELECT count(*) FROM awa.jobs") == [(0,)]
        status, taken = served.ask("/orders", {"item": "teapot", "quantity": IN_STOCK})
        assert status == 201
        assert rows(empty_dsn, "SELECT job_id, (args->>'order_id')::int, state FROM awa.jobs") == [
            (taken["job"], taken["order"], "available")
        ]


def buy(served: Shop, seed: int, hit: threading.Event) -> tuple[list[int], int]:
    """Orders that one client places, some of which are rolled back: the ids of those that stand, and how many do not.

    Goes on until a worker was killed at work.
    """
    chance = random.Random(seed)
    taken: list[int] = []
    refused = 0
    while len(taken) + refused < ORDERS or not hit.is_set():
        assert len(taken) < 100 * ORDERS, "no worker was killed at work"
        too_many = chance.random() < 0.3
        quantity = chance.randint(IN_STOCK + 1, 1000) if too_many else chance.randint(1, IN_STOCK)
        status, answer = served.ask("/orders", {"item": f"item of {seed}", "quantity": quantity})
        assert status == (409 if too_many else 201), answer
        if too_many:
            refused += 1
        else:
            taken.append(answer["order"])
    return taken, refused


def kill_workers(dsn: str, client: awa.Client, hit: threading.Event, enough: threading.Event) -> int:
    """Kill -9 a worker process that has jobs, over and over; how often. Says when one of them had a job at work."""
    killed: set[int] = set()
    while not enough.wait(0.3):
        living = [runtime.pid for runtime in client.list_runtimes() if runtime.dead_at is None and runtime.pid not in killed]
        if living and client.queue_counts("shipping").running:
            killed.add(random.choice(living))
            for pid in killed.intersection(living):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if rows(dsn, """SELECT 1 FROM awa.jobs WHERE payload->'errors' @> '[{"type": "WorkerDied"}]' LIMIT 1"""):
            hit.set()
    return len(killed)


@pytest.mark.slow
def test_under_rollbacks_and_kills_orders_and_jobs_match_one_to_one(empty_dsn: str, tmp_path: Path) -> None:
    hit, enough = threading.Event(), threading.Event()
    with ExitStack() as stack:
        served = stack.enter_context(shop(empty_dsn, tmp_path / "server.log"))
        for number in range(2):
            worker = ("awa", "worker", "--queues", "shipping:4", "--processes", "2")
            stack.enter_context(running(empty_dsn, tmp_path / f"worker{number}.log", *worker))
        client = stack.enter_context(awa.Client(empty_dsn))
        pool = stack.enter_context(ThreadPoolExecutor(CLIENTS + 1))
        stack.callback(enough.set)
        killer = pool.submit(kill_workers, empty_dsn, client, hit, enough)
        buyers = [pool.submit(buy, served, seed, hit) for seed in range(CLIENTS)]
        bought = [buyer.result(timeout=PATIENCE) for buyer in buyers]
        enough.set()
        assert killer.result(timeout=PATIENCE) >= 1
        orders = sorted(order for taken, _ in bought for order in taken)
        wait_for(lambda: client.queue_counts("shipping").completed == len(orders), what=f"{len(orders)} jobs completed")

    assert sum(refused for _, refused in bought) > 0
    assert rows(empty_dsn, "SELECT id FROM orders_order ORDER BY 1") == [(order,) for order in orders]
    assert rows(empty_dsn, "SELECT order_id FROM orders_shipment ORDER BY 1") == [(order,) for order in orders]
    jobs = rows(empty_dsn, "SELECT (args->>'order_id')::int, state FROM awa.jobs ORDER BY 1")
    assert jobs == [(order, "completed") for order in orders]
