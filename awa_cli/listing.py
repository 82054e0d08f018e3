"""Pages of jobs, for `awa job list` and `awa dlq list`."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import click
from attrs import asdict
from rich.table import Table
from rich.text import Text

from awa import Job
from awa_cli.options import option, out, print_json
from awa_cli.units import format_age

P = ParamSpec("P")
R = TypeVar("R")


def page_options(command: Callable[P, R]) -> Callable[P, R]:
    """`--limit` and `--before-id`."""
    command = option("--before-id", type=int, help="The next page: the last id of the page before.")(command)
    return option("--limit", type=click.IntRange(1, 1000), default=50, help="How many jobs.")(command)


def print_page(jobs: list[Job], limit: int, *, as_json: bool) -> None:
    """A page, and where the next one begins."""
    next_before_id = jobs[-1].id if len(jobs) == limit else None
    if as_json:
        print_json({"jobs": [asdict(job) for job in jobs], "next_before_id": next_before_id})
        return
    table = Table()
    for name in ("id", "queue", "kind", "state", "attempt", "created", "ended", "last error"):
        table.add_column(name, justify="right" if name in ("id", "created", "ended") else "left")
    for job in jobs:
        said = str(job.errors[-1].get("message", "")).partition("\n")[0][:60] if job.errors else ""
        attempts = f"{job.attempt}/{job.max_attempts}"
        ages = (format_age(job.created_at), format_age(job.finalized_at))
        table.add_row(*map(Text, (str(job.id), job.queue, job.kind, job.state, attempts, *ages, said)))
    out.print(table)
    if next_before_id is not None:
        click.echo(f"more with --before-id {next_before_id}")
