"""Every command explains itself."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import awa
from awa_cli.main import cli
from tests.cli.commands import ROOT, run


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command and group below `command`, with the words that lead to it."""
    yield path, command
    if isinstance(command, click.Group):
        for name, below in sorted(command.commands.items()):
            yield from commands(below, (*path, name))


ALL = list(commands(cli))
LEAVES = [(path, command) for path, command in ALL if not isinstance(command, click.Group)]


def test_there_are_these_commands() -> None:
    assert {" ".join(path) for path, _ in LEAVES} >= {
        "bench drain",
        "bench enqueue",
        "bench pickup",
        "bench sustained",
        "demo",
        "dlq list",
        "dlq move",
        "dlq purge",
        "dlq retry",
        "job cancel",
        "job delete",
        "job discard",
        "job list",
        "job retry",
        "enqueue",
        "job show",
        "migrate",
        "queue counts",
        "queue list",
        "queue pause",
        "queue resume",
        "storage prune",
        "storage rebase",
        "storage rebuild-terminal-counters",
        "storage rotate",
        "storage settings",
        "storage status",
        "queue shards",
        "worker",
    }


@pytest.mark.parametrize("path", [path for path, _ in LEAVES], ids=" ".join)
def test_help_has_an_example_and_an_environment_variable_for_every_option(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, [*path, "--help"])
    assert result.exit_code == 0
    assert f"awa {' '.join(path)}" in result.output.split("Example", 1)[1]

    context = click.Context(cli, info_name="awa", auto_envvar_prefix="AWA")
    command: click.Command = cli
    for word in path:
        assert isinstance(command, click.Group)
        command = command.commands[word]
        context = click.Context(command, info_name=word, parent=context)
    options = [option for option in command.params if isinstance(option, click.Option)]
    assert "--dsn" in {name for option in options for name in option.opts}
    for option in options:
        record = option.get_help_record(context)
        assert record is not None
        assert "[env var: AWA_" in record[1] or "; env var: AWA_" in record[1]
        assert option.help
    assert " ".join(result.output.split()).count("env var:") == len(options)


@pytest.mark.parametrize("path", [path for path, command in ALL if isinstance(command, click.Group)], ids=" ".join)
def test_a_group_shows_its_commands(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, [*path, "--help"])
    group = next(command for other, command in ALL if other == path)
    assert isinstance(group, click.Group)
    assert result.exit_code == 0
    for name, command in group.commands.items():
        assert f"  {name} " in result.output
        assert command.help


def test_the_exit_codes_are_documented() -> None:
    result = CliRunner().invoke(cli, ["--help"])
    assert "Exit codes:" in result.output
    assert all(f"\n    {code}  " in result.output for code in range(5))


def test_the_version_is_the_packages() -> None:
    done = run(None, "--version")
    assert (done.returncode, done.stdout) == (0, f"awa, version {awa.__version__}\n")


def test_the_script_that_pip_installs_is_this_command() -> None:
    project = tomllib.loads(Path(ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["scripts"] == {"awa": "awa_cli.main:main"}
