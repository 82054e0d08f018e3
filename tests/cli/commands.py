"""Running `awa` as people do: in a process of its own, with its database in the environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

AWA = (sys.executable, "-m", "awa_cli")
ROOT = Path(__file__).parent.parent.parent


def environment(dsn: str | None, **more: str) -> dict[str, str]:
    """This process's environment with one database, or none."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "AWA_", "COV_")) and name != "DATABASE_URL"
    }
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, "PYTHONWARNINGS": "error", **({"AWA_DSN": dsn} if dsn else {}), **more}


def run(dsn: str | None, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [*AWA, *arguments], env=environment(dsn, **(env or {})), capture_output=True, text=True, timeout=120, check=False
    )


def run_json(dsn: str, *arguments: str) -> dict[str, Any]:
    """The object that a command with --json prints; nothing but it, and success."""
    done = run(dsn, *arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return one_object(done.stdout)


def one_object(text: str) -> dict[str, Any]:
    """The one JSON object on one line that `text` is."""
    assert text.count("\n") == 1
    value: dict[str, Any] = json.loads(text)
    assert isinstance(value, dict)
    return value


@contextmanager
def started(dsn: str, *arguments: str, cwd: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command that runs until it is told to stop, or until the end of the block. Its standard error goes to `log`."""
    with log.open("wb") as stderr:
        process = subprocess.Popen([*AWA, *arguments], env=environment(dsn), stderr=stderr, cwd=cwd)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
