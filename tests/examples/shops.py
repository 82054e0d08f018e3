"""What the examples have in common: a shop over HTTP, workers that are killed, and customers who order too much."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psycopg
from attrs import frozen

import awa
from tests.waiting import PATIENCE, wait_for

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
CLIENTS: Final = 8
ORDERS: Final = 40  # by each
IN_STOCK: Final = 100


@frozen
class Example:
    """A folder of examples/, and how its commands are called."""

    folder: Path
    command: tuple[str, ...]  # begins them all
    framework: str  # begins the names of its variables

    def environment(self, dsn: str, **more: str) -> dict[str, str]:
        """This process's, with the example's database and no other."""
        others = ("PG", "AWA_", f"{self.framework}_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
        return {**kept, "ORDERS_DSN": dsn, "PYTHONPATH": str(EXAMPLES.parent), "PYTHONUNBUFFERED": "1", **more}

    def run(self, dsn: str, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        """A command to its end, in the example's folder."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(dsn, **more),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    @contextmanager
    def running(self, dsn: str, log: Path, *arguments: str) -> Iterator[None]:
        """One of its commands runs until the end of the block, in a process group of its own."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*self.command, *arguments],
                cwd=self.folder,
                env=self.environment(dsn),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    """What the database says."""
    with psycopg.connect(dsn) as conn:
        return conn.execute(query.encode()).fetchall()


def assert_a_rollback_enqueues_nothing(served: Shop, dsn: str, orders: str) -> None:
    """An order that is refused leaves nothing; one that is taken has its job. `orders` is the table."""
    assert served.ask("/orders", {"item": "teapot", "quantity": IN_STOCK + 1})[0] == 409
    assert rows(dsn, f"SELECT count(*) FROM {orders}") == [(0,)]
    assert rows(dsn, "SELECT count(*) FROM awa.jobs") == [(0,)]
    status, taken = served.ask("/orders", {"item": "teapot", "quantity": IN_STOCK})
    assert status == 201
    assert rows(dsn, "SELECT job_id, (args->>'order_id')::int, state FROM awa.jobs") == [
        (taken["job"], taken["order"], "available")
    ]


def trade_under_kills(served: Shop, dsn: str) -> list[int]:
    """Clients order at once while workers are killed; the orders that stand, when all of their jobs are completed."""
    hit, enough = threading.Event(), threading.Event()
    with ExitStack() as stack:
        client = stack.enter_context(awa.Client(dsn))
        pool = stack.enter_context(ThreadPoolExecutor(CLIENTS + 1))
        stack.callback(enough.set)
        killer = pool.submit(_kill_workers, dsn, client, hit, enough)
        buyers = [pool.submit(_buy, served, seed, hit) for seed in range(CLIENTS)]
        bought = [buyer.result(timeout=PATIENCE) for buyer in buyers]
        enough.set()
        assert killer.result(timeout=PATIENCE) >= 1
        orders = sorted(order for taken, _ in bought for order in taken)
        wait_for(lambda: client.queue_counts("shipping").completed == len(orders), what=f"{len(orders)} jobs completed")
    assert sum(refused for _, refused in bought) > 0
    return orders


def assert_orders_and_jobs_match(dsn: str, orders: list[int], table: str, shipments: str) -> None:
    """Each order that stands is stored, and was shipped once by one job."""
    assert rows(dsn, f"SELECT id FROM {table} ORDER BY 1") == [(order,) for order in orders]
    assert rows(dsn, f"SELECT order_id FROM {shipments} ORDER BY 1") == [(order,) for order in orders]
    jobs = rows(dsn, "SELECT (args->>'order_id')::int, state FROM awa.jobs ORDER BY 1")
    assert jobs == [(order, "completed") for order in orders]


def _buy(served: Shop, seed: int, hit: threading.Event) -> tuple[list[int], int]:
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


def _kill_workers(dsn: str, client: awa.Client, hit: threading.Event, enough: threading.Event) -> int:
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
