"""`awa demo`: the whole product in a minute."""

from __future__ import annotations

import logging
import random
import time
from datetime import UTC, datetime, timedelta

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from awa import AwaError, Client, NewJob, Worker
from awa.job import JobOptions
from awa.migrate import migrate
from awa.postgres import connect
from awa_cli import demo_tasks
from awa_cli.bench.measure import percentile
from awa_cli.options import database, database_options, option, out
from awa_cli.queues import counts_table

QUEUES = {"email": 32, "images": 2, "reminders": 4}
TIMEOUT = 75.0  # seconds for everything to end


@click.command()
@database_options
@option("--emails", type=click.IntRange(1), default=5000, help="E-mails to send.")
@option("--images", type=click.IntRange(1), default=300, help="Thumbnails to make.")
@option("--reminders", type=click.IntRange(1), default=200, help="Jobs scheduled for the next seconds.")
def demo(dsn: str | None, embedded: bool, emails: int, images: int, reminders: int) -> None:
    """Migrate, enqueue a mixed load, run a worker, and show what happened.

    Without --dsn it runs a private PostgreSQL. The jobs go to the queues email, images and reminders.

    \b
    Example:
      awa demo --emails 20000
    """
    with database(dsn, embedded or dsn is None, "awa_demo") as url, Client(url) as client:
        with connect(url, "awa migrate") as conn:
            steps = len(migrate(conn).steps)
        out.print(f"[bold]1[/] schema: {f'{steps} steps applied' if steps else 'up to date'}", highlight=False)

        before = {counts.queue: counts.completed for counts in client.list_queues()}
        began = time.perf_counter()
        client.enqueue_many_copy(
            ({"to": f"user{n}@example.com", "subject": f"Welcome, user {n}"} for n in range(emails)),
            kind=demo_tasks.send_email,
        )
        client.enqueue_many([{"width": 192, "height": 128, "factor": 8}] * images, kind=demo_tasks.make_thumbnail)
        now = datetime.now(UTC)
        due = [now + timedelta(seconds=random.uniform(1, 6)) for _ in range(reminders)]
        client.enqueue_many(
            [NewJob({"user": n}, options=JobOptions(run_at=at)) for n, at in enumerate(due)], kind=demo_tasks.send_reminder
        )
        total = emails + images + reminders
        out.print(
            f"[bold]2[/] enqueued {total:,} jobs in {time.perf_counter() - began:.2f} s: {emails:,} e-mails, "
            f"{images:,} thumbnails, {reminders:,} reminders for the next seconds",
            highlight=False,
        )

        # The failures below are part of the show; their tracebacks are not.
        logging.getLogger("awa.worker").addHandler(logging.NullHandler())
        logging.getLogger("awa.worker").propagate = False
        began = time.perf_counter()
        with Worker(
            QUEUES, dsn=url, tasks=[demo_tasks.send_email, demo_tasks.make_thumbnail, demo_tasks.send_reminder]
        ) as worker:
            out.print(f"[bold]3[/] a worker runs {', '.join(f'{name}:{n}' for name, n in QUEUES.items())}", highlight=False)
            _watch(client, before, {"email": emails, "images": images, "reminders": reminders})
            seconds = time.perf_counter() - began
            stats = worker.stats()
        _summarise(client, seconds, total, stats.claims, stats.flushes)


def _watch(client: Client, before: dict[str, int], totals: dict[str, int]) -> None:
    columns = (TextColumn("  {task.description:10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    deadline = time.monotonic() + TIMEOUT
    with Progress(*columns, console=out) as progress:
        bars = {queue: progress.add_task(queue, total=total) for queue, total in totals.items()}
        while not progress.finished:
            for queue, bar in bars.items():
                progress.update(bar, completed=client.queue_counts(queue).completed - before.get(queue, 0))
            if time.monotonic() > deadline:
                raise AwaError(f"the demo's jobs did not end within {TIMEOUT:g} s")
            time.sleep(0.1)


def _summarise(client: Client, seconds: float, total: int, claims: int, flushes: int) -> None:
    out.print(counts_table([counts for counts in client.list_queues() if counts.queue in QUEUES], "The queues now"))
    table = Table(title="From due to started, in milliseconds")
    for column in ("queue", "jobs", "p50", "p99"):
        table.add_column(column, justify="left" if column == "queue" else "right")
    for queue, samples in demo_tasks.waited.items():
        ordered = sorted(samples)
        table.add_row(queue, f"{len(ordered):,}", *(f"{percentile(ordered, share) or 0:,.1f}" for share in (0.5, 0.99)))
    out.print(table)
    out.print(
        f"[bold green]done[/]: {total:,} jobs in {seconds:.1f} s with {claims:,} claims and {flushes:,} flushes; "
        f"{demo_tasks.failures['email']} e-mails failed once and were tried again",
        highlight=False,
    )
