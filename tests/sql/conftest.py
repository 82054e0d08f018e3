"""Connections of other sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

Session = Callable[[], psycopg.Connection[Any]]


@pytest.fixture
def session(dsn: str) -> Iterator[Session]:
    """Makes another session whose first statement begins a transaction; one that is blocked for seconds gives up."""
    with ExitStack() as stack:

        def make() -> psycopg.Connection[Any]:
            conn = psycopg.connect(dsn, options="-c lock_timeout=5s -c statement_timeout=20s")
            stack.callback(conn.close)
            return conn

        yield make
