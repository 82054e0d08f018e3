"""The tutorial, followed to the letter but for the installation: its files, its commands, its database."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import environment
from tests.docs.pages import Block, blocks, commands
from tests.waiting import PATIENCE, wait_for

PAGE = "docs/tutorial.md"
AWA = Path(sys.executable).parent / "awa"


def run(dsn: str, folder: Path, *command: str) -> str:
    """What a command prints."""
    done = subprocess.run(
        command, cwd=folder, env=environment(dsn, PYTHONPATH=""), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(not AWA.exists(), reason="awa is not installed beside this Python")
def test_the_tutorial_works_as_written(empty_dsn: str, tmp_path: Path) -> None:
    task, enqueue = blocks(PAGE, "python")
    (tmp_path / "tasks.py").write_text(task.text)
    migrate, show, queues, worker = [arguments for _, arguments in commands(PAGE)]
    run(empty_dsn, tmp_path, str(AWA), *migrate)
    run(empty_dsn, tmp_path, sys.executable, "-c", enqueue.text)
    assert "available" in run(empty_dsn, tmp_path, str(AWA), *show)
    assert "email" in run(empty_dsn, tmp_path, str(AWA), *queues)
    log = tmp_path / "log"
    assert work(empty_dsn, tmp_path, worker, log, "to ada@example.com: welcome, Ada") == 0
    assert "completed" in run(empty_dsn, tmp_path, str(AWA), *show)

    (tmp_path / "tasks.py").write_text(failing(task))
    run(empty_dsn, tmp_path, sys.executable, "-c", enqueue.text)
    assert work(empty_dsn, tmp_path, worker, log, "ValueError: no such address") == 0
    assert "retryable" in (shown := run(empty_dsn, tmp_path, str(AWA), "job", "show", "2"))
    assert "no such address" in shown


def failing(task: Block) -> str:
    """What the reader makes of the task at last."""
    return re.sub(r"print\(.*\)", 'raise ValueError("no such address")', task.text)


def work(dsn: str, folder: Path, arguments: list[str], log: Path, until: str) -> int:
    """Run the worker until it has said something, and press Ctrl-C; its exit code."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [AWA, *arguments],
            cwd=folder,
            env=environment(dsn, PYTHONPATH="", PYTHONUNBUFFERED="1"),
            stdout=output,
            stderr=output,
        )
    try:
        wait_for(lambda: until in log.read_text(), what=f"the worker says {until!r}")
        process.send_signal(signal.SIGINT)
        return process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
