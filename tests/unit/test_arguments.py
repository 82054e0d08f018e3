"""What a job's arguments may be, and how a refusal names the place."""

from __future__ import annotations

import dataclasses
import json
import threading
from types import MappingProxyType
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awa import InvalidJob
from awa.arguments import INT_MAX, INT_MIN, MAX_ARGS_BYTES, MAX_DEPTH, encode_object


@attrs.define
class Point:
    x: float
    y: float


@attrs.define
class Line:
    points: list[Point]


@dataclasses.dataclass
class Holder:
    value: Any


@dataclasses.dataclass
class Order:
    number: int
    parts: list[Holder] = dataclasses.field(default_factory=list)


@attrs.define
class Knot:
    value: Any


def refusal(value: object, **kwargs: Any) -> InvalidJob:
    """The error that `value` meets."""
    with pytest.raises(InvalidJob) as caught:
        encode_object(value, **kwargs)
    assert str(caught.value).startswith(f"{caught.value.field}: ")
    return caught.value


def nested_list(levels: int) -> Any:
    """An empty list in lists."""
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


def nested_dict(levels: int) -> Any:
    """An empty dict in dicts."""
    value: Any = {}
    for _ in range(levels - 1):
        value = {"in": value}
    return value


def cyclic_dict() -> dict[str, Any]:
    """A dict that holds itself."""
    value: dict[str, Any] = {}
    value["self"] = value
    return value


def cyclic_list() -> list[Any]:
    """A list that holds itself, twice."""
    value: list[Any] = []
    value.extend([value, value])
    return value


REFUSED: list[tuple[object, str, str]] = [
    ({"a": float("nan")}, "args.a", "nan is not a JSON number"),
    ({"a": [1, float("inf")]}, "args.a[1]", "inf is not a JSON number"),
    ({"a": {"b": float("-inf")}}, "args.a.b", "-inf is not a JSON number"),
    ({"a": "x\x00y"}, "args.a", "NUL"),
    ({"a\x00": 1}, "args.'a\\x00'", "NUL"),
    ({"a": ["ok", "\ud800"]}, "args.a[1]", "lone surrogate at character 0"),
    ({"a": "ok \udfff"}, "args.a", "lone surrogate at character 3"),
    ({"\ud800": 1}, "args.'\\ud800'", "lone surrogate"),
    ({"a": INT_MIN - 1}, "args.a", "beyond 64 bits"),
    ({"a": [{"b": INT_MAX + 1}]}, "args.a[0].b", "beyond 64 bits"),
    ({"a": 10**5000}, "args.a", "beyond 64 bits"),
    ({1: "a"}, "args", "key 1 is int, not text"),
    ({"a": {1: "b"}}, "args.a", "key 1 is int, not text"),
    ({"a": [{None: "b"}]}, "args.a[0]", "key None is NoneType, not text"),
    ({"a": {True: "b"}}, "args.a", "key True is bool, not text"),
    ({"a": {("t",): "b"}}, "args.a", "key ('t',) is tuple, not text"),
    ({"a": {1, 2}}, "args.a", "set is not JSON"),
    ({"a": b"bytes"}, "args.a", "bytes is not JSON"),
    ({"a": [MappingProxyType({})]}, "args.a[0]", "mappingproxy is not JSON"),
    (Line([Point(1, float("nan"))]), "args.points[0].y", "nan is not a JSON number"),
    (Order(INT_MAX + 1), "args.number", "beyond 64 bits"),
    (Holder({3: 4}), "args.value", "key 3 is int, not text"),
    (Holder(threading.Lock()), "args", "not JSON"),
    ([1, 2], "args", "must be a JSON object: a mapping, an attrs or a dataclass instance, not list"),
    ("text", "args", "not str"),
    (None, "args", "not NoneType"),
    (Order, "args", "not type"),
]


@pytest.mark.parametrize(("value", "field", "reason"), REFUSED, ids=[f"{field}-{reason}" for _, field, reason in REFUSED])
def test_what_could_not_be_kept_exactly_is_refused_by_its_path(value: object, field: str, reason: str) -> None:
    error = refusal(value)
    assert error.field == field
    assert reason in str(error)


def test_a_refusal_uses_the_callers_name_for_the_object() -> None:
    assert refusal({"a": [float("nan")]}, field="metadata").field == "metadata.a[0]"


@pytest.mark.parametrize("number", [INT_MIN, -(2**63), 2**63, INT_MAX, 2**64 - 1, -1, 0])
def test_an_integer_of_64_bits_is_accepted(number: int) -> None:
    assert json.loads(encode_object({"n": number})) == {"n": number}


def test_the_integer_bounds_are_64_bits() -> None:
    assert (INT_MIN, INT_MAX) == (-(2**63), 2**64 - 1)


