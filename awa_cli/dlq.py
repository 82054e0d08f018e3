"""`awa dlq`: the dead-letter queue."""

from __future__ import annotations

from datetime import datetime

import click

from awa import Client
from awa.partitions import AnyQueue, physical_queues
from awa_cli.bulk import (
    Chosen,
    act_on_each,
    all_option,
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
from awa_cli.options import database, database_options, json_option

JOB_IDS = click.argument("job_ids", type=int, nargs=-1)


@click.group()
def dlq() -> None:
    """The dead-letter queue: jobs that will not be tried again, kept for a human."""


@dlq.command("list")
@database_options
@filter_options
@page_options
@json_option
def list_dead_letters(
    dsn: str | None,
    embedded: bool,
    queue: AnyQueue | None,
    kind: str | None,
    before: datetime | None,
    limit: int,
    before_id: int | None,
    as_json: bool,
) -> None:
    """Show dead letters, the newest jobs first.

    \b
    Examples:
      awa dlq list --queue email --before 7d
      awa dlq list --json | jq '.jobs[] | {id, kind, error: .errors[-1].message}'
    """
    with database(dsn, embedded) as url, Client(url) as client:
        jobs = client.list_jobs(
            queue=queue, kind=kind, state="dead_lettered", ended_before=before, before_id=before_id, limit=limit
        )
    print_page(jobs, limit, as_json=as_json)


@dlq.command()
@database_options
@filter_options
@all_option
@yes_option
@json_option
@JOB_IDS
def retry(
    dsn: str | None,
    embedded: bool,
    queue: AnyQueue | None,
    kind: str | None,
    before: datetime | None,
    everything: bool,
    yes: bool,
    as_json: bool,
    job_ids: tuple[int, ...],
) -> None:
    """Put dead letters back into their queues, with all their attempts before them.

    Jobs whose unique key another job has by now are left. Exits with 1 when a named job was not put back.

    \b
    Examples:
      awa dlq retry 42 43
      awa dlq retry --kind send_email --before 1h --yes
    """
    chosen = choose(job_ids, everything=everything, queue=queue, kind=kind, before=before)
    with database(dsn, embedded) as url, Client(url) as client:
        if chosen.job_ids:
            act_on_each(chosen.job_ids, lambda job_id: retry_one(client, job_id), "retried", as_json=as_json)
            return
        ask(f"Retry {chosen.describe('dead_lettered')}?", yes=yes)
        with counting("retrying", _total(client, chosen)) as show:
            counts = client.retry_ended("dead_lettered", queue=queue, kind=kind, before=before, progress=show)
    report(counts, as_json=as_json)


@dlq.command()
@database_options
@filter_options
@all_option
@yes_option
@json_option
@JOB_IDS
def purge(
    dsn: str | None,
    embedded: bool,
    queue: AnyQueue | None,
    kind: str | None,
    before: datetime | None,
    everything: bool,
    yes: bool,
    as_json: bool,
    job_ids: tuple[int, ...],
) -> None:
    """Remove dead letters for good. Exits with 1 when a named job was not there to be removed.

    They go by themselves after `awa storage settings --dead-letter-retention`.

    \b
    Examples:
      awa dlq purge 42
      awa dlq purge --queue email --before 14d --yes
    """
    chosen = choose(job_ids, everything=everything, queue=queue, kind=kind, before=before)
    with database(dsn, embedded) as url, Client(url) as client:
        if chosen.job_ids:
            act_on_each(chosen.job_ids, lambda job_id: _purge(client, job_id), "purged", as_json=as_json)
            return
        ask(f"Remove {chosen.describe('dead_lettered')} for good?", yes=yes)
        with counting("purging", _total(client, chosen)) as show:
            purged = client.discard_ended("dead_lettered", queue=queue, kind=kind, before=before, progress=show)
    report({"purged": purged}, as_json=as_json)


@dlq.command()
@database_options
@queue_option
@kind_option
@all_option
@yes_option
@json_option
@JOB_IDS
def move(
    dsn: str | None,
    embedded: bool,
    queue: AnyQueue | None,
    kind: str | None,
    everything: bool,
    yes: bool,
    as_json: bool,
    job_ids: tuple[int, ...],
) -> None:
    """Move jobs that were kept as failed into the dead-letter queue. Exits with 1 when a named job was not moved.

    \b
    Examples:
      awa dlq move 42
      awa dlq move --queue metrics --yes
    """
    chosen = choose(job_ids, everything=everything, queue=queue, kind=kind)
    with database(dsn, embedded) as url, Client(url) as client:
        if chosen.job_ids:
            act_on_each(
                chosen.job_ids,
                lambda job_id: "moved" if client.dead_letter(job_id) else "not failed",
                "moved",
                as_json=as_json,
            )
            return
        ask(f"Move {chosen.describe('failed')} to the dead-letter queue?", yes=yes)
        with counting("moving") as show:
            moved = client.move_to_dead_letters(queue=queue, kind=kind, progress=show)
    report({"moved": moved}, as_json=as_json)


def _purge(client: Client, job_id: int) -> str:
    job = client.get_job(job_id)
    lies_there = job is not None and job.state == "dead_lettered"
    # By `discard`, which leaves alone what somebody retries at this moment.
    return "purged" if lies_there and client.discard(job_id) else "no dead letter"


def _total(client: Client, chosen: Chosen) -> int | None:
    """How many dead letters there are, where the counters know."""
    if chosen.kind is not None or chosen.before is not None:
        return None
    names = None if chosen.queue is None else physical_queues(chosen.queue)
    return sum(counts.dead_lettered for counts in client.list_queues(exact=False) if names is None or counts.queue in names)
