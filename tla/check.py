"""Runs the models and holds TLC's verdicts against what models.toml expects: `python -m tla.check --help`."""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from attrs import asdict, frozen

from tla.mutations import write_module
from tla.tlc import Outcome, ToolMissing, find_jar, find_java, properties_of, read_output, run_tlc

HERE: Final = Path(__file__).parent
ERROR_LINES: Final = 25


@frozen(kw_only=True)
class Model:
    """One configuration of a spec.

    `expect` is `holds` or the name of the invariant or property that has to be violated (`deadlock` for a deadlock, which is
    looked for where `deadlock` is set). `untaken` are actions that these bounds leave no room for; without `coverage`, which
    costs half of the time, nobody asks which are taken. `timeout` is in seconds.
    """

    name: str
    folder: str
    cfg: str
    expect: str
    bounds: str
    spec: str
    size: str = "small"
    untaken: tuple[str, ...] = ()
    deadlock: bool = False
    coverage: bool = True
    timeout: float = 300.0


@frozen(kw_only=True)
class Judgement:
    """What is to be said of one model after its run."""

    model: str
    expect: str
    result: str
    as_expected: bool
    reason: str
    states: int
    seconds: float


def load_models(path: Path = HERE / "models.toml") -> list[Model]:
    """The models of the table, in its order.

    Raises:
        ValueError: an entry misses something, names a file that does not exist, or is there twice.
    """
    models: list[Model] = []
    for entry in tomllib.loads(path.read_text("utf-8"))["model"]:
        folder = entry.get("folder", "")
        entry.setdefault("spec", f"{folder}.tla")
        entry["untaken"] = tuple(entry.get("untaken", ()))
        try:
            model = Model(**entry)
        except TypeError as error:
            raise ValueError(f"{path.name}: {entry.get('name', entry)}: {error}") from error
        if model.size not in ("small", "full"):
            raise ValueError(f"{path.name}: {model.name}: size is small or full, not {model.size!r}")
        for file in (model.spec, model.cfg):
            if not (path.parent / model.folder / file).is_file():
                raise ValueError(f"{path.name}: {model.name}: there is no {model.folder}/{file}")
        if any(model.name == other.name for other in models):
            raise ValueError(f"{path.name}: {model.name} is there twice")
        models.append(model)
    return models


def judge(model: Model, outcome: Outcome, seconds: float) -> Judgement:
    """Whether a model did what is expected of it, and if not, why not.

    A configuration that must fail has to fail by its own name: one that holds, or fails in another way, proves nothing. One
    that holds has to take every action of its spec but those it says it cannot: else it may hold of nothing.
    """
    result = outcome.kind if outcome.kind in ("holds", "deadlock", "timeout") else f"{outcome.kind} {outcome.name}".strip()
    reason = ""
    if outcome.kind == "error":
        reason = f"TLC could not check it: {outcome.name}"
    elif outcome.kind == "timeout":
        reason = f"not finished within {model.timeout:g} s"
    elif model.expect == "holds":
        if outcome.kind != "holds":
            reason = f"must hold, and does not: {result}"
        elif missed := sorted(set(outcome.untaken) - set(model.untaken)):
            reason = f"holds, but never takes {', '.join(missed)}"
    elif outcome.kind == "holds":
        reason = f"must violate {model.expect}, and holds: the model does not see this bug"
    elif (outcome.name or outcome.kind) != model.expect:
        reason = f"must violate {model.expect}, and fails in another way: {result}"
    return Judgement(
        model=model.name,
        expect=model.expect if model.expect == "holds" else f"violates {model.expect}",
        result=result,
        as_expected=not reason,
        reason=reason,
        states=outcome.states,
        seconds=round(seconds, 1),
    )


def is_wanted(model: Model, names: Sequence[str], *, full: bool) -> bool:
    """Whether to run a model: always by its whole name; by its beginning or by default only a small one, or with `full`."""
    if model.name in names:
        return True
    return (full or model.size == "small") and (not names or any(model.name.startswith(name) for name in names))


def check(model: Model, root: Path = HERE) -> tuple[Judgement, str]:
    """Run one model; what is to be said, and TLC's output."""
    cfg = root / model.folder / model.cfg
    output, seconds = run_tlc(
        root / model.folder / model.spec,
        cfg,
        timeout=model.timeout,
        deadlock=model.deadlock,
        coverage=model.coverage and model.expect == "holds",
    )
    outcome = read_output(output, properties_of(cfg.read_text("utf-8")))
    if outcome.kind == "error" and seconds >= model.timeout:
        outcome = Outcome("timeout")
    return judge(model, outcome, seconds), output


def trace_of(output: str) -> str:
    """The states of a counterexample without TLC's marks, or the end of an output that has none."""
    lines = [line for line in output.splitlines() if line.strip() and not line.startswith("@!@!@")]
    start = next((n for n, line in enumerate(lines) if line.startswith("1: <Initial predicate>")), None)
    if start is None:
        return "\n".join(lines[-ERROR_LINES:])
    return "\n".join(line for line in lines[start:] if not line.startswith(("Progress", "Finished")))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 when every model does what is expected, 1 when one does not, 2 when it cannot be asked."""
    parser = argparse.ArgumentParser(prog="python -m tla.check", description=__doc__)
    parser.add_argument("--full", action="store_true", help="the large configurations too")
    parser.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        help="the model of this name, or those whose names begin so; may be repeated",
    )
    parser.add_argument("--trace", action="store_true", help="print every counterexample, the expected ones too")
    parser.add_argument("--json", action="store_true", help="one JSON array, for machines")
    options = parser.parse_args(arguments)
    try:
        find_java()
        find_jar()
    except ToolMissing as missing:
        print(missing, file=sys.stderr)
        return 2
    wanted = [model for model in load_models() if is_wanted(model, options.only or (), full=options.full)]
    if not wanted:
        print(f"no model of that name: {', '.join(options.only or ())}", file=sys.stderr)
        return 2
    write_module()
    width = max(len(model.name) for model in wanted)
    judgements = []
    for model in wanted:
        verdict, output = check(model)
        judgements.append(verdict)
        if options.json:
            continue
        mark = "ok " if verdict.as_expected else "BAD"
        print(
            f"{mark} {verdict.model:{width}}  {verdict.states:>9,} states {verdict.seconds:>6.1f} s  {verdict.result}",
            flush=True,
        )
        if not verdict.as_expected:
            print(f"    {verdict.reason}")
        if verdict.result != "holds" and (options.trace or not verdict.as_expected):
            print(trace_of(output))
    bad = [verdict for verdict in judgements if not verdict.as_expected]
    if options.json:
        print(json.dumps([asdict(verdict) for verdict in judgements], indent=2))
    else:
        total = sum(verdict.seconds for verdict in judgements)
        said = "all as expected" if not bad else "NOT as expected: " + ", ".join(verdict.model for verdict in bad)
        print(f"{len(judgements)} models in {total:.0f} s: {said}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
