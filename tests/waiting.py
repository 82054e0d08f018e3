"""Waiting for facts.

How long is no test's business: a fact that comes ends the wait, and one that does not come is a failure after a minute as
after two. So there is one limit for all, generous enough for a slow machine with other work to do. A test whose point is a
time measures it, best by the server's clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

PATIENCE: Final = 120.0
"""Seconds until a fact counts as not coming, for whatever else a test waits for, too: threads, processes, answers."""


def wait_for(fact: Callable[[], T], timeout: float = PATIENCE, what: str = "") -> T:
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
