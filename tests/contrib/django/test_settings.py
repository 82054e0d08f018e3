"""The AWA setting, and what the system checks make of it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from django.core.checks import run_checks
from django.db import connections
from django.db.backends.postgresql import psycopg_any
from django.test import override_settings

import awa
from awa.contrib.django import client, conninfo
from awa.contrib.django.conf import AwaSettings, awa_settings
from awa.postgres import connect
from tests.contrib.django import project

on_its_database = pytest.mark.usefixtures("djangos_database")


def said(**options: Any) -> list[tuple[str | None, str]]:
    """The ids and messages of awa's checks."""
    return [(m.id, m.msg) for m in run_checks(**options) if (m.id or "").startswith("awa.")]


def test_the_defaults_need_no_setting() -> None:
    assert awa_settings() == AwaSettings()
    assert said() == []


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("DATABSE", "default", "there is no such key: DATABASE, "),
        ("database", "default", "there is no such key: DATABASE, "),
        ("DATABASE", 3, "must be text, not 3"),
        ("DATABASE", "", "must be text, not ''"),
        ("DEFAULT_QUEUE", "", "queue: must not be empty"),
        ("QUEUES", ["email"], "must be a dict of queue names and jobs at a time"),
        ("QUEUES", {}, "a worker needs at least one queue"),
        ("QUEUES", {"email": 0}, "concurrency must be between 1 and 10000, not 0"),
        ("QUEUES", {3: 1}, ""),
        ("AUTODISCOVER", "tasks", "must be a list of module names"),
        ("AUTODISCOVER", [""], "must be a list of module names"),
        ("MIGRATE", 1, "must be True or False, not 1"),
        ("CHECK_SCHEMA", "no", "must be True or False, not 'no'"),
        ("CLIENT", {"dsn": "x"}, "'dsn' is none of min_connections, max_connections, "),
        ("CLIENT", {"connect_timeout": 0}, "connect_timeout must be positive"),
    ],
)
def test_a_bad_setting_is_named(key: str, value: object, problem: str) -> None:
    with override_settings(AWA={key: value}):
        ((check, message),) = said()
        assert check == "awa.E001"
        assert message.startswith(f"settings.AWA[{key!r}]: ")
        assert problem in message
        with pytest.raises(awa.ConfigurationError, match=r"settings\.AWA"):
            awa_settings()


def test_queues_may_be_partitioned() -> None:
    email = awa.PartitionedQueue("email", 2)
    with override_settings(AWA={"QUEUES": {email: 10, "default": 5}, "DEFAULT_QUEUE": email}):
        assert said() == []
        assert awa_settings().queues == {"email": 10, "email__p1": 10, "default": 5}
        assert awa_settings().default_queue is email
    with override_settings(AWA={"QUEUES": {email: 10, "email__p1": 5}}):
        assert "queue 'email__p1' is named twice" in said()[0][1]


def test_every_bad_key_is_reported() -> None:
    with override_settings(AWA={"MIGRATE": 1, "X": 1}):
        assert len(said()) == 2
    with override_settings(AWA=[]):
        assert said() == [("awa.E001", "settings.AWA: must be a dict, not []")]


def test_an_alias_must_exist() -> None:
    with override_settings(AWA={"DATABASE": "jobs"}):
        assert said() == [("awa.E002", "settings.AWA['DATABASE']: there is no 'jobs' in DATABASES")]
        with pytest.raises(awa.ConfigurationError, match="there is no 'jobs' in DATABASES"):
            conninfo()


def test_an_alias_must_be_postgresql() -> None:
    with override_settings(AWA={"DATABASE": "lite"}):
        assert said() == [("awa.E003", "DATABASES['lite'] is sqlite: awa needs PostgreSQL")]
        with pytest.raises(awa.ConfigurationError, match="is sqlite"):
            client().enqueue("x")


def test_psycopg_2_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psycopg_any, "is_psycopg3", False)
    assert [check for check, _ in said()] == ["awa.E004"]


@on_its_database
def test_a_current_schema_passes_the_database_check() -> None:
    assert said(databases=["default"]) == []


@on_its_database
def test_a_missing_schema_is_a_warning_when_databases_are_checked(empty_dsn: str) -> None:
    project.use_database("default", empty_dsn)
    ((check, message),) = said(databases=["default"])
    assert check == "awa.W001"
    assert "there is no awa schema" in message
    assert said() == []
    assert said(databases=["other"]) == []
    with override_settings(AWA={"CHECK_SCHEMA": False}):
        assert said(databases=["default"]) == []


@on_its_database
def test_an_old_schema_is_a_warning(dsn: str) -> None:
    with connect(dsn, "test") as conn:
        conn.execute("UPDATE awa.queue_meta SET sql_digest = 'older'")
    assert [check for check, _ in said(databases=["default"])] == ["awa.W001"]


@on_its_database
def test_a_database_that_does_not_answer_is_a_warning(dsn: str) -> None:
    project.use_database("default", dsn.replace("dbname=", "dbname=no_such_"))
    assert [check for check, _ in said(databases=["default"])] == ["awa.W002"]


def params(**entry: Any) -> dict[str, str]:
    """The connection string of an entry of DATABASES, taken apart."""
    before = dict(connections["other"].settings_dict)
    connections["other"].settings_dict.update(dict.fromkeys(("HOST", "PORT", "USER", "PASSWORD"), ""), OPTIONS={})
    connections["other"].settings_dict.update(entry)
    try:
        return {key: str(value) for key, value in psycopg.conninfo.conninfo_to_dict(conninfo("other")).items()}
    finally:
        connections["other"].settings_dict.clear()
        connections["other"].settings_dict.update(before)


def test_a_connection_string_has_all_of_an_entry() -> None:
    assert params(NAME="shop", USER="ada", PASSWORD="a 'b\\c", HOST="db", PORT=5433, OPTIONS={"sslmode": "require"}) == {
        "dbname": "shop",
        "user": "ada",
        "password": "a 'b\\c",
        "host": "db",
        "port": "5433",
        "sslmode": "require",
        "client_encoding": "UTF8",
    }


def test_a_service_takes_the_place_of_a_name() -> None:
    assert params(NAME="", OPTIONS={"service": "shop"}) == {"service": "shop", "client_encoding": "UTF8"}


def test_what_only_django_knows_is_left_out() -> None:
    options = {"pool": {"min_size": 1}, "isolation_level": 3, "server_side_binding": True, "prepare_threshold": 5}
    assert params(NAME="shop", OPTIONS=options) == {"dbname": "shop", "client_encoding": "UTF8"}


def test_an_assumed_role_becomes_an_option() -> None:
    found = params(NAME="shop", OPTIONS={"assume_role": "shop owner", "options": "-c jit=off"})
    assert found["options"] == "-c jit=off -c role=shop\\ owner"


def test_no_database_name_is_refused() -> None:
    with pytest.raises(awa.ConfigurationError, match=r"DATABASES\['other'\]"):
        params(NAME="")


@on_its_database
def test_the_connection_string_of_the_test_database_works(dsn: str) -> None:
    with connect(conninfo(), "test") as conn:
        assert conn.info.dbname in dsn
