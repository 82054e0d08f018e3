"""The command group, and the one place where errors become exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click
import psycopg
from rich.markup import escape

from awa import AwaError, ConfigurationError, __version__
from awa_cli.bench.command import bench
from awa_cli.demo import demo
from awa_cli.dlq import dlq
from awa_cli.enqueue import enqueue
from awa_cli.jobs import job
from awa_cli.migrate import migrate
from awa_cli.options import err
from awa_cli.queues import queue
from awa_cli.runtime import runtime
from awa_cli.storage import storage
from awa_cli.worker import worker

EXIT_CODES = """\b
Exit codes:
  0  done
  1  it failed, a worker had to give back jobs that were running, a named job was not there or not in the right
     state, a question was answered with no, or storage rebuild-terminal-counters --check found a difference
  2  the command line or a setting makes no sense
  3  migrate --check: the schema is behind or ahead of this release
  4  enqueue: another job has the unique key
"""


@click.group(
    context_settings={"auto_envvar_prefix": "AWA", "help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=EXIT_CODES,
)
@click.version_option(__version__, prog_name="awa")
def cli() -> None:
    """awa: a PostgreSQL job queue.

    \b
    Examples:
      awa migrate --dsn postgresql://localhost/app
      awa worker --queues email:4,default:10 --import app.tasks
      awa demo
    """


for command in (bench, demo, dlq, enqueue, job, migrate, queue, runtime, storage, worker):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None, **settings: Any) -> NoReturn:
    """Run `awa`.

    Args:
        arguments: instead of the process's.
        settings: of click's context, as another program has them that offers these commands: prog_name, default_map.
    """
    try:
        # Outside standalone mode click returns the code of an Exit rather than let it through; commands return None.
        sys.exit(cli.main(arguments, standalone_mode=False, **settings))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        err.print("aborted")
        sys.exit(1)
    except AwaError as error:
        _say_error(str(error))
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)
    except psycopg.OperationalError as error:
        _say_error(f"database: {' '.join(str(error).split())}")
        sys.exit(1)


def default_options(**defaults: Any) -> dict[str, Any]:
    """A default map that gives every command the defaults of those options that it has.

    >>> default_options(dsn="dbname=app")["queue"]["list"]
    {'dsn': 'dbname=app'}
    """

    def of(command: click.Command) -> dict[str, Any]:
        if isinstance(command, click.Group):
            return {name: of(below) for name, below in command.commands.items()}
        return {option.name: defaults[option.name] for option in command.params if option.name in defaults}

    return of(cli)


def _say_error(message: str) -> None:
    # Escaped: a message may well hold brackets, as `awa-queue[embedded]` does.
    err.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
