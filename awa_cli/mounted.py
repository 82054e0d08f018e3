"""The commands of `awa` as one command of another click program, which passes everything after its name on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from awa import ConfigurationError

Command = click.Command


def mounted(name: str, run: Callable[[Sequence[str], Any], None], help: str) -> Command:
    """A command that hands its arguments, `--help` among them, to `run`, with what the program keeps in its context."""

    @click.command(
        name,
        help=help,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    @click.pass_context
    def command(ctx: click.Context, arguments: tuple[str, ...]) -> None:
        try:
            run(arguments, ctx.find_root().obj)
        except ConfigurationError as error:
            raise click.UsageError(str(error)) from error

    return command
