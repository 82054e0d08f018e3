"""Which statements touch which table: read out of sql/functions, held against mutations.toml, told to the model.

`python -m tla.mutations` prints what breaks the contract; `python -m tla.check` writes DeadTuples/Mutations.tla first.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

HERE: Final = Path(__file__).parent
CONTRACT: Final = HERE / "DeadTuples" / "mutations.toml"
MODULE: Final = HERE / "DeadTuples" / "Mutations.tla"
FUNCTIONS: Final = HERE.parent / "sql" / "functions"

DYNAMIC: Final = "%"
"""The table of a statement whose text does not name it."""

_TABLE = r"awa\.[\w%$]+"
_STATEMENT = re.compile(
    rf"\b(?P<verb>INSERT\s+INTO|UPDATE|DELETE\s+FROM|TRUNCATE(?:\s+TABLE)?|MERGE\s+INTO)\s+(?:ONLY\s+)?"
    rf"(?P<tables>{_TABLE}(?:\s*,\s*{_TABLE})*)"
)


@frozen
class Contract:
    """What may be done to which table, beside INSERT.

    `hot` tables know TRUNCATE only; `others` maps a table and a verb to the functions that may; `dynamic` a function to the
    verbs that it may use in statements which do not name their table. `exempt` functions are not looked at.
    """

    hot: frozenset[str]
    others: Mapping[str, Mapping[str, frozenset[str]]]
    dynamic: Mapping[str, frozenset[str]]
    exempt: frozenset[str] = frozenset()

    @property
    def tables(self) -> frozenset[str]:
        """Every table it speaks of."""
        return self.hot | self.others.keys()


def load_contract(path: Path = CONTRACT) -> Contract:
    """The contract in mutations.toml."""
    table = tomllib.loads(path.read_text("utf-8"))
    return Contract(
        frozenset(table["rings"]["hot"]),
        {name: {verb: frozenset(by) for verb, by in verbs.items()} for name, verbs in table["others"].items()},
        {name: frozenset(verbs) for name, verbs in table.get("dynamic", {}).items()},
        frozenset(table.get("exempt", ())),
    )


def mutations_of(sql: str) -> set[tuple[str, str]]:
    """The verbs and tables of a function's statements, an upsert being an INSERT and an UPDATE.

    >>> sorted(mutations_of("INSERT INTO awa.a VALUES (1) ON CONFLICT (x) DO UPDATE SET y = 2; TRUNCATE awa.b_3, awa.b_%s"))
    [('INSERT', 'a'), ('TRUNCATE', 'b'), ('UPDATE', 'a')]
    """
    text = re.sub(r"--[^\n]*", "", sql)
    found: set[tuple[str, str]] = set()
    statements = list(_STATEMENT.finditer(text))
    ends = [*(statement.start() for statement in statements[1:]), len(text)]
    for statement, end in zip(statements, ends, strict=bool(statements)):
        verb = statement["verb"].split()[0]
        tables = {_parent(name.strip()) for name in statement["tables"].split(",")}
        found |= {(verb, table) for table in tables}
        rest = text[statement.end() : end].partition(";")[0]
        if verb == "INSERT" and re.search(r"\bDO\s+UPDATE\b", rest):
            found |= {("UPDATE", table) for table in tables}
    return found


def _parent(name: str) -> str:
    bare = name.removeprefix("awa.")
    return DYNAMIC if bare.startswith("%") else re.sub(r"_(?:%\d*\$?s|[0-7])$", "", bare)


def read_functions(folder: Path = FUNCTIONS) -> dict[str, set[tuple[str, str]]]:
    """The mutations of every function, by its name."""
    return {path.stem: mutations_of(path.read_text("utf-8")) for path in sorted(folder.glob("*.sql"))}


def breaches(contract: Contract, functions: Mapping[str, Iterable[tuple[str, str]]]) -> list[str]:
    """What breaks the contract, and what the contract allows and nobody does; nothing when both agree."""
    found = [f"{name}: {CONTRACT.name} exempts it, and there is none" for name in sorted(contract.exempt - functions.keys())]
    used: set[tuple[str, str, str]] = set()
    for function, mutations in functions.items():
        for verb, table in () if function in contract.exempt else sorted(mutations):
            used.add((function, verb, table))
            if table == DYNAMIC:
                allowed = verb in contract.dynamic.get(function, ())
            elif table in contract.hot:
                allowed = verb in ("INSERT", "TRUNCATE")
            elif table in contract.others:
                allowed = verb == "INSERT" or function in contract.others[table].get(verb, ())
            else:
                found.append(f"{function}: {table} has no line in {CONTRACT.name}")
                continue
            if not allowed:
                found.append(f"{function}: {verb} of {table} is not in {CONTRACT.name}")
    promised = {(by, verb, table) for table, verbs in contract.others.items() for verb, many in verbs.items() for by in many}
    promised |= {(by, verb, DYNAMIC) for by, verbs in contract.dynamic.items() for verb in verbs}
    found += [
        f"{by}: {CONTRACT.name} says {verb} of {table}, and it does not" for by, verb, table in sorted(promised - used)
    ]
    return found


def module_text(contract: Contract, functions: Mapping[str, Iterable[tuple[str, str]]]) -> str:
    """The TLA+ module that says what every function does."""
    looked_at = {by: many for by, many in functions.items() if by not in contract.exempt}
    facts = [(by, verb, table) for by, many in looked_at.items() for verb, table in sorted(many) if table != DYNAMIC]
    lines = ",\n    ".join(f'<<"{by}", "{verb}", "{table}">>' for by, verb, table in facts)
    tables = sorted({table for _, _, table in facts} | contract.tables)
    return (
        "---- MODULE Mutations ----\n"
        "(* Made from sql/functions and mutations.toml by tla/mutations.py; not to be edited. *)\n"
        f"HotRings == {_set(sorted(contract.hot))}\n"
        f"Tables == {_set(tables)}\n"
        f"Mutations == {{\n    {lines}}}\n"
        "====\n"
    )


def write_module() -> None:
    """Write DeadTuples/Mutations.tla."""
    MODULE.write_text(module_text(load_contract(), read_functions()), "utf-8")


def _set(names: Iterable[str]) -> str:
    return "{" + ", ".join(f'"{name}"' for name in names) + "}"


if __name__ == "__main__":
    broken = breaches(load_contract(), read_functions())
    print("\n".join(broken) or "sql/functions keep the contract")
    sys.exit(1 if broken else 0)
