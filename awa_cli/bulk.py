"""What the commands share that act on ended jobs: on those named, or on all that filters leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import ParamSpec, TypeVar

import click
from attrs import frozen
from rich.progress import Progress

from awa import Client
from awa.errors import JobNotFound, UniqueConflict
from awa.partitions import AnyQueue
from awa_cli.options import err, option, print_json
from awa_cli.queue_types import QUEUE
from awa_cli.units import InstantType

P = ParamSpec("P")
R = TypeVar("R")

yes_option = option("--yes", is_flag=True, help="Do not ask.")
all_option = option("--all", "everything", is_flag=True, help="All there are; implied by a filter.")
queue_option = option(
    "--queue", type=QUEUE, metavar="NAME", help="Only jobs of this queue, or of all partitions of name/partitions."
)
kind_option = option("--kind", metavar="KIND", help="Only jobs of this kind.")
before_option = option("--before", type=InstantType(), help="Only jobs that ended before: 7d ago, or a time with its zone.")


def filter_options(command: Callable[P, R]) -> Callable[P, R]:
    """`--queue`, `--kind` and `--before`."""
    return queue_option(kind_option(before_option(command)))


@frozen
class Chosen:
    """Which jobs are meant: the named ones, or those that the filters leave."""

    job_ids: tuple[int, ...]
    queue: AnyQueue | None = None
    kind: str | None = None
    before: datetime | None = None

    def describe(self, state: str) -> str:
        """In words, for a question."""
        parts = [f"all {state.replace('_', '-')} jobs"]
        parts += [f"of queue {self.queue}"] if self.queue else []
        parts += [f"of kind {self.kind}"] if self.kind else []
        parts += [f"that ended before {self.before:%F %T %Z}"] if self.before else []
        return " ".join(parts)


def choose(
    job_ids: tuple[int, ...],
    *,
    everything: bool,
    queue: AnyQueue | None = None,
    kind: str | None = None,
    before: datetime | None = None,
) -> Chosen:
    """What a command line means; a bare command means nothing, so that nobody acts on all jobs by a slip."""
    filtered = everything or queue is not None or kind is not None or before is not None
    if job_ids and filtered:
        raise click.UsageError("name jobs, or choose them with --all and filters: not both")
    if not job_ids and not filtered:
        raise click.UsageError("name jobs, or choose them with --all, --queue, --kind or --before")
    return Chosen(job_ids, queue, kind, before)


def ask(question: str, *, yes: bool) -> None:
    """Go on only when somebody says so, here or with --yes."""
    if not yes:
        click.confirm(question, abort=True, err=True)


@contextmanager
def counting(label: str, total: int | None = None) -> Iterator[Callable[[int], object]]:
    """A progress bar on standard error, moved by calling what this yields with the number done."""
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        bar = progress.add_task(label, total=total)

        def show(done: int) -> None:
            progress.update(bar, completed=done, description=f"{label}: {done:,}")

        yield show


def retry_one(client: Client, job_id: int) -> str:
    """Put one job back; what became of it."""
    try:
        return "retried" if client.retry(job_id) else "not failed, cancelled or dead-lettered"
    except JobNotFound:
        return "unknown"
    except UniqueConflict:
        return "left: another job has its unique key"


def act_on_each(job_ids: tuple[int, ...], act: Callable[[int], str], wanted: str, *, as_json: bool) -> None:
    """One job after the other; exits with 1 unless each became what was `wanted`."""
    verdicts: dict[int, str] = {}
    with counting(wanted, len(job_ids)) as show:
        for job_id in dict.fromkeys(job_ids):
            verdicts[job_id] = act(job_id)
            show(len(verdicts))
    if as_json:
        print_json({"jobs": [{"id": job_id, "verdict": verdict} for job_id, verdict in verdicts.items()]})
    else:
        for job_id, verdict in verdicts.items():
            click.echo(f"job {job_id}: {verdict}")
    if set(verdicts.values()) != {wanted}:
        raise click.exceptions.Exit(1)


def report(counts: dict[str, int], *, as_json: bool) -> None:
    """How many jobs became what."""
    if as_json:
        print_json(counts)
    else:
        click.echo(", ".join(f"{n:,} {what}" for what, n in counts.items()))
