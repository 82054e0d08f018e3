"""Tasks and a transaction of the application's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import awa
from tests.testing.support import Ledger, make_tasks


@pytest.fixture
def ledger() -> Ledger:
    """What handlers have done."""
    return Ledger()


@pytest.fixture
def tasks(ledger: Ledger) -> dict[str, awa.Task[..., Any, Any]]:
    """A task for every outcome, by kind."""
    return make_tasks(ledger)


@pytest.fixture
def tx(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """An application's connection; its first statement begins a transaction, which is rolled back in the end."""
    with psycopg.connect(dsn) as conn:
        yield conn
        conn.rollback()
