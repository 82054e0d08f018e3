"""Holds a trace of a real run (`AWA_TRACE`, see awa.trace) against the model of a job's life: `python -m tla.replay FILE`.

Each job's lines are put in the order in which they must have happened and stripped of what tells one job from another; TLC
then looks for a behaviour of Lifecycle that explains each of the different stories that remain.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from attrs import field, frozen

from tla.tlc import ToolMissing, run_tlc

LIFECYCLE: Final = Path(__file__).parent / "Lifecycle"
LAST: Final = 10**9  # as a lease: after all of them

Facts = Mapping[str, Any]
Shape = tuple[tuple[tuple[str, Any], ...], ...]


class BadTrace(ValueError):
    """A line that is no event, or an event that says too little."""


@frozen
class Line:
    """One line of the file that tells of one job."""

    number: int
    facts: Facts


@frozen
class Story:
    """Jobs to which the same has happened: the events as the model knows them, and one job's lines of them."""

    shape: Shape
    lines: Sequence[Line]
    jobs: list[int] = field(factory=list)


@frozen
class Unexplained:
    """A job's first event that no behaviour of the model explains."""

    story: Story
    followed: int

    def describe(self) -> str:
        """For a human."""
        line = self.story.lines[self.followed]
        before = "\n".join(f"      {_brief(known.facts)}" for known in self.story.lines[: self.followed])
        others = f" (and of {len(self.story.jobs) - 1} others)" if len(self.story.jobs) > 1 else ""
        return (
            f"line {line.number}: nothing explains this event of job {line.facts['job']}{others}:\n"
            f"      {_brief(line.facts)}\n    after\n{before or '      nothing'}"
        )


def read_lines(path: Path) -> list[Line]:
    """The events of a file, which may be compressed.

    Raises:
        BadTrace: a line is not JSON, or not an event.
    """
    lines = []
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            try:
                facts = json.loads(text)
            except json.JSONDecodeError as error:
                raise BadTrace(f"line {number} is not JSON: {text[:80].strip()!r}") from error
            if not isinstance(facts, dict) or "event" not in facts:
                raise BadTrace(f"line {number} is no event: {text[:80].strip()!r}")
            lines.append(Line(number, facts))
    return lines


def lines_by_job(lines: Iterable[Line]) -> dict[int, list[Line]]:
    """Every job's lines, each with the job and the lease it speaks of.

    Raises:
        BadTrace: a line tells of a claim that no line has given out.
    """
    lines = list(lines)
    claims = {_receipt(line.facts): line.facts for line in lines if line.facts["event"] == "claimed"}
    by_claim = {(claim, item): facts for (_, claim, item), facts in claims.items()}
    jobs: dict[int, list[Line]] = defaultdict(list)
    # An answer by the job's id does not say which lease it ends: the first that was parked and not yet answered.
    parked: dict[int, list[int]] = defaultdict(list)
    for line in lines:
        if line.facts["event"] == "ended" and line.facts["outcome"] == "waiting" and line.facts["verdict"] == "accepted":
            parked[claims.get(_receipt(line.facts), {}).get("job", 0)].append(line.facts.get("run_lease", 0))
    for line in lines:
        facts = line.facts
        if facts["event"] in ("promoted", "rescued", "copied"):
            continue  # only the number of jobs is known
        if facts["event"] in ("ended", "saved") and "run_lease" not in facts:
            facts = {**claims.get(_receipt(facts), {}), **facts}
        elif facts["event"] == "answered":
            known = by_claim.get((facts["claim"], facts["item"]), {})
            job = known.get("job", facts["job"])
            lease = known.get("run_lease")
            if facts["verdict"] == "refused" and lease is None:
                continue  # an answer to nobody that is known
            if facts["verdict"] == "accepted" and (waiting := sorted(parked[job])):
                lease = waiting[0] if lease is None else lease
                parked[job] = [other for other in waiting if other != lease]
            facts = {**facts, "job": job, "run_lease": lease}
        if facts.get("job") is None or (facts["event"] in ("ended", "saved", "answered") and facts.get("run_lease") is None):
            raise BadTrace(f"line {line.number} tells of a claim that no line gives out: {_brief(line.facts)}")
        jobs[facts["job"]].append(Line(line.number, facts))
    return jobs


