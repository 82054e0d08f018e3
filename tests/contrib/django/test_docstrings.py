"""The examples in the docstrings of awa.contrib.django do what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import awa
import awa.contrib.django
from tests.contrib.django import project
from tests.unit.test_docstrings import FLAGS, examples_of

MODULES = [
    info.name
    for info in pkgutil.walk_packages(awa.contrib.django.__path__, "awa.contrib.django.")
    if info.name != "awa.contrib.django.tasks" or project.HAS_TASKS
]


@pytest.mark.usefixtures("djangos_database")
@pytest.mark.parametrize("name", [name for name in MODULES if examples_of(importlib.import_module(name))])
def test_examples_do_what_they_say(name: str) -> None:
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    said: list[str] = []
    for test in examples_of(importlib.import_module(name)):
        runner.run(test, out=said.append)
    assert not "".join(said)
    assert runner.tries > 0
