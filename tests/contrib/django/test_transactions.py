"""An enqueue belongs to the transaction that Django's connection is in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime

import psycopg
import pytest
from django.core.handlers.base import BaseHandler
from django.db import IntegrityError, OperationalError, connection, connections, transaction
from django.test import override_settings

import awa
from awa.contrib.django import client
from awa.errors import UnusableConnection
from tests.contrib.django import project
from tests.contrib.django.shop.models import Order
from tests.contrib.django.shop.tasks import confirm, ship

pytestmark = pytest.mark.usefixtures("djangos_database")

Enqueue = Callable[[], object]


def one() -> object:
    """By the task itself."""
    return ship.enqueue("a")


def with_options() -> object:
    """By the task with options, for later."""
    return ship.options(run_at=datetime(2100, 1, 1, tzinfo=UTC)).enqueue("a")


def many() -> object:
    """By the default client."""
    return awa.default_client().enqueue_many([{"order": "a"}], kind=ship)


def copied() -> object:
    """Through COPY."""
    return client().enqueue_many_copy([{"order": "a"}], kind="ship")


def unique() -> object:
    """With a unique key, and so a savepoint."""
    return ship.options(unique=awa.Unique()).enqueue("a")


def copied_in_full() -> object:
    """Through COPY, with everything that one can ask of it."""
    return client().enqueue_many_copy(
        [{"order": "a"}],
        kind=ship,
        queue=awa.PartitionedQueue("default", 1),
        unique=awa.Unique(),
        opts=lambda args: awa.JobOptions(ordering_key=args["order"], tags=["t"]),
        progress=lambda done: done,
        return_ids=True,
    )


every_way = pytest.mark.parametrize("enqueue", [one, with_options, many, copied, copied_in_full, unique])


def committed(outside: awa.Client) -> int:
    """How many jobs everybody sees in `default`."""
    counts = outside.queue_counts("default")
    return counts.available + counts.scheduled


@every_way
def test_a_job_commits_with_the_atomic_block(outside: awa.Client, enqueue: Enqueue) -> None:
    with transaction.atomic():
        Order.objects.create(name="a")
        enqueue()
        assert committed(outside) == 0
    assert committed(outside) == 1
    assert Order.objects.count() == 1


@every_way
def test_a_job_rolls_back_with_the_atomic_block(outside: awa.Client, enqueue: Enqueue) -> None:
    with project.rolled_back():
        Order.objects.create(name="a")
        enqueue()
    assert committed(outside) == 0
    assert Order.objects.count() == 0


@every_way
def test_outside_a_transaction_a_job_is_committed_at_once(outside: awa.Client, enqueue: Enqueue) -> None:
    enqueue()
    assert committed(outside) == 1
    assert connection.get_autocommit()


def test_an_inner_block_that_rolls_back_takes_its_own_jobs_only(dsn: str) -> None:
    with transaction.atomic():
        ship.enqueue("kept")
        with project.rolled_back():
            ship.enqueue("dropped")
    with psycopg.connect(dsn) as conn:
        assert conn.execute("SELECT args->>'order' FROM awa.jobs").fetchall() == [("kept",)]


def test_with_autocommit_switched_off_a_job_waits_for_the_commit(outside: awa.Client) -> None:
    transaction.set_autocommit(False)
    try:
        ship.enqueue("a")
        assert committed(outside) == 0
        transaction.commit()
        assert committed(outside) == 1
    finally:
        transaction.set_autocommit(True)


def test_a_transaction_of_another_alias_is_not_joined(outside: awa.Client, dsn: str) -> None:
    project.use_database("other", dsn)
    with transaction.atomic(using="other"):
        ship.enqueue("a")
        assert committed(outside) == 1


def test_a_named_alias_is_joined(outside: awa.Client, dsn: str) -> None:
    project.use_database("other", dsn)
    with transaction.atomic(using="other"):
        ship.options(client=client("other")).enqueue("a")
        client().enqueue(ship, {"order": "b"}, connection="other")
        assert committed(outside) == 0
    assert committed(outside) == 2


def test_the_setting_names_the_alias(outside: awa.Client, dsn: str) -> None:
    project.use_database("other", dsn)
    with override_settings(AWA={"DATABASE": "other"}), transaction.atomic(using="other"):
        ship.enqueue("a")
        assert committed(outside) == 0
    assert committed(outside) == 1


def test_a_transaction_sees_what_it_has_enqueued(outside: awa.Client) -> None:
    with transaction.atomic():
        job_id = ship.enqueue("a")
        job = client().get_job(job_id)
        assert job is not None
        assert job.state == "available"
        assert outside.get_job(job_id) is None


def test_cancelling_does_not_wait_for_the_transaction(outside: awa.Client) -> None:
    job_id = ship.enqueue("a")
    with project.rolled_back():
        assert client().cancel(job_id)
    job = outside.get_job(job_id)
    assert job is not None
    assert job.state == "cancelled"


def test_a_doomed_block_takes_no_job() -> None:
    Order.objects.create(name="a")
    with transaction.atomic():
        with pytest.raises(IntegrityError), transaction.atomic(savepoint=False):
            Order.objects.create(name="a")
        with pytest.raises(UnusableConnection, match="doomed the atomic block"):
            ship.enqueue("a")


def test_a_job_that_is_refused_leaves_the_transaction_usable(outside: awa.Client) -> None:
    with transaction.atomic():
        with pytest.raises(awa.InvalidJob, match=r"args\.order"):
            ship.enqueue(float("nan"))  # type: ignore[arg-type]
        Order.objects.create(name="a")
        ship.enqueue("a")
    assert committed(outside) == 1


def test_a_unique_conflict_leaves_the_transaction_usable(outside: awa.Client) -> None:
    with transaction.atomic():
        unique()
        with pytest.raises(awa.UniqueConflict):
            unique()
        Order.objects.create(name="a")
    assert committed(outside) == 1
    assert Order.objects.count() == 1


def test_a_conflict_of_a_copy_leaves_the_transaction_usable(outside: awa.Client) -> None:
    with transaction.atomic():
        unique()
        with pytest.raises(awa.UniqueConflict) as refused:
            client().enqueue_many_copy([{"order": "b"}, {"order": "a"}], kind=ship, unique=awa.Unique())
        assert refused.value.index == 1
        Order.objects.create(name="a")
    assert committed(outside) == 1
    assert Order.objects.count() == 1


def broken_source() -> Iterator[dict[str, str]]:
    """Jobs, and then an error of the application's."""
    for n in range(5000):
        yield {"order": str(n)}
    raise project.Changed


