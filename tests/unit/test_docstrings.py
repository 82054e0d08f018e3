"""The examples in docstrings do what they say, against a real database."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from types import ModuleType

import pytest

import awa
import awa_cli

FLAGS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
MODULES = [
    "awa",
    "awa_cli",
    *(
        info.name
        for package in (awa, awa_cli)
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        # Django's modules need its settings: tests/contrib/django runs their examples.
        if not info.name.endswith("__main__")
        and not info.name.startswith("awa.contrib.django")
        # Loads whatever application the working directory has.
        and info.name != "awa.contrib.flask.autoload"
    ),
]


def examples_of(module: ModuleType) -> list[doctest.DocTest]:
    """The docstrings of a module that have examples."""
    found = doctest.DocTestFinder().find(module, module.__name__)
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", [name for name in MODULES if examples_of(importlib.import_module(name))])
def test_examples_do_what_they_say(name: str, dsn: str, client: awa.Client) -> None:
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    said: list[str] = []
    for test in examples_of(importlib.import_module(name)):
        test.globs.update(awa=awa, dsn=dsn, client=client)
        runner.run(test, out=said.append)
    assert not "".join(said)
    assert runner.failures == 0
    assert runner.tries > 0


def test_there_are_examples_throughout() -> None:
    assert len([name for name in MODULES if examples_of(importlib.import_module(name))]) >= 10
