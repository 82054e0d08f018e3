"""What a handler can know about its job."""

from __future__ import annotations

from contextvars import copy_context
from datetime import UTC, datetime

import pytest

import awa
from awa.claim import Claim
from awa.context import enter_job


def context(payload: str | None = None) -> awa.JobContext:
    """A job on its second of five attempts, made a second before it was due."""
    claim = Claim(0, 7, 1, "email", 1, claimed_at=0)
    return awa.JobContext(claim, 1, (None, None, None, None, None, 42, "send", "{}", 2, 5, 3, 1_000_000, 0, payload))


def test_facts_are_what_the_claim_said() -> None:
    job = context()
    assert (job.queue, job.priority, job.id, job.kind) == ("email", 1, 42, "send")
    assert (job.attempt, job.max_attempts, job.run_lease) == (2, 5, 3)
    assert job.created_at == datetime(2000, 1, 1, tzinfo=UTC)
    assert job.run_at == datetime(2000, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert repr(job) == "<awa job 42 'send' attempt 2/5>"


def test_without_a_payload_there_are_no_tags_metadata_or_errors() -> None:
    assert (context().tags, context().metadata, context().errors) == ((), {}, ())


def test_the_payload_is_decoded_when_it_is_asked_for() -> None:
    job = context('{"tags":["a"],"metadata":{"k":1},"errors":[{"attempt":1}]}')
    assert job.tags == ("a",)
    assert job.metadata == {"k": 1}
    assert job.errors == ({"attempt": 1},)


def test_log_fields_have_stable_names() -> None:
    assert context().log_fields() == {"awa_job_id": 42, "awa_kind": "send", "awa_queue": "email", "awa_attempt": 2}


def test_there_is_no_current_job_outside_a_handler() -> None:
    with pytest.raises(awa.AwaError, match="no job is running here"):
        awa.current_job()


def test_the_current_job_is_known_within_its_context_only() -> None:
    inside = copy_context()
    job = context()
    inside.run(enter_job, job)
    assert inside.run(awa.current_job) is job
    with pytest.raises(awa.AwaError):
        awa.current_job()
