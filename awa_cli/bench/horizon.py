"""`awa bench horizon`: a steady load for minutes while other sessions keep the MVCC horizon from moving."""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import click
import psycopg
from attrs import asdict, frozen
from psycopg.rows import tuple_row
from rich.table import Table

from awa import AwaError, Client
from awa.postgres import connect
from awa_cli.bench.databases import database, storage_settings
from awa_cli.bench.fleet import WorkerFleet, run_producers
from awa_cli.bench.measure import Meter, percentile
from awa_cli.bench.plot import check_plot, plot_horizon
from awa_cli.bench.scenarios import DRAIN_TIMEOUT, Shape, offer
from awa_cli.bench.tasks import bench_timed
from awa_cli.options import database_options, json_option, option, out, print_json

SAMPLE_EVERY: Final = 1.0  # seconds
HOT_TABLES: Final = (
    "ready_entries",
    "ready_tombstones",
    "lease_claim_batches",
    "receipt_completion_batches",
    "lease_claim_closures",
    "receipt_results",
    "receipt_completion_tombstones",
)
HEADINGS: Final = {
    "minute": "min",
    "jobs_per_s": "jobs/s",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "depth_max": "depth",
    "dead_tuples_in_rings": "dead: rings",
    "dead_tuples_elsewhere": "awa's rest",
    "catalog_dead": "catalog",
    "catalog_mb": "catalog MB",
    "storage_mb": "rings MB",
}
READ_TABLES: Final = """
    SELECT regexp_replace(relname, '_[0-7]$', ''), sum(greatest(n_dead_tup, n_tup_upd + n_tup_del))::int8
    FROM pg_stat_user_tables WHERE schemaname = 'awa' GROUP BY 1
"""
READ_CATALOG: Final = """
    SELECT relname::text, n_dead_tup, pg_relation_size(relid) FROM pg_stat_sys_tables
    WHERE schemaname = 'pg_catalog' AND relname IN ('pg_class', 'pg_attribute', 'pg_index', 'pg_depend', 'pg_statistic')
"""
READ_RINGS: Final = """
    SELECT count(*) FILTER (WHERE bytes > 65536 * 2), sum(bytes)::int8, sum(prunes)::int8 FROM awa.storage_status()
    WHERE ring IN ('queue', 'claim')
"""


@frozen(kw_only=True)
class Sample:
    """One look, `at` seconds after the start."""

    at: float
    completed: int
    depth: int
    dead_hot: int
    dead_cold: dict[str, int]
    catalog_dead: int
    catalog_bytes: int
    storage_bytes: int
    prunes: int


@click.command()
@database_options
@option("--rate", type=click.IntRange(1), default=2000, help="Jobs offered per second.")
@option("--minutes", type=click.FloatRange(0.1), default=10.0, help="For how long.")
@option("--reader/--no-reader", default=True, help="Hold a snapshot open in another session from the start to the end.")
@option(
    "--writer-minutes",
    type=click.FloatRange(0),
    default=5.0,
    help="So long, in the middle, another session holds a transaction open that has enqueued a job.",
)
@option(
    "--completed-retention",
    type=click.FloatRange(0),
    help="Set this setting, in seconds, during the run, so that the rings turn; 60 with --embedded, else as it is.",
)
@option("--concurrency", type=click.IntRange(1), default=64, help="Threads per process.")
@option("--processes", type=click.IntRange(1), default=1, help="Worker processes.")
@option("--payload-bytes", type=click.IntRange(30), default=100, help="Bytes of a job's arguments.")
@option("--plot", type=click.Path(dir_okay=False), help="Write a plot to this .png or .svg file (needs the plot extra).")
@json_option
def horizon(
    dsn: str | None,
    embedded: bool,
    rate: int,
    minutes: float,
    reader: bool,
    writer_minutes: float,
    completed_retention: float | None,
    concurrency: int,
    processes: int,
    payload_bytes: int,
    plot: str | None,
    as_json: bool,
) -> None:
    """Offer jobs at a fixed rate while sessions pin the MVCC horizon, and watch what grows.

    A reader holds a snapshot all the time; for some minutes in the middle a writer holds a transaction open that has
    enqueued a job, which must run once it commits. Every second: throughput, depth, latency, dead tuples of the engine's
    tables and of the catalog, and what the rings occupy.

    \b
    Examples:
      awa bench horizon --embedded --plot horizon.svg
      awa bench horizon --embedded --rate 500 --minutes 1 --writer-minutes 0.5 --json
    """
    shape = Shape(
        jobs=int(rate * minutes * 60),
        rate=rate,
        seconds=minutes * 60,
        concurrency=concurrency,
        processes=processes,
        payload_bytes=payload_bytes,
    )
    if plot:
        check_plot(plot)
    if writer_minutes > minutes:
        raise click.UsageError("--writer-minutes must not be longer than --minutes")
    retention = 60.0 if completed_retention is None and embedded else completed_retention
    changes = {} if retention is None else {"completed_retention": retention}
    with (
        database(dsn, embedded) as url,
        Client(url) as client,
        storage_settings(client, **changes),
        Meter(url) as meter,
    ):
        result = _run(url, client, shape, reader, writer_minutes * 60)
        result["environment"] = meter.environment()
    if plot:
        plot_horizon(result, plot)
    if as_json:
        print_json(result)
    else:
        _print(result)


