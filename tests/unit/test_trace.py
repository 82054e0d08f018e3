"""What a trace holds, and that processes that share a file do not spoil each other's lines."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from awa import trace
from awa.claim import Claim, ClaimedRow

WRITERS = 4
BATCHES = 100
BATCH = 40

PROGRAM = f"""
from awa import trace
for n in range({BATCHES}):
    trace._write([{{"event": "promoted", "batch": n, "line": line}} for line in range({BATCH})])
"""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A file that this process traces to."""
    trace.start(tmp_path / "trace.jsonl")
    yield tmp_path / "trace.jsonl"
    trace.stop()


def written(file: Path) -> list[dict[str, Any]]:
    """The events in a file."""
    return [json.loads(text) for text in file.read_text("utf-8").splitlines()]


def handed_out(n: int) -> list[tuple[Claim, int, ClaimedRow]]:
    """A claim of `n` jobs."""
    claim = Claim(claim_slot=0, claim_id=7, token=99, queue="q", priority=2, claimed_at=0, n=n)
    return [(claim, item, (None,) * 5 + (100 + item, "kind", "{}", 1, 3, 5, 0, 0, None)) for item in range(1, n + 1)]


def test_nothing_is_written_unless_asked_for(tmp_path: Path) -> None:
    assert not trace.on
    assert list(tmp_path.iterdir()) == []


def test_an_ending_tells_of_its_job_as_the_claim_did(file: Path) -> None:
    ((claim, item, _),) = jobs = handed_out(1)
    trace.claimed(jobs, runtime_id=4711)
    trace.ended([(claim, item, "failed", "accepted", 2.5)])
    receipt = {"job": 101, "run_lease": 5, "attempt": 1, "max_attempts": 3, "claim": 7, "item": 1, "runtime": 4711}
    how = {"outcome": "failed", "verdict": "accepted", "again": True, "soon": False}
    first, second = written(file)
    assert {"event": "claimed", **receipt}.items() <= first.items()
    assert {"event": "ended", **receipt, **how}.items() <= second.items()
    assert (first["pid"], first["at"] > 1.7e9, second["mono"] >= first["mono"]) == (os.getpid(), True, True)


def test_an_ending_that_is_handed_in_again_is_told_when_it_is_accepted(file: Path) -> None:
    ((claim, item, _),) = jobs = handed_out(1)
    trace.claimed(jobs, runtime_id=1)
    trace.ended([(claim, item, "completed", "busy", None)])
    trace.ended([(claim, item, "completed", "accepted", None)])
    assert [(fact["event"], fact["job"]) for fact in written(file)] == [("claimed", 101), ("ended", 101)]


def test_what_has_ended_is_forgotten(file: Path) -> None:
    jobs = handed_out(3)
    trace.claimed(jobs, runtime_id=1)
    trace.ended([(claim, item, "completed", "accepted", None) for claim, item, _ in jobs])
    assert trace._claimed == {}


@pytest.mark.parametrize(
    ("delay_after", "again", "soon"), [(None, False, False), (0.0, True, True), (1.5, True, False), (-1.0, True, False)]
)
def test_an_ending_says_whether_and_how_soon_there_may_be_another_try(
    file: Path, delay_after: float | None, again: bool, soon: bool
) -> None:
    trace.answered(5, None, None, "failed", "accepted", delay_after)
    (fact,) = written(file)
    assert (fact["again"], fact["soon"]) == (again, soon)


def test_nothing_of_which_there_was_none_is_told(file: Path) -> None:
    trace.counted("promoted", 0)
    trace.claimed([], runtime_id=1)
    trace.asked_for("cancelled", 5, "busy")
    trace.counted("rescued", 2, by="dead")
    assert [(fact["event"], fact["n"], fact["by"]) for fact in written(file)] == [("rescued", 2, "dead")]


def test_processes_append_whole_batches(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    command = [sys.executable, "-c", PROGRAM]
    environment = {**os.environ, "AWA_TRACE": str(file)}
    writers = [subprocess.Popen(command, env=environment, cwd=Path(__file__).parents[2]) for _ in range(WRITERS)]
    assert [writer.wait(60) for writer in writers] == [0] * WRITERS
    facts = written(file)
    assert len(facts) == WRITERS * BATCHES * BATCH
    batches = [list(lines) for _, lines in itertools.groupby(facts, key=lambda fact: (fact["pid"], fact["batch"]))]
    assert len(batches) == WRITERS * BATCHES
    assert all([fact["line"] for fact in batch] == list(range(BATCH)) for batch in batches)
