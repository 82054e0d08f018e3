"""The judge of the models: what TLC said, and whether that is what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from tla.check import Model, is_wanted, judge, load_models
from tla.tlc import Outcome, messages, properties_of, read_output


def said(*texts: tuple[int, int, str]) -> str:
    """An output of TLC: code, class and text of each message."""
    return "".join(f"@!@!@STARTMSG {code}:{kind} @!@!@\n{text}\n@!@!@ENDMSG {code} @!@!@\n" for code, kind, text in texts)


DONE = (2193, 0, "Model checking completed. No error has been found.\n  Estimates of the probability")
COUNTS = (2199, 0, "1,234 states generated, 56 distinct states found, 0 states left on queue.")
CLAIMS = (2772, 0, "<ClaimJobs line 3, col 1 to line 3, col 9 of module Lifecycle>: 7:21")
NEVER_PRUNES = (2772, 0, "<PruneRing line 9, col 1 to line 9, col 9 of module Lifecycle>: 0:0")


def model(expect: str = "holds", *, untaken: tuple[str, ...] = ()) -> Model:
    """A model of which this is expected."""
    return Model(
        name="m",
        folder="Lifecycle",
        spec="Lifecycle.tla",
        cfg="Lifecycle.cfg",
        expect=expect,
        bounds="none",
        untaken=untaken,
    )


def test_a_finished_run_holds_and_counts_its_states() -> None:
    assert read_output(said(CLAIMS, DONE, COUNTS)) == Outcome("holds", "", 56)


def test_an_action_that_is_never_taken_is_told() -> None:
    assert read_output(said(CLAIMS, NEVER_PRUNES, DONE, COUNTS)).untaken == ("PruneRing",)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ((2110, 1, "Invariant EndsOnce is violated."), Outcome("invariant", "EndsOnce", 56)),
        ((2107, 1, "Invariant TypeOK is violated by the initial state:\nx = 1"), Outcome("invariant", "TypeOK", 56)),
        ((2112, 1, "Action property Stays is violated."), Outcome("property", "Stays", 56)),
        ((2110, 1, "Invariant Never is violated."), Outcome("property", "Never", 56)),
        ((2114, 1, "Deadlock reached."), Outcome("deadlock", "", 56)),
    ],
)
def test_a_violation_is_read_by_its_name(message: tuple[int, int, str], expected: Outcome) -> None:
    trace = (2121, 1, "The behavior up to this point is:")
    assert read_output(said(message, trace, COUNTS), ["Never", "Stays"]) == expected


def test_the_only_temporal_property_of_a_configuration_is_the_one_that_was_violated() -> None:
    violated = said((2116, 1, "Temporal properties were violated."), COUNTS)
    assert read_output(violated, ["Ends"]).name == "Ends"
    assert read_output(violated, ["Ends", "Begins"]).name == ""


@pytest.mark.parametrize(
    "output",
    [
        said((3002, 1, "Parsing or semantic analysis failed."), COUNTS),
        said((1000, 1, "TLC threw an unexpected exception.\nwhere it did")),
        said(COUNTS),
        "",
        "Error: could not create the Java Virtual Machine",
    ],
)
def test_a_run_without_a_verdict_is_an_error(output: str) -> None:
    assert read_output(output).kind == "error"


def test_an_error_after_success_is_an_error() -> None:
    assert read_output(said(DONE, (1000, 1, "The disk is full."))).kind == "error"


def test_text_within_a_message_is_no_message() -> None:
    assert messages(said((2217, 4, '/\\ x = "Invariant X is violated."'))) == [
        (2217, 4, '/\\ x = "Invariant X is violated."')
    ]
    assert read_output(said((2217, 4, "Invariant X is violated."), DONE)).kind == "holds"


def test_properties_are_read_from_a_configuration() -> None:
    cfg = "SPECIFICATION Spec\nPROPERTIES A B \\* C\nINVARIANTS I\nPROPERTY D\nCONSTANTS\n X = 1"
    assert properties_of(cfg) == ["A", "B", "D"]


def test_what_must_hold_and_holds_is_as_expected() -> None:
    verdict = judge(model(), Outcome("holds", "", 56), 1.24)
    assert (verdict.as_expected, verdict.result, verdict.states, verdict.seconds) == (True, "holds", 56, 1.2)


def test_what_must_fail_and_fails_by_its_name_is_as_expected() -> None:
    assert judge(model("EndsOnce"), Outcome("invariant", "EndsOnce"), 1.0).as_expected
    assert judge(model("deadlock"), Outcome("deadlock"), 1.0).as_expected


@pytest.mark.parametrize(
    ("expect", "outcome", "reason"),
    [
        ("EndsOnce", Outcome("holds"), "must violate EndsOnce, and holds: the model does not see this bug"),
        ("EndsOnce", Outcome("invariant", "TypeOK"), "must violate EndsOnce, and fails in another way: invariant TypeOK"),
        ("EndsOnce", Outcome("deadlock"), "must violate EndsOnce, and fails in another way: deadlock"),
        ("EndsOnce", Outcome("error", "Parsing failed."), "TLC could not check it: Parsing failed."),
        ("deadlock", Outcome("invariant", "TypeOK"), "must violate deadlock, and fails in another way: invariant TypeOK"),
        ("holds", Outcome("invariant", "TypeOK"), "must hold, and does not: invariant TypeOK"),
        ("holds", Outcome("deadlock"), "must hold, and does not: deadlock"),
        ("holds", Outcome("timeout"), "not finished within 300 s"),
        ("holds", Outcome("holds", untaken=("CancelJob", "PruneRing")), "holds, but never takes CancelJob"),
    ],
)
def test_anything_else_is_not_and_says_why(expect: str, outcome: Outcome, reason: str) -> None:
    verdict = judge(model(expect, untaken=("PruneRing",)), outcome, 1.0)
    assert (verdict.as_expected, verdict.reason) == (False, reason)


def test_the_table_of_models_names_files_that_exist_and_every_folder_has_a_bug_that_must_fail() -> None:
    models = load_models()
    folders = {path.name for path in (Path(__file__).parents[2] / "tla").iterdir() if list(path.glob("*.cfg"))}
    assert {m.folder for m in models if m.expect == "holds" and m.size == "small"} == folders
    assert {m.folder for m in models if m.expect != "holds" and m.size == "small"} == folders


def test_every_configuration_is_in_the_table() -> None:
    root = Path(__file__).parents[2] / "tla"
    assert {(m.folder, m.cfg) for m in load_models()} == {(path.parent.name, path.name) for path in root.glob("*/*.cfg")}


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ('name = "x"\nfolder = "Lifecycle"\ncfg = "Lifecycle.cfg"\nbounds = ""', "expect"),
        ('name = "x"\nfolder = "Lifecycle"\ncfg = "No.cfg"\nexpect = "holds"\nbounds = ""', "there is no Lifecycle/No.cfg"),
        (
            'name = "x"\nfolder = "Lifecycle"\ncfg = "No.cfg"\nexpect = "holds"\nbounds = ""\nsize = "big"',
            "size is small or full",
        ),
        ('name = "x"\nfolder = "Lifecycle"\ncfg = "Lifecycle.cfg"\nexpect = "holds"\nbounds = ""\ncolour = 1', "colour"),
    ],
)
def test_a_bad_entry_is_refused(tmp_path: Path, entry: str, complaint: str) -> None:
    (tmp_path / "Lifecycle").mkdir()
    for name in ("Lifecycle.cfg", "Lifecycle.tla"):
        (tmp_path / "Lifecycle" / name).touch()
    table = tmp_path / "models.toml"
    table.write_text(f"[[model]]\n{entry}\n", "utf-8")
    with pytest.raises(ValueError, match=complaint):
        load_models(table)


def test_a_model_is_chosen_by_name_beginning_or_size() -> None:
    large = Model(
        **{
            **{a: getattr(model(), a) for a in ("folder", "spec", "cfg", "expect", "bounds")},
            "name": "m_full",
            "size": "full",
        }
    )
    assert is_wanted(model(), [], full=False)
    assert not is_wanted(large, [], full=False)
    assert is_wanted(large, [], full=True)
    assert not is_wanted(large, ["m"], full=False)
    assert is_wanted(large, ["m_full"], full=False)
    assert not is_wanted(model(), ["other"], full=True)
