"""recently_claimed: the newest claims' jobs, without a look at older ones."""

from __future__ import annotations

import awa
from awa.postgres import Connection
from tests.sql.engine import claim, jobs, read

RECENTLY_CLAIMED = "SELECT awa.recently_claimed(%s, %s)"


def recently(conn: Connection, queue: str | None, limit: int) -> list[int]:
    """The ids in the order given."""
    return [job_id for (job_id,) in read(conn, RECENTLY_CLAIMED, (queue, limit))]


def test_the_newest_claims_come_first_and_the_limit_holds(client: awa.Client, conn: Connection) -> None:
    first, second, third = client.enqueue_many(jobs(1, 2, 3), kind="work", queue="q")
    claim(conn, 2)
    claim(conn, 1)
    assert set(recently(conn, None, 10)) == {first, second, third}
    assert recently(conn, None, 10)[0] == third
    assert recently(conn, None, 1) == [third]
    assert len(recently(conn, None, 2)) == 2


def test_a_queue_may_be_named(client: awa.Client, conn: Connection) -> None:
    (mine,) = client.enqueue_many(jobs(1), kind="work", queue="q")
    client.enqueue("work", {"n": 2}, queue="other")
    claim(conn, 5)
    claim(conn, 5, queue="other")
    assert recently(conn, "q", 10) == [mine]
    assert recently(conn, "nobody's", 10) == []
    assert len(recently(conn, None, 10)) == 2
