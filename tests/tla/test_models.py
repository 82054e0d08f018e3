"""The models through TLC, one small one of each sort: `make tla` runs them all."""

from __future__ import annotations

import shutil

import pytest

from tla.check import check, load_models
from tla.mutations import write_module

MODELS = {model.name: model for model in load_models()}
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="no Java runtime here")


@needs_java
@pytest.mark.parametrize("name", ["dead_tuples", "dead_tuples_bug_completion_deletes"])
def test_a_model_does_what_is_expected(name: str) -> None:
    write_module()
    verdict, output = check(MODELS[name])
    assert verdict.as_expected, output
    assert verdict.states > 0


@needs_java
def test_a_bug_that_is_not_there_is_not_found() -> None:
    from attrs import evolve

    write_module()
    verdict, _ = check(evolve(MODELS["dead_tuples"], expect="NoDeadTupleOnTheHotPath"))
    assert verdict.reason == "must violate NoDeadTupleOnTheHotPath, and holds: the model does not see this bug"
