"""The tree of errors and what they say."""

from __future__ import annotations

import inspect
import re

import psycopg
import pytest

import awa
from awa import errors
from awa.errors import AwaError, InvalidJob, JobInterrupted, JobUnsuccessful, UniqueConflict, from_database
from awa.outcome import Outcome
from awa.postgres import Connection

SPEAK_FOR_THEMSELVES = (InvalidJob, UniqueConflict, JobUnsuccessful)


def error_classes() -> dict[str, type[AwaError] | type[JobInterrupted]]:
    """Every class of errors.py by name."""
    return {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, AwaError | JobInterrupted) and value.__module__ == errors.__name__
    }


def drawn_tree() -> dict[str, str | None]:
    """Each class in the module's docstring with the class above it."""
    above: list[tuple[int, str]] = []
    drawn: dict[str, str | None] = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"( {4}[│ ├└─]*)([A-Z]\w+)(?:\s{2,}\S.*)?$", line)
        if not match:
            continue
        while above and above[-1][0] >= len(match[1]):
            above.pop()
        drawn[match[2]] = above[-1][1] if above else None
        above.append((len(match[1]), match[2]))
    return drawn


def test_the_drawn_tree_is_the_real_one() -> None:
    real = {
        name: None if cls in (AwaError, JobInterrupted) else cls.__bases__[0].__name__
        for name, cls in error_classes().items()
    }
    assert drawn_tree() == real
    assert len(real) >= 10


@pytest.mark.parametrize("cls", [cls for cls in error_classes().values() if cls not in SPEAK_FOR_THEMSELVES])
def test_the_docstring_is_the_default_message(cls: type[AwaError] | type[JobInterrupted]) -> None:
    assert str(cls()) == inspect.cleandoc(cls.__doc__ or "") != ""
    assert str(cls("other")) == "other"
    assert "\n" not in str(cls())


def test_an_invalid_job_is_a_value_error_that_names_its_field() -> None:
    error = InvalidJob("args.a", "is bad")
    assert isinstance(error, ValueError)
    assert (error.field, str(error)) == ("args.a", "args.a: is bad")


def test_public_errors_are_those_of_the_tree() -> None:
    raised = {
        name for name in awa.__all__ if isinstance(getattr(awa, name), type) and issubclass(getattr(awa, name), Exception)
    }
    assert {name for name in raised if not issubclass(getattr(awa, name), Outcome)} <= {*error_classes()}


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM awa.no_such_table",
        "SELECT awa.no_such_function(1)",
        "SELECT awa.claim_jobs(1, 2, 3)",
    ],
)
def test_a_missing_object_of_awa_means_an_outdated_schema(conn: Connection, statement: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(statement.encode())
    assert isinstance(from_database(caught.value), awa.SchemaOutOfDate)
    assert "awa migrate" in str(from_database(caught.value))


@pytest.mark.parametrize("statement", ["SELECT * FROM no_such_table", "SELECT 1/0", "SELECT lost.f()"])
def test_other_faults_of_the_database_are_not_awas_to_explain(conn: Connection, statement: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(statement.encode())
    assert from_database(caught.value) is None


def test_a_missing_schema_means_an_outdated_schema(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as conn, pytest.raises(psycopg.Error) as caught:
        conn.execute("SELECT awa.claim_jobs('q', 1, 1, 1)")
    assert isinstance(from_database(caught.value), awa.SchemaOutOfDate)
