"""Traces of real runs, held against the model of a job's life."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.tla.recording import record
from tla.replay import BadTrace, Line, Story, main, read_followed, read_lines, replay, shape_of, stories, traces_module

TRACES = Path(__file__).parents[2] / "tla" / "Lifecycle" / "traces"
RECORDED = TRACES / "worker.jsonl.gz"
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="no Java runtime here")

Facts = dict[str, Any]


def lines(*facts: Facts) -> list[Line]:
    """These facts as a file's lines."""
    return [Line(number, fact) for number, fact in enumerate(facts, 1)]


def claimed(lease: int, attempt: int = 1, *, claim: int | None = None, maximum: int = 3) -> Facts:
    """Job 1 was handed out."""
    return {
        "event": "claimed",
        "job": 1,
        "run_lease": lease,
        "attempt": attempt,
        "max_attempts": maximum,
        "claim": lease if claim is None else claim,
        "item": 1,
        "runtime": 7,
    }


def ended(lease: int, outcome: str, verdict: str = "accepted", *, again: bool = True, soon: bool = False) -> Facts:
    """That attempt of job 1 was ended."""
    fact = {**claimed(lease), "event": "ended", "outcome": outcome, "verdict": verdict, "again": again, "soon": soon}
    del fact["attempt"], fact["max_attempts"]
    return fact


def events(told: Iterable[Story]) -> list[list[str]]:
    """The names of the events of each story."""
    return [[str(dict(event)["event"]) for event in story.shape] for story in told]


def first_unexplained(*facts: Facts) -> int | None:
    """The line that nothing explains."""
    found = replay(stories(lines(*facts)))
    return found[0].story.lines[found[0].followed].number if found else None


def test_lines_that_came_late_are_put_in_order() -> None:
    told = stories(lines(claimed(2, 2), ended(2, "completed"), ended(1, "failed"), claimed(1)))
    assert [(dict(e)["event"], dict(e)["lease"]) for e in told[0].shape] == [
        ("claimed", 1),
        ("ended", 1),
        ("claimed", 2),
        ("ended", 2),
    ]


def test_an_answer_comes_after_the_parking_and_refusals_come_last() -> None:
    answer = {"event": "answered", "job": 1, "claim": None, "item": None, "outcome": "completed", "verdict": "accepted"}
    answer |= {"again": True, "soon": True}
    told = stories(lines(ended(1, "completed", "refused"), answer, ended(1, "waiting"), claimed(1)))
    assert events(told) == [["claimed", "ended", "answered", "refused"]]


def test_jobs_with_the_same_story_are_told_once() -> None:
    other = {"job": 2, "claim": 9, "runtime": 12}
    told = stories(lines(claimed(1), ended(1, "completed"), {**claimed(1), **other}, {**ended(1, "completed"), **other}))
    assert [story.jobs for story in told] == [[1, 2]]


def test_runtimes_are_numbered_by_appearance() -> None:
    shape = shape_of(lines(claimed(1), {**claimed(2), "runtime": 99}, {**claimed(3), "runtime": 7}))
    assert [dict(event)["runtime"] for event in shape] == [1, 2, 1]


@pytest.mark.parametrize("text", ["{", "[]", '{"job": 1}', '{"event": "claimed"'])
def test_a_line_that_is_no_event_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "trace"
    file.write_text(f'{{"event": "promoted", "n": 1}}\n{text}\n', "utf-8")
    with pytest.raises(BadTrace, match="line 2 is"):
        read_lines(file)


def test_an_ending_of_an_unknown_claim_is_refused() -> None:
    with pytest.raises(BadTrace, match="line 1 tells of a claim that no line gives out"):
        stories(lines({"event": "ended", "claim": 1, "item": 1, "outcome": "completed", "verdict": "accepted"}))


def test_the_module_is_written_in_tla() -> None:
    told = stories(lines(claimed(1), ended(1, "completed", again=False)))
    assert '[event |-> "claimed", lease |-> 1, attempt |-> 1, max |-> 3, runtime |-> 1]' in traces_module(told)
    assert '[event |-> "ended", lease |-> 1, outcome |-> "completed", again |-> FALSE, soon |-> FALSE]' in traces_module(
        told
    )


def test_the_furthest_of_all_behaviours_counts() -> None:
    output = '<<"followed", 1, 0>>\n<<"followed", 1, 2>>\n<<"followed", 1, 1>>\n<<"followed", 3, 0>>\n'
    assert read_followed(output, 3) == [2, -1, 0]


