"""`awa migrate`."""

from __future__ import annotations

import click
from rich.progress import Progress

from awa.errors import SchemaNewer
from awa.migrate import Plan, Step, plan_migration
from awa.migrate import migrate as run_migration
from awa.postgres import Connection, connect
from awa_cli.options import database, database_options, err, json_option, option, out, print_json

BEHIND_OR_AHEAD = 3


@click.command()
@database_options
@option("--plan", "only_plan", is_flag=True, help="Show what would be done, and do nothing.")
@option("--sql", "only_sql", is_flag=True, help="Print the SQL that would run, for Alembic, Flyway or review.")
@option("--check", "only_check", is_flag=True, help="Exit 3 when the schema is behind or ahead of this release, else 0.")
@option("--lock-timeout", type=click.FloatRange(0.001), default=5.0, help="Seconds to wait for any lock of live traffic.")
@option("--statement-timeout", type=click.FloatRange(0.001), default=300.0, help="Seconds any statement may take.")
@json_option
def migrate(
    dsn: str | None,
    embedded: bool,
    only_plan: bool,
    only_sql: bool,
    only_check: bool,
    lock_timeout: float,
    statement_timeout: float,
    as_json: bool,
) -> None:
    """Bring the database's awa schema to this release.

    Everything happens in one transaction under one lock: of two deploys at once, one waits and then finds nothing to do.

    \b
    Examples:
      awa migrate                      apply what is missing
      awa migrate --check || exit 1    in a health check
      awa migrate --sql > awa.sql      for another migration tool
    """
    if only_plan + only_sql + only_check > 1:
        raise click.UsageError("--plan, --sql and --check exclude each other")
    with database(dsn, embedded) as url, connect(url, "awa migrate") as conn:
        if only_check:
            _check(conn, as_json)
            return
        if only_plan or only_sql:
            plan = plan_migration(conn)
            if only_sql:
                click.echo(plan.script, nl=False)
            else:
                _report(plan, as_json, applied=False)
            return
        with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
            bar = progress.add_task("migrating", total=None)

            def on_step(index: int, total: int, step: Step) -> None:
                progress.update(bar, completed=index, total=total, description=step.label)

            plan = run_migration(conn, lock_timeout=lock_timeout, statement_timeout=statement_timeout, on_step=on_step)
        _report(plan, as_json, applied=True)


def _check(conn: Connection, as_json: bool) -> None:
    try:
        plan = plan_migration(conn)
    except SchemaNewer as error:
        status, message = "ahead", str(error)
    else:
        status = "behind" if plan.steps else "current"
        message = f"{len(plan.steps)} steps to do: run `awa migrate`" if plan.steps else f"version {plan.to_version}"
    if as_json:
        print_json({"status": status, "message": message})
    else:
        out.print(f"schema is {status}: {message}", highlight=False, soft_wrap=True)
    if status != "current":
        raise click.exceptions.Exit(BEHIND_OR_AHEAD)


def _report(plan: Plan, as_json: bool, *, applied: bool) -> None:
    if as_json:
        print_json(
            {
                "applied": applied,
                "from_version": plan.from_version,
                "to_version": plan.to_version,
                "steps": [step.label for step in plan.steps],
            }
        )
        return
    for step in plan.steps:
        out.print(f"  {step.label}", highlight=False)
    if not plan.steps:
        out.print(f"nothing to do: the schema is at version {plan.to_version}", highlight=False)
    elif applied:
        out.print(f"migrated from version {plan.from_version} to {plan.to_version}", highlight=False)
    else:
        out.print(f"would migrate from version {plan.from_version} to {plan.to_version}", highlight=False)
