"""`awa queue`: counting, pausing, draining and spreading."""

from __future__ import annotations

import click
from attrs import asdict, fields
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from awa import Client, QueueCounts
from awa.partitions import AnyQueue
from awa.storage.lanes import MAX_SHARDS
from awa_cli.options import database, database_options, err, json_option, option, out, print_json
from awa_cli.queue_types import QUEUE

COUNTS = tuple(attribute.name for attribute in fields(QueueCounts) if attribute.name not in ("queue", "paused"))

fast_option = option(
    "--fast", is_flag=True, help="Add up counters: the same figures, but of a long backlog, at a price that does not grow."
)


@click.group()
def queue() -> None:
    """Look at queues, pause and drain them."""


@queue.command("list")
@database_options
@fast_option
@json_option
def list_queues(dsn: str | None, embedded: bool, fast: bool, as_json: bool) -> None:
    """Show how many jobs of each queue are in each state.

    \b
    Examples:
      awa queue list --json | jq '.queues[] | select(.failed > 0)'
      awa queue list --fast
    """
    with database(dsn, embedded) as url, Client(url) as client:
        queues = client.list_queues(exact=not fast)
    if as_json:
        print_json({"queues": [asdict(counts) for counts in queues]})
    else:
        out.print(counts_table(queues))


@queue.command()
@database_options
@fast_option
@json_option
@click.argument("name", type=QUEUE)
def counts(dsn: str | None, embedded: bool, fast: bool, as_json: bool, name: AnyQueue) -> None:
    """Count the jobs of one queue; zeros for one that never had a job.

    \b
    Examples:
      awa queue counts email
      awa queue counts email --fast --json | jq .available
    """
    with database(dsn, embedded) as url, Client(url) as client:
        found = client.queue_counts(name, exact=not fast)
    if as_json:
        print_json(asdict(found))
    else:
        out.print(counts_table([found]))


@queue.command()
@database_options
@click.argument("name", type=QUEUE)
def pause(dsn: str | None, embedded: bool, name: AnyQueue) -> None:
    """Let workers claim nothing of a queue; running jobs go on.

    \b
    Examples:
      awa queue pause email
      awa queue pause email/4     all four partitions
    """
    with database(dsn, embedded) as url, Client(url) as client:
        client.pause_queue(name)
    click.echo(f"queue {name} is paused")


@queue.command()
@database_options
@click.argument("name", type=QUEUE)
def resume(dsn: str | None, embedded: bool, name: AnyQueue) -> None:
    """Undo a pause.

    \b
    Example:
      awa queue resume email
    """
    with database(dsn, embedded) as url, Client(url) as client:
        client.resume_queue(name)
    click.echo(f"queue {name} is resumed")


@queue.command()
@database_options
@option("--timeout", type=click.FloatRange(0), default=3600.0, help="Seconds to wait.")
@click.argument("name", type=QUEUE)
def drain(dsn: str | None, embedded: bool, timeout: float, name: AnyQueue) -> None:
    """Wait until a queue has nothing available, running or waiting; jobs due later do not count.

    Exits with 1 when it still has after --timeout seconds. It runs no jobs itself: that is `awa worker --drain`.

    \b
    Example:
      awa queue drain email --timeout 600 && awa queue pause email
    """
    with (
        database(dsn, embedded) as url,
        Client(url) as client,
        Progress(console=err, transient=True, disable=not err.is_terminal) as progress,
    ):
        bar = progress.add_task(str(name), total=None)
        most = 0

        def show(counts: QueueCounts) -> None:
            nonlocal most
            left = counts.available + counts.running + counts.waiting
            most = max(most, left)
            progress.update(bar, total=most, completed=most - left, description=f"{name}: {left:,} left")

        client.wait_until_empty(name, timeout=timeout, progress=show)
    click.echo(f"queue {name} is empty")


@queue.command("dead-letter")
@database_options
@option("--on/--off", "wanted", default=True, help="Keep exhausted jobs in the dead-letter queue, or as failed.")
@click.argument("name", type=QUEUE)
def dead_letter(dsn: str | None, embedded: bool, wanted: bool, name: AnyQueue) -> None:
    """Switch the dead-letter queue of a queue, for tasks that do not say otherwise.

    \b
    Example:
      awa queue dead-letter metrics --off
    """
    with database(dsn, embedded) as url, Client(url) as client:
        client.set_dead_letter(name, wanted)
    click.echo(f"exhausted jobs of queue {name} {'go to the dead-letter queue' if wanted else 'are kept as failed'}")


@queue.command()
@database_options
@json_option
@click.argument("name", type=QUEUE)
@click.argument("number", type=click.IntRange(1, MAX_SHARDS), required=False)
def shards(dsn: str | None, embedded: bool, as_json: bool, name: AnyQueue, number: int | None) -> None:
    """Spread a queue's jobs over NUMBER lanes of each priority, or show over how many they are.

    Jobs of one ordering key share a lane, the others go to the next in turn; what is there stays where it is and is worked
    off. Producers learn of it within five seconds.

    \b
    Examples:
      awa queue shards email 4
      awa queue shards email --json
    """
    with database(dsn, embedded) as url, Client(url) as client:
        if number is not None:
            client.set_enqueue_shards(name, number)
        found = client.enqueue_shards(name)
    if as_json:
        print_json({"queue": str(name), "enqueue_shards": found})
    else:
        click.echo(f"queue {name} has {found} shard{'s' if found > 1 else ''}")


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
