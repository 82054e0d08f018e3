"""Which database is meant."""

from __future__ import annotations

import pytest
from psycopg.conninfo import conninfo_to_dict

from awa import ConfigurationError
from awa.postgres import engine_conninfo, resolve_dsn

EVERYTHING = {"AWA_DSN": "postgresql://awa/a", "DATABASE_URL": "postgresql://url/b", "PGHOST": "pg"}


def test_the_argument_wins_over_the_environment() -> None:
    assert resolve_dsn("postgresql://mine/c", EVERYTHING) == "postgresql://mine/c"


def test_awa_dsn_wins_over_database_url() -> None:
    assert resolve_dsn(None, EVERYTHING) == "postgresql://awa/a"
    assert resolve_dsn("", EVERYTHING) == "postgresql://awa/a"


def test_database_url_wins_over_libpqs_variables() -> None:
    assert resolve_dsn(None, {**EVERYTHING, "AWA_DSN": ""}) == "postgresql://url/b"


@pytest.mark.parametrize("name", ["PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE"])
def test_libpqs_own_variables_are_left_to_libpq(name: str) -> None:
    assert resolve_dsn(None, {name: "1", "AWA_DSN": "", "DATABASE_URL": ""}) == ""


@pytest.mark.parametrize("environ", [{}, {"AWA_DSN": ""}, {"PGHOST": ""}, {"PGPASSWORD": "secret", "PGSSLMODE": "require"}])
def test_without_any_the_message_names_both_ways_out(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve_dsn(None, environ)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in ("--dsn", "AWA_DSN", "DATABASE_URL", "PG*", "--embedded"))
    assert "secret" not in message


def test_the_processs_environment_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWA_DSN", "postgresql://from-the-environment/x")
    assert resolve_dsn() == "postgresql://from-the-environment/x"


@pytest.mark.parametrize(
    ("given", "resolved"),
    [
        ("postgresql+psycopg://u:p@h:5/d?sslmode=disable", "postgresql://u:p@h:5/d?sslmode=disable"),
        ("postgresql+asyncpg://h/d", "postgresql://h/d"),
        ("postgres+psycopg2://h/d", "postgres://h/d"),
        ("postgres://h/d", "postgres://h/d"),
        ("host=h dbname='postgresql+psycopg://'", "host=h dbname='postgresql+psycopg://'"),
    ],
)
def test_sqlalchemys_driver_is_taken_out_of_the_scheme(given: str, resolved: str) -> None:
    assert resolve_dsn(given, {}) == resolved


@pytest.mark.parametrize("dsn", ["mysql://h/d", "nonsense", "postgresql://h/d?nosuch=1", "host=h port"])
def test_what_is_not_a_connection_string_is_refused(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match="not a connection string"):
        resolve_dsn(dsn, {})


def test_an_engine_connection_has_defaults_only_for_what_the_dsn_leaves_open() -> None:
    plain = conninfo_to_dict(engine_conninfo("postgresql://h/d", "awa test", connect_timeout=7.2))
    assert plain["application_name"] == "awa test"
    assert plain["connect_timeout"] == "7"
    assert plain["keepalives_idle"] == "10"
    given = conninfo_to_dict(
        engine_conninfo("postgresql://h/d?application_name=mine&connect_timeout=99&keepalives_idle=600", "awa test")
    )
    assert (given["application_name"], given["connect_timeout"], given["keepalives_idle"]) == ("mine", "99", "600")
    # libpq takes a timeout below two seconds as two seconds, and zero as for ever.
    assert conninfo_to_dict(engine_conninfo("", "x", connect_timeout=0.1))["connect_timeout"] == "2"
