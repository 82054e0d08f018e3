"""What an enqueue will write, and what it refuses to."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from attrs import evolve

from awa import Client, InvalidJob, JobOptions
from awa.names import check_name
from awa.plan import MAX_TAG_CHARACTERS, MAX_TAGS, Route, make_template, merge_options

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def refused_field(kind: object = "k", **options: Any) -> tuple[str, str]:
    """Which field is refused, and the whole message."""
    with pytest.raises(InvalidJob) as caught:
        make_template(kind, JobOptions(**options))
    return caught.value.field, str(caught.value)


@pytest.mark.parametrize(
    ("options", "field", "reason"),
    [
        ({"queue": ""}, "queue", "must not be empty"),
        ({"queue": "q" * 201}, "queue", "201 characters, the limit is 200"),
        ({"queue": "a\nb"}, "queue", "control or unprintable"),
        ({"queue": "a\x00b"}, "queue", "control or unprintable"),
        ({"queue": "\ud800"}, "queue", "unprintable"),
        ({"queue": 3}, "queue", "must be text, not int"),
        ({"priority": 0}, "priority", "must be between 1 and 4, not 0"),
        ({"priority": 5}, "priority", "must be between 1 and 4, not 5"),
        ({"priority": True}, "priority", "must be an integer, not bool"),
        ({"priority": "1"}, "priority", "must be an integer, not str"),
        ({"max_attempts": 0}, "max_attempts", "must be between 1 and 32767, not 0"),
        ({"max_attempts": 32768}, "max_attempts", "must be between 1 and 32767, not 32768"),
        ({"max_attempts": 1.5}, "max_attempts", "must be an integer, not float"),
        ({"run_at": datetime(2026, 1, 1)}, "run_at", "must carry a time zone"),  # noqa: DTZ001 - the refused one
        ({"run_at": "2026-01-01"}, "run_at", "must be a datetime, not str"),
        ({"run_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))}, "run_at", "no UTC equivalent"),
        ({"run_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))}, "run_at", "no UTC equivalent"),
        ({"tags": ["t"] * (MAX_TAGS + 1)}, "tags", "33 tags, the limit is 32"),
        ({"tags": ["ok", "t" * (MAX_TAG_CHARACTERS + 1)]}, "tags[1]", "101 characters, the limit is 100"),
        ({"tags": ["ok", ""]}, "tags[1]", "must not be empty"),
        ({"tags": [7]}, "tags[0]", "must be text, not int"),
        ({"metadata": {"a": [float("nan")]}}, "metadata.a[0]", "nan is not a JSON number"),
        ({"metadata": [1]}, "metadata", "must be a JSON object"),
    ],
)
def test_an_option_out_of_bounds_is_refused_by_name(options: dict[str, Any], field: str, reason: str) -> None:
    assert refused_field(**options)[0] == field
    assert reason in refused_field(**options)[1]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("", "must not be empty"), ("k" * 201, "201 characters"), (None, "not NoneType"), ("a\tb", "control or unprintable")],
)
def test_a_kind_out_of_bounds_is_refused(kind: object, reason: str) -> None:
    field, message = refused_field(kind)
    assert field == "kind"
    assert reason in message


@pytest.mark.parametrize("name", ["q", "q" * 200, "größe", "日本", "a b", 'a"b', "a:b", "😀"])
def test_a_name_within_bounds_is_kept(name: str) -> None:
    assert check_name(name, "queue", 200) == name


@pytest.mark.parametrize(
    "options",
    [
        {"priority": 1},
        {"priority": 4},
        {"max_attempts": 1},
        {"max_attempts": 32767},
        {"tags": ["t" * MAX_TAG_CHARACTERS] * MAX_TAGS},
    ],
)
def test_an_option_at_its_bound_is_accepted(options: dict[str, Any]) -> None:
    template = make_template("k", JobOptions(**options))
    assert template.route.priority == options.get("priority", 2)
    assert template.max_attempts == options.get("max_attempts", 25)


def test_what_is_left_open_takes_the_librarys_defaults() -> None:
    job = make_template("k", JobOptions()).plan({}, NOW)
    assert job.route == Route("default", 2)
    assert (job.kind, job.args, job.max_attempts, job.run_at, job.payload, job.deferred) == (
        "k",
        "{}",
        25,
        None,
        None,
        False,
    )


@pytest.mark.parametrize(("offset", "deferred"), [(-1, False), (0, False), (1, True)])
def test_only_a_due_time_in_the_future_defers(offset: int, deferred: bool) -> None:
    job = make_template("k", JobOptions(run_at=NOW + timedelta(microseconds=offset))).plan({}, NOW)
    assert job.deferred is deferred


def test_a_due_time_is_turned_into_utc() -> None:
    there = datetime(2026, 1, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    run_at = make_template("k", JobOptions(run_at=there)).run_at
    assert run_at is not None
    assert run_at.isoformat() == "2025-12-31T23:30:00+00:00"


def test_tags_and_metadata_make_the_payload() -> None:
    template = make_template("k", JobOptions(tags=['a"b', "ü"], metadata={"by": "ada"}))
    assert json.loads(template.payload or "") == {"tags": ['a"b', "ü"], "metadata": {"by": "ada"}}
    assert make_template("k", JobOptions(tags=[], metadata={})).payload is None


def test_arguments_are_held_to_the_templates_limit() -> None:
    template = make_template("k", JobOptions(), max_args_bytes=10)
    assert template.plan({"a": 1234}, NOW).args == '{"a":1234}'
    with pytest.raises(InvalidJob, match="args: 11 bytes of JSON, the limit is 10"):
        template.plan({"a": 12345}, NOW)


def test_what_is_set_wins_over_the_base_and_the_rest_stays() -> None:
    base = JobOptions(queue="a", priority=1, max_attempts=3, tags=["x"], metadata={"m": 1})
    assert merge_options(base, None) is base
    assert merge_options(base, JobOptions()) is base
    assert merge_options(base, JobOptions(queue="b")) == evolve(base, queue="b")
    over = JobOptions(queue="c", priority=4, max_attempts=9, run_at=NOW, tags=["y"], metadata={"n": 2})
    assert merge_options(base, over) == over


def test_a_shape_that_was_fine_before_does_not_let_its_lookalike_pass() -> None:
    client = Client("postgresql://127.0.0.1:1/nowhere")
    assert client._template("work", JobOptions(priority=1)).route.priority == 1
    with pytest.raises(InvalidJob, match="priority: must be an integer, not bool"):
        client._template("work", JobOptions(priority=True))
