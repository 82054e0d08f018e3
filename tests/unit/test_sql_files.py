"""Every function and view opens with its contract, and keeps it."""

from __future__ import annotations

import re
from functools import cache

import pytest
from attrs import frozen

from awa.migrate import SqlFile, load_sql

TREE = load_sql()
FILES = [*TREE.functions, *TREE.views]
FIELDS = ("Reads", "Writes", "Locks", "Model")
IDS = [file.path for file in FILES]

# The texts that say what a fact is, and the only files that may.
FACTS = {
    r"pg_visible_in_snapshot": {"is_consumed", "window_ranges", "window_rows"},
    r"attempt\s*(\+\s*1\s*)?(>=|<)\s*(p_)?max_attempts": {"is_exhausted"},
    r"ORDER BY \w*\.?generation DESC": {"current_slot"},
    r"pg_try_advisory_xact_lock\(1635213569": {"try_lock_lane"},
    r"pg_advisory_xact_lock\(1635213569": {"wait_lock_lane"},
    r"pg_try_advisory_xact_lock\(1635213570": {"try_lock_claim"},
    r"pg_try_advisory_xact_lock\(\s*1635213575": {"lane_in_transaction"},
}

# Called by name from other people's SQL: several signatures, and parameters without a prefix.
PUBLIC = {"enqueue"}


@frozen
class Contract:
    """A file's header and what follows it."""

    purpose: str
    fields: dict[str, str]
    body: str


def contract_of(file: SqlFile) -> Contract:
    """Parse the comment lines at the head of a file."""
    lines = file.text.splitlines()
    head = [line.removeprefix("--").strip() for line in lines[: next(n for n, line in enumerate(lines) if line[:2] != "--")]]
    purpose: list[str] = []
    fields: dict[str, str] = {}
    last = None
    for line in head:
        match = re.match(rf"({'|'.join(FIELDS)}):\s+(\S.*)$", line)
        if match:
            last = match[1]
            fields[last] = match[2]
        elif last is None:
            purpose.append(line)
        else:
            fields[last] += " " + line
    body = "\n".join(re.sub(r"--.*", "", line) for line in lines[len(head) :])
    return Contract(" ".join(purpose), fields, body)


@cache
def tables() -> frozenset[str]:
    """The tables that the migrations make, ring parents included."""
    text = "\n".join(file.text for file in TREE.migrations)
    return frozenset(re.findall(r"CREATE TABLE awa\.(\w+)", text))


def split_references(text: str) -> tuple[set[str], list[str]]:
    """The tables that a Reads or Writes line names itself, and the files to which it refers for more."""
    if text == "nothing":
        return set(), []
    reference = re.search(r"(?:and |and, [\w ]+, )?what ([\w ]+?) (?:read|write)s?$", text)
    own = text[: reference.start()] if reference else text
    return {name.strip() for name in own.split(",") if name.strip()}, reference[1].split(" and ") if reference else []


def named_tables(file: SqlFile, field: str) -> set[str]:
    """The tables of a file's Reads or Writes line, with those of the files to which it refers."""
    found, referred = split_references(contract_of(file).fields[field])
    return found.union(*(named_tables(others()[name], field) for name in referred))


@cache
def others() -> dict[str, SqlFile]:
    """Every function and view by name."""
    return {file.name: file for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_a_file_opens_with_purpose_reads_writes_locks_and_model(file: SqlFile) -> None:
    contract = contract_of(file)
    assert re.match(rf"{file.name}: \S.+\.|{file.name}: \S.+", contract.purpose)
    assert tuple(contract.fields) == FIELDS
    assert contract.fields["Model"] == "".join(word.capitalize() for word in file.name.split("_"))


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_a_file_defines_one_object_that_is_named_as_the_file(file: SqlFile) -> None:
    made = re.findall(r"CREATE\s+(?:OR REPLACE\s+)?(\w+)\s+([\w.]+)", contract_of(file).body)
    kind = "FUNCTION" if file.path.startswith("functions/") else "VIEW"
    made = [(what, name) for what, name in made if what not in ("TRIGGER", "TEMPORARY")]
    assert set(made) == {(kind, f"awa.{file.name}")}
    assert len(made) == 1 or file.name in PUBLIC


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_the_tables_named_in_a_header_exist(file: SqlFile) -> None:
    assert named_tables(file, "Reads") | named_tables(file, "Writes") <= tables()


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_a_file_writes_exactly_the_tables_that_its_header_says(file: SqlFile) -> None:
    contract = contract_of(file)
    written = re.findall(r"(?:INSERT INTO|UPDATE|DELETE FROM|TRUNCATE)\s+awa\.(\w+)", contract.body)
    own, referred = split_references(contract.fields["Writes"])
    assert {name.removesuffix("_") for name in written} == own  # awa.leases_%s is a child of leases
    assert all(f"awa.{name}" in contract.body for name in referred)


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_a_file_reads_only_tables_that_its_header_says(file: SqlFile) -> None:
    contract = contract_of(file)
    read = set(re.findall(r"(?:FROM|JOIN)\s+awa\.(\w+)\b(?!\s*\()", contract.body)) & tables()
    assert read <= named_tables(file, "Reads") | named_tables(file, "Writes")


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_what_a_header_says_is_read_is_read_here_or_by_what_is_called(file: SqlFile) -> None:
    contract = contract_of(file)
    bodies, seen, todo = [contract.body], {file.name}, [file.name]
    while todo:
        for name in re.findall(r"awa\.(\w+)", contract_of(others()[todo.pop()]).body):
            if name in others() and name not in seen:
                seen.add(name)
                todo.append(name)
                bodies.append(contract_of(others()[name]).body)
    reached = set(re.findall(r"awa\.(\w+)", "\n".join(bodies)))
    assert named_tables(file, "Reads") <= reached


@pytest.mark.parametrize("pattern", FACTS)
def test_a_fact_has_one_text(pattern: str) -> None:
    said_by = {file.name for file in FILES if re.search(pattern, contract_of(file).body)}
    assert said_by == FACTS[pattern]


@pytest.mark.parametrize("file", TREE.functions, ids=[file.path for file in TREE.functions])
def test_parameters_and_variables_carry_their_prefixes(file: SqlFile) -> None:
    body = contract_of(file).body
    parameters = re.search(rf"awa\.{file.name}\s*\((.*?)\)\s*(?:RETURNS|LANGUAGE)", body, re.DOTALL)
    assert parameters
    for parameter in filter(None, (part.strip() for part in parameters[1].split(","))):
        assert parameter.startswith(("p_", "OUT ")) is (file.name not in PUBLIC), parameter
    declared = re.search(r"\bDECLARE\b(.*?)\bBEGIN\b", body, re.DOTALL)
    for variable in re.findall(r"^\s{4}(\w+)\s", declared[1] if declared else "", re.MULTILINE):
        assert variable.startswith("v_"), variable


def test_migrations_are_numbered_without_gaps() -> None:
    assert [file.version for file in TREE.migrations] == list(range(1, len(TREE.migrations) + 1))
    assert all(re.fullmatch(r"migrations/\d{4}_[a-z_]+\.sql", file.path) for file in TREE.migrations)
