"""A real SQLAlchemy engine and a real Django connection to this test's database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy
from django import setup
from django.conf import settings
from django.db import connections
from psycopg.conninfo import conninfo_to_dict

from tests.storage.conftest import application

__all__ = ["ALIAS", "application", "django", "engine"]

ALIAS = "adapters"


def sqlalchemy_url(dsn: str, driver: str = "psycopg") -> sqlalchemy.URL:
    """The same database, as SQLAlchemy calls it."""
    given = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    return sqlalchemy.URL.create(
        f"postgresql+{driver}",
        given.pop("user", None),
        given.pop("password", None),
        database=given.pop("dbname"),
        query=given,
    )


@pytest.fixture
def engine(dsn: str) -> Iterator[sqlalchemy.Engine]:
    """Of SQLAlchemy."""
    engine = sqlalchemy.create_engine(sqlalchemy_url(dsn))
    yield engine
    engine.dispose()


def use_database(alias: str, options: dict[str, Any]) -> None:
    """Tell Django of a database."""
    if not settings.configured:
        settings.configure(DATABASES={}, USE_TZ=True)
        setup()
    connections.settings[alias] = connections.configure_settings({"default": {}, alias: options})[alias]


def forget_database(alias: str) -> None:
    """The opposite, with its connection closed."""
    connections[alias].close()
    del connections[alias]
    del connections.settings[alias]


@pytest.fixture
def django(dsn: str) -> Iterator[Any]:
    """Django's connection, whose alias is ALIAS."""
    given = conninfo_to_dict(dsn)
    use_database(
        ALIAS,
        {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": given["dbname"],
            "USER": given.get("user", ""),
            "PASSWORD": given.get("password", ""),
            "HOST": given.get("host", ""),
            "PORT": given.get("port", ""),
        },
    )
    yield connections[ALIAS]
    forget_database(ALIAS)
