"""How commands take queues: `email`, and `email/4` for four partitions."""

from __future__ import annotations

from collections.abc import Mapping

import click

from awa import ConfigurationError
from awa.partitions import AnyQueue, PartitionedQueue, expand_queues, parse_queue


class QueueType(click.ParamType[AnyQueue]):
    """`email`, or `email/4`."""

    name = "queue"

    def convert(self, value: AnyQueue, param: click.Parameter | None, ctx: click.Context | None) -> AnyQueue:
        """A queue's name, or a partitioned queue."""
        if isinstance(value, PartitionedQueue):
            return value
        try:
            return parse_queue(value)
        except ConfigurationError as error:
            self.fail(str(error), param, ctx)


class QueuesType(click.ParamType[dict[str, int]]):
    """`email/4:10,default:10`."""

    name = "name:jobs,..."

    def convert(
        self,
        value: str | Mapping[AnyQueue, int] | Mapping[str, int],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> dict[str, int]:
        """Physical queues with how many of their jobs may run at a time; from a text, or from a framework's settings."""
        queues: dict[AnyQueue, int] = {}
        try:
            if not isinstance(value, str):
                return expand_queues(value)
            for part in value.split(","):
                name, colon, jobs = part.strip().rpartition(":")
                if not colon or not name or not jobs.isdecimal() or int(jobs) < 1:
                    self.fail(f"{part!r} is not name:jobs, as in email:4", param, ctx)
                queue = parse_queue(name)
                if queue in queues:
                    self.fail(f"queue {name!r} is named twice", param, ctx)
                queues[queue] = int(jobs)
            return expand_queues(queues)
        except ConfigurationError as error:
            self.fail(str(error), param, ctx)


QUEUE = QueueType()
QUEUES = QueuesType()
