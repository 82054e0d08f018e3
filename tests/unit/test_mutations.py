"""Which functions may change which tables, and how: the SQL and the contract beside the model say the same."""

from __future__ import annotations

import pytest
from attrs import evolve

from tla.mutations import Contract, breaches, load_contract, module_text, mutations_of, read_functions

CONTRACT = Contract(
    hot=frozenset({"ready_entries"}),
    others={"leases": {"DELETE": frozenset({"finalize"})}},
    dynamic={"prune": frozenset({"TRUNCATE"})},
)
KEPT = {"finalize": {("DELETE", "leases"), ("INSERT", "ready_entries")}, "prune": {("TRUNCATE", "%")}}


def test_sql_functions_keep_the_contract() -> None:
    assert breaches(load_contract(), read_functions()) == []


def test_the_hot_path_is_the_tables_that_no_function_updates_or_deletes_from() -> None:
    functions = {name: many for name, many in read_functions().items() if name not in load_contract().exempt}
    changed = {table for many in functions.values() for verb, table in many if verb in ("UPDATE", "DELETE")}
    assert not changed & load_contract().hot
    assert {
        "ready_entries",
        "lease_claim_batches",
        "receipt_completion_batches",
        "lease_claim_closures",
    } <= load_contract().hot


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("INSERT INTO awa.a (x) SELECT 1", {("INSERT", "a")}),
        ("insert_into := 1; SELECT 1 FROM awa.a FOR UPDATE SKIP LOCKED", set()),
        ("UPDATE awa.a l SET x = 1", {("UPDATE", "a")}),
        ("DELETE FROM awa.a d USING due", {("DELETE", "a")}),
        ("-- DELETE FROM awa.a\nSELECT 1", set()),
        (
            "INSERT INTO awa.a AS q VALUES (1)\n ON CONFLICT (x) DO UPDATE SET x = 2; SELECT 1",
            {("INSERT", "a"), ("UPDATE", "a")},
        ),
        (
            "INSERT INTO awa.a VALUES (1); INSERT INTO awa.b VALUES (1) ON CONFLICT DO NOTHING",
            {("INSERT", "a"), ("INSERT", "b")},
        ),
        ("TRUNCATE awa.a_0, awa.b_7", {("TRUNCATE", "a"), ("TRUNCATE", "b")}),
        ("EXECUTE format('TRUNCATE awa.ready_entries_%s', v_slot)", {("TRUNCATE", "ready_entries")}),
        ("EXECUTE format('TRUNCATE TABLE awa.a_%1$s, awa.b_%1$s', v_slot)", {("TRUNCATE", "a"), ("TRUNCATE", "b")}),
        ("EXECUTE format('DELETE FROM awa.%I', v_child)", {("DELETE", "%")}),
    ],
)
def test_statements_are_found_in_sql(sql: str, found: set[tuple[str, str]]) -> None:
    assert mutations_of(sql) == found


def test_what_keeps_the_contract_breaks_nothing() -> None:
    assert breaches(CONTRACT, KEPT) == []


@pytest.mark.parametrize(
    ("function", "mutation", "complaint"),
    [
        ("finalize", ("DELETE", "ready_entries"), "finalize: DELETE of ready_entries is not in mutations.toml"),
        ("claim", ("UPDATE", "ready_entries"), "claim: UPDATE of ready_entries is not in mutations.toml"),
        ("claim", ("DELETE", "leases"), "claim: DELETE of leases is not in mutations.toml"),
        ("finalize", ("UPDATE", "leases"), "finalize: UPDATE of leases is not in mutations.toml"),
        ("claim", ("INSERT", "news"), "claim: news has no line in mutations.toml"),
        ("prune", ("DELETE", "%"), "prune: DELETE of % is not in mutations.toml"),
    ],
)
def test_any_other_statement_breaks_it(function: str, mutation: tuple[str, str], complaint: str) -> None:
    functions = {**KEPT, function: KEPT.get(function, set()) | {mutation}}
    assert breaches(CONTRACT, functions) == [complaint]


def test_an_exception_that_nobody_needs_breaks_it_too() -> None:
    functions = {**KEPT, "finalize": {("INSERT", "ready_entries")}}
    assert breaches(CONTRACT, functions) == ["finalize: mutations.toml says DELETE of leases, and it does not"]


def test_an_exempt_function_may_do_anything_and_has_to_exist() -> None:
    contract = evolve(CONTRACT, exempt=frozenset({"undo"}))
    undo = {"undo": {("DELETE", "ready_entries")}}
    assert breaches(contract, {**KEPT, **undo}) == []
    assert breaches(contract, KEPT) == ["undo: mutations.toml exempts it, and there is none"]
    assert "undo" not in module_text(contract, {**KEPT, **undo})


def test_the_module_says_what_the_functions_do() -> None:
    text = module_text(CONTRACT, KEPT)
    assert '<<"finalize", "DELETE", "leases">>' in text
    assert 'HotRings == {"ready_entries"}' in text
    assert "%" not in text
