"""Options of each job of a batch: where they come from, and what a job's own say about the batch's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from awa import Client, InvalidJob, JobOptions, NewJob, task
from awa.keys import ordering_key_hash64
from awa.plan import PlannedJob
from awa.shapes import MAX_SHAPES, with_options

A, B = JobOptions(queue="a"), JobOptions(queue="b")


def planned(jobs: Iterable[object], opts: Any = None, kind: Any = "k", **batch: Any) -> list[PlannedJob]:
    """The plan of a batch, without a database."""
    client = Client("postgresql://127.0.0.1:1/nowhere")
    return list(client._plan_many(jobs, kind, JobOptions(**batch), opts))


def test_options_come_from_a_function_or_from_beside_the_jobs() -> None:
    jobs = [{"to": "a"}, {"to": "b"}, {"to": "c"}]
    by_function = planned(jobs, lambda args: JobOptions(queue=args["to"]) if args["to"] != "c" else None)
    beside = planned(iter(jobs), iter([A, B, None]))
    assert [job.route.queue for job in by_function] == [job.route.queue for job in beside] == ["a", "b", "default"]


def test_a_function_of_options_sees_what_was_given() -> None:
    seen: list[object] = []
    new = NewJob({"n": 2}, kind="other")
    planned([{"n": 1}, new], seen.append)
    assert seen == [{"n": 1}, new]


def test_a_new_job_s_own_options_win() -> None:
    found = planned([NewJob({}, options=A), NewJob({}), NewJob({}, kind="mine")], [B, B, B])
    assert [(job.kind, job.route.queue) for job in found] == [("k", "a"), ("k", "b"), ("mine", "b")]


@pytest.mark.parametrize("given", [0, 1, 3])
def test_as_many_options_as_jobs_or_none(given: int) -> None:
    with pytest.raises(InvalidJob, match=rf"opts: has {given} elements|opts: has more than 2 elements"):
        planned([{}, {}], [A] * given)


def test_what_are_no_options_is_refused_by_its_place() -> None:
    with pytest.raises(InvalidJob, match=r"jobs\[1\]\.opts: must be awa\.JobOptions or None, not dict"):
        list(with_options([{}, {}], [A, {"queue": "b"}]))  # type: ignore[list-item]


def test_absent_is_the_batch_s_none_clears_and_a_value_wins() -> None:
    batch = {"queue": "bulk", "ordering_key": "all"}
    own = [None, JobOptions(), JobOptions(queue=None, ordering_key=None), JobOptions(queue="q", ordering_key=b"one")]
    found = planned([{}] * 4, own, **batch)
    assert [job.route.queue for job in found] == ["bulk", "bulk", "default", "q"]
    whole, one = ordering_key_hash64("all"), ordering_key_hash64("one")
    assert [job.key_hash for job in found] == [whole, whole, None, one]


def test_a_cleared_queue_is_the_task_s() -> None:
    @task(queue="images")
    def shrink() -> None: ...

    found = planned([{}] * 2, [JobOptions(queue=None), JobOptions()], kind=shrink, queue="bulk")
    assert [job.route.queue for job in found] == ["images", "bulk"]


def test_keys_of_more_jobs_than_shapes_are_remembered_are_their_own() -> None:
    n = MAX_SHAPES + 50
    found = planned([{}] * n, (JobOptions(ordering_key=str(index), priority=1 + index % 4) for index in range(n)))
    assert [job.key_hash for job in found] == [ordering_key_hash64(str(index)) for index in range(n)]
    assert [job.route.priority for job in found] == [1 + index % 4 for index in range(n)]


def test_a_shape_that_was_fine_does_not_let_its_lookalike_pass() -> None:
    with pytest.raises(InvalidJob, match=r"jobs\[1\]\.priority: must be an integer, not bool"):
        planned([{}, {}], [JobOptions(priority=1), JobOptions(priority=True)])


def test_a_bad_key_names_its_job() -> None:
    with pytest.raises(InvalidJob, match=r"jobs\[1\]\.ordering_key: must be text or bytes, not int"):
        planned([{}, {}], [None, JobOptions(ordering_key=7)])  # type: ignore[arg-type]
