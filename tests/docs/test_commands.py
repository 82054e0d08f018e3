"""Every command in the documentation is one that `awa` understands."""

from __future__ import annotations

import click
import pytest

from awa_cli.main import cli
from tests.docs.pages import commands, pages

CALLS = [pytest.param(call, id=where) for page in pages() for where, call in commands(page)]


def understand(arguments: list[str]) -> click.Context:
    """What click makes of a command line, short of running it."""
    command: click.Command = cli
    rest = list(arguments)
    while isinstance(command, click.Group):
        name = rest.pop(0)
        assert name in command.commands, f"there is no awa {name}"
        command = command.commands[name]
    return command.make_context("awa", rest)


@pytest.mark.parametrize("arguments", CALLS)
def test_a_command_on_a_page_is_understood(arguments: list[str]) -> None:
    assert understand(arguments).params is not None


def test_the_pages_have_commands_and_wrong_ones_are_found() -> None:
    assert len(CALLS) > 40
    for wrong in ("queue pose email", "worker --queues email", "enqueue --fiel x", "job show x"):
        with pytest.raises((click.ClickException, AssertionError)):
            understand(wrong.split())
