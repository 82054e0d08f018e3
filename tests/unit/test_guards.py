"""guards.toml names texts that are there and tests that exist; `make guards` runs them."""

from __future__ import annotations

import re

import pytest

from tests.guards.__main__ import verdict_of
from tests.guards.guards import ROOT, TABLE, TABLE_BEGINS, Guard, load_guards, table_of

GUARDS = load_guards()


@pytest.mark.parametrize("guard", GUARDS, ids=[f"{guard.file}: {guard.without}" for guard in GUARDS])
def test_a_guard_stands_once_in_its_file_and_its_test_exists(guard: Guard) -> None:
    text = (ROOT / guard.path).read_text("utf-8")
    assert guard.removed_from(text) != text
    tests = (ROOT / guard.node.split("::")[0]).read_text("utf-8")
    assert re.search(rf"^def {guard.test}\(", tests, re.MULTILINE)


def test_a_text_that_is_not_there_once_is_refused() -> None:
    guard = Guard("claim_jobs", "it", "x", "sql/test_claim_jobs.py::test_x")
    for text in ("", "x x"):
        with pytest.raises(ValueError, match="times: 'x'"):
            guard.removed_from(text)


def test_no_guard_is_listed_twice() -> None:
    assert len({(guard.file, guard.without) for guard in GUARDS}) == len(GUARDS)


@pytest.mark.parametrize(
    ("output", "verdict"),
    [
        ("1 failed in 2.00s", "fails"),
        ("1 failed, 3 passed in 2.00s", "fails"),
        ("4 passed in 2.00s", "passes"),
        ("1 error in 2.00s", "breaks"),
        ("1 failed, 1 error in 2.00s", "breaks"),
        ("E psycopg.errors.SyntaxError: at end of input\n1 failed in 2.00s", "breaks"),
        ("no tests ran in 0.10s", "breaks"),
        ("", "breaks"),
    ],
)
def test_only_a_test_that_ran_and_failed_proves_a_guard(output: str, verdict: str) -> None:
    assert verdict_of(output) == verdict


def test_the_documented_table_is_the_list() -> None:
    text = TABLE.read_text("utf-8")
    assert text[text.index(TABLE_BEGINS) :] == table_of(GUARDS)