def in_order(lines: Sequence[Line]) -> list[Line]:
    """A job's lines in the order in which they must have happened.

    Processes write after the fact, so a line may stand behind what came after it. But a lease is given out before it is
    used, parked before it is answered, and ended before the next is given out; and what was refused has changed nothing, so
    it may as well come last. What was done to the job by its id knows no lease: a retry belongs between the claims whose
    attempts begin anew, a cancel or a deletion to the end of a life.
    """
    ranks = {"enqueued": 0, "claimed": 1, "saved": 2}
    told = [line for line in lines if line.facts.get("verdict") not in ("ended", "unknown")]
    retried = [line.number for line in told if line.facts["event"] == "retried"]
    claims = sorted((line.facts["run_lease"], line.facts["attempt"]) for line in told if line.facts["event"] == "claimed")
    # The last lease of each life but the last: a counted attempt before it, or a cancel, and then attempt 1 again.
    lives = [lease for (lease, _), (_, after) in pairwise(claims) if after == 1][-len(retried) :]

    def life_of(number: int) -> int:
        """The last lease of the life in which a line of that number was written, if a retry has ended it."""
        life = sum(before < number for before in retried)
        return lives[life] if life < min(len(retried), len(lives)) else LAST

    def key(line: Line) -> tuple[int, int, int]:
        facts = line.facts
        if facts.get("verdict") == "refused":
            return (LAST, 9, line.number)
        if facts["event"] in ("cancelled", "deleted"):
            return (life_of(line.number), 5, line.number)
        if facts["event"] == "retried":
            return (life_of(line.number), 6, line.number)
        rank = 3 if facts.get("outcome") == "waiting" else ranks.get(facts["event"], 4)
        return (facts.get("run_lease", 0), rank, line.number)

    return sorted(told, key=key)


def shape_of(lines: Iterable[Line]) -> Shape:
    """What the model knows of a job's lines: no ids, runtimes by the order of their appearance."""
    runtimes: dict[int, int] = {}
    shape = []
    for line in lines:
        facts = line.facts
        event: dict[str, Any] = {"event": "refused" if facts.get("verdict") == "refused" else facts["event"]}
        if "run_lease" in facts:
            event["lease"] = facts["run_lease"]
        if facts["event"] == "enqueued":
            event |= {"deferred": facts["deferred"], "max": facts["max_attempts"]}
        elif facts["event"] == "claimed":
            runtime = runtimes.setdefault(facts["runtime"], len(runtimes) + 1)
            event |= {"attempt": facts["attempt"], "max": facts["max_attempts"], "runtime": runtime}
        elif facts["event"] in ("ended", "answered") and event["event"] != "refused":
            event |= {"outcome": facts["outcome"], "again": facts["again"], "soon": facts["soon"]}
        shape.append(tuple(event.items()))
    return tuple(shape)


def stories(lines: Iterable[Line]) -> list[Story]:
    """The different things that have happened to jobs, and to which."""
    found: dict[Shape, Story] = {}
    for job, of_job in lines_by_job(lines).items():
        ordered = in_order(of_job)
        if ordered:
            shape = shape_of(ordered)
            found.setdefault(shape, Story(shape, ordered)).jobs.append(job)
    return list(found.values())


def traces_module(told: Sequence[Story]) -> str:
    """The module Traces."""
    texts = [",\n   ".join(_record(dict(event)) for event in story.shape) for story in told]
    body = ",\n".join(f"  <<{text}>>" for text in texts)
    return f"---- MODULE Traces ----\nTraces == <<\n{body}\n>>\n====\n"


