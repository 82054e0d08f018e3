"""Whose turn it is among chores."""

from __future__ import annotations

import time

import pytest

from awa.maintenance.chores import Chore, run_due
from awa.postgres import Connection


def test_a_chore_that_never_ends_keeps_no_other_from_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    turns: list[str] = []

    def take(name: str, seconds: float, more: bool) -> bool:
        nonlocal now
        now += seconds
        turns.append(name)
        return more

    chores = [
        Chore("endless", 0.1, lambda conn: take("endless", 1.5, True)),
        Chore("first", 1.0, lambda conn: take("first", 0.1, False)),
        Chore("second", 1.0, lambda conn: take("second", 0.1, False)),
    ]
    conn: Connection = None  # type: ignore[assignment]  # none of them asks
    for _ in range(12):
        began = now
        run_due(chores, conn, enough=lambda began=began: now - began >= 1.0)  # type: ignore[misc]
    assert {"first", "second"} <= set(turns)
    assert turns.count("endless") >= 4
