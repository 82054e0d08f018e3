"""Databases to measure on: the one that was named, or fresh ones of the embedded server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import psycopg
from attrs import asdict
from psycopg import sql

from awa import AwaError, Client
from awa.embedded import EmbeddedPostgres
from awa.errors import ConfigurationError
from awa.migrate import migrate
from awa.postgres import connect, resolve_dsn

NAME = "awa_bench"


@contextmanager
def databases(dsn: str | None, embedded: bool) -> Iterator[Callable[[], AbstractContextManager[str]]]:
    """What makes a database for a run: the given one every time, or a fresh one of the embedded server, dropped after it."""
    if embedded and dsn:
        raise ConfigurationError("--dsn and --embedded exclude each other")
    if not embedded:
        url = resolve_dsn(dsn)

        @contextmanager
        def same() -> Iterator[str]:
            yield url

        yield same
        return
    with EmbeddedPostgres() as server:

        @contextmanager
        def fresh() -> Iterator[str]:
            drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(NAME))
            with psycopg.connect(server.dsn, autocommit=True) as admin:
                admin.execute(drop)
                url = server.database(NAME)
                with connect(url, "awa migrate") as conn:
                    migrate(conn)
                yield url
                admin.execute(drop)

        yield fresh


@contextmanager
def database(dsn: str | None, embedded: bool) -> Iterator[str]:
    """One database, as `databases` makes it."""
    with databases(dsn, embedded) as fresh, fresh() as url:
        yield url


@contextmanager
def storage_settings(client: Client, **changes: Any) -> Iterator[None]:
    """These settings for the time of a run."""
    before = asdict(client.storage_settings())
    client.storage_settings(**changes)
    try:
        yield
    finally:
        with suppress(AwaError):
            client.storage_settings(**before)
