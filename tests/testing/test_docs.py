"""The how-to's examples do what they say."""

from __future__ import annotations

import re
from pathlib import Path

from tests.testing.test_plugin import run

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "testing.md"


def test_the_examples_of_the_how_to_pass(tmp_path: Path, empty_dsn: str) -> None:
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", HOW_TO.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 5
    for name, text in blocks:
        (tmp_path / name).write_text(text)
    done = run(tmp_path, AWA_TEST_DSN=empty_dsn)
    assert "9 passed" in done.stdout, done.stdout + done.stderr