def test_a_copy_that_fails_leaves_the_transaction_usable(outside: awa.Client) -> None:
    with transaction.atomic():
        with pytest.raises(project.Changed):
            client().enqueue_many_copy(broken_source(), kind=ship)
        Order.objects.create(name="a")
        ship.enqueue("a")
    assert committed(outside) == 1
    assert Order.objects.count() == 1


@pytest.mark.parametrize("fails", [False, True])
def test_with_atomic_requests_a_view_s_jobs_are_of_its_transaction(outside: awa.Client, fails: bool) -> None:
    def view(request: object) -> None:
        ship.enqueue("a")
        assert committed(outside) == 0
        if fails:
            raise project.Changed

    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        with suppress(project.Changed):
            BaseHandler().make_view_atomic(view)(None)
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert committed(outside) == int(not fails)


def test_a_key_taken_after_the_snapshot_is_a_conflict_and_no_database_error(outside: awa.Client) -> None:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT count(*) FROM awa.queue_lanes")
        holder = outside.enqueue(ship, {"order": "a"}, unique=awa.Unique())
        with pytest.raises(awa.UniqueConflict) as refused:
            unique()
        assert refused.value.job_id == holder
        Order.objects.create(name="a")
    assert Order.objects.count() == 1


def test_a_lost_connection_is_djangos_error_and_replaced_at_the_next_request(outside: awa.Client, dsn: str) -> None:
    Order.objects.count()
    pid = connection.connection.info.backend_pid
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    with pytest.raises(OperationalError):
        ship.enqueue("a")
    connections["default"].close_if_unusable_or_obsolete()
    ship.enqueue("a")
    assert committed(outside) == 1


def test_the_default_queue_is_for_tasks_that_name_none(outside: awa.Client) -> None:
    with override_settings(AWA={"DEFAULT_QUEUE": "web"}):
        ship.enqueue("a")
        client().enqueue("anything")
        client().enqueue_many([{"order": "a"}], kind=ship)
        confirm.enqueue("a")
        ship.options(queue="slow").enqueue("a")
    assert {counts.queue: counts.available for counts in outside.list_queues()} == {"web": 3, "mail": 1, "slow": 1}
