"""The server stands still for longer than it takes to count as dead, as in a snapshot or a move of its machine."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import awa
from awa.migrate import migrate
from awa.postgres import connect
from awa.storage.runtimes import list_runtimes
from tests.servers import private_server
from tests.waiting import wait_for

BACKENDS = "SELECT pid FROM pg_stat_activity WHERE application_name = ANY (%s)"
SEEN = "SELECT min(clock_timestamp() - last_seen) > interval '1.5 s' FROM awa.runtime_instances"


def test_nobody_dies_of_a_pause_of_the_server() -> None:
    entered, go_on = threading.Event(), threading.Event()
    ran: list[int] = []

    @awa.task
    def slow() -> None:
        ran.append(1)
        entered.set()
        assert go_on.wait(30)

    settings: dict[str, Any] = {"beat_every": 0.2, "stale_after": 1.0, "rescue_every": 0.05}
    with private_server() as server, connect(server.dsn, "awa test") as conn:
        migrate(conn)
        with (
            awa.Client(server.dsn) as client,
            awa.Worker({"idle": 1}, dsn=server.dsn, **settings) as leader,
        ):
            assert wait_for(leader._maintainer.leads.is_set)
            with awa.Worker({"default": 1}, dsn=server.dsn, **settings):
                client.enqueue(slow)
                assert entered.wait(30)
                search = leader._maintainer._chores[2]
                wait_for(lambda: search.due_at, what="a search for silent workers")

                def pids(*names: str) -> list[int]:
                    return [row[0] for row in conn.execute(BACKENDS, (list(names),)).fetchall()]

                # What the leader's connection has sent is served first, as luck has it.
                wait_for(lambda: len(pids("awa heart")) == 2, what="a beat of each")
                hearts, maintainers = pids("awa heart"), pids("awa maintainer")
                for pid in (*hearts, *maintainers):
                    os.kill(pid, signal.SIGSTOP)
                try:
                    wait_for(lambda: conn.execute(SEEN).fetchall()[0][0], what="the pause")
                    before = search.due_at
                    for pid in maintainers:
                        os.kill(pid, signal.SIGCONT)
                    wait_for(lambda: search.due_at > before, what="a search after the pause")
                finally:
                    for pid in (*hearts, *maintainers):
                        os.kill(pid, signal.SIGCONT)
                wait_for(lambda: not conn.execute(SEEN).fetchall()[0][0], what="a beat")
                assert [runtime for runtime in list_runtimes(conn) if runtime.dead_at is not None] == []
                go_on.set()
                wait_for(lambda: client.queue_counts("default").completed == 1)
    assert ran == [1]