def configuration(told: Sequence[Story], crashes: int = 0) -> str:
    """The configuration: as many leases, runtimes and attempts as the traces have."""
    events = [dict(event) for story in told for event in story.shape]
    runtimes = range(1, max((event["runtime"] for event in events if "runtime" in event), default=1) + 1)
    attempts = sorted({event["max"] for event in events if "max" in event} or {1})
    return f"""SPECIFICATION ReplaySpec
CONSTANTS
    Runtimes = {{{", ".join(map(str, runtimes))}}}
    MaxLease = {max((event["lease"] for event in events if "lease" in event), default=1)}
    MaxAttempts = {{{", ".join(map(str, attempts))}}}
    MaxCrashes = {crashes}
    MaxRetries = {max(sum(event["event"] == "retried" for event in map(dict, story.shape)) for story in told)}
    Bug = "none"
INVARIANTS Observe OneState EndsOnce LeasesIncrease AtMostMaxAttempts
"""


def read_followed(output: str, count: int) -> list[int]:
    """How far each of `count` traces could be followed, by TLC's output; -1 for one that TLC did not come to."""
    followed = [-1] * count
    for trace, at in re.findall(r'<<"followed", (\d+), (\d+)>>', output):
        followed[int(trace) - 1] = max(followed[int(trace) - 1], int(at))
    return followed


def replay(told: Sequence[Story], *, crashes: int = 0, timeout: float = 600.0) -> list[Unexplained]:
    """The stories that no behaviour of Lifecycle explains; none when the run was one of the model's.

    Args:
        told: as `stories` gives them.
        crashes: of the server during the run: so many claims may have been forgotten.
        timeout: seconds.

    Raises:
        BadTrace: TLC could not finish; the text is the end of its output.
        ToolMissing: Java or the jar is not here.
    """
    if not told:
        return []
    with tempfile.TemporaryDirectory(prefix="awa-replay-") as name:
        folder = Path(name)
        for module in ("Lifecycle.tla", "Replay.tla"):
            shutil.copy(LIFECYCLE / module, folder)
        (folder / "Traces.tla").write_text(traces_module(told), "utf-8")
        cfg = folder / "Replay.cfg"
        cfg.write_text(configuration(told, crashes), "utf-8")
        output, _ = run_tlc(folder / "Replay.tla", cfg, timeout=timeout, coverage=False)
    followed = read_followed(output, len(told))
    if "Model checking completed. No error has been found." not in output or -1 in followed:
        raise BadTrace("TLC did not finish:\n" + "\n".join(output.strip().splitlines()[-30:]))
    return [Unexplained(story, at) for story, at in zip(told, followed, strict=True) if at < len(story.shape)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 when the model explains the run (with --must-fail, does not), 1 if not, 2 when it cannot be asked."""
    parser = argparse.ArgumentParser(prog="python -m tla.replay", description=__doc__)
    parser.add_argument("file", type=Path, nargs="+", help="a trace, .gz or not")
    parser.add_argument("--crashes", type=int, default=0, metavar="N", help="crashes of the server during the run")
    parser.add_argument("--must-fail", action="store_true", help="a trace of what must not happen")
    options = parser.parse_args(arguments)
    status = 0
    for path in options.file:
        try:
            told = stories(read_lines(path))
            unexplained = replay(told, crashes=options.crashes)
        except (BadTrace, ToolMissing, OSError) as error:
            print(f"{path.name}: {error}", file=sys.stderr)
            return 2
        jobs = sum(len(story.jobs) for story in told)
        print(f"{path.name}: {jobs} jobs, {len(told)} different stories, {len(unexplained)} of them unexplained")
        for one in unexplained:
            print(f"  {one.describe()}")
        if bool(unexplained) != options.must_fail:
            status = 1
    return status


def _receipt(facts: Facts) -> tuple[Any, Any, Any]:
    return facts.get("runtime"), facts.get("claim"), facts.get("item")


def _brief(facts: Facts) -> str:
    return json.dumps(
        {name: value for name, value in facts.items() if name not in ("at", "mono", "pid") and value is not None}
    )


def _record(event: Mapping[str, Any]) -> str:
    return "[" + ", ".join(f"{name} |-> {_value(value)}" for name, value in event.items()) + "]"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).upper()
    return json.dumps(value)


if __name__ == "__main__":
    sys.exit(main())
