"""`awa bench`."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from awa_cli.bench.counts import counts
from awa_cli.bench.crash import crash
from awa_cli.bench.databases import databases
from awa_cli.bench.horizon import horizon
from awa_cli.bench.matrix import MODES, MatrixShape, run_matrix
from awa_cli.bench.measure import Meter
from awa_cli.bench.scenarios import Shape, run_deferred, run_drain, run_enqueue, run_pickup, run_sustained
from awa_cli.options import database_options, err, json_option, option, out, print_json

Scenario = Callable[[str, Shape, Meter, Callable[[int], object]], dict[str, Any]]

payload_option = option("--payload-bytes", type=click.IntRange(30), default=100, help="Bytes of a job's arguments.")
runs_option = option("--runs", type=click.IntRange(1), default=1, help="Repeat, and report the medians.")


class NumbersType(click.ParamType[tuple[int, ...]]):
    """`64,128,1000`."""

    name = "n,..."

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Positive numbers."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in value.split(",")]
        if not all(part.isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} are not positive numbers, as in 64,128", param, ctx)
        return tuple(dict.fromkeys(int(part) for part in parts))


@click.group()
def bench() -> None:
    """Measure awa on your PostgreSQL.

    With --dsn the figures come from that database, whose awa schema must be migrated; the jobs go to queues of their own
    and stay there as history. With --embedded every run gets a fresh database.

    \b
    Examples:
      awa bench drain --embedded --jobs 100000 --runs 5
      awa bench enqueue --mode copy --jobs 1000000 --json
      awa bench sustained --rate 10000 --seconds 60
      awa bench pickup --jobs 500
      awa bench crash --embedded
      awa bench horizon --embedded --plot horizon.svg
    """


@bench.command()
@database_options
@option(
    "--mode", type=click.Choice(["one", "many", "copy"]), default="one", help="enqueue, enqueue_many, enqueue_many_copy."
)
@option("--jobs", type=click.IntRange(1), default=10_000, help="Jobs in all.")
@option("--batch", type=click.IntRange(1), default=1000, help="Jobs per call of enqueue_many.")
@option("--queues", type=click.IntRange(1), default=1, help="Queues to spread the jobs over.")
@option("--concurrency", type=click.IntRange(1), default=1, help="Producer threads per process, a connection each.")
@option("--processes", type=click.IntRange(1), default=1, help="Producer processes.")
@payload_option
@runs_option
@json_option
def enqueue(dsn: str | None, embedded: bool, runs: int, as_json: bool, **shape: Any) -> None:
    """Enqueue as fast as possible.

    \b
    Example:
      awa bench enqueue --embedded --mode one --concurrency 8 --jobs 20000
    """
    _run(run_enqueue, Shape(**shape), dsn, embedded, runs, as_json)


@bench.command()
@database_options
@option("--jobs", type=click.IntRange(1), default=100_000, help="Jobs in the queue at the start.")
@option("--queues", type=click.IntRange(1), default=1, help="Queues to spread the jobs over.")
@option("--concurrency", type=click.IntRange(1), default=64, help="Threads per queue and process.")
@option("--processes", type=click.IntRange(1), default=1, help="Worker processes.")
@option("--work-ms", type=click.FloatRange(0), default=0.0, help="Milliseconds that each handler waits, as for a service.")
@option("--shards", type=click.IntRange(1, 64), default=1, help="Enqueue shards of each queue.")
@option("--partitions", type=click.IntRange(1, 64), default=1, help="Partitions of each queue, which share its threads.")
@option("--fail-percent", type=click.IntRange(0, 100), default=0, help="So many jobs in a hundred fail once.")
@option("--pinned", is_flag=True, help="Hold a snapshot and a written row open in another session all the while.")
@payload_option
@runs_option
@json_option
def drain(dsn: str | None, embedded: bool, runs: int, as_json: bool, **shape: Any) -> None:
    """Work off a full queue, every completion durable.

    \b
    Example:
      awa bench drain --embedded --jobs 100000 --concurrency 64 --runs 5
    """
    _run(run_drain, Shape(**shape), dsn, embedded, runs, as_json)


@bench.command()
@database_options
@option("--jobs", type=click.IntRange(1), default=100_000, help="Deferred jobs.")
@option("--spread", type=click.FloatRange(0), default=0.0, help="Seconds over which they fall due; 0: all at one instant.")
@option("--concurrency", type=click.IntRange(1), default=64, help="Threads per process.")
@option("--processes", type=click.IntRange(1), default=1, help="Worker processes.")
@payload_option
@runs_option
@json_option
def deferred(dsn: str | None, embedded: bool, runs: int, as_json: bool, **shape: Any) -> None:
    """Run deferred jobs as they fall due.

    \b
    Examples:
      awa bench deferred --embedded --jobs 100000
      awa bench deferred --embedded --jobs 20000 --spread 20
    """
    _run(run_deferred, Shape(**shape), dsn, embedded, runs, as_json)


@bench.command()
@database_options
@option("--rate", type=click.IntRange(1), default=10_000, help="Jobs offered per second.")
@option("--seconds", type=click.FloatRange(1), default=60.0, help="For how long.")
@option("--concurrency", type=click.IntRange(1), default=64, help="Threads per process.")
@option("--processes", type=click.IntRange(1), default=1, help="Worker processes.")
@payload_option
@runs_option
@json_option
def sustained(dsn: str | None, embedded: bool, runs: int, as_json: bool, **shape: Any) -> None:
    """Offer jobs at a fixed rate while workers run.

    \b
    Example:
      awa bench sustained --embedded --rate 10000 --seconds 60
    """
    jobs = int(shape["rate"] * shape["seconds"])
    _run(run_sustained, Shape(jobs=jobs, **shape), dsn, embedded, runs, as_json)


@bench.command()
@database_options
@option("--jobs", type=click.IntRange(1), default=300, help="Jobs, one after the other.")
@option("--idle-ms", type=click.FloatRange(1), default=20.0, help="Milliseconds of idleness before each, up to thrice that.")
@option("--concurrency", type=click.IntRange(1), default=10, help="Threads per process.")
@option("--processes", type=click.IntRange(1), default=1, help="Worker processes.")
@payload_option
@runs_option
@json_option
def pickup(dsn: str | None, embedded: bool, runs: int, as_json: bool, **shape: Any) -> None:
    """Enqueue single jobs to an idle worker and time how soon each starts.

    \b
    Example:
      awa bench pickup --embedded --jobs 500
    """
    _run(run_pickup, Shape(**shape), dsn, embedded, runs, as_json)


@bench.command("enqueue-matrix")
@database_options
@option("--sizes", type=NumbersType(), default="64,128,1000,10000", help="Jobs a call.")
@option("--producers", type=NumbersType(), default="1,2,4", help="Producer processes at once.")
@option("--jobs", type=click.IntRange(1), default=30_000, help="Jobs of a cell, about.")
@payload_option
@json_option
def enqueue_matrix(dsn: str | None, embedded: bool, as_json: bool, **shape: Any) -> None:
    """Compare a batch in one statement with COPY, by the size of a call and the number of producers.

    \b
    Examples:
      awa bench enqueue-matrix --embedded
      awa bench enqueue-matrix --sizes 10,100 --producers 8 --json
    """
    matrix = MatrixShape(**shape)
    with databases(dsn, embedded) as fresh, _progress() as progress, fresh() as url, Meter(url) as meter:
        bar = progress.add_task("cells", total=matrix.cells)
        summary = run_matrix(url, matrix, meter, lambda done: progress.update(bar, completed=done))
        summary["environment"] = meter.environment()
    if as_json:
        print_json(summary)
    else:
        _print_matrix(summary)


bench.add_command(counts)
bench.add_command(crash)
bench.add_command(horizon)


def _run(scenario: Scenario, shape: Shape, dsn: str | None, embedded: bool, runs: int, as_json: bool) -> None:
    results = []
    environment: dict[str, Any] = {}
    with databases(dsn, embedded) as fresh, _progress() as progress:
        for number in range(1, runs + 1):
            bar = progress.add_task(f"run {number} of {runs}", total=shape.jobs)
            with fresh() as url, Meter(url) as meter:
                results.append(scenario(url, shape, meter, lambda done, bar=bar: progress.update(bar, completed=done)))  # type: ignore[misc]
                environment = meter.environment()
            progress.update(bar, completed=shape.jobs)
    summary = {**medians(results), "environment": environment}
    if runs > 1:
        summary["runs"] = results
    if as_json:
        print_json(summary)
    else:
        _print_table(summary, runs)


def medians(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of every figure, key by key; what is not a figure is taken from the first run.

    >>> medians([{"a": 1, "b": {"c": 5.0}}, {"a": 3, "b": {"c": 7.0}}, {"a": 2, "b": {"c": 6.0}}])
    {'a': 2, 'b': {'c': 6.0}}
    """
    first = results[0]
    merged: dict[str, Any] = {}
    for key, value in first.items():
        if isinstance(value, dict):
            merged[key] = medians([result.get(key, {}) for result in results]) if value else value
        elif isinstance(value, bool) or not isinstance(value, int | float):
            merged[key] = value
        else:
            merged[key] = statistics.median(result[key] for result in results if result.get(key) is not None)
    return merged


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)


