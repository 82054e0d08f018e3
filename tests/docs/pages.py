"""The code in the documentation."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from attrs import frozen

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BETWEEN = frozenset(";|&")
"""Of what stands between the commands of a line."""


@frozen
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Every page that is written for users."""
    found = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "how-to").glob("*.md")]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def blocks(page: str, language: str) -> list[Block]:
    """A page's blocks of one language, in their order."""
    text = (ROOT / page).read_text("utf-8")
    return [
        Block(page, text.count("\n", 0, found.start()) + 2, found[2])
        for found in FENCE.finditer(text)
        if found[1] == language
    ]


def commands(page: str) -> Iterator[tuple[str, list[str]]]:
    """Every call of `awa` in a page's consoles, with where it stands."""
    for block in blocks(page, "console"):
        for number, line in enumerate(block.text.replace("\\\n", "").splitlines()):
            words = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="".join(BETWEEN))
            words.whitespace_split = True
            for is_between, call in groupby(words, key=lambda word: set(word) <= BETWEEN):
                name, *arguments = call
                if not is_between and name == "awa":
                    yield f"{page}:{block.line + number}", arguments


async def run_block(block: Block, names: dict[str, Any]) -> None:
    """Run Python as it stands on the page, `await` included."""
    source = "\n" * (block.line - 1) + block.text
    code = compile(source, str(ROOT / block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    value = eval(code, names)
    if inspect.iscoroutine(value):
        await value
