"""Ending jobs from outside."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal

from awa.arguments import encode_value
from awa.client.sessions import Sessions
from awa.errors import JobBusy
from awa.storage.cancel import cancel_job
from awa.storage.external import DEFAULT_DELAY, end_external

BUSY_FOR: Final = 5.0
"""Seconds to insist on ending a job whose lane or claim is locked."""


class Ending(Sessions):
    """Cancelling, and answers to jobs that wait for the world outside."""

    def cancel(self, job_id: int) -> bool:
        """End a job that has not ended, wherever it is; a running handler is told within a second.

        In a short transaction of its own, never in yours.

        Args:
            job_id: of the job.

        Returns:
            Whether it was cancelled now; False when it had ended, or there is none.

        Raises:
            JobBusy: something held it for five seconds; nothing was changed.

        >>> client.cancel(client.enqueue("report", queue="docs"))
        True
        """
        with self._connection() as conn:
            return insist(lambda: cancel_job(conn, job_id), f"job {job_id}") == "cancelled"

    def complete_external(self, id: int | str, payload: object = None) -> bool:
        """Complete a job that waits for an answer from outside; the payload is its result.

        Args:
            id: the callback id, or the job's id while it waits.
            payload: anything that is JSON, up to 64 KiB.

        Returns:
            Whether it was accepted; False when nothing waits under that id any more.

        Raises:
            InvalidJob: the payload is not JSON.
            JobBusy: something held it for five seconds; nothing was changed.

        >>> client.complete_external("2a-1-00000000000000ff", {"paid": True})
        False
        """
        result = encode_value(payload, "payload")
        return self._end_external(id, "completed", result=result)

    def fail_external(self, id: int | str, error: str, *, retry: bool = True) -> bool:
        """Fail the attempt of a job that waits for an answer from outside. It counts.

        Args:
            id: as for `complete_external`.
            error: kept with the job.
            retry: False: no other try, whatever `max_attempts` says.

        >>> client.fail_external("2a-1-00000000000000ff", "card refused")
        False
        """
        described = {
            "at": datetime.now(UTC).isoformat(),
            "type": "External",
            "message": error.replace("\x00", "\\x00")[:2000],
        }
        return self._end_external(id, "failed", error=described, delay_after=DEFAULT_DELAY if retry else None)

    def retry_external(self, id: int | str) -> bool:
        """Run the handler of a job that waits for an answer from outside again, now. Does not count.

        >>> client.retry_external("2a-1-00000000000000ff")
        False
        """
        return self._end_external(id, "released")

    def _end_external(self, id: int | str, outcome: Literal["completed", "failed", "released"], **said: Any) -> bool:
        with self._connection() as conn:
            return insist(lambda: end_external(conn, id, outcome, **said), f"job {id}") == "accepted"


def insist(ask: Callable[[], str], what: str) -> str:
    """Ask until the answer is not `busy`: locks are held for a moment."""
    deadline = time.monotonic() + BUSY_FOR
    while (verdict := ask()) == "busy":
        if time.monotonic() > deadline:
            raise JobBusy(f"{what} was locked by something for {BUSY_FOR:g} s: nothing was changed")
        time.sleep(0.01)
    return verdict