def _print_table(summary: dict[str, Any], runs: int) -> None:
    table = Table(title=f"awa bench {summary['scenario']}" + (f", medians of {runs} runs" if runs > 1 else ""))
    table.add_column("figure")
    table.add_column("value", justify="right")
    for key, value in summary.items():
        if key in ("scenario", "environment", "runs", "latency_ms", "dead_tuples"):
            continue
        table.add_row(key, "n/a" if value is None else f"{value:,}" if isinstance(value, int | float) else str(value))
    for name, value in summary["latency_ms"].items():
        table.add_row(f"latency {name} (ms)", "n/a" if value is None else f"{value:,.3f}")
    dead = {name: count for name, count in summary["dead_tuples"].items() if count}
    table.add_row("dead tuples", ", ".join(f"{name} {count:,}" for name, count in dead.items()) or "0 in every table")
    out.print(table)
    _print_environment(summary["environment"])


def _print_matrix(summary: dict[str, Any]) -> None:
    table = Table(title="awa bench enqueue-matrix: jobs/s (p50 of a call in ms)")
    producers = sorted({cell["producers"] for cell in summary["cells"]})
    table.add_column("jobs a call", justify="right")
    for n in producers:
        for mode in MODES:
            table.add_column(f"{mode}, {n} producer{'s' if n > 1 else ''}", justify="right")
    for size in sorted({cell["size"] for cell in summary["cells"]}):
        row = {(cell["producers"], cell["mode"]): cell for cell in summary["cells"] if cell["size"] == size}
        cells = [row[n, mode] for n in producers for mode in MODES]
        table.add_row(f"{size:,}", *(f"{cell['jobs_per_s']:,.0f} ({cell['call_ms']['p50']:,.1f})" for cell in cells))
    out.print(table)
    for n, size in summary["copy_pays"].items():
        pays = "at none of these sizes" if size is None else f"from {size:,} jobs a call on"
        out.print(f"with {n} producer{'s' if n != '1' else ''} COPY is faster {pays}", highlight=False)
    _print_environment(summary["environment"])


def _print_environment(environment: dict[str, Any]) -> None:
    settings = ", ".join(f"{name} {value}" for name, value in environment["postgres"].items())
    out.print(f"PostgreSQL: {settings}", highlight=False)
    out.print(
        ", ".join(f"{name} {environment[name]}" for name in ("awa", "python", "psycopg", "cores", "platform")),
        highlight=False,
    )
