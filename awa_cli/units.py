"""Spans of time, sizes and instants as people write them, and back."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import click

SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
BYTES: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
BYTES_DECIMAL: Final = {"kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}

_NUMBER: Final = r"(\d+(?:\.\d+)?)\s*"
_SPAN: Final = re.compile(rf"{_NUMBER}({'|'.join(SECONDS)})\s*")
_SIZE: Final = re.compile(rf"{_NUMBER}({'|'.join([*BYTES, *BYTES_DECIMAL])})?")


def parse_span(text: str) -> float:
    """Seconds of a span: `90`, `90s`, `2h`, `1h30m`, `7d`.

    Raises:
        ValueError: it is none.

    >>> parse_span("1h30m"), parse_span("0.5s"), parse_span("90")
    (5400.0, 0.5, 90.0)
    """
    text = text.strip()
    if re.fullmatch(_NUMBER, text):
        return float(text)
    parts = list(_SPAN.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        raise ValueError(f"{text!r} is no span of time: write it as 90s, 30m, 2h, 1h30m or 7d")
    return sum(float(part[1]) * SECONDS[part[2]] for part in parts)


def parse_size(text: str) -> int:
    """Bytes of a size: `1048576`, `512MiB`, `2GiB`, `2GB`.

    Raises:
        ValueError: it is none.

    >>> parse_size("2GiB"), parse_size("1.5 kB")
    (2147483648, 1500)
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size: write it as 1048576, 512MiB, 2GiB or 2GB")
    return round(float(match[1]) * {**BYTES, **BYTES_DECIMAL}[match[2] or "B"])


def format_span(seconds: float) -> str:
    """A span in its two largest units.

    >>> format_span(5400), format_span(604800), format_span(0.25), format_span(86401)
    ('1h30m', '7d', '0.25s', '1d')
    """
    if seconds < 60:
        return f"{seconds:.3g}s"
    left, parts = round(seconds), []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        n, left = divmod(left, size)
        parts.append(f"{n}{unit}" if n else "")
    first = next(place for place, part in enumerate(parts) if part)
    return "".join(parts[first : first + 2])


def format_size(size: int | None) -> str:
    """A size in the largest unit of which it is at least one; `?` when it is not known.

    >>> format_size(1 << 30), format_size(1500), format_size(12), format_size(None)
    ('1 GiB', '1.5 KiB', '12 B', '?')
    """
    if size is None:
        return "?"
    unit = next(unit for unit in reversed(BYTES) if size >= BYTES[unit] or unit == "B")
    return f"{size / BYTES[unit]:.1f}".removesuffix(".0") + f" {unit}"


def format_age(instant: datetime | None) -> str:
    """How long ago an instant was; a dash for none."""
    return "-" if instant is None else format_span(max(0.0, (datetime.now(UTC) - instant).total_seconds()))


class SpanType(click.ParamType[float]):
    """A span of time, in seconds."""

    name = "span"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See `parse_span`."""
        try:
            return parse_span(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class SizeType(click.ParamType[int]):
    """A size, in bytes."""

    name = "size"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See `parse_size`."""
        try:
            return parse_size(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class InstantType(click.ParamType[datetime]):
    """An instant: a date and time with a time zone, or a span that lies between it and now."""

    name = "span or time"

    def convert(self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """`7d` is seven days ago."""
        if isinstance(value, datetime):
            return value
        try:
            return datetime.now(UTC) - timedelta(seconds=parse_span(value))
        except (ValueError, OverflowError):
            pass
        try:
            instant = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is neither a span, as 7d, nor a time, as 2026-01-31T12:00+00:00", param, ctx)
        if instant.tzinfo is None:
            self.fail(f"{value!r} has no time zone: write it as {value}+00:00", param, ctx)
        return instant
