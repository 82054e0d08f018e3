"""Lanes: which of a queue's lanes a job goes to, and what a process remembers of them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Final

from awa.keys import shard_of_hash
from awa.plan import PlannedJob, Route
from awa.postgres import Connection, tuple_cursor

ENSURE_LANES: Final = "SELECT awa.ensure_lanes(%s::text, %s::int2)"
ENQUEUE_SHARDS: Final = "SELECT awa.enqueue_shards(%s::text)"
SET_ENQUEUE_SHARDS: Final = "SELECT awa.set_enqueue_shards(%s::text, %s::int4)"

MAX_SHARDS: Final = 64
SHARDS_KNOWN_FOR: Final = 5.0
"""Seconds for which a process goes on with the number of shards that it has read."""


def ensure_lanes(conn: Connection, route: Route) -> tuple[int, ...]:
    """The lanes of a queue and a priority, one a shard, made on first use. On a connection that commits at once."""
    return tuple(tuple_cursor(conn).execute(ENSURE_LANES, (route.queue, route.priority)).fetchall()[0][0])


def enqueue_shards(conn: Connection, queue: str) -> int:
    """Over how many lanes of each priority the queue's jobs are spread."""
    return int(tuple_cursor(conn).execute(ENQUEUE_SHARDS, (queue,)).fetchall()[0][0])


def set_enqueue_shards(conn: Connection, queue: str, shards: int) -> None:
    """Spread what is enqueued from now on over so many lanes of each priority."""
    tuple_cursor(conn).execute(SET_ENQUEUE_SHARDS, (queue, shards))


class LaneBook:
    """The lanes of one database, as far as this process has used them. Safe to share between threads.

    The number of a queue's shards is asked for again after SHARDS_KNOWN_FOR seconds; a lane, once made, is never unmade.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lanes: dict[Route, tuple[int, ...]] = {}
        self._until: dict[Route, float] = {}
        # Producers that live for one job each shall not all begin with the same shard.
        self._turn = count(random.randrange(MAX_SHARDS))

    def known(self, route: Route) -> tuple[int, ...] | None:
        """The lanes of a route, in the order of the shards, if they are known and it is not time to ask again."""
        lanes = self._lanes.get(route)
        return lanes if lanes is not None and self._clock() < self._until[route] else None

    def renew(self, route: Route, shards: int) -> tuple[int, ...] | None:
        """The lanes of a route that was known before and, as was just read, has so many shards; None when it had others."""
        lanes = self._lanes.get(route)
        if lanes is None or len(lanes) != shards:
            return None
        return self.learn(route, lanes)

    def learn(self, route: Route, lanes: tuple[int, ...]) -> tuple[int, ...]:
        """Remember lanes that were just read."""
        # In this order: whoever finds the lanes finds the time, too.
        self._until[route] = self._clock() + SHARDS_KNOWN_FOR
        self._lanes[route] = lanes
        return lanes

    def forget(self, queues: Iterable[str]) -> None:
        """Ask again before the next use: the number of their shards has changed."""
        gone = set(queues)
        for route in [route for route in self._lanes if route.queue in gone]:
            self._until[route] = 0.0

    def shard(self, job: PlannedJob, shards: int) -> int:
        """A job's shard: its key's, or the next in turn."""
        return next(self._turn) % shards if job.key_hash is None else shard_of_hash(job.key_hash, shards)

    def place(
        self, jobs: Sequence[PlannedJob], lanes: Mapping[Route, tuple[int, ...]]
    ) -> tuple[Sequence[PlannedJob], dict[Route, int]]:
        """Jobs with their shards, and the lane of every route that occurs among them.

        Args:
            jobs: planned, none of them placed yet.
            lanes: of every route that occurs.
        """
        if all(len(ids) == 1 for ids in lanes.values()):
            return jobs, {route: ids[0] for route, ids in lanes.items()}
        placed = []
        for job in jobs:
            shards = len(lanes[job.route])
            placed.append(job if shards == 1 else job._replace(route=job.route._replace(shard=self.shard(job, shards))))
        return placed, {
            route._replace(shard=shard): lane_id for route, ids in lanes.items() for shard, lane_id in enumerate(ids)
        }
