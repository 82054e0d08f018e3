"""`awa worker`."""

from __future__ import annotations

from typing import Any

import click
from attrs import fields

from awa.config import WorkerSettings
from awa.partitions import AnyQueue
from awa.worker.runtime import CONNECTIONS
from awa.worker.supervisor import Supervisor, WorkerSpec, configure_logging, import_tasks
from awa_cli.options import database, database_options, err, option
from awa_cli.queue_types import QUEUE, QUEUES

DEFAULTS = {attribute.name: attribute.default for attribute in fields(WorkerSettings)}


@click.command()
@database_options
@option(
    "--listen-dsn",
    envvar="AWA_LISTEN_DSN",
    metavar="URL",
    help="A direct connection for wake-ups, where --dsn leads to a transaction pooler.",
)
@option(
    "--queues",
    type=QUEUES,
    required=True,
    help="Queues, and how many jobs of each (or of each partition) may run at a time.",
)
@option("--import", "imports", multiple=True, metavar="MODULE", help="A module that makes tasks; may be given repeatedly.")
@option(
    "--default-queue",
    type=QUEUE,
    default=DEFAULTS["default_queue"],
    help="Queue of follow-up jobs whose task names none, or name/partitions.",
)
@option("--processes", type=click.IntRange(1, 256), default=1, help="Worker processes; each runs that many jobs.")
@option("--poll-every", type=click.FloatRange(0.01), default=DEFAULTS["poll_every"], help="Seconds between polls when idle.")
@option(
    "--stop-timeout", type=click.FloatRange(0), default=DEFAULTS["stop_timeout"], help="Seconds for running jobs to end."
)
@option(
    "--timeout", type=click.FloatRange(0, min_open=True), help="Seconds an attempt may run, of tasks that have no timeout."
)
@option(
    "--hard-stop-after",
    type=click.FloatRange(0, min_open=True),
    default=DEFAULTS["hard_stop_after"],
    help="Seconds until a handler that ignores its timeout costs its process.",
)
@option("--drain", is_flag=True, help="Stop when the queues are empty; jobs due later stay.")
@option("--max-jobs", type=click.IntRange(1), help="Replace a process after so many jobs.")
@option("--max-memory", type=click.FloatRange(1), metavar="MIB", help="Replace a process that has so much memory resident.")
@option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    help="How much to say on standard error.",
)
def worker(
    dsn: str | None,
    embedded: bool,
    listen_dsn: str | None,
    queues: dict[str, int],
    imports: tuple[str, ...],
    default_queue: AnyQueue,
    processes: int,
    poll_every: float,
    stop_timeout: float,
    timeout: float | None,
    hard_stop_after: float,
    drain: bool,
    max_jobs: int | None,
    max_memory: float | None,
    log_level: str,
) -> None:
    """Run jobs until SIGTERM or SIGINT, then let the running ones finish.

    Jobs that have not started, or do not finish within --stop-timeout, go back to the queue without counting an attempt;
    the exit code is 1 in the latter case. A second signal ends the wait.

    A supervisor beats for the processes and replaces those that die; their jobs are given to others at once.

    \b
    Examples:
      awa worker --queues email:4,default:10 --import app.tasks
      awa worker --queues thumbnails:2 --import app.images --processes 4 --timeout 60 --max-memory 500
      awa worker --queues nightly:8 --import app.nightly --drain
      awa worker --queues email:4 --dsn postgresql://pgbouncer:6432/app --listen-dsn postgresql://db:5432/app
      awa worker --queues email/4:10 --import app.tasks     four partitions, ten jobs of each at a time
    """
    configure_logging(log_level)
    settings: dict[str, Any] = {
        "default_queue": default_queue,
        "poll_every": poll_every,
        "stop_timeout": stop_timeout,
        "timeouts": {} if timeout is None else dict.fromkeys(queues, timeout),
        "hard_stop_after": hard_stop_after,
        "drain": drain,
        "max_jobs": max_jobs,
        "max_memory": max_memory,
    }
    modules = [name for part in imports for name in part.replace(",", " ").split()]
    import_tasks(modules)
    connections = CONNECTIONS + (listen_dsn is not None)
    with database(dsn, embedded) as url:
        err.print(
            f"awa worker: {', '.join(f'{queue} ({jobs} at a time)' for queue, jobs in queues.items())}; "
            f"{processes} process{'es' if processes > 1 else ''}, {connections * processes + 1} database connections in all",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        spec = WorkerSpec(
            queues=queues, dsn=url, listen_dsn=listen_dsn, imports=modules, log_level=log_level, settings=settings
        )
        clean = Supervisor(spec, processes).run()
    if not clean:
        raise click.exceptions.Exit(1)
