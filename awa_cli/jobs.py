"""`awa queue` and `awa job`: looking, and pausing."""

from __future__ import annotations

import click
from attrs import asdict
from rich.table import Table
from rich.text import Text

from awa import Client, QueueCounts
from awa_cli.options import database, database_options, json_option, out, print_json

COUNTS = ("available", "running", "scheduled", "retryable", "completed", "failed")


@click.group()
def queue() -> None:
    """Look at queues, pause and resume them."""


@queue.command("list")
@database_options
@json_option
def list_queues(dsn: str | None, embedded: bool, as_json: bool) -> None:
    """Show how many jobs of each queue are in each state.

    \b
    Example:
      awa queue list --json | jq '.queues[] | select(.failed > 0)'
    """
    with database(dsn, embedded) as url, Client(url) as client:
        queues = client.list_queues()
    if as_json:
        print_json({"queues": [asdict(counts) for counts in queues]})
    else:
        out.print(counts_table(queues))


@queue.command()
@database_options
@click.argument("name")
def pause(dsn: str | None, embedded: bool, name: str) -> None:
    """Let workers claim nothing of a queue; running jobs go on.

    \b
    Example:
      awa queue pause email
    """
    with database(dsn, embedded) as url, Client(url) as client:
        client.pause_queue(name)
    click.echo(f"queue {name} is paused")


@queue.command()
@database_options
@click.argument("name")
def resume(dsn: str | None, embedded: bool, name: str) -> None:
    """Undo a pause.

    \b
    Example:
      awa queue resume email
    """
    with database(dsn, embedded) as url, Client(url) as client:
        client.resume_queue(name)
    click.echo(f"queue {name} is resumed")


@click.group()
def job() -> None:
    """Look at jobs."""


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


def counts_table(queues: list[QueueCounts], title: str | None = None) -> Table:
    """Queues by row, states by column."""
    table = Table(title=title)
    table.add_column("queue")
    for name in COUNTS:
        table.add_column(name, justify="right")
    for counts in queues:
        label = Text(f"{counts.queue} (paused)" if counts.paused else counts.queue)
        table.add_row(label, *(f"{getattr(counts, name):,}" for name in COUNTS))
    return table
