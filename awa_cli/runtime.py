"""`awa runtime`: which processes work."""

from __future__ import annotations

import click
from attrs import asdict
from rich.table import Table
from rich.text import Text

from awa import Client
from awa_cli.options import database, database_options, json_option, out, print_json


@click.group()
def runtime() -> None:
    """Look at the worker processes."""


@runtime.command("list")
@database_options
@json_option
def list_runtimes(dsn: str | None, embedded: bool, as_json: bool) -> None:
    """Show the worker processes, who leads, and who died within the last day.

    \b
    Example:
      awa runtime list --json | jq '.runtimes[] | select(.dead_at == null) | .pid'
    """
    with database(dsn, embedded) as url, Client(url) as client:
        runtimes = client.list_runtimes()
    if as_json:
        print_json({"runtimes": [asdict(one) for one in runtimes]})
        return
    table = Table()
    for heading in ("host", "pid", "queues", "release", "started", "last seen", "state"):
        table.add_column(heading)
    for one in runtimes:
        state = f"dead since {one.dead_at:%F %T}" if one.dead_at else "leads" if one.is_leader else "works"
        queues = ", ".join(f"{name}:{n}" for name, n in one.queues.items())
        times = (f"{one.started_at:%F %T}", f"{one.last_seen:%F %T}")
        table.add_row(*map(Text, (one.hostname, str(one.pid), queues, one.release, *times, state)))
    out.print(table)
