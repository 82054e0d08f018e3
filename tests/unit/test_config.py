"""Settings are checked when they are made."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from awa import ConfigurationError
from awa.config import ClientSettings, WorkerSettings


@pytest.mark.parametrize(
    ("queues", "message"),
    [
        ({}, "at least one queue"),
        ({"": 1}, "a name has 1 to 200 characters"),
        ({"q" * 201: 1}, "a name has 1 to 200 characters"),
        ({"q": 0}, "concurrency must be between 1 and 10000, not 0"),
        ({"q": 10_001}, "concurrency must be between 1 and 10000, not 10001"),
        ({"q": 1.5}, "concurrency must be between 1 and 10000, not 1.5"),
        ({"q": "4"}, "concurrency must be between 1 and 10000, not '4'"),
    ],
)
def test_queues_that_make_no_sense_are_refused(queues: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        WorkerSettings(queues=queues)


def test_queues_within_bounds_are_copied() -> None:
    given = {"a": 1, "q" * 200: 10_000}
    settings = WorkerSettings(queues=given)
    given.clear()
    assert settings.queues == {"a": 1, "q" * 200: 10_000}


MAY_BE_ZERO = {"stop_timeout", "prefetch_span", "min_connections"}
NUMBERS = [
    (cls, attribute.name)
    for cls in (ClientSettings, WorkerSettings)
    for attribute in attrs.fields(cls)
    if isinstance(attribute.default, int | float) and not isinstance(attribute.default, bool)
]


def settings(cls: type[Any], **values: Any) -> Any:
    """Settings of that class."""
    return cls(**({"queues": {"q": 1}} if cls is WorkerSettings else {}), **values)


@pytest.mark.parametrize(("cls", "name"), NUMBERS, ids=[name for _, name in NUMBERS])
def test_a_number_is_positive_or_at_least_not_negative(cls: type[Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{name} must .*, not -1"):
        settings(cls, **{name: -1})
    with pytest.raises(ConfigurationError, match=name):
        settings(cls, **{name: float("nan")})
    if name in MAY_BE_ZERO:
        assert getattr(settings(cls, **{name: 0}), name) == 0
    else:
        with pytest.raises(ConfigurationError, match=rf"{name} must .*, not 0"):
            settings(cls, **{name: 0})


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        WorkerSettings(queues={"q": 1}).poll_every = 3.0  # type: ignore[misc]
