"""The command group, and the one place where errors become exit codes."""

from __future__ import annotations

import sys

import click
import psycopg

from awa import AwaError, ConfigurationError, __version__
from awa_cli.bench.command import bench
from awa_cli.demo import demo
from awa_cli.jobs import job, queue
from awa_cli.migrate import migrate
from awa_cli.options import err
from awa_cli.worker import worker

EXIT_CODES = """\b
Exit codes:
  0  done
  1  it failed, or a worker had to leave running jobs behind
  2  the command line or a setting makes no sense
  3  migrate --check: the schema is behind or ahead of this release
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


for command in (bench, demo, job, migrate, queue, worker):
    cli.add_command(command)


def main() -> None:
    """Run `awa`."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        err.print("aborted")
        sys.exit(1)
    except AwaError as error:
        err.print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)
    except psycopg.OperationalError as error:
        err.print(f"[bold red]error:[/] database: {' '.join(str(error).split())}", highlight=False, soft_wrap=True)
        sys.exit(1)
