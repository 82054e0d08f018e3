"""Connections of an application."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

Application = Callable[..., psycopg.Connection[Any]]


@pytest.fixture
def application(dsn: str) -> Iterator[Application]:
    """Makes an application's own connection, with whatever it passes to psycopg.connect."""
    with ExitStack() as stack:

        def make(**options: Any) -> psycopg.Connection[Any]:
            conn: psycopg.Connection[Any] = psycopg.connect(dsn, **options)
            stack.callback(conn.close)
            return conn

        yield make
