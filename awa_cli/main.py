"""The command group, and the one place where errors become exit codes."""

from __future__ import annotations

import sys

import click
import psycopg
from rich.markup import escape

from awa import AwaError, ConfigurationError, __version__
from awa_cli.bench.command import bench
from awa_cli.demo import demo
from awa_cli.enqueue import enqueue
from awa_cli.jobs import job, queue
from awa_cli.migrate import migrate
from awa_cli.options import err
from awa_cli.runtime import runtime
from awa_cli.worker import worker

EXIT_CODES = """\b
Exit codes:
  0  done
  1  it failed, or a worker had to give back jobs that were running
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


for command in (bench, demo, enqueue, job, migrate, queue, runtime, worker):
    cli.add_command(command)


def main() -> None:
    """Run `awa`."""
    try:
        # Outside standalone mode click returns the code of an Exit rather than let it through; commands return None.
        sys.exit(cli.main(standalone_mode=False))
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


def _say_error(message: str) -> None:
    # Escaped: a message may well hold brackets, as `awa-queue[embedded]` does.
    err.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
