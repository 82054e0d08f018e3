"""`python -m tests.guards`: take each guard away in a copy of the tree, and see its test fail. `make guards` runs it.

With words as arguments, only guards whose function, description or test contains one of them; `--table` prints the table of
docs/guards.md.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.guards.guards import ROOT, Guard, load_guards, table_of
from tests.servers import test_server

COPIED = ("awa", "awa_cli", "sql", "tests", "pyproject.toml")
NO_SQL = re.compile(r"errors\.(Syntax|Undefined|Ambiguous|Datatype|InvalidColumn|InvalidFunction|InvalidTable|Grouping)\w*")
LIMIT = 60  # seconds for one test


def copy_tree(to: Path) -> None:
    """What tests need."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, to / name)


def run_tests(tree: Path, dsn: str, *nodes: str) -> str:
    """pytest's words about tests, run in a copy of the tree."""
    command = (sys.executable, "-m", "pytest", "-q", "--tb=line", "--timeout", str(LIMIT), "-p", "no:cacheprovider", *nodes)
    environment = {**os.environ, "PYTHONPATH": str(tree), "AWA_TEST_DSN": dsn, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def verdict_of(output: str) -> str:
    """`fails`, `passes`, or `breaks` when the functions are no SQL any more, which proves nothing."""
    last = output.strip().splitlines()[-1] if output.strip() else ""
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (failed|passed|errors?)\b", last)}
    if "failed" in counts and not counts.keys() & {"error", "errors"} and not NO_SQL.search(output):
        return "fails"
    return "passes" if counts.keys() == {"passed"} else "breaks"


def check(tree: Path, dsn: str, guard: Guard) -> str:
    """What becomes of the guard's test without it."""
    path = tree / guard.path
    text = path.read_text("utf-8")
    path.write_text(guard.removed_from(text), "utf-8")
    try:
        output = run_tests(tree, dsn, guard.node)
    finally:
        path.write_text(text, "utf-8")
    verdict = verdict_of(output)
    if verdict == "breaks":
        print(output)
    return verdict


def main(words: list[str]) -> int:
    """0 when every guard's test fails without it."""
    guards = [g for g in load_guards() if not words or any(w in f"{g.file} {g.without} {g.fails}" for w in words)]
    with TemporaryDirectory(prefix="awa-guards-") as folder, test_server() as dsn:
        tree = Path(folder)
        copy_tree(tree)
        with_all = run_tests(tree, dsn, *dict.fromkeys(guard.node for guard in guards))
        if verdict_of(with_all) != "passes":
            print(with_all)
            return 1
        missed = 0
        for number, guard in enumerate(guards, 1):
            verdict = check(tree, dsn, guard)
            missed += verdict != "fails"
            mark = "ok  " if verdict == "fails" else "MISS"
            print(f"{mark} {number}/{len(guards)} {guard.file}, without {guard.without}: {guard.test} {verdict}", flush=True)
    print(f"{len(guards) - missed} of {len(guards)} guards have a test that fails without them")
    return 1 if missed else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--table"]:
        print(table_of(load_guards()), end="")
    else:
        sys.exit(main(sys.argv[1:]))
