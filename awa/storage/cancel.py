"""cancel_job: ends a job that has not ended, wherever it is."""

from __future__ import annotations

from typing import Final, Literal

from awa import trace
from awa.postgres import Connection, tuple_cursor

DELETE_JOB: Final = "SELECT awa.delete_job(%s::int8)"
CANCEL_JOB: Final = "SELECT awa.cancel_job(%s::int8)"


def cancel_job(conn: Connection, job_id: int) -> Literal["cancelled", "ended", "unknown", "busy"]:
    """Cancel a job; `busy` asks for another try.

    Args:
        conn: a connection that commits at once: the call may hold its lane's lock until then.
        job_id: of the job.
    """
    verdict: Literal["cancelled", "ended", "unknown", "busy"]
    verdict = tuple_cursor(conn).execute(CANCEL_JOB, (job_id,)).fetchall()[0][0]
    if trace.on:
        trace.asked_for("cancelled", job_id, verdict)
    return verdict


def delete_job(conn: Connection, job_id: int) -> Literal["deleted", "unknown", "busy"]:
    """Remove the job in whatever state it is.

    Args:
        conn: a connection that commits at once.
        job_id: of the job.
    """
    verdict: Literal["deleted", "unknown", "busy"] = tuple_cursor(conn).execute(DELETE_JOB, (job_id,)).fetchall()[0][0]
    if trace.on:
        trace.asked_for("deleted", job_id, verdict)
    return verdict