def _run(url: str, client: Client, shape: Shape, reader: bool, writer_seconds: float) -> dict[str, Any]:
    queue = f"horizon_{time.time_ns() % 10**9}"
    samples: list[Sample] = []
    stopping = threading.Event()
    client.enqueue(bench_timed, {"at": time.monotonic_ns(), "body": ""}, queue=queue)  # its lane and code are warm
    with _session(url, reader) as pinned, WorkerFleet(url, {queue: shape.concurrency}, shape.processes) as fleet:
        fleet.go(until_ready=True)
        fleet.wait_for(1, 60.0, lambda done: None)
        if pinned is not None:
            pinned.execute("SELECT count(*) FROM pg_class")  # takes the snapshot, which stays
        began = time.monotonic()
        watcher = threading.Thread(target=_watch, args=(url, client, queue, fleet, began, samples, stopping))
        writer = threading.Thread(target=_write, args=(url, client, queue, shape.seconds, writer_seconds, stopping))
        for thread in (watcher, writer):
            thread.start()
        try:
            _, (producer,) = run_producers(offer, [(url, shape, queue, "timed")])
            offered = time.monotonic() - began
            expected = shape.jobs + 1 + (writer_seconds > 0)
            fleet.wait_for(expected, DRAIN_TIMEOUT, lambda done: None)
        finally:
            stopping.set()
            writer.join()
            watcher.join()
        seen = fleet.stop()
    counts = client.queue_counts(queue)
    if counts.completed != expected or counts.unfinished:
        raise AwaError(f"{expected} jobs were enqueued, and the queue says {counts}")
    # The producer's clock begins a moment later than ours: minutes are counted from its first tick.
    first = producer["began"]
    timed = sorted((at / 1e9 - first, latency / 1e6) for one in seen for at, latency in one["timed"] if at / 1e9 >= first)
    rows = _by_minute(samples, timed, shape.seconds, first - began)
    return {
        "scenario": "horizon",
        "rate": shape.rate,
        "jobs": expected,
        "seconds": shape.seconds,
        "offered_seconds": round(offered, 2),
        "pinned_reader": reader,
        "pinned_writer_seconds": writer_seconds,
        "dead_tuples_in_rings": max((sample.dead_hot for sample in samples), default=0),
        "prunes": samples[-1].prunes - samples[0].prunes,
        "last_to_first_minute": {
            key: round(rows[-1][key] / rows[0][key], 3) for key in ("jobs_per_s", "p50_ms", "p99_ms") if rows[0][key]
        },
        "minutes": rows,
        "samples": [asdict(sample) for sample in samples],
    }


