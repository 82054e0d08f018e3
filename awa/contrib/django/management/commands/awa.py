"""`manage.py awa ...`: the commands of `awa` on Django's database."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from django.core.management.base import BaseCommand

from awa.contrib.django.conf import awa_settings
from awa.contrib.django.conninfo import conninfo
from awa.partitions import PartitionedQueue
from awa_cli.main import default_options, main

OF_DJANGO: Final = ("--settings", "--pythonpath")
AUTOLOAD: Final = "awa.contrib.django.autoload"


class Command(BaseCommand):
    """The click group of `awa`, with defaults from the project's settings."""

    help = "awa: a PostgreSQL job queue. `manage.py awa --help` lists the commands."
    requires_system_checks: Sequence[str] = []

    def run_from_argv(self, argv: list[str]) -> None:
        """From the command line: everything after `awa` is awa's, but for the options that manage.py itself has read."""
        name = f"{os.path.basename(argv[0])} {argv[1]}"  # noqa: PTH119 - text, not a file
        with awas_database_is_djangos():
            arguments = without_options_of_django(argv[2:])
            main(arguments, prog_name=name, default_map=defaults(arguments))

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """For `call_command("awa", "queue", "list")`."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, *args: Any, **options: Any) -> None:
        """From `call_command`; like the command line, it ends in SystemExit with awa's exit code unless that is 0."""
        try:
            with awas_database_is_djangos():
                arguments = [*args, *options["arguments"]]
                main(arguments, prog_name="manage.py awa", default_map=defaults(arguments))
        except SystemExit as end:
            if end.code:
                raise


def defaults(arguments: Sequence[str]) -> dict[str, Any]:
    """The database of every command unless `--embedded` asks for another; queues, and the modules of `worker`."""
    database = {} if "--embedded" in arguments else {"dsn": conninfo}
    found = default_options(
        # Functions, because --help shows a default that is a value, and the first of these may hold a password.
        **database,
        queues=lambda: dict(awa_settings().queues),
        default_queue=default_queue,
        imports=lambda: (AUTOLOAD,),
    )
    found["enqueue"]["queue"] = default_queue
    return found


def default_queue() -> PartitionedQueue:
    """`AWA["DEFAULT_QUEUE"]`, of which a slash is no part that the command line would read."""
    queue = awa_settings().default_queue
    return PartitionedQueue(queue, 1) if isinstance(queue, str) else queue


@contextmanager
def awas_database_is_djangos() -> Iterator[None]:
    """For the command's life AWA_DSN is no default: a worker must not serve another database than Django enqueues in."""
    before = os.environ.pop("AWA_DSN", None)
    try:
        yield
    finally:
        if before is not None:
            os.environ["AWA_DSN"] = before


def without_options_of_django(arguments: Sequence[str]) -> list[str]:
    """`arguments` without `--settings x` and `--pythonpath x`, which manage.py has heeded already.

    >>> without_options_of_django(["queue", "list", "--settings=shop.settings", "--json"])
    ['queue', 'list', '--json']
    """
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument in OF_DJANGO:
            next(rest, None)
        elif argument.partition("=")[0] not in OF_DJANGO:
            kept.append(argument)
    return kept
