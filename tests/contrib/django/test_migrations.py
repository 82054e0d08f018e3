"""`manage.py migrate` and `awa migrate` keep one schema."""

from __future__ import annotations

import io
from typing import Any

import psycopg
import pytest
from attrs import evolve
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.db.migrations.exceptions import IrreversibleError
from django.test import override_settings

import awa
from awa.contrib.django.schema import BringUpToDate, bring_up_to_date
from awa.migrate import check_schema, load_sql, migrate, plan_migration
from awa.postgres import connect
from tests.contrib.django import project
from tests.contrib.django.shop.tasks import ship
from tests.servers import drop_database

pytestmark = pytest.mark.usefixtures("djangos_database")


class NotHere:
    """A router that keeps awa's tables out of every database."""

    def allow_migrate(self, db: str, app_label: str, **_: Any) -> bool | None:
        """No, where awa is asked for."""
        return False if app_label == "awa" else None


def django_migrate(**options: Any) -> str:
    """What `manage.py migrate` says."""
    said = io.StringIO()
    call_command("migrate", stdout=said, **options)
    return said.getvalue()


def has_schema(dsn: str) -> bool:
    """Whether there is any awa schema."""
    with psycopg.connect(dsn) as conn:
        return conn.execute("SELECT to_regclass('awa.queue_meta') IS NOT NULL").fetchall() == [(True,)]


def steps_left(dsn: str) -> int:
    """What `awa migrate` would do."""
    with connect(dsn, "test") as conn:
        return len(plan_migration(conn).steps)


@pytest.fixture
def fresh(empty_dsn: str) -> str:
    """A database without anything, which is Django's `default`."""
    project.use_database("default", empty_dsn)
    return empty_dsn


def test_django_sets_up_what_awa_would(fresh: str) -> None:
    assert "Applying awa.0001_initial... OK" in django_migrate()
    assert steps_left(fresh) == 0
    ship.enqueue("a")


def test_once_more_there_is_nothing_to_do(fresh: str) -> None:
    django_migrate()
    said = django_migrate()
    assert "No migrations to apply" in said
    assert "awa:" not in said


def test_a_schema_that_awa_has_made_is_left_as_it_is(fresh: str) -> None:
    with connect(fresh, "test") as conn:
        migrate(conn)
        before = conn.execute("SELECT path, applied_at FROM awa.schema_objects ORDER BY path").fetchall()
        assert "Applying awa.0001_initial... OK" in django_migrate()
        assert conn.execute("SELECT path, applied_at FROM awa.schema_objects ORDER BY path").fetchall() == before


def test_a_new_release_of_awa_needs_no_migration_of_djangos(fresh: str) -> None:
    tree = load_sql()
    older = evolve(tree, functions=tuple(file for file in tree.functions if file.name != "beat"), release="0.0.1")
    assert len(older.functions) == len(tree.functions) - 1
    with connect(fresh, "test") as conn:
        migrate(conn, older)
    django_migrate(fake=True, app_label="awa")
    assert steps_left(fresh) == 0


def test_it_says_what_it_has_done(dsn: str) -> None:
    with connect(dsn, "test") as conn:
        conn.execute("DELETE FROM awa.schema_objects WHERE path = 'functions/beat.sql'")
    said = django_migrate()
    assert "awa: " in said
    assert "schema version" in said


def test_another_alias_gets_no_schema(empty_dsn: str) -> None:
    project.use_database("other", empty_dsn)
    assert "Applying awa.0001_initial... OK" in django_migrate(database="other")
    assert not has_schema(empty_dsn)


def test_another_kind_of_database_gets_no_schema() -> None:
    assert "Applying awa.0001_initial... OK" in django_migrate(database="lite")
    connections["lite"].close()


def test_a_router_may_object(fresh: str) -> None:
    with override_settings(DATABASE_ROUTERS=[NotHere()]):
        django_migrate()
    assert not has_schema(fresh)


def test_a_setting_leaves_the_schema_to_awa(fresh: str) -> None:
    with override_settings(AWA={"MIGRATE": False}):
        django_migrate()
    assert not has_schema(fresh)


def test_inside_a_transaction_it_takes_a_connection_of_its_own(fresh: str) -> None:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        assert bring_up_to_date("default").steps
        assert steps_left(fresh) == 0


def test_sqlmigrate_shows_the_sql(fresh: str) -> None:
    said = io.StringIO()
    call_command("sqlmigrate", "awa", "0001", stdout=said)
    assert "-- apply migrations/0001_schema.sql" in said.getvalue()
    assert "CREATE TABLE awa.ready_entries" in said.getvalue()
    assert not has_schema(fresh)


def test_going_back_is_refused() -> None:
    with pytest.raises(IrreversibleError, match="is not reversible"):
        django_migrate(app_label="awa", migration_name="zero")


def test_the_models_and_the_migration_agree() -> None:
    call_command("makemigrations", "awa", check=True, dry_run=True, verbosity=0)


def test_the_test_database_has_the_schema(server: str) -> None:
    parameters = dict(connection.settings_dict)
    name = f"test_{parameters['NAME']}"
    try:
        connection.creation.create_test_db(verbosity=0)
        assert connection.settings_dict["NAME"] == name
        check_schema(connection.connection, load_sql())
        ship.enqueue("a")
        assert awa.default_client().queue_counts("default").available == 1
        connection.close()
    finally:
        connection.settings_dict.update(parameters)
        drop_database(server, name)


def test_the_operation_says_what_it_does() -> None:
    assert BringUpToDate().describe() == "Bring the awa schema to this release"
