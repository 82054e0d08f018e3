"""System checks: what is wrong with the settings, and with `--database` whether the schema is this release's."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DatabaseError, connections
from django.db.backends.postgresql import psycopg_any
from django.utils.connection import ConnectionDoesNotExist

from awa.contrib.django.conf import awa_settings, problems
from awa.errors import SchemaError
from awa.migrate import check_schema, load_sql


@register("awa")
def check_settings(app_configs: object = None, **_: Any) -> list[CheckMessage]:
    """E001: a key of AWA; E002: no such alias; E003: not PostgreSQL; E004: psycopg 2."""
    found: list[CheckMessage] = [
        Error(f"settings.AWA{f'[{key!r}]' if key else ''}: {problem}", id="awa.E001")
        for key, problem in problems(getattr(settings, "AWA", {}))
    ]
    if found:
        return found
    alias = awa_settings().database
    try:
        vendor = connections[alias].vendor
    except ConnectionDoesNotExist:
        return [
            Error(
                f"settings.AWA['DATABASE']: there is no {alias!r} in DATABASES",
                hint=f"DATABASES has {', '.join(connections)}.",
                id="awa.E002",
            )
        ]
    if vendor != "postgresql":
        return [
            Error(
                f"DATABASES[{alias!r}] is {vendor}: awa needs PostgreSQL",
                hint='Name a PostgreSQL database: AWA = {"DATABASE": "..."}.',
                id="awa.E003",
            )
        ]
    if not psycopg_any.is_psycopg3:
        return [
            Error(
                "Django uses psycopg2 here: awa enqueues on Django's own connection, which must be psycopg 3's",
                hint="pip install 'psycopg[binary]' and uninstall psycopg2.",
                id="awa.E004",
            )
        ]
    return []


@register("awa", Tags.database)
def check_database(app_configs: object = None, databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """W001: the schema is missing, older or newer; W002: it could not be looked at. Only with `--database`."""
    if sys.argv[1:2] == ["migrate"]:  # which checks first, and then mends what this would find
        return []
    if not databases or problems(getattr(settings, "AWA", {})):
        return []
    given = awa_settings()
    if not given.check_schema or given.database not in databases or connections[given.database].vendor != "postgresql":
        return []
    wrapper = connections[given.database]
    try:
        wrapper.ensure_connection()
        check_schema(wrapper.connection, load_sql())
    except SchemaError as error:
        return [Warning(str(error), hint=f"manage.py migrate awa --database {given.database}", id="awa.W001")]
    except DatabaseError as error:
        return [Warning(f"the awa schema could not be looked at: {' '.join(str(error).split())}", id="awa.W002")]
    return []