@pytest.mark.parametrize(
    "text",
    [
        "\\u0000",
        "\\\\u0000 twice",
        "1234567890123456789012345",
        "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    ],
    ids=["escaped-nul", "backslashes", "digits", "emoji"],
)
def test_text_that_only_looks_suspicious_is_accepted(text: str) -> None:
    assert json.loads(encode_object({"a": text, text: [text]})) == {"a": text, text: [text]}


def test_a_float_with_many_digits_is_accepted() -> None:
    assert json.loads(encode_object({"a": 0.1 + 0.2, "b": 1.2345678901234567e-300})) == {
        "a": 0.1 + 0.2,
        "b": 1.2345678901234567e-300,
    }


def test_the_64th_level_is_accepted_and_the_65th_refused_in_lists() -> None:
    deepest = {"a": nested_list(MAX_DEPTH - 1)}
    assert json.loads(encode_object(deepest)) == deepest
    error = refusal({"a": nested_list(MAX_DEPTH)})
    assert error.field == "args.a" + "[0]" * (MAX_DEPTH - 1)
    assert "nested more than 64 levels deep" in str(error)


def test_the_64th_level_is_accepted_and_the_65th_refused_in_dicts() -> None:
    deepest = nested_dict(MAX_DEPTH)
    assert json.loads(encode_object(deepest)) == deepest
    error = refusal(nested_dict(MAX_DEPTH + 1))
    assert error.field == "args" + ".in" * MAX_DEPTH
    assert "nested more than 64 levels deep" in str(error)


def test_depth_is_counted_along_a_path_and_not_in_all() -> None:
    wide = {"a": [[n] for n in range(200)]}
    assert json.loads(encode_object(wide)) == wide


def test_nesting_beyond_the_interpreters_recursion_is_refused_like_any_other() -> None:
    assert "nested more than 64 levels deep" in str(refusal({"a": nested_list(100_000)}))


@pytest.mark.parametrize("value", [cyclic_dict(), {"a": cyclic_list()}], ids=["dict", "list"])
def test_a_cycle_is_refused(value: object) -> None:
    assert "nested more than 64 levels deep" in str(refusal(value))


@pytest.mark.parametrize("cls", [Knot, Holder])
def test_a_record_that_holds_itself_is_refused(cls: type[Any]) -> None:
    value = cls(None)
    value.value = [value]
    assert refusal(value).field == "args"


@pytest.mark.parametrize("character", ["x", "ä", "€", "😀"])
def test_the_size_limit_counts_bytes_exactly(character: str) -> None:
    value = {"a": character * 10}
    size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
    assert len(encode_object(value, max_bytes=size).encode()) == size
    assert str(refusal(value, max_bytes=size - 1)) == f"args: {size} bytes of JSON, the limit is {size - 1}"


def test_the_default_size_limit_is_a_mebibyte() -> None:
    frame = len('{"a":""}')
    assert len(encode_object({"a": "x" * (MAX_ARGS_BYTES - frame)})) == MAX_ARGS_BYTES == 1_048_576
    assert "1,048,577 bytes of JSON, the limit is 1,048,576" in str(refusal({"a": "x" * (MAX_ARGS_BYTES - frame + 1)}))


def test_records_and_mappings_become_objects() -> None:
    assert encode_object(Line([Point(1, 2)])) == '{"points":[{"x":1,"y":2}]}'
    assert encode_object(Order(3, [Holder(1.5)])) == '{"number":3,"parts":[{"value":1.5}]}'
    assert encode_object(MappingProxyType({"a": None, "b": True})) == '{"a":null,"b":true}'


leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**66), 2**66)
    | st.sampled_from([INT_MIN, INT_MIN - 1, INT_MAX, INT_MAX + 1])
    | st.floats()
    | st.text(st.characters(codec=None, exclude_categories=()))
    | st.sampled_from(["\\u0000", "9" * 25, "\x00", "\ud800"])
)
keys = st.text(max_size=5) | st.sampled_from(["\\u0000", "\ud800", "\x00", 1, None])
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=20
)


@given(st.dictionaries(keys, trees, max_size=5))
def test_what_is_accepted_decodes_to_an_equal_value(value: dict[Any, Any]) -> None:
    if not is_kept(value, 1):
        assert refusal(value).field.startswith("args")
        return
    text = encode_object(value)
    assert json.loads(text) == value
    assert "\x00" not in text
    assert text.encode().decode() == text


def is_kept(value: object, depth: int) -> bool:
    """The rules again, as plainly as they can be said."""
    match value:
        case None | bool():
            return True
        case int():
            return -(2**63) <= value < 2**64
        case float():
            return value == value and abs(value) != float("inf")  # noqa: PLR0124 - NaN
        case str():
            return "\x00" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
        case list():
            return depth <= MAX_DEPTH and all(is_kept(item, depth + 1) for item in value)
        case dict():
            return depth <= MAX_DEPTH and all(
                isinstance(key, str) and is_kept(key, 1) and is_kept(item, depth + 1) for key, item in value.items()
            )
    return False
