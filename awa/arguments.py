"""A job's arguments: turned into JSON text once, and refused before the database sees what it could not keep exactly."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from awa.errors import InvalidJob

MAX_DEPTH: Final = 64
MAX_ARGS_BYTES: Final = 1_048_576
MAX_VALUE_BYTES: Final = 65_536
"""Of a result or a checkpoint."""
INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**64 - 1

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

# Anything here MAY be something to refuse; what has none of it cannot be. (A literal backslash-u-0000 in a text, a long
# run of digits in a text: harmless, but only the walk can tell.)
_SUSPICIOUS: Final = re.compile(r"\\u0000|\d{19}|[\ud800-\udfff]")


def encode_object(value: object, field: str = "args", *, max_bytes: int = MAX_ARGS_BYTES) -> str:
    """The JSON text of an object: a mapping with text keys, an attrs instance or a dataclass instance.

    The C encoder runs first and its output is examined; only what looks odd is walked in Python, which finds the path.

    Args:
        value: what to encode.
        field: how error messages call it.
        max_bytes: of the UTF-8 text.

    Raises:
        InvalidJob: not JSON, or not kept exactly: NaN, NUL, lone surrogates, integers beyond 64 bits, keys that are not
            text, more than 64 levels, more than `max_bytes`.

    >>> encode_object({"to": "ada", "n": 3})
    '{"to":"ada","n":3}'
    >>> encode_object({"points": [1, float("nan")]})
    Traceback (most recent call last):
    awa.errors.InvalidJob: args.points[1]: nan is not a JSON number
    """
    plain = as_mapping(value, field)
    try:
        text = _encode(plain)
    except (TypeError, ValueError, RecursionError) as error:
        _walk(plain, field)
        raise InvalidJob(field, f"not JSON: {error}") from error
    if (
        text.count("{") > 1
        or text.count("[") >= MAX_DEPTH
        or _SUSPICIOUS.search(text)
        or not all(type(key) is str for key in plain)
    ):
        _walk(plain, field)
    if len(text) * 4 > max_bytes and (size := len(text.encode())) > max_bytes:
        raise InvalidJob(field, f"{size:,} bytes of JSON, the limit is {max_bytes:,}")
    return text


def encode_value(value: object, field: str, *, max_bytes: int = MAX_VALUE_BYTES) -> str:
    """The JSON text of any value, with the limits of `encode_object`.

    >>> encode_value([1, "two"], "result")
    '[1,"two"]'
    """
    try:
        return encode_object({"value": value}, field, max_bytes=max_bytes + 10)[9:-1]
    except InvalidJob as error:
        raise InvalidJob(error.field.replace(f"{field}.value", field, 1), error.reason) from error


def as_mapping(value: object, field: str = "args") -> Mapping[str, Any]:
    """`value` as a mapping: itself, or the fields of an attrs or dataclass instance."""
    if type(value) is dict:
        return value
    if isinstance(value, Mapping):
        return dict(value)
    try:
        if attrs.has(type(value)):
            return attrs.asdict(value)  # type: ignore[arg-type]
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.asdict(value)
    except (TypeError, RecursionError) as error:  # a lock or a socket cannot be copied; a record may hold itself
        raise InvalidJob(field, f"not JSON: {error}") from error
    raise InvalidJob(
        field, f"must be a JSON object: a mapping, an attrs or a dataclass instance, not {type(value).__name__}"
    )


def _walk(value: object, path: str) -> None:
    """Raise for the first value that PostgreSQL or the reader could not keep exactly. Iterative: depth is an input."""
    stack: list[tuple[str, object, int]] = [(path, value, 1)]
    while stack:
        path, value, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise InvalidJob(path, f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(value, dict):
            stack.extend((child, item, depth + 1) for child, item in _items(value, path))
        elif isinstance(value, list | tuple):
            stack.extend((f"{path}[{index}]", item, depth + 1) for index, item in enumerate(value))
        else:
            _check_scalar(value, path)


def _items(value: dict[object, object], path: str) -> Iterator[tuple[str, object]]:
    for key, item in value.items():
        if not isinstance(key, str):
            raise InvalidJob(path, f"key {key!r} is {type(key).__name__}, not text")
        _check_text(key, f"{path}.{key!r}")
        yield f"{path}.{key}", item


def _check_scalar(value: object, path: str) -> None:
    if isinstance(value, str):
        _check_text(value, path)
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if not INT_MIN <= value <= INT_MAX:
            raise InvalidJob(path, "an integer beyond 64 bits: send it as text")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidJob(path, f"{value} is not a JSON number")
    else:
        raise InvalidJob(path, f"{type(value).__name__} is not JSON")


def _check_text(value: str, path: str) -> None:
    if "\x00" in value:
        raise InvalidJob(path, "contains NUL (\\x00), which PostgreSQL text cannot hold")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidJob(path, f"contains a lone surrogate at character {error.start}") from None
