"""A libpq connection string from an entry of DATABASES."""

from __future__ import annotations

from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.utils.connection import ConnectionDoesNotExist
from psycopg import pq
from psycopg.conninfo import make_conninfo

from awa.contrib.django.conf import awa_settings
from awa.errors import ConfigurationError

LIBPQ_KEYWORDS: Final = frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults())


def conninfo(alias: str | None = None) -> str:
    """The connection string of a database alias: NAME, USER, PASSWORD, HOST, PORT and whatever of OPTIONS libpq knows.

    `assume_role` becomes a start-up option, so that workers act as the role that Django acts as. During tests it names
    the test database.

    Args:
        alias: in DATABASES; `AWA["DATABASE"]` by default.

    Raises:
        ConfigurationError: no such alias, it is not PostgreSQL, or it names no database.
    """
    wrapper = wrapper_of(alias)
    try:
        given: dict[str, Any] = wrapper.get_connection_params()
    except ImproperlyConfigured as error:
        raise ConfigurationError(f"DATABASES[{wrapper.alias!r}]: {error}") from error
    kept = {key: str(value) for key, value in given.items() if key in LIBPQ_KEYWORDS and value not in (None, "")}
    if role := wrapper.settings_dict["OPTIONS"].get("assume_role"):
        escaped = str(role).replace("\\", "\\\\").replace(" ", "\\ ")
        kept["options"] = f"{kept.get('options', '')} -c role={escaped}".strip()
    return make_conninfo(**kept)


def wrapper_of(alias: str | None = None) -> Any:
    """Django's wrapper of this thread's connection to a database alias, awa's own by default.

    Raises:
        ConfigurationError: no such alias, or it is not PostgreSQL.
    """
    alias = awa_settings().database if alias is None else alias
    try:
        wrapper = connections[alias]
    except ConnectionDoesNotExist as error:
        raise ConfigurationError(f"settings.AWA['DATABASE']: there is no {alias!r} in DATABASES") from error
    if wrapper.vendor != "postgresql":
        raise ConfigurationError(f"DATABASES[{alias!r}] is {wrapper.vendor}: awa needs PostgreSQL")
    return wrapper
