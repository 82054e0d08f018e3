"""mypy accepts what fits a task's signature and reports what does not, line by line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def mypy(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run mypy with this project's settings."""
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "--no-error-summary", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_mypy_accepts_tasks_that_are_used_rightly() -> None:
    done = mypy(str(HERE / "check_tasks.py"))
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_mypy_reports_each_wrong_use_and_nothing_else(tmp_path: Path) -> None:
    text = (HERE / "wrong_tasks.txt").read_text("utf-8")
    wrong = tmp_path / "wrong_tasks.py"
    wrong.write_text(text, "utf-8")
    marked = {number for number, line in enumerate(text.splitlines(), 1) if line.endswith("# error")}
    done = mypy("--no-pretty", str(wrong))
    reported = {int(line) for line in re.findall(r"wrong_tasks\.py:(\d+): error: ", done.stdout)}
    assert reported == marked, done.stdout + done.stderr
    assert len(marked) > 20
