"""`awa enqueue`: one job from the command line, or any number from a file."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any, get_args

import click
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from awa import Client, ConfigurationError, InvalidJob, JobOptions, NewJob, Unique, UniqueConflict
from awa.partitions import AnyQueue, parse_queue
from awa.unique import OnConflict
from awa_cli.options import database, database_options, err, json_option, option, print_json
from awa_cli.queue_types import QUEUE

EXIT_CONFLICT = 4
CLEARABLE = ("queue", "ordering_key")  # null says: not the command line's
RECORD = ("kind", "args", "queue", "priority", "run_at", "max_attempts", "tags", "metadata", "ordering_key", "unique")


@click.command()
@database_options
@option("--args", "args", metavar="JSON", help="The job's arguments: a JSON object.")
@option("--file", "file", metavar="PATH", help="A file with one JSON object a line, a job each; - for standard input.")
@option("--queue", type=QUEUE, help='The queue, or name/partitions; else "default".')
@option("--priority", type=int, help="1 (first) to 4.")
@option("--run-at", metavar="INSTANT", help="Not before this instant: ISO 8601 with a time zone.")
@option("--max-attempts", type=int, help="Counted attempts before the job has failed.")
@option("--tag", "tags", multiple=True, help="A label; may be given repeatedly.")
@option("--metadata", metavar="JSON", help="A JSON object that travels with the job.")
@option("--ordering-key", help="Jobs of one key go to one partition and shard.")
@option("--unique", "unique", is_flag=True, help="At most one job of a kind and these arguments at a time.")
@option("--unique-by", multiple=True, metavar="NAME", help="The same, of these arguments only; may be given repeatedly.")
@option("--unique-by-queue", is_flag=True, help="The same, one per queue.")
@option("--unique-period", type=float, metavar="SECONDS", help="After which the key is free whatever became of its job.")
@option("--on-conflict", type=click.Choice(get_args(OnConflict)), default="raise", help="What to do where a key is taken.")
@json_option
@click.argument("kind", required=False)
def enqueue(dsn: str | None, embedded: bool, kind: str | None, file: str | None, as_json: bool, **given: Any) -> None:
    """Enqueue a job of KIND, or every job of a file; all of them or none.

    A line of the file is an object with args and, where it differs from the command line, kind, queue, priority, run_at,
    max_attempts, tags, metadata, ordering_key or unique (true, or an object with by_args, by_queue, period,
    states, on_conflict). The file is read as it is written: it may be of any size.

    Exits with 4 when another job has the unique key, with 1 when a job is refused; nothing is enqueued then.

    \b
    Examples:
      awa enqueue send_welcome --args '{"to": "ada@example.com"}' --queue email --priority 1
      awa enqueue report --run-at 2026-12-01T06:00:00+01:00 --unique
      awa enqueue --file jobs.ndjson --queue 'email/4' --json
      zcat jobs.ndjson.gz | awa enqueue resize --file -
    """
    arguments = given.pop("args")
    if kind is None and file is None:
        raise click.UsageError("give a KIND, or --file")
    if arguments is not None and file is not None:
        raise click.UsageError("--args and --file exclude each other")
    options = _options(given)
    with database(dsn, embedded) as url, Client(url) as client:
        try:
            if file is None:
                assert kind is not None
                ids: Iterable[int] = [_enqueue_one(client, kind, _object("--args", arguments or "{}"), options)]
            else:
                with _lines(file) as (lines, progress):
                    found = client.enqueue_many_copy(
                        _jobs(lines, kind, options), kind=kind, return_ids=as_json, progress=progress
                    )
                if isinstance(found, int):
                    click.echo(f"{found:,} jobs are enqueued")
                    return
                ids = found
        except UniqueConflict as error:
            where = "" if file is None else f"line {error.index + 1}: "
            err.print(
                f"[bold red]error:[/] {where}job {error.job_id} has the unique key; nothing was enqueued", highlight=False
            )
            raise click.exceptions.Exit(EXIT_CONFLICT) from None
        except InvalidJob as error:
            raise click.ClickException(f"{_place(error)}; nothing was enqueued") from None
    if as_json:
        print_json({"ids": list(ids)})
        return
    (job_id,) = ids
    if not job_id:
        click.echo("skipped: another job has the unique key")
    else:
        click.echo(f"job {job_id} is enqueued{' or was before' if given['on_conflict'] == 'return_existing' else ''}")


def _enqueue_one(client: Client, kind: str, args: dict[str, Any], options: JobOptions) -> int:
    return client.enqueue_many([NewJob(args, options=options)], kind=kind)[0]


def _options(given: dict[str, Any]) -> JobOptions:
    """The options of the command line."""
    unique = None
    by_args = given["unique_by"]
    if given["unique"] or by_args or given["unique_by_queue"] or given["unique_period"] is not None:
        unique = Unique(
            by_args=by_args or True,
            by_queue=given["unique_by_queue"],
            period=given["unique_period"],
            on_conflict=given["on_conflict"],
        )
    elif given["on_conflict"] != "raise":
        raise click.UsageError("--on-conflict goes with --unique")
    fields: dict[str, Any] = {
        "queue": given["queue"],
        "priority": given["priority"],
        "run_at": None if given["run_at"] is None else _instant(given["run_at"]),
        "max_attempts": given["max_attempts"],
        "tags": given["tags"],
        "metadata": None if given["metadata"] is None else _object("--metadata", given["metadata"]),
        "ordering_key": given["ordering_key"],
        "unique": unique,
    }
    return JobOptions(**{name: value for name, value in fields.items() if value is not None})


def _jobs(lines: Iterable[bytes], kind: str | None, batch: JobOptions) -> Iterator[NewJob]:
    """The jobs of a file. What a line says wins over the command line."""
    for index, line in enumerate(lines):
        try:
            yield _job(line, kind, batch)
        except InvalidJob as error:
            raise InvalidJob(f"jobs[{index}].{error.field}", error.reason) from error


def _job(line: bytes, kind: str | None, batch: JobOptions) -> NewJob:
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise InvalidJob("line", f"is not UTF-8: {error}") from None
    except ValueError as error:
        raise InvalidJob("line", "is empty" if not line.strip() else f"is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise InvalidJob("line", f"must be a JSON object, not {type(record).__name__}")
    if unknown := [name for name in record if name not in RECORD]:
        raise InvalidJob(unknown[0], f"is none of {', '.join(RECORD)}")
    args, own_kind = record.pop("args", {}), record.pop("kind", kind)
    if own_kind is None:
        raise InvalidJob("kind", "is missing, and the command line has none")
    if not record:
        return NewJob(args, kind=own_kind, options=batch)
    own = {name: _value(name, value) for name, value in record.items() if value is not None or name in CLEARABLE}
    base = {name: value for name in RECORD[2:] if name not in own and (value := getattr(batch, name)) not in (None, ())}
    return NewJob(args, kind=own_kind, options=JobOptions(**base, **own))


def _value(name: str, value: Any) -> Any:
    """What a line says of an option, as `JobOptions` takes it."""
    try:
        if name == "queue" and isinstance(value, str):
            return _queue(value)
        if name == "run_at" and isinstance(value, str):
            return _instant(value)
        if name == "tags" and not isinstance(value, list):
            raise InvalidJob("tags", f"must be a list, not {type(value).__name__}")
        if name == "unique":
            return Unique() if value is True else None if value is False else Unique(**value)
    except TypeError as error:
        raise InvalidJob(name, str(error)) from None
    return value


def _queue(text: str) -> AnyQueue:
    try:
        return parse_queue(text)
    except ConfigurationError as error:
        raise InvalidJob("queue", str(error)) from None


def _instant(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidJob("run_at", f"{text!r} is no ISO 8601 instant, as 2026-12-01T06:00:00+01:00 is") from None


def _object(name: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint=name) from None
    if not isinstance(value, dict):
        raise click.BadParameter("must be a JSON object", param_hint=name)
    return value


def _place(error: InvalidJob) -> str:
    """The message, with the line of a file instead of the index of a batch."""
    match = re.fullmatch(r"jobs\[(\d+)\]\.(.*)", error.field, re.DOTALL)
    if match is None:
        return str(error)
    where = f"line {int(match[1]) + 1}"
    return f"{where} {error.reason}" if match[2] == "line" else f"{where}: {match[2]}: {error.reason}"


@contextmanager
def _lines(file: str) -> Iterator[tuple[Iterable[bytes], Any]]:
    """The lines of a file or of standard input, and a callback for the number of jobs written."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with (
        _opened(file) as source,
        Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress,
    ):
        size = os.fstat(source.fileno()).st_size if file != "-" else 0
        bar = progress.add_task("enqueueing", total=size or None)
        read = 0

        def lines() -> Iterator[bytes]:
            nonlocal read
            for line in source:
                read += len(line)
                yield line

        def show(jobs: int) -> None:
            progress.update(bar, completed=read, description=f"{jobs:,} jobs")

        yield lines(), show


@contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        source = Path(file).open("rb")  # noqa: SIM115 - closed below; what is caught here is no error of the block's
    except OSError as error:
        raise click.BadParameter(f"{file}: {error.strerror}", param_hint="--file") from None
    with source:
        yield source
