"""`awa job`: looking at jobs, cancelling them, and what is done to those that have ended."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, get_args

import click
from attrs import asdict
from rich.table import Table
from rich.text import Text

from awa import Client
from awa.job import JobState
from awa.partitions import AnyQueue
from awa_cli.bulk import (
    act_on_each,
    ask,
    choose,
    counting,
    filter_options,
    kind_option,
    queue_option,
    report,
    retry_one,
    yes_option,
)
from awa_cli.listing import page_options, print_page
from awa_cli.options import database, database_options, json_option, option, out, print_json

Ended = Literal["failed", "cancelled", "dead_lettered"]


@click.group()
def job() -> None:
    """Look at jobs, cancel, retry and remove them."""


@job.command("list")
@database_options
@queue_option
@kind_option
@option("--state", type=click.Choice(get_args(JobState)), help="Only jobs in this state.")
@page_options
@json_option
def list_jobs(
    dsn: str | None,
    embedded: bool,
    queue: AnyQueue | None,
    kind: str | None,
    state: JobState | None,
    limit: int,
    before_id: int | None,
    as_json: bool,
) -> None:
    """Show jobs, the newest first.

    Nothing is counted, so a long history costs nothing; `available` costs the backlog.

    \b
    Examples:
      awa job list --queue email --state running
      awa job list --state failed --limit 1000 --json | jq '.jobs[].errors[-1].message'
    """
    with database(dsn, embedded) as url, Client(url) as client:
        jobs = client.list_jobs(queue=queue, kind=kind, state=state, before_id=before_id, limit=limit)
    print_page(jobs, limit, as_json=as_json)


@job.command()
@database_options
@option("--state", type=click.Choice(["failed", "cancelled"]), help="All jobs of this state, but for filters.")
@filter_options
@yes_option
@json_option
@click.argument("job_ids", type=int, nargs=-1)
def retry(
    dsn: str | None,
    embedded: bool,
    state: Literal["failed", "cancelled"] | None,
    queue: AnyQueue | None,
    kind: str | None,
    before: datetime | None,
    yes: bool,
    as_json: bool,
    job_ids: tuple[int, ...],
) -> None:
    """Put failed, cancelled or dead-lettered jobs back into their queues, with all their attempts before them.

    Jobs whose unique key another job has by now are left. Exits with 1 when a named job was not put back. Many dead letters:
    `awa dlq retry`.

    \b
    Examples:
      awa job retry 42 43
      awa job retry --state failed --kind resize --before 1h --yes
    """
    if (state is None) != bool(job_ids):
        raise click.UsageError("name jobs, or choose them with --state and filters")
    chosen = choose(job_ids, everything=state is not None, queue=queue, kind=kind, before=before)
    with database(dsn, embedded) as url, Client(url) as client:
        if state is None:
            act_on_each(chosen.job_ids, lambda job_id: retry_one(client, job_id), "retried", as_json=as_json)
            return
        ask(f"Retry {chosen.describe(state)}?", yes=yes)
        with counting("retrying") as show:
            counts = client.retry_ended(state, queue=queue, kind=kind, before=before, progress=show)
    report(counts, as_json=as_json)


@job.command()
@database_options
@json_option
@click.argument("job_ids", type=int, nargs=-1, required=True)
def delete(dsn: str | None, embedded: bool, as_json: bool, job_ids: tuple[int, ...]) -> None:
    """Remove jobs in whatever state they are, as if they had never been; running handlers are told to stop.

    Exits with 1 when there is none of one of these ids.

    \b
    Example:
      awa job delete 42 43
    """
    with database(dsn, embedded) as url, Client(url) as client:
        act_on_each(job_ids, lambda job_id: "deleted" if client.delete(job_id) else "unknown", "deleted", as_json=as_json)


@job.command()
@database_options
@option("--state", type=click.Choice(get_args(Ended)), required=True, help="Jobs of which state.")
@filter_options
@yes_option
@json_option
def discard(
    dsn: str | None,
    embedded: bool,
    state: Ended,
    queue: AnyQueue | None,
    kind: str | None,
    before: datetime | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove many jobs that have ended badly for good.

    \b
    Examples:
      awa job discard --state failed --kind resize
      awa job discard --state cancelled --queue email --before 1d --yes
    """
    chosen = choose((), everything=True, queue=queue, kind=kind, before=before)
    with database(dsn, embedded) as url, Client(url) as client:
        ask(f"Remove {chosen.describe(state)} for good?", yes=yes)
        with counting("discarding") as show:
            discarded = client.discard_ended(state, queue=queue, kind=kind, before=before, progress=show)
    report({"discarded": discarded}, as_json=as_json)


@job.command()
@database_options
@click.argument("job_ids", type=int, nargs=-1, required=True)
def cancel(dsn: str | None, embedded: bool, job_ids: tuple[int, ...]) -> None:
    """End jobs that have not ended, wherever they are; running handlers are told within a second.

    Exits with 1 when one of them had ended, or there is none of that id.

    \b
    Example:
      awa job cancel 42 43
    """
    missed = False
    with database(dsn, embedded) as url, Client(url) as client:
        for job_id in job_ids:
            cancelled = client.cancel(job_id)
            missed = missed or not cancelled
            click.echo(f"job {job_id} {'is cancelled' if cancelled else 'had ended, or there is none'}")
    if missed:
        raise click.exceptions.Exit(1)


@job.command()
@database_options
@json_option
@click.argument("job_id", type=int)
def show(dsn: str | None, embedded: bool, as_json: bool, job_id: int) -> None:
    """Show one job.

    \b
    Example:
      awa job show 42 --json
    """
    with database(dsn, embedded) as url, Client(url) as client:
        found = client.get_job(job_id)
    if found is None:
        raise click.ClickException(f"there is no job {job_id}")
    if as_json:
        print_json(asdict(found))
        return
    table = Table(show_header=False)
    for name, value in asdict(found).items():
        table.add_row(name, Text(str(value)))
    out.print(table)
