"""The Django example as its readers run it: over HTTP, with real `manage.py awa worker` processes, which are killed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.examples.shops import (
    EXAMPLES,
    Example,
    Shop,
    assert_a_rollback_enqueues_nothing,
    assert_orders_and_jobs_match,
    free_port,
    trade_under_kills,
)
from tests.waiting import wait_for

pytest.importorskip("django")

MANAGE = (sys.executable, "manage.py")
EXAMPLE = Example(EXAMPLES / "django_orders", MANAGE, "DJANGO")


@contextmanager
def shop(dsn: str, log: Path) -> Iterator[Shop]:
    """The example, migrated and served."""
    EXAMPLE.run(dsn, *MANAGE, "migrate")
    made = Shop(free_port())
    with EXAMPLE.running(dsn, log, "runserver", "--noreload", made.url.removeprefix("http://")):
        wait_for(made.answers, what="the web server answers")
        yield made


def test_the_one_command_of_the_readme_works(empty_dsn: str) -> None:
    done = EXAMPLE.run(empty_dsn, sys.executable, "run.py", "--once", PORT=str(free_port()))
    assert "POST 2 teapots: 201" in done.stdout
    assert "POST 1000 teapots: 409" in done.stdout
    assert "order 1 is shipped" in done.stdout
    assert "WARNING: This is a development server" in done.stdout + done.stderr
    assert "awa.W" not in done.stderr


def test_an_order_that_is_rolled_back_enqueues_nothing(empty_dsn: str, tmp_path: Path) -> None:
    with shop(empty_dsn, tmp_path / "log") as served:
        assert_a_rollback_enqueues_nothing(served, empty_dsn, "orders_order")


@pytest.mark.slow
def test_under_rollbacks_and_kills_orders_and_jobs_match_one_to_one(empty_dsn: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        served = stack.enter_context(shop(empty_dsn, tmp_path / "server.log"))
        for number in range(2):
            worker = ("awa", "worker", "--queues", "shipping:4", "--processes", "2")
            stack.enter_context(EXAMPLE.running(empty_dsn, tmp_path / f"worker{number}.log", *worker))
        orders = trade_under_kills(served, empty_dsn)
    assert_orders_and_jobs_match(empty_dsn, orders, "orders_order", "orders_shipment")