def _by_minute(
    samples: list[Sample], timed: list[tuple[float, float]], seconds: float, offset: float
) -> list[dict[str, Any]]:
    """What each minute saw; a last minute that is not whole is left out unless it is the only one."""
    latencies: dict[int, list[float]] = defaultdict(list)
    for at, latency in timed:
        latencies[int(at // 60)].append(latency)
    rows = []
    for minute in range(max(1, int(seconds // 60))):
        length = min(60.0, seconds)
        within = [s for s in samples if minute * 60 <= s.at - offset < minute * 60 + length]
        ordered = sorted(latencies[minute])
        rows.append(
            {
                "minute": minute + 1,
                "jobs_per_s": round(len(ordered) / length, 1),
                "p50_ms": percentile(ordered, 0.5),
                "p99_ms": percentile(ordered, 0.99),
                "depth_max": max((s.depth for s in within), default=0),
                "dead_tuples_in_rings": max((s.dead_hot for s in within), default=0),
                "dead_tuples_elsewhere": sum(within[-1].dead_cold.values()) if within else 0,
                "catalog_dead": max((s.catalog_dead for s in within), default=0),
                "catalog_mb": round(max((s.catalog_bytes for s in within), default=0) / 1e6, 2),
                "storage_mb": round(max((s.storage_bytes for s in within), default=0) / 1e6, 1),
                "prunes": within[-1].prunes - within[0].prunes if within else 0,
            }
        )
    return rows


def _watch(
    url: str,
    client: Client,
    queue: str,
    fleet: WorkerFleet,
    began: float,
    samples: list[Sample],
    stopping: threading.Event,
) -> None:
    """A look every second, on a connection of its own."""
    with connect(url, "meter") as conn:
        cursor = conn.cursor(row_factory=tuple_row)
        for number in itertools.count():
            if stopping.wait(max(0.0, began + number * SAMPLE_EVERY - time.monotonic())):
                return
            at = time.monotonic() - began
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            tables: dict[str, int] = dict(cursor.execute(READ_TABLES).fetchall())
            catalog = cursor.execute(READ_CATALOG).fetchall()
            (_, size, prunes) = cursor.execute(READ_RINGS).fetchall()[0]
            samples.append(
                Sample(
                    at=round(at, 3),
                    completed=fleet.completed,
                    depth=client.queue_counts(queue, exact=False).available,
                    dead_hot=sum(tables.get(name, 0) for name in HOT_TABLES),
                    dead_cold={name: dead for name, dead in tables.items() if name not in HOT_TABLES and dead},
                    catalog_dead=sum(row[1] for row in catalog),
                    catalog_bytes=sum(row[2] for row in catalog),
                    storage_bytes=size or 0,
                    prunes=prunes,
                )
            )


def _write(url: str, client: Client, queue: str, seconds: float, writer_seconds: float, stopping: threading.Event) -> None:
    """A transaction in the middle of the run that enqueues a job and stays open."""
    if not writer_seconds:
        return
    stopping.wait((seconds - writer_seconds) / 2)
    with psycopg.connect(url, application_name="pinning writer") as conn:
        client.enqueue(bench_timed, {"at": time.monotonic_ns(), "body": "late"}, queue=queue, connection=conn)
        stopping.wait(writer_seconds)
        conn.commit()


@contextmanager
def _session(url: str, wanted: bool) -> Iterator[psycopg.Connection[Any] | None]:
    """The session of the pinned reader."""
    if not wanted:
        yield None
        return
    with psycopg.connect(url, application_name="pinned reader") as conn:
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        yield conn
        conn.rollback()


def _print(result: dict[str, Any]) -> None:
    table = Table(title=f"awa bench horizon: {result['rate']:,} jobs/s offered")
    formats: dict[str, Callable[[Any], str]] = {"p50_ms": "{:.2f}".format, "p99_ms": "{:.2f}".format}
    for key in result["minutes"][0]:
        table.add_column(HEADINGS.get(key, key.replace("_", " ")), justify="right")
    for row in result["minutes"]:
        table.add_row(*(formats.get(key, "{:,}".format)(value) for key, value in row.items()))
    out.print(table)
    ratios = ", ".join(f"{key} {value:.3f}" for key, value in result["last_to_first_minute"].items())
    out.print(
        f"last minute to first: {ratios}; dead tuples in the rings: {result['dead_tuples_in_rings']}, "
        f"slots pruned: {result['prunes']}",
        highlight=False,
        soft_wrap=True,
    )
