"""Fixtures: one server a session, one migrated template, one database a test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings

import awa
from awa.migrate import migrate
from awa.postgres import connect
from awa.task import registered_tasks, restore_registry
from tests.servers import create_database, drop_database, test_server
from tests.sql.engine import RUNTIME, register

settings.register_profile("ci", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.register_profile("long", settings.get_profile("ci"), max_examples=400)
settings.load_profile(os.environ.get("AWA_HYPOTHESIS_PROFILE", "ci"))

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Connection URL of the server's maintenance database."""
    with test_server() as dsn:
        yield dsn


@pytest.fixture(scope="session")
def template(server: str) -> Iterator[str]:
    """The name of a migrated database that nobody connects to."""
    name = f"awa_template_{os.getpid()}"
    with connect(create_database(server, name), "awa migrate") as conn:
        migrate(conn)
        register(conn, RUNTIME)
    yield name
    drop_database(server, name)


@pytest.fixture
def dsn(server: str, template: str) -> Iterator[str]:
    """Connection URL of this test's own migrated database."""
    name = f"awa_test_{os.getpid()}_{next(_numbers)}"
    yield create_database(server, name, template)
    drop_database(server, name)


@pytest.fixture
def empty_dsn(server: str) -> Iterator[str]:
    """Connection URL of this test's own database without an awa schema."""
    name = f"awa_empty_{os.getpid()}_{next(_numbers)}"
    yield create_database(server, name)
    drop_database(server, name)


@pytest.fixture
def conn(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """An autocommit connection."""
    with connect(dsn, "awa test") as conn:
        yield conn


@pytest.fixture
def client(dsn: str) -> Iterator[awa.Client]:
    """A client of this test's database."""
    with awa.Client(dsn) as client:
        yield client


@pytest.fixture(autouse=True)
def own_task_registry() -> Iterator[None]:
    """Tasks made in a test are forgotten after it."""
    before = registered_tasks()
    yield
    restore_registry(before)
