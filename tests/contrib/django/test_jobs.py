"""A worker does for every job what a request does: Django's connections are fresh before it and closed after it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections, transaction
from django.test import override_settings

import awa
from awa.contrib.django import autodiscover, client, conninfo
from tests.contrib.django.shop.models import Order
from tests.contrib.django.shop.tasks import ship
from tests.waiting import wait_for
from tests.worker.support import job_in_state, wait_for_counts

pytestmark = pytest.mark.usefixtures("djangos_database")


def backends(dsn: str, name: str) -> int:
    """How many sessions of an application name there are."""
    with psycopg.connect(dsn) as conn:
        return int(
            conn.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s", (name,)
            ).fetchall()[0][0]
        )


@pytest.fixture
def named(dsn: str) -> Iterator[str]:
    """Django's connections of the worker's threads have this application name."""
    options = connections["default"].settings_dict["OPTIONS"]
    options["application_name"] = "django in a job"
    yield "django in a job"
    del options["application_name"]


@pytest.fixture
def keep_connections() -> Iterator[None]:
    """Django's connections outlive requests."""
    connections["default"].settings_dict["CONN_MAX_AGE"] = None
    yield
    connections["default"].settings_dict["CONN_MAX_AGE"] = 0


def test_a_handler_uses_the_orm_and_its_connection_is_closed(outside: awa.Client, dsn: str, named: str) -> None:
    seen: list[int] = []

    @awa.task
    def count() -> None:
        seen.append(Order.objects.count() + backends(dsn, named))

    count.options(client=outside).enqueue()
    with awa.Worker({"default": 1}, dsn=dsn):
        wait_for_counts(outside, "default", completed=1)
        assert seen == [1]
        wait_for(lambda: backends(dsn, named) == 0, what="the job's connection closed")


def test_a_coroutines_connection_is_closed_too(outside: awa.Client, dsn: str, named: str) -> None:
    seen: list[int] = []

    @awa.task
    async def count() -> None:
        seen.append(await Order.objects.acount() + await sync_to_async(backends)(dsn, named))

    count.options(client=outside).enqueue()
    with awa.Worker({"default": 1}, dsn=dsn):
        wait_for_counts(outside, "default", completed=1)
        assert seen == [1]
        wait_for(lambda: backends(dsn, named) == 0, what="the job's connection closed")


@pytest.mark.usefixtures("keep_connections")
def test_a_connection_that_was_lost_is_replaced_for_the_next_job(outside: awa.Client, dsn: str, named: str) -> None:
    pids: list[int] = []

    @awa.task(retry=False)
    def work(order: str) -> None:
        Order.objects.create(name=order)
        pids.append(connection.connection.info.backend_pid)
        if order == "second":
            connection.close()
        if order == "first":
            with psycopg.connect(dsn, autocommit=True) as conn:
                conn.execute("SELECT pg_terminate_backend(%s, 5000)", (pids[0],))
            Order.objects.count()

    first = work.enqueue("first")
    with awa.Worker({"default": 1}, dsn=dsn):
        failed = job_in_state(outside, first, "dead_lettered")
        assert failed.errors[0]["class"] == "django.db.utils.OperationalError"
        second = work.enqueue("second")
        job_in_state(outside, second, "completed")
    assert len(set(pids)) == 2


@pytest.mark.usefixtures("keep_connections")
def test_a_connection_that_may_live_serves_the_next_job(outside: awa.Client) -> None:
    pids: list[int] = []

    @awa.task
    def work() -> None:
        connection.ensure_connection()
        pids.append(connection.connection.info.backend_pid)
        if len(pids) == 2:
            connection.close()

    with awa.Worker({"default": 1}, dsn=conninfo()):
        for _ in range(2):
            job_in_state(outside, work.enqueue(), "completed")
    assert len(set(pids)) == 1
    assert len(pids) == 2


def test_with_debug_on_the_list_of_queries_starts_anew_with_each_job(outside: awa.Client) -> None:
    lengths: list[int] = []

    @awa.task
    def work() -> None:
        Order.objects.count()
        lengths.append(len(connection.queries))

    with override_settings(DEBUG=True), awa.Worker({"default": 1}, dsn=conninfo()):
        for _ in range(2):
            job_in_state(outside, work.enqueue(), "completed")
    assert lengths[0] == lengths[1] > 0


def test_what_a_handler_enqueues_belongs_to_its_transaction(outside: awa.Client) -> None:
    @awa.task(retry=False)
    def work(order: str) -> None:
        with transaction.atomic():
            Order.objects.create(name=order)
            ship.options(queue="later").enqueue(order)
            if order == "bad":
                raise ValueError("no")

    good, bad = work.enqueue("good"), work.enqueue("bad")
    with awa.Worker({"default": 1}, dsn=conninfo()):
        job_in_state(outside, good, "completed")
        job_in_state(outside, bad, "dead_lettered")
    assert outside.queue_counts("later").available == 1
    assert list(Order.objects.values_list("name", flat=True)) == ["good"]


def test_autodiscovery_finds_the_tasks_of_installed_apps() -> None:
    assert autodiscover() == ["tests.contrib.django.shop.tasks"]
    with override_settings(AWA={"AUTODISCOVER": ["models", "nothing"]}):
        assert "tests.contrib.django.shop.models" in autodiscover()
    with override_settings(AWA={"AUTODISCOVER": []}):
        assert autodiscover() == []


def test_a_follow_up_without_a_queue_goes_to_the_default_queue(outside: awa.Client) -> None:
    @awa.task(queue="web")
    def work(ctx: awa.JobContext) -> None:
        ctx.enqueue(ship, {"order": "a"})

    with override_settings(AWA={"DEFAULT_QUEUE": "web"}):
        client().enqueue(work)
        with awa.Worker({"web": 1}, dsn=conninfo(), default_queue="web"):
            wait_for_counts(outside, "web", completed=2)
    assert Order.objects.get().name == "shipped a"
