"""enqueue(connection=...) with Django's connections: the job commits and rolls back with atomic()."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import psycopg2
import pytest
from django.db import connection as default_connection
from django.db import connections, transaction

import awa
from awa.errors import UnusableConnection
from tests.adapters.conftest import ALIAS, forget_database, use_database
from tests.adapters.test_sqlalchemy import Enqueue, every_way, in_queue, one


@contextmanager
def undone(**options: Any) -> Iterator[None]:
    """An atomic block that ends in an error."""
    try:
        with transaction.atomic(using=ALIAS, **options):
            yield
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass


def by_alias(django: Any) -> Any:
    """What may be passed: this is the alias."""
    return ALIAS


def by_wrapper(django: Any) -> Any:
    """django.db.connections[alias]."""
    return django


def by_cursor(django: Any) -> Any:
    """connection.cursor()."""
    return django.cursor()


every_handle = pytest.mark.parametrize("handle", [by_alias, by_wrapper, by_cursor])


@every_handle
@every_way
def test_jobs_commit_with_atomic(client: awa.Client, django: Any, handle: Any, enqueue: Enqueue) -> None:
    with transaction.atomic(using=ALIAS):
        enqueue(client, handle(django))
        assert in_queue(client) == 0
    assert in_queue(client) == 1


@every_handle
@every_way
def test_jobs_roll_back_with_atomic(client: awa.Client, django: Any, handle: Any, enqueue: Enqueue) -> None:
    with undone():
        enqueue(client, handle(django))
    assert in_queue(client) == 0
    assert django.get_autocommit()


@every_way
def test_outside_atomic_jobs_are_committed_at_once(client: awa.Client, django: Any, enqueue: Enqueue) -> None:
    enqueue(client, django)
    assert django.get_autocommit()
    assert not django.in_atomic_block
    assert in_queue(client) == 1


@every_way
def test_nested_atomic_blocks_are_savepoints(client: awa.Client, django: Any, enqueue: Enqueue) -> None:
    with transaction.atomic(using=ALIAS):
        enqueue(client, django)
        with undone():
            enqueue(client, django)
        with transaction.atomic(using=ALIAS), transaction.atomic(using=ALIAS):
            client.enqueue("work", {"n": "kept"}, queue="q", connection=django)
        assert in_queue(client) == 0
    assert in_queue(client) == 2


def test_a_manual_savepoint_is_respected(client: awa.Client, django: Any) -> None:
    with transaction.atomic(using=ALIAS):
        savepoint = transaction.savepoint(using=ALIAS)
        one(client, django)
        transaction.savepoint_rollback(savepoint, using=ALIAS)
    assert in_queue(client) == 0


def test_rows_of_the_orm_s_cursor_and_jobs_are_one_transaction(client: awa.Client, django: Any) -> None:
    with django.cursor() as cursor:
        cursor.execute("CREATE TABLE orders (id int)")
    with undone(), django.cursor() as cursor:
        cursor.execute("INSERT INTO orders VALUES (1)")
        one(client, django)
    with transaction.atomic(using=ALIAS), django.cursor() as cursor:
        cursor.execute("INSERT INTO orders VALUES (2)")
        one(client, django)
    with django.cursor() as cursor:
        cursor.execute("SELECT id FROM orders")
        assert cursor.fetchall() == [(2,)]
    assert in_queue(client) == 1


def test_a_connection_that_django_has_not_opened_yet_is_opened(client: awa.Client, django: Any) -> None:
    assert django.connection is None
    one(client, django)
    assert isinstance(django.connection, psycopg.Connection)
    django.close()
    one(client, ALIAS)
    assert in_queue(client) == 2


def test_the_proxy_django_db_connection_is_the_default_database(
    client: awa.Client, django: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings, "default", connections.settings[ALIAS])
    before = connections["default"]
    del connections["default"]
    try:
        with transaction.atomic():
            one(client, default_connection)
            assert in_queue(client) == 0
        assert in_queue(client) == 1
    finally:
        default_connection.close()
        connections["default"] = before


def test_a_doomed_atomic_block_is_refused_by_name(client: awa.Client, django: Any) -> None:
    with transaction.atomic(using=ALIAS):
        with undone(savepoint=False):
            pass
        with pytest.raises(UnusableConnection, match="atomic block"):
            one(client, django)
        transaction.set_rollback(False, using=ALIAS)
        one(client, django)
    assert in_queue(client) == 1


def test_an_unknown_alias_is_refused_with_the_known_ones(client: awa.Client, django: Any) -> None:
    with pytest.raises(awa.ConfigurationError, match=f"no database 'nosuch', only .*'{ALIAS}'"):
        one(client, "nosuch")


def test_another_database_than_postgresql_is_refused_by_name(client: awa.Client, django: Any) -> None:
    use_database("lite", {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"})
    try:
        with pytest.raises(TypeError, match="'lite' is sqlite"):
            one(client, "lite")
    finally:
        forget_database("lite")


def test_django_on_psycopg2_is_refused_by_name(client: awa.Client, django: Any, dsn: str) -> None:
    with closing(psycopg2.connect(dsn)) as old:
        django.connection = old
        try:
            for given in (ALIAS, django):
                with pytest.raises(
                    TypeError, match=f"'{ALIAS}'.* belongs to psycopg2, and awa speaks psycopg 3: .*enqueue_sql"
                ):
                    one(client, given)
        finally:
            django.connection = None
