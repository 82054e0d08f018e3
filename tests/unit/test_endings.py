"""How long a failed job waits and what is kept of its error."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awa.retry import Backoff
from awa.worker.endings import MAX_MESSAGE, describe_error


@given(st.integers(1, 32767))
def test_a_retry_waits_twice_as_long_each_time_up_to_the_cap_give_or_take_a_quarter(attempt: int) -> None:
    backoff = Backoff()
    nominal = min(backoff.cap, backoff.base * 2.0 ** (attempt - 1)) if attempt < 100 else backoff.cap
    assert 0.75 * nominal <= backoff.delay(attempt) <= 1.25 * nominal


def test_retries_of_one_attempt_are_spread() -> None:
    delays = [Backoff().delay(4) for _ in range(200)]
    assert max(delays) - min(delays) > 0.25 * 8


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Surrogate(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("bad: value\nand more"), "ValueError", "bad: value\nand more"),
        (ValueError(), "ValueError", "ValueError"),
        (KeyError("k"), "KeyError", "'k'"),
        (SystemExit(3), "SystemExit", "3"),
        (Silent(), "Silent", "<exception str() failed>"),
        (Surrogate("a\x00b\ud800c"), "Surrogate", "a\\x00b\\ud800c"),
        (ExceptionGroup("both", [ValueError("a"), ValueError("b")]), "ExceptionGroup", "both (2 sub-exceptions)"),
    ],
)
def test_an_error_is_kept_by_type_and_message(error: BaseException, kind: str, message: str) -> None:
    kept = describe_error(3, error)
    assert (kept["attempt"], kept["type"], kept["message"]) == (3, kind, message)
    json.dumps(kept, ensure_ascii=False).encode()
    assert abs((datetime.now(UTC) - datetime.fromisoformat(kept["at"])).total_seconds()) < 60


def test_a_note_does_not_take_the_messages_place() -> None:
    error = ValueError("the message")
    error.add_note("a note")
    assert describe_error(1, error)["message"] == "the message"


def test_a_long_message_is_cut() -> None:
    assert describe_error(1, ValueError("x" * 10_000))["message"] == "x" * MAX_MESSAGE
