"""`flask awa ...`: the commands of `awa`, on the application's database."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from flask import Flask
from flask.cli import ScriptInfo

from awa.errors import ConfigurationError
from awa_cli.mounted import Command, mounted

AUTOLOAD: Final = "awa.contrib.flask.autoload"


def awa_command(app: Flask) -> Command:
    """The command for `app.cli`: everything after `awa` is awa's."""

    def run(arguments: Sequence[str], info: Any) -> None:
        from awa_cli.main import main  # all commands and what they need: not for a web server

        with own_database(app):
            main(with_imports(app, arguments, info), prog_name="flask awa", default_map=defaults(app, arguments))

    return mounted("awa", run, "awa: a PostgreSQL job queue. `flask awa --help` lists the commands.")


def defaults(app: Flask, arguments: Sequence[str]) -> dict[str, Any]:
    """The database of every command unless `--embedded` asks for another; the queues of `worker`."""
    from awa_cli.main import default_options

    # Functions, because --help shows a default that is a value, and a connection string may hold a password.
    given = {
        "dsn": None if "--embedded" in arguments else app.config["AWA_DSN"],
        "listen_dsn": app.config["AWA_LISTEN_DSN"],
        "queues": app.config["AWA_QUEUES"],
    }
    return default_options(**{name: lambda value=value: value for name, value in given.items() if value is not None})


def with_imports(app: Flask, arguments: Sequence[str], info: Any) -> list[str]:
    """`arguments`, with the application among what each worker process imports."""
    if arguments[:1] not in (["worker"], ("worker",)):
        return [*arguments]
    if isinstance(info, ScriptInfo):
        if info.create_app is not None:
            raise ConfigurationError("worker processes import the application by name: start them with `flask --app NAME`")
        if info.app_import_path:
            os.environ["FLASK_APP"] = info.app_import_path  # for the processes, which are told by their environment
    imports = [AUTOLOAD, *app.config["AWA_IMPORTS"]]
    return ["worker", *(word for name in imports for word in ("--import", name)), *arguments[1:]]


@contextmanager
def own_database(app: Flask) -> Iterator[None]:
    """For the command's life AWA_DSN is no default: a worker must not serve another database than the views enqueue in."""
    names = [name for name in ("AWA_DSN", "AWA_LISTEN_DSN") if app.config["AWA_DSN"] is not None]
    before = {name: value for name in names if (value := os.environ.pop(name, None)) is not None}
    try:
        yield
    finally:
        os.environ.update(before)
