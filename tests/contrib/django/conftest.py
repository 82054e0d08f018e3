"""Django on the test's own database."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.contrib.django import project

project.configure()

from django.core.management import call_command  # noqa: E402
from django.db import connections  # noqa: E402

import awa  # noqa: E402
from tests.servers import create_database, drop_database  # noqa: E402


@pytest.fixture(scope="session")
def template(server: str) -> Iterator[str]:
    """The name of a database that `manage.py migrate` has set up."""
    name = f"awa_django_template_{os.getpid()}"
    project.use_database("default", create_database(server, name))
    call_command("migrate", run_syncdb=True, verbosity=0)
    connections["default"].close()
    yield name
    drop_database(server, name)


@pytest.fixture
def djangos_database(dsn: str) -> Iterator[None]:
    """Django's `default` is this test's database."""
    project.use_database("default", dsn)
    yield
    connections.close_all()


@pytest.fixture
def outside(dsn: str) -> Iterator[awa.Client]:
    """A client that knows nothing of Django: what it sees is committed."""
    with awa.Client(dsn) as client:
        yield client
