"""`manage.py migrate` for the awa schema: the same files, the same lock, the same ledger as `awa migrate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TextIO

from django.db import connections, router
from django.db.migrations.operations.base import Operation, OperationCategory

from awa.contrib.django.conf import awa_settings
from awa.contrib.django.conninfo import conninfo
from awa.migrate import Plan, migrate, plan_migration
from awa.postgres import connect

APP_LABEL = "awa"


def belongs_to(alias: str) -> bool:
    """Whether `manage.py migrate` keeps the awa schema in this database: awa's alias, PostgreSQL, and no router objects."""
    settings = awa_settings()
    return (
        settings.migrate
        and alias == settings.database
        and connections[alias].vendor == "postgresql"
        and bool(router.allow_migrate(alias, APP_LABEL))
    )


def bring_up_to_date(alias: str) -> Plan:
    """Bring the schema to this release, on Django's connection where that commits by itself; what was done.

    Raises:
        SchemaError: as `awa.migrate.migrate`; nothing was changed.
    """
    wrapper = connections[alias]
    wrapper.ensure_connection()
    if wrapper.in_atomic_block:  # there its locks and its timeouts would last as long as the caller's transaction
        with connect(conninfo(alias), "awa migrate") as conn:
            return migrate(conn)
    return migrate(wrapper.connection)


def after_migrate(
    *, using: str, verbosity: int = 1, stdout: TextIO | None = None, plan: Sequence[Any] = (), **_: object
) -> None:
    """Receiver of `post_migrate`: a new release of awa changes functions without a Django migration of its own."""
    if not belongs_to(using):
        return
    done = bring_up_to_date(using)
    if done.steps and verbosity >= 1:
        print(f"  awa: {len(done.steps)} steps, schema version {done.to_version}", file=stdout or sys.stdout)


class BringUpToDate(Operation):
    """Everything that `awa migrate` would do. It has a transaction of its own, so its migration must not be atomic."""

    reduces_to_sql = True
    reversible = False  # the schema holds jobs, and others than Django may use it: drop it by hand
    category = OperationCategory.SQL

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Nothing: the models are views of what this makes."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Run it, or collect its SQL for `sqlmigrate`."""
        if not belongs_to(schema_editor.connection.alias):
            return
        if schema_editor.collect_sql:
            schema_editor.connection.ensure_connection()
            for step in plan_migration(schema_editor.connection.connection).steps:
                schema_editor.collected_sql += [f"-- {step.label}", step.script.rstrip()]
            return
        bring_up_to_date(schema_editor.connection.alias)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Never called: it is not reversible."""

    def describe(self) -> str:
        """For `migrate --plan`."""
        return "Bring the awa schema to this release"
