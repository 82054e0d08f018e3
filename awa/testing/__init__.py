"""For the tests of applications: run enqueued jobs here and now, say what should have been enqueued, move the clock.

    drain              runs enqueued jobs in the test's thread: those of a database, or of the test's open transaction
    assert_enqueued    fails with a list of what was enqueued instead; refute_enqueued is its opposite
    all_enqueued       what waits
    inline             runs every job as it is enqueued, without a database
    Clock              moves the time ahead
    clear_jobs         empties the queue between tests

Nothing here needs pytest; `awa_pytest` makes fixtures of it.
"""

from awa.testing.asserting import all_enqueued, assert_enqueued, refute_enqueued
from awa.testing.cleaning import clear_jobs
from awa.testing.draining import drain
from awa.testing.inlining import Inline, inline
from awa.testing.moving import Clock
from awa.testing.summary import Drained, DrainedJob

__all__ = [
    "Clock",
    "Drained",
    "DrainedJob",
    "Inline",
    "all_enqueued",
    "assert_enqueued",
    "clear_jobs",
    "drain",
    "inline",
    "refute_enqueued",
]
