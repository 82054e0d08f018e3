"""Partitioned queues: their names, where keys go, how workers are shared out."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awa import ConfigurationError, JobOptions, PartitionedQueue
from awa.config import WorkerSettings
from awa.keys import ordering_key_hash64, partition_for_ordering_key
from awa.partitions import AnyQueue, expand_queues, merge_queue_configs, parse_queue
from awa.plan import Route, make_template
from awa.unique import Unique

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
EMAIL = PartitionedQueue("email", 4)


def test_partition_0_has_the_logical_name() -> None:
    assert EMAIL.physical_queues == ("email", "email__p1", "email__p2", "email__p3")
    assert [EMAIL.queue_for_index(index) for index in range(4)] == list(EMAIL.physical_queues)
    assert PartitionedQueue("email", 1).physical_queues == ("email",)


@given(st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.binary(max_size=30)))
def test_a_key_goes_to_its_partition_by_every_way(key: str | bytes) -> None:
    name = EMAIL.physical_queues[partition_for_ordering_key(key, 4)]
    assert EMAIL.queue_for_key(key) == name
    assert EMAIL.route_by_key(key) == {"queue": name, "ordering_key": key}
    planned = make_template("k", JobOptions(queue=EMAIL)).plan({}, NOW, ordering_key_hash64(key))
    assert planned.route == Route(name, 2)


def test_an_index_names_its_partition() -> None:
    assert EMAIL.route_by_index(3) == {"queue": "email__p3"}
    for index in (-1, 4):
        with pytest.raises(ConfigurationError, match=f"partitions 0 to 3, not {index}"):
            EMAIL.queue_for_index(index)


def test_jobs_without_a_key_go_round() -> None:
    template = make_template("k", JobOptions(queue=EMAIL, priority=1))
    seen = [template.plan({}, NOW).route for _ in range(8)]
    assert set(seen[:4]) == {Route(name, 1) for name in EMAIL.physical_queues}
    assert seen[4:] == seen[:4]


def test_a_unique_job_is_the_same_job_in_every_partition() -> None:
    template = make_template("k", JobOptions(queue=EMAIL, unique=Unique(by_queue=True)))
    claims = {job.unique.key for job in (template.plan({"n": 1}, NOW) for _ in range(8)) if job.unique}
    plain = make_template("k", JobOptions(queue="email", unique=Unique(by_queue=True))).plan({"n": 1}, NOW)
    assert plain.unique is not None
    assert claims == {plain.unique.key}


@pytest.mark.parametrize(
    ("logical", "partitions", "reason"),
    [
        ("", 2, "queue: must not be empty"),
        ("a\nb", 2, "control or unprintable"),
        ("q" * 197, 2, "197 characters, the limit is 196"),
        ("q" * 201, 1, "201 characters, the limit is 200"),
        ("q", 0, "between 1 and 32767, not 0"),
        ("q", -1, "between 1 and 32767, not -1"),
        ("q", 32768, "between 1 and 32767, not 32768"),
        ("q", True, "must be an integer, not bool"),
        ("q", 2.0, "must be an integer, not float"),
    ],
)
def test_what_cannot_be_is_refused(logical: str, partitions: int, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        PartitionedQueue(logical, partitions)


def test_the_bounds_are_accepted() -> None:
    assert len(PartitionedQueue("q", 32767).physical_queues[-1]) == len("q__p32766")
    assert len(PartitionedQueue("q" * 196, 2).physical_queues[1]) == 200


def test_workers_are_shared_out() -> None:
    assert EMAIL.queue_configs(10) == dict.fromkeys(EMAIL.physical_queues, 10)
    assert EMAIL.queue_configs(max_workers_per_partition=10) == EMAIL.queue_configs(10)
    assert list(EMAIL.queue_configs(min_workers_per_partition=1, workers=10).values()) == [3, 3, 2, 2]
    assert list(EMAIL.queue_configs(min_workers_per_partition=3, workers=10).values()) == [3, 3, 3, 3]


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ({}, "either"),
        ({"max_workers_per_partition": 1, "min_workers_per_partition": 1}, "either"),
        ({"max_workers_per_partition": 1, "workers": 1}, "workers goes with"),
        ({"max_workers_per_partition": 0}, "must be a positive integer, not 0"),
        ({"min_workers_per_partition": 1}, "workers must be a positive integer, not None"),
        ({"min_workers_per_partition": -1, "workers": 4}, "positive integer, not -1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(numbers: dict[str, int], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        EMAIL.queue_configs(**numbers)


def test_two_logical_queues_with_one_physical_name_are_refused() -> None:
    queues: dict[AnyQueue, int] = {EMAIL: 2, PartitionedQueue("email__p1", 2): 2}
    for build in (expand_queues, lambda given: WorkerSettings(queues=given)):
        with pytest.raises(ConfigurationError, match="'email__p1' is named twice"):
            build(queues)
    with pytest.raises(ConfigurationError, match="'email__p3' is named twice"):
        merge_queue_configs(EMAIL.queue_configs(1), {"email__p3": 2})
    assert merge_queue_configs(EMAIL.queue_configs(1), {"other": 2}) == {
        **dict.fromkeys(EMAIL.physical_queues, 1),
        "other": 2,
    }


def test_a_worker_s_settings_know_physical_queues_only() -> None:
    queues: dict[AnyQueue, int] = {EMAIL: 2, "default": 5}
    settings = WorkerSettings(queues=queues, timeouts={EMAIL: 30.0})
    assert settings.queues == {**dict.fromkeys(EMAIL.physical_queues, 2), "default": 5}
    assert settings.timeouts == dict.fromkeys(EMAIL.physical_queues, 30.0)


def test_a_text_names_a_queue_or_its_partitions() -> None:
    assert parse_queue("email") == "email"
    assert parse_queue("email/4") == EMAIL
    assert parse_queue("a/b") == "a/b"
    assert parse_queue("email/4/1") == PartitionedQueue("email/4", 1)
    assert str(EMAIL) == "email/4"
    with pytest.raises(ConfigurationError, match="not 0"):
        parse_queue("email/0")


def test_a_partitioned_queue_is_a_value() -> None:
    assert pickle.loads(pickle.dumps(EMAIL)) == EMAIL
    assert {EMAIL: 1}[PartitionedQueue("email", 4)] == 1
    assert repr(EMAIL) == "PartitionedQueue(logical='email', partitions=4)"
