"""Waiting for facts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(fact: Callable[[], T], timeout: float = 30.0, what: str = "") -> T:
    """The first true value of `fact`.

    Raises:
        AssertionError: there was none within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = fact()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what or fact}"
        time.sleep(0.005)  # between looks; nothing depends on its length
