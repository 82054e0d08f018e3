"""`awa storage`: what the engine keeps, for how long, and what to do when something is amiss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import psycopg
from attrs import asdict
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from awa import Client
from awa.errors import StorageBusy
from awa.migrate import check_rebase, check_schema, guarded_schema, load_sql
from awa.postgres import Connection, connect
from awa.rings import RINGS, Ring, SlotStatus, StorageSettings
from awa.storage.counters import TerminalCount
from awa.storage.rebase import live_sessions, needs_rebase
from awa.storage.rebase import rebase as rebase_storage
from awa.storage.rings import history_bytes, prune_ring, read_settings, rotate_ring, storage_status
from awa_cli.bulk import ask, yes_option
from awa_cli.options import database, database_options, err, json_option, option, out, print_json
from awa_cli.units import SizeType, SpanType, format_age, format_size, format_span

SPANS = ("completed_retention", "terminal_retention", "dead_letter_retention", "materialize_after")
SIZES = ("history_max_bytes", "lease_rotate_bytes")


@click.group()
def storage() -> None:
    """Look at the rings, say for how long what is kept, and mend."""


@contextmanager
def _engine(dsn: str | None, embedded: bool, *, lock_timeout: float) -> Iterator[Connection]:
    """A connection that works where a client would refuse, because a rebase is needed."""
    try:
        with database(dsn, embedded) as url, connect(url, "awa storage") as conn, guarded_schema():
            check_schema(conn, load_sql())
            conn.execute("SELECT set_config('lock_timeout', %s, false)", (f"{round(lock_timeout * 1000)}ms",))
            yield conn
    except psycopg.errors.LockNotAvailable as error:
        raise StorageBusy from error


@storage.command()
@database_options
@json_option
def status(dsn: str | None, embedded: bool, as_json: bool) -> None:
    """Show the rings' slots, what they occupy, and what keeps them from being emptied.

    Works while a rebase is needed, too, and says so. Waits for nobody longer than a moment: `?` is the size of a slot
    that was locked.

    \b
    Examples:
      awa storage status
      awa storage status --json | jq '.slots[] | select(.held_reason != null)'
    """
    with _engine(dsn, embedded, lock_timeout=1.0) as conn:
        rebase_needed = needs_rebase(conn)
        slots = storage_status(conn)
        settings = read_settings(conn)
        try:
            history = history_bytes(conn)
        except psycopg.errors.LockNotAvailable:
            history = None
    if as_json:
        print_json(
            {
                "needs_rebase": rebase_needed,
                "history_bytes": history,
                "settings": asdict(settings),
                "slots": [asdict(slot) for slot in slots],
            }
        )
        return
    if rebase_needed:
        err.print("[bold red]warning:[/] restored from a dump of another cluster: run `awa storage rebase`", soft_wrap=True)
    out.print(_slots_table(slots))
    used = f"{format_size(history)} of {format_size(settings.history_max_bytes)}"
    out.print(f"history of completed jobs: {used}, kept for {format_span(settings.completed_retention)}", highlight=False)


@storage.command()
@database_options
@option("--completed-retention", type=SpanType(), help="How long completed jobs are kept, as 2h.")
@option("--history-max-bytes", type=SizeType(), help="What completed jobs may occupy, as 2GiB; the oldest go first.")
@option("--terminal-retention", type=SpanType(), help="How long failed and cancelled jobs are kept, as 7d.")
@option("--dead-letter-retention", type=SpanType(), help="How long jobs stay in the dead-letter queue, as 30d.")
@option("--materialize-after", type=SpanType(), help="After so long a running attempt gets a lease and holds no slot.")
@option("--lease-rotate-bytes", type=SizeType(), help="A slot of leases of this size is left for a fresh one.")
@json_option
def settings(dsn: str | None, embedded: bool, as_json: bool, **given: float | None) -> None:
    """Show for how long what is kept, after changing what is given. Workers obey from their next turn on.

    \b
    Examples:
      awa storage settings
      awa storage settings --completed-retention 2h --history-max-bytes 4GiB
    """
    with database(dsn, embedded) as url, Client(url) as client:
        kept = client.storage_settings(**{name: value for name, value in given.items() if value is not None})
    if as_json:
        print_json(asdict(kept))
    else:
        out.print(_settings_table(kept))


@storage.command("rebuild-terminal-counters")
@database_options
@option("--check", "only_check", is_flag=True, help="Compare only, and exit with 1 on a difference.")
@json_option
def rebuild_terminal_counters(dsn: str | None, embedded: bool, only_check: bool, as_json: bool) -> None:
    """Make the counters of ended jobs say what there is; shows what they said before.

    One at a time: whoever comes second waits, and gives up after 30 seconds. Endings other than plain successes wait
    meanwhile.

    \b
    Examples:
      awa storage rebuild-terminal-counters --check || echo "they differ"
      awa storage rebuild-terminal-counters
    """
    with (
        database(dsn, embedded) as url,
        Client(url) as client,
        Progress(
            SpinnerColumn(), TextColumn("{task.description}"), console=err, transient=True, disable=not err.is_terminal
        ) as progress,
    ):
        progress.add_task("comparing" if only_check else "rebuilding", total=None)
        counters = client.check_terminal_counters() if only_check else client.rebuild_terminal_counters()
    wrong = [counter for counter in counters if counter.drift]
    if as_json:
        rows = [{**counter._asdict(), "drift": counter.drift} for counter in counters]
        print_json({"rebuilt": not only_check, "wrong": len(wrong), "counters": rows})
    else:
        out.print(_counters_table(counters, only_check=only_check))
        click.echo(f"{len(counters):,} counters, {len(wrong):,} {'are' if only_check else 'were'} wrong")
    if only_check and wrong:
        raise click.exceptions.Exit(1)


@storage.command()
@database_options
@option("--force", is_flag=True, help="Also while clients or workers are connected.")
@option("--unneeded", is_flag=True, help="Also where nothing shows that it is needed: jobs that run are put back.")
@yes_option
@json_option
def rebase(dsn: str | None, embedded: bool, force: bool, unneeded: bool, yes: bool, as_json: bool) -> None:
    """Make a database that was restored from a dump of another cluster fit to work.

    Stop all clients and workers of the restored database before. Jobs keep their order; those that ran when the dump
    was made go first and do not count an attempt. One transaction: it happens as a whole, or not at all. Where it is not
    needed nothing is done.

    \b
    Examples:
      pg_dump app | psql --dbname app_copy && awa storage rebase --dsn postgresql:///app_copy
      awa storage rebase --yes --json
    """
    with _engine(dsn, embedded, lock_timeout=10.0) as conn:
        needed = needs_rebase(conn)
        if not needed and not unneeded:
            _report_rebase(False, {"running": 0, "available": 0, "completed": 0}, as_json)
            return
        sessions = live_sessions(conn)
        if sessions and not force:
            names = ", ".join(f"{session.application_name} (server process {session.pid})" for session in sessions)
            raise StorageBusy(f"connected to this database: {names}; stop them first, or insist with --force")
        ask(f"Rebase database {conn.info.dbname!r} on {conn.info.host or 'the local server'}?", yes=yes)
        with Progress(
            SpinnerColumn(), TextColumn("rebasing"), console=err, transient=True, disable=not err.is_terminal
        ) as progress:
            progress.add_task("", total=None)
            done = rebase_storage(conn, force=unneeded)
    _report_rebase(needed or unneeded, done._asdict(), as_json)


@storage.command()
@database_options
@option("--force", is_flag=True, help="Also when the current slot is neither old nor large enough.")
@json_option
@click.argument("ring", type=click.Choice(RINGS))
def rotate(dsn: str | None, embedded: bool, force: bool, as_json: bool, ring: Ring) -> None:
    """Seal a ring's current slot and go on with an empty one, which workers do by themselves.

    Prints the verdict: rotated, idle (the slot is empty), young (neither old nor large enough), held (no slot is free),
    raced (somebody else has just done it), locked (somebody keeps a table of it locked).

    \b
    Example:
      awa storage rotate claim --force
    """
    with _engine(dsn, embedded, lock_timeout=1.0) as conn:
        check_rebase(conn)
        verdict = rotate_ring(conn, ring, force=force)
    if as_json:
        print_json({"ring": ring, "verdict": verdict})
    else:
        click.echo(f"ring {ring}: {verdict}")


@storage.command()
@database_options
@json_option
@click.argument("ring", type=click.Choice(RINGS))
def prune(dsn: str | None, embedded: bool, as_json: bool, ring: Ring) -> None:
    """Empty the oldest sealed slot of a ring that may be, which workers do by themselves.

    Prints what became of each slot that was looked at: pruned, or why it is held. At most one is pruned.

    \b
    Example:
      awa storage prune claim
    """
    with _engine(dsn, embedded, lock_timeout=1.0) as conn:
        check_rebase(conn)
        verdicts = prune_ring(conn, ring)
    if as_json:
        slots = [{"slot": verdict.slot, "pruned": verdict.is_pruned, "reason": verdict.reason} for verdict in verdicts]
        print_json({"ring": ring, "slots": slots})
        return
    for verdict in verdicts:
        click.echo(f"ring {ring}, slot {verdict.slot}: {verdict.reason or 'pruned'}")
    if not verdicts:
        click.echo(f"ring {ring}: no sealed slot holds anything")


def _report_rebase(done: bool, counts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json({"rebased": done, **counts})
    elif not done:
        click.echo("nothing to do: no stored transaction id lies in the future")
    else:
        click.echo(
            f"rebased: {counts['available']:,} jobs wait, {counts['running']:,} that ran were put before them, "
            f"{counts['completed']:,} are kept as completed"
        )


def _slots_table(slots: list[SlotStatus]) -> Table:
    table = Table()
    for name in ("ring", "slot", "state", "in use for", "sealed for", "size", "held because", "held for"):
        table.add_column(
            name, justify="right" if name in ("slot", "in use for", "sealed for", "size", "held for") else "left"
        )
    for ring in RINGS:
        of_ring = [slot for slot in slots if slot.ring == ring]
        for slot in of_ring:
            used = slot.is_current or slot.sealed_at is not None
            state = "current" if slot.is_current else "closed" if slot.closed_at else "sealed" if used else "empty"
            since = format_age(slot.began_at if used else None)
            held = ("", "") if slot.held_reason is None else (slot.held_reason, format_age(slot.held_since))
            row = (ring, str(slot.slot), state, since, format_age(slot.sealed_at), format_size(slot.bytes), *held)
            table.add_row(*map(Text, row), end_section=slot is of_ring[-1])
    return table


def _settings_table(kept: StorageSettings) -> Table:
    table = Table(show_header=False)
    for name, value in asdict(kept).items():
        table.add_row(name.replace("_", " "), format_span(value) if name in SPANS else format_size(value))
    return table


def _counters_table(counters: list[TerminalCount], *, only_check: bool) -> Table:
    table = Table()
    before, after = ("counted", "there are") if only_check else ("before", "after")
    for name in ("ring", "slot", "queue", "state", before, after, "difference"):
        table.add_column(name, justify="left" if name in ("ring", "queue", "state") else "right")
    for counter in counters:
        numbers = (f"{counter.counted:,}", f"{counter.actual:,}", f"{counter.drift:+,}" if counter.drift else "")
        style = "bold red" if counter.drift else ""
        row = (counter.ring, str(counter.slot), counter.queue, counter.state, *numbers)
        table.add_row(*(Text(text, style) for text in row))
    return table
