"""What a request does for Django's connections, done for every job."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from asgiref.sync import sync_to_async
from django.db import connections

from awa.context import JobContext


@contextmanager
def fresh_connections(job: JobContext) -> Iterator[None]:
    """Close connections that are past CONN_MAX_AGE or broken, before and after a job; forget what DEBUG keeps of queries."""
    _freshen()
    try:
        yield
    finally:
        _close_old()


@asynccontextmanager
async def fresh_connections_of_coroutines(job: JobContext) -> AsyncIterator[None]:
    """The same in the thread in which Django's asynchronous ORM calls run."""
    await sync_to_async(_freshen)()
    try:
        yield
    finally:
        await sync_to_async(_close_old)()


def _freshen() -> None:
    for connection in connections.all(initialized_only=True):
        if not connection.force_debug_cursor:  # somebody counts them
            connection.queries_log.clear()
    _close_old()


def _close_old() -> None:
    """As Django's close_old_connections, but not in a transaction, which a job is in when a test runs it there."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
