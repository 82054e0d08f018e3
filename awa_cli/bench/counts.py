"""`awa bench counts`: what it costs to count a queue's jobs as its history grows."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from awa import AwaError, Client
from awa_cli.bench.databases import database, storage_settings
from awa_cli.bench.fleet import WorkerFleet
from awa_cli.bench.measure import Meter
from awa_cli.bench.scenarios import DRAIN_TIMEOUT
from awa_cli.bench.tasks import bench_noop, noop_args
from awa_cli.options import database_options, err, json_option, option, out, print_json

STEPS: Final = (0.01, 0.1, 1.0)
WARM_UP: Final = 10  # calls before those that are timed: the first few of a session plan the query, which takes 4 ms
CALLS: Final = 15  # of which the median counts


@click.command()
@database_options
@option("--jobs", type=click.IntRange(100), default=10_000_000, help="Completed jobs to keep in the end.")
@option("--jobs-per-claim", type=click.IntRange(1, 32767), default=1000, help="The most that a claim takes.")
@json_option
def counts(dsn: str | None, embedded: bool, jobs: int, jobs_per_claim: int, as_json: bool) -> None:
    """Complete jobs, keep them all, and time exact and fast counts along the way.

    The rings turn at their usual share of a history that is made large enough for all of it; the setting is put back.

    \b
    Example:
      awa bench counts --embedded --jobs 1000000
    """
    rows: list[dict[str, Any]] = []
    bars = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        database(dsn, embedded) as url,
        Progress(*bars, console=err, transient=True, disable=not err.is_terminal) as progress,
        Client(url) as client,
        storage_settings(client, completed_retention=7 * 86400.0, history_max_bytes=max(1 << 24, jobs * 800)),
        Meter(url) as meter,
    ):
        queue = f"counts_{secrets.token_hex(4)}"
        bar = progress.add_task("completing jobs", total=jobs)
        done = 0
        for wanted in (int(jobs * step) for step in STEPS):
            _complete(url, client, queue, wanted - done, jobs_per_claim, partial(_advance, progress, bar, done))
            done = wanted
            rows.append(_time(client, queue, done))
        environment = meter.environment()
    if as_json:
        print_json({"scenario": "counts", "jobs_per_claim": jobs_per_claim, "rows": rows, "environment": environment})
        return
    table = Table(title="awa bench counts: milliseconds a call, medians")
    for heading in ("completed jobs kept", "fast", "exact", "claim slots in use"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(f"{row['completed']:,}", f"{row['fast_ms']:.2f}", f"{row['exact_ms']:.1f}", str(row["slots"]))
    out.print(table)


def _advance(progress: Progress, bar: TaskID, done: int, more: int) -> None:
    progress.update(bar, completed=done + more)


def _complete(
    url: str, client: Client, queue: str, jobs: int, jobs_per_claim: int, progress: Callable[[int], object]
) -> None:
    client.enqueue_many_copy((noop_args(n, 40) for n in range(jobs)), kind=bench_noop, queue=queue)
    with WorkerFleet(url, {queue: 64}, 1, claim_limit=jobs_per_claim) as fleet:
        fleet.go()
        fleet.wait_for(jobs, DRAIN_TIMEOUT * 4, progress)
        time.sleep(3.0)  # the keeper's turn: slots that are full are sealed and proved closed, as they always are in the end
        fleet.stop()


def _time(client: Client, queue: str, completed: int) -> dict[str, Any]:
    figures: dict[str, Any] = {"completed": completed}
    for name, exact in (("fast_ms", False), ("exact_ms", True)):
        took = []
        for _ in range(WARM_UP):
            client.queue_counts(queue, exact=exact)
        for _ in range(CALLS):
            began = time.perf_counter()
            found = client.queue_counts(queue, exact=exact).completed
            took.append((time.perf_counter() - began) * 1000)
            if found != completed:
                raise AwaError(f"{completed} jobs were completed, and the queue says {found}")
        figures[name] = round(statistics.median(took), 3)
    status = client.storage_status()
    figures["slots"] = sum(slot.ring == "claim" and (slot.is_current or slot.sealed_at is not None) for slot in status)
    figures["storage_mb"] = round(sum(slot.bytes or 0 for slot in status) / 1e6)
    return figures
