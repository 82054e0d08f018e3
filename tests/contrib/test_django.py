"""Django's tests and its example, in processes of their own: on this Python, and with Django 6 on one that can run it.

`AWA_TEST_DJANGO=1 pytest tests/contrib/django` runs the former alone. `AWA_TEST_PYTHON` names the Python for Django 6.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITE = "tests/contrib/django"
EXAMPLE = "tests/examples/test_django_orders.py"
DJANGO = "Django>=6.0"
NEEDS = (3, 12)
SECONDS = 540


def run(*command: str, **env: str) -> str:
    """The command's output; its failure is the test's."""
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_suite(python: str, server: str, *paths: str) -> str:
    """pytest's summary of these tests, on the server that this run has."""
    options = ("-q", "-p", "no:cacheprovider", "--no-header", "-o", "addopts=--strict-markers --strict-config -rs")
    return run(python, "-m", "pytest", *options, *paths, AWA_TEST_DJANGO="1", AWA_TEST_DSN=server)


def pythons() -> Iterator[str]:
    """Interpreters that may be new enough: the one that is named, else this one, those on the PATH, and pyenv's."""
    if named := os.environ.get("AWA_TEST_PYTHON"):
        yield named
        return
    yield sys.executable
    for minor in range(14, NEEDS[1] - 1, -1):
        if found := shutil.which(f"python3.{minor}"):
            yield found
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, timeout=20, check=False).stdout.strip()
        yield from map(str, sorted(Path(root, "versions").glob("3.*/bin/python")) if root else [])


def is_new_enough(python: str) -> bool:
    """Whether it runs, and can run Django 6. A shim of pyenv's may be there without an interpreter behind it."""
    program = f"import sys, venv, ensurepip; sys.exit(sys.version_info < {NEEDS})"
    try:
        return subprocess.run([python, "-c", program], capture_output=True, timeout=20, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture(scope="module")
def python_with_django_6(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter of a new virtual environment with awa, Django 6 and pytest."""
    found = next(filter(is_new_enough, pythons()), None)
    if found is None:
        if os.environ.get("AWA_TEST_PYTHON"):
            pytest.fail(
                f"AWA_TEST_PYTHON is {os.environ['AWA_TEST_PYTHON']}, which is no Python {NEEDS[0]}.{NEEDS[1]} or later"
            )
        pytest.skip("Django 6 needs Python 3.12 or later, and there is none here: AWA_TEST_PYTHON may name one")
    home = tmp_path_factory.mktemp("django6")
    run(found, "-m", "venv", str(home))
    python = str(home / "bin" / "python")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    tools = [need for need in project["optional-dependencies"]["dev"] if need.startswith(("pytest", "hypothesis"))]
    quiet = ("--quiet", "--disable-pip-version-check")
    needs = [*project["dependencies"], *project["optional-dependencies"]["embedded"], *tools]
    run(python, "-m", "pip", "install", *quiet, DJANGO, *needs)
    return python


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_django_on_this_python(server: str) -> None:
    assert " passed" in run_suite(sys.executable, server, SUITE)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_tasks_migrations_and_transactions_with_django_6(server: str, python_with_django_6: str) -> None:
    files = [f"{SUITE}/{name}.py" for name in ("test_django_tasks", "test_migrations", "test_page", "test_transactions")]
    summary = run_suite(python_with_django_6, server, *files)
    assert " passed" in summary
    assert "skipped" not in summary


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_example_with_django_6(server: str, python_with_django_6: str) -> None:
    summary = run_suite(python_with_django_6, server, EXAMPLE)
    assert "3 passed" in summary
