"""Each gate and lock of the rings, the text that makes it, and the tests that fail without it: guards.toml, read."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

from attrs import frozen

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent.parent
LIST: Final = HERE / "guards.toml"
TABLE: Final = ROOT / "docs" / "guards.md"
TABLE_BEGINS: Final = "| function | without |"


@frozen
class Guard:
    """One text of a function, what to put in its place, and what must fail then.

    `file` is a function's name, `without` says in words what it is that is taken away, `fails` is a test's node, its path
    relative to `tests/`. A node may name a test with parameters: one of its cases has to fail.
    """

    file: str
    without: str
    text: str
    fails: str
    instead: str = ""

    @property
    def path(self) -> str:
        """The function's file, relative to the root."""
        return f"sql/functions/{self.file}.sql"

    @property
    def node(self) -> str:
        """The test as pytest wants it, from the root."""
        return f"tests/{self.fails}"

    @property
    def test(self) -> str:
        """The test's name without file and parameters."""
        return self.fails.split("::")[1].split("[")[0]

    def removed_from(self, text: str) -> str:
        """The function's text without the guard.

        Raises:
            ValueError: the guard's text is not there exactly once.
        """
        if (count := text.count(self.text)) != 1:
            raise ValueError(f"{self.path}: {count} times: {self.text!r}")
        return text.replace(self.text, self.instead)


def load_guards(path: Path = LIST) -> list[Guard]:
    """All of them, in the file's order."""
    return [Guard(**table) for table in tomllib.loads(path.read_text("utf-8"))["guard"]]


def table_of(guards: list[Guard]) -> str:
    """The table of docs/guards.md."""
    rows = [f"| `{guard.file}` | {guard.without} | `{guard.test}` |" for guard in guards]
    return "\n".join([f"{TABLE_BEGINS} this test fails |", "|---|---|---|", *rows]) + "\n"
