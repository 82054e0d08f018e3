"""The Flask example as its readers run it: over HTTP, with real `flask awa worker` processes, which are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

import awa
from tests.examples.test_django_orders import CLIENTS, IN_STOCK, Shop, buy, free_port, kill_workers, rows
from tests.waiting import PATIENCE, wait_for

pytest.importorskip("flask")

EXAMPLE = Path(__file__).parents[2] / "examples" / "flask_orders"
FLASK = (sys.executable, "-m", "flask", "--app", "shop")


def environment(dsn: str, **more: str) -> dict[str, str]:
    """This process's, with the example's database and no other."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "AWA_", "FLASK_"))}
    return {**kept, "ORDERS_DSN": dsn, "PYTHONPATH": str(EXAMPLE.parents[1]), "PYTHONUNBUFFERED": "1", **more}


def run(dsn: str, *command: str, **more: str) -> str:
    """A command to its end, in the example's folder; what it said."""
    done = subprocess.run(
        command, cwd=EXAMPLE, env=environment(dsn, **more), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{command} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


@contextmanager
def running(dsn: str, log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command of flask's that runs until the end of the block, in a process group of its own."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*FLASK, *arguments], cwd=EXAMPLE, env=environment(dsn), stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def shop(dsn: str, log: Path) -> Iterator[Shop]:
    """The example, with its tables, served."""
    run(dsn, *FLASK, "create-tables")
    run(dsn, *FLASK, "awa", "migrate")
    port = free_port()
    made = Shop(port)
    with running(dsn, log, "run", "--port", str(port)):
        wait_for(made.answers, what="the web server answers")
        yield made


def test_the_one_command_of_the_readme_works(empty_dsn: str) -> None:
    said = run(empty_dsn, sys.executable, str(EXAMPLE / "run.py"), "--once", PORT=str(free_port()))
    assert "POST 2 teapots: 201" in said
    assert "POST 1000 teapots: 409" in said
    assert "order 1 is shipped" in said


def test_an_order_that_is_rolled_back_enqueues_nothing(empty_dsn: str, tmp_path: Path) -> None:
    with shop(empty_dsn, tmp_path / "log") as served:
        assert served.ask("/orders", {"item": "teapot", "quantity": IN_STOCK + 1})[0] == 409
        assert rows(empty_dsn, "SELECT count(*) FROM orders") == [(0,)]
        assert rows(empty_dsn, "SELECT count(*) FROM awa.jobs") == [(0,)]
        status, taken = served.ask("/orders", {"item": "teapot", "quantity": IN_STOCK})
        assert status == 201
        assert rows(empty_dsn, "SELECT job_id, (args->>'order_id')::int, state FROM awa.jobs") == [
            (taken["job"], taken["order"], "available")
        ]


@pytest.mark.slow
def test_under_rollbacks_and_kills_orders_and_jobs_match_one_to_one(empty_dsn: str, tmp_path: Path) -> None:
    hit, enough = threading.Event(), threading.Event()
    with ExitStack() as stack:
        served = stack.enter_context(shop(empty_dsn, tmp_path / "server.log"))
        for number in range(2):
            log = tmp_path / f"worker{number}.log"
            stack.enter_context(running(empty_dsn, log, "awa", "worker", "--processes", "2"))
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
    assert rows(empty_dsn, "SELECT id FROM orders ORDER BY 1") == [(order,) for order in orders]
    assert rows(empty_dsn, "SELECT order_id FROM shipments ORDER BY 1") == [(order,) for order in orders]
    jobs = rows(empty_dsn, "SELECT (args->>'order_id')::int, state FROM awa.jobs ORDER BY 1")
    assert jobs == [(order, "completed") for order in orders]
