"""Jobs are listed newest first, page by page, whatever state they are in and wherever they lie."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest

import awa
from awa.errors import ConfigurationError
from awa.job import JobState
from awa.postgres import Connection
from awa.storage.attempts import save_progress
from awa.storage.complete import Ending
from awa.storage.rings import prune_ring, rotate_ring
from tests.sql.engine import RUNTIME, claim, complete, fail, finalize, jobs, read
from tests.sql.test_plans import explained

LATER = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture
def of_all_states(conn: Connection, client: awa.Client) -> dict[str, list[int]]:
    """Ids by state, as awa.jobs has them: two queues, three kinds, jobs put back, deleted, cancelled before they ran."""
    client.set_dead_letter("plain", False)
    client.enqueue_many(jobs(*range(12)), kind="work", queue="q")
    client.enqueue_many(jobs(*range(3)), kind="other", queue="plain", max_attempts=1)
    taken = claim(conn, 9).claim
    plain = claim(conn, 2, queue="plain").claim
    assert complete(conn, (taken, [1, 2])) == []
    endings = [Ending(taken, 3, "cancelled"), Ending(taken, 4, "released"), Ending(taken, 5, "waiting", None)]
    assert finalize(conn, *endings, fail(taken, 6, delay_after=9e4), fail(taken, 7)) == []
    assert finalize(conn, fail(plain, 1)) == []
    assert save_progress(conn, RUNTIME, taken, 8, '{"percent": 1}', None) == "saved"
    dead = client.enqueue("third", queue="q", max_attempts=1, priority=1)
    assert finalize(conn, fail(claim(conn, 1).claim, 1)) == []
    assert client.retry(dead)
    assert finalize(conn, fail(claim(conn, 1).claim, 1)) == []
    client.enqueue("third", queue="q", run_at=LATER)
    assert client.cancel(client.enqueue("third", queue="q"))
    assert client.delete(client.enqueue("third", queue="q"))
    assert rotate_ring(conn, "queue", force=True) == rotate_ring(conn, "claim", force=True) == "rotated"
    client.enqueue_many(jobs(*range(3)), kind="third", queue="q")
    found: dict[str, list[int]] = {}
    for state, job_id in read(conn, "SELECT state, job_id FROM awa.jobs ORDER BY job_id DESC"):
        found.setdefault(state, []).append(job_id)
    assert set(found) == set(get_args(JobState))
    return found


def pages(client: awa.Client, limit: int, **filters: Any) -> list[int]:
    """All ids, page by page."""
    ids: list[int] = []
    while page := client.list_jobs(limit=limit, before_id=ids[-1] if ids else None, **filters):
        ids += [job.id for job in page]
        if len(page) < limit:
            break
    return ids


@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_every_job_comes_once_and_newest_first(client: awa.Client, of_all_states: dict[str, list[int]], limit: int) -> None:
    assert pages(client, limit) == sorted((job_id for ids in of_all_states.values() for job_id in ids), reverse=True)


@pytest.mark.parametrize("limit", [1, 1000])
@pytest.mark.parametrize("state", get_args(JobState))
def test_a_state_has_its_jobs_and_no_others(
    client: awa.Client, of_all_states: dict[str, list[int]], state: str, limit: int
) -> None:
    assert pages(client, limit, state=state) == of_all_states[state]


def test_a_job_is_listed_as_it_is_shown(client: awa.Client, of_all_states: dict[str, list[int]]) -> None:
    listed = client.list_jobs()
    assert listed == [client.get_job(job.id) for job in listed]


@pytest.mark.parametrize("state", [None, *get_args(JobState)])
@pytest.mark.parametrize(
    ("queue", "kind"), [("plain", None), (None, "third"), ("q", "work"), ("plain", "third"), ("no", None)]
)
def test_queue_and_kind_leave_the_others_out(
    conn: Connection,
    client: awa.Client,
    of_all_states: dict[str, list[int]],
    queue: str | None,
    kind: str | None,
    state: str | None,
) -> None:
    wanted = read(
        conn,
        "SELECT job_id FROM awa.jobs WHERE coalesce(queue = %s, true) AND coalesce(kind = %s, true)"
        " AND coalesce(state = %s, true) ORDER BY 1 DESC",
        (queue, kind, state),
    )
    assert pages(client, 2, queue=queue, kind=kind, state=state) == [job_id for (job_id,) in wanted]


def test_what_ended_later_is_left_out(client: awa.Client, of_all_states: dict[str, list[int]]) -> None:
    ended = ("completed", "failed", "cancelled", "dead_lettered")
    times = {job.id: job.finalized_at for job in client.list_jobs() if job.state in ended}
    middle = sorted(time for time in times.values() if time)[len(times) // 2]
    earlier = [job_id for job_id, time in times.items() if time and time < middle]
    assert 0 < len(earlier) < len(times)
    assert pages(client, 2, ended_before=middle) == earlier
    assert pages(client, 2, ended_before=middle, state="running") == []


def test_a_page_holds_between_one_and_a_thousand_jobs_of_a_state_that_exists(client: awa.Client) -> None:
    for limit in (0, 1001):
        with pytest.raises(ConfigurationError, match=f"limit must be between 1 and 1000, not {limit}"):
            client.list_jobs(limit=limit)
    with pytest.raises(ConfigurationError, match=r"state must be one of available, .*, not 'asleep'"):
        client.list_jobs(state="asleep")  # type: ignore[arg-type]


def test_a_long_history_is_not_read(dsn: str, conn: Connection, client: awa.Client) -> None:
    client.enqueue_many_copy(jobs(*range(5000)), kind="work", queue="q")
    assert complete(conn, (claim(conn, 5000).claim, None)) == []
    assert rotate_ring(conn, "claim", force=True) == "rotated"
    assert [verdict.reason for verdict in prune_ring(conn, "claim")] == ["retention"]
    client.enqueue_many(jobs(1, 2), kind="work", queue="q")
    for state in (None, *get_args(JobState)):
        with explained(dsn, analyze=True) as (session, planned):
            session.execute("SELECT job_id FROM awa.list_jobs(NULL, NULL, %s, NULL, NULL, 10)", (state,))
        read_rows = [
            node["Actual Rows"] * node["Actual Loops"]
            for statement in planned
            for node in statement.nodes
            if node["Node Type"] in ("Index Scan", "Index Only Scan", "Seq Scan", "Bitmap Heap Scan")
        ]
        assert sum(read_rows) < 1500, state