@needs_java
def test_a_recorded_run_is_explained() -> None:
    told = stories(read_lines(RECORDED))
    seen = {name for story in events(told) for name in story}
    assert seen == {"enqueued", "claimed", "ended", "saved", "answered", "cancelled", "deleted", "retried", "refused"}
    outcomes = {dict(event).get("outcome") for story in told for event in story.shape}
    assert outcomes >= {"completed", "failed", "snoozed", "cancelled", "waiting"}
    assert replay(told) == []


def claims_again(facts: list[Facts]) -> list[Facts]:
    """A completed job is claimed once more."""
    claim = next(fact for fact in facts if fact["event"] == "claimed")
    return [*facts, {**claim, "run_lease": claim["run_lease"] + 1, "attempt": claim["attempt"] + 1, "claim": 10**6}]


def ends_twice(facts: list[Facts]) -> list[Facts]:
    """Its ending is accepted a second time."""
    return [*facts, facts[-1]]


def is_handed_out_twice(facts: list[Facts]) -> list[Facts]:
    """Another process gets the same lease."""
    claim = next(fact for fact in facts if fact["event"] == "claimed")
    return [*facts, {**claim, "runtime": 1, "claim": 10**6}]


def is_tried_too_often(facts: list[Facts]) -> list[Facts]:
    """Its attempts were used up."""
    claim = next(fact for fact in facts if fact["event"] == "claimed")
    return [{**fact, "max_attempts": 1} if "max_attempts" in fact else fact for fact in facts] if claim else facts


@needs_java
@pytest.mark.parametrize(
    ("kind", "corrupt"),
    [
        (["enqueued", "claimed", "ended"], ends_twice),
        (["enqueued", "claimed", "ended"], claims_again),
        (["enqueued", "claimed", "ended"], is_handed_out_twice),
        (["enqueued", "claimed", "ended", "claimed", "ended", "claimed", "ended"], is_tried_too_often),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_corrupted_run_is_rejected(kind: list[str], corrupt: Callable[[list[Facts]], list[Facts]]) -> None:
    story = next(story for story in stories(read_lines(RECORDED)) if events([story]) == [kind])
    facts = [dict(line.facts) for line in story.lines]
    assert first_unexplained(*facts) is None
    assert first_unexplained(*corrupt(facts)) is not None


@needs_java
def test_the_command_rejects_a_job_that_was_completed_twice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(TRACES / "completed_twice.jsonl")]) == 1
    assert "line 4: nothing explains this event of job 1" in capsys.readouterr().out
    assert main(["--must-fail", str(TRACES / "completed_twice.jsonl")]) == 0


@needs_java
def test_rescue_promotion_and_unseen_claims_need_no_line() -> None:
    assert first_unexplained(claimed(1), claimed(2, 2), ended(2, "completed")) is None  # rescued
    assert first_unexplained(claimed(1), ended(1, "snoozed"), claimed(2), ended(1, "completed", "refused")) is None
    assert (
        first_unexplained(claimed(1), claimed(3, 3), ended(3, "completed")) is None
    )  # one claim's process was killed at once
    assert first_unexplained(claimed(1), ended(1, "completed"), claimed(2, 2)) == 3
    assert first_unexplained(claimed(1, maximum=9), claimed(2, 3, maximum=9)) == 2  # an attempt out of nothing


def test_a_retry_stands_between_the_lives_of_a_job() -> None:
    retried = {"event": "retried", "job": 1}
    cancelled = {"event": "cancelled", "job": 1, "verdict": "cancelled"}
    told = stories(lines(claimed(1), cancelled, retried, claimed(2), ended(2, "failed"), claimed(3, 2), cancelled))
    assert events(told) == [["claimed", "cancelled", "retried", "claimed", "ended", "claimed", "cancelled"]]


@needs_java
def test_only_a_job_that_was_retried_begins_again() -> None:
    story = [claimed(1, maximum=1), ended(1, "failed"), claimed(2, maximum=1)]
    assert first_unexplained(*story) == 3
    assert first_unexplained(*story, {"event": "retried", "job": 1}) is None


@needs_java
def test_a_fresh_run_of_real_workers_is_explained(dsn: str, tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    record(dsn, file)
    known = [json.loads(text) for text in file.read_text("utf-8").splitlines()]
    assert len({fact["pid"] for fact in known}) >= 4  # the client, two processes, and the one that took the dead one's place
    assert any(fact["event"] == "rescued" for fact in known)
    told = stories(read_lines(file))
    assert any(names[1:3] == ["claimed", "claimed"] for names in events(told))  # whose process was killed
    assert [one.describe() for one in replay(told)] == []
