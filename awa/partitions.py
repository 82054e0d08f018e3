"""Partitioned queues: one logical queue as several physical ones, each with workers and an order of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from attrs import field, frozen

from awa.errors import ConfigurationError, InvalidJob
from awa.keys import partition_for_ordering_key
from awa.names import MAX_QUEUE_CHARACTERS, check_name

MAX_PARTITIONS: Final = 32767


@frozen
class PartitionedQueue:
    """A logical queue that is several physical ones, each with workers, a pause and counts of its own.

    Partition 0 has the logical name, so that a queue can grow into partitions; the others are `email__p1`, `email__p2`, …
    Pass it wherever a queue is asked for. A job with an ordering key goes to its key's partition, one without to the next in
    turn. Changing the number of partitions sends keys elsewhere.

    Args:
        logical: the name.
        partitions: 1 to 32767.

    Raises:
        ConfigurationError: no name, one that leaves no room for the suffix, or a number out of bounds.

    >>> import awa
    >>> email = awa.PartitionedQueue("email", 4)
    >>> email.physical_queues
    ('email', 'email__p1', 'email__p2', 'email__p3')
    >>> client.enqueue("send", {"to": "ada"}, queue=email, ordering_key="ada") > 0
    True
    """

    logical: str
    partitions: int
    physical_queues: tuple[str, ...] = field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.partitions, int) or isinstance(self.partitions, bool):
            raise ConfigurationError(f"partitions must be an integer, not {type(self.partitions).__name__}")
        if not 1 <= self.partitions <= MAX_PARTITIONS:
            raise ConfigurationError(f"partitions must be between 1 and {MAX_PARTITIONS}, not {self.partitions}")
        longest = "" if self.partitions == 1 else f"__p{self.partitions - 1}"
        try:
            check_name(self.logical, "queue", MAX_QUEUE_CHARACTERS - len(longest))
        except InvalidJob as error:
            raise ConfigurationError(f"partitioned queue: {error}") from error
        names = (self.logical, *(f"{self.logical}__p{index}" for index in range(1, self.partitions)))
        object.__setattr__(self, "physical_queues", names)

    def __str__(self) -> str:
        return f"{self.logical}/{self.partitions}"

    def queue_for_index(self, index: int) -> str:
        """The physical queue of a partition.

        Raises:
            ConfigurationError: there is no such partition.

        >>> import awa
        >>> awa.PartitionedQueue("email", 4).queue_for_index(3)
        'email__p3'
        """
        if not 0 <= index < self.partitions:
            raise ConfigurationError(f"queue {self.logical} has partitions 0 to {self.partitions - 1}, not {index}")
        return self.physical_queues[index]

    def queue_for_key(self, ordering_key: str | bytes) -> str:
        """The physical queue of a key.

        >>> import awa
        >>> awa.PartitionedQueue("email", 1).queue_for_key("ada")
        'email'
        """
        return self.physical_queues[partition_for_ordering_key(ordering_key, self.partitions)]

    def route_by_key(self, ordering_key: str | bytes) -> dict[str, str | bytes]:
        """The options that send a job to its key's partition, for `JobOptions` or a producer that knows no partitions.

        >>> import awa
        >>> awa.PartitionedQueue("email", 1).route_by_key("ada")
        {'queue': 'email', 'ordering_key': 'ada'}
        """
        return {"queue": self.queue_for_key(ordering_key), "ordering_key": ordering_key}

    def route_by_index(self, index: int) -> dict[str, str]:
        """The options that send a job to one partition, whatever its key.

        >>> import awa
        >>> client.enqueue("send", **awa.PartitionedQueue("email", 4).route_by_index(2)) > 0
        True
        """
        return {"queue": self.queue_for_index(index)}

    def queue_configs(
        self,
        max_workers_per_partition: int | None = None,
        *,
        min_workers_per_partition: int | None = None,
        workers: int | None = None,
    ) -> dict[str, int]:
        """How many jobs of each physical queue may run at a time, as `Worker` takes it. One of the first two is given.

        Args:
            max_workers_per_partition: so many of each partition.
            min_workers_per_partition: `workers` in all, spread evenly, and no partition gets fewer than this.
            workers: with `min_workers_per_partition`: threads for the whole logical queue.

        Raises:
            ConfigurationError: both or neither are given, or a number is not positive.

        >>> import awa
        >>> awa.PartitionedQueue("email", 2).queue_configs(max_workers_per_partition=8)
        {'email': 8, 'email__p1': 8}
        >>> awa.PartitionedQueue("email", 3).queue_configs(min_workers_per_partition=1, workers=5)
        {'email': 2, 'email__p1': 2, 'email__p2': 1}
        """
        if (max_workers_per_partition is None) == (min_workers_per_partition is None):
            raise ConfigurationError("give either max_workers_per_partition or min_workers_per_partition with workers")
        if max_workers_per_partition is not None:
            if workers is not None:
                raise ConfigurationError("workers goes with min_workers_per_partition")
            _check_positive("max_workers_per_partition", max_workers_per_partition)
            return dict.fromkeys(self.physical_queues, max_workers_per_partition)
        _check_positive("min_workers_per_partition", min_workers_per_partition)
        _check_positive("workers", workers)
        assert min_workers_per_partition is not None
        assert workers is not None
        each, more = divmod(workers, self.partitions)
        return {
            name: max(min_workers_per_partition, each + (index < more)) for index, name in enumerate(self.physical_queues)
        }


AnyQueue = str | PartitionedQueue


def physical_queues(queue: AnyQueue) -> tuple[str, ...]:
    """The physical queues of a queue, partitioned or not.

    >>> physical_queues("email")
    ('email',)
    """
    return queue.physical_queues if isinstance(queue, PartitionedQueue) else (queue,)


def checked_queues(queue: AnyQueue) -> tuple[str, ...]:
    """The same, of which every name can be one.

    Raises:
        InvalidJob: it cannot.

    >>> checked_queues("")
    Traceback (most recent call last):
    awa.errors.InvalidJob: queue: must not be empty
    """
    return tuple(check_name(name, "queue", MAX_QUEUE_CHARACTERS) for name in physical_queues(queue))


def expand_queues(numbers: Mapping[AnyQueue, int] | Mapping[str, int]) -> dict[str, int]:
    """A number by queue as the same number by physical queue.

    Raises:
        ConfigurationError: two of the queues have a physical queue in common.

    >>> expand_queues({PartitionedQueue("email", 2): 10, "default": 5})
    {'email': 10, 'email__p1': 10, 'default': 5}
    """
    return merge_queue_configs(*(dict.fromkeys(physical_queues(queue), number) for queue, number in numbers.items()))


def merge_queue_configs(*configs: Mapping[str, int]) -> dict[str, int]:
    """Several results of `queue_configs` as one, for a worker that serves more than one logical queue.

    Raises:
        ConfigurationError: a physical queue is in two of them.

    >>> merge_queue_configs({"email": 1}, {"email__p1": 1}, {"email": 2})
    Traceback (most recent call last):
    awa.errors.ConfigurationError: queue 'email' is named twice: logical queues share a physical one
    """
    merged: dict[str, int] = {}
    for config in configs:
        for name, number in config.items():
            if name in merged:
                raise ConfigurationError(f"queue {name!r} is named twice: logical queues share a physical one")
            merged[name] = number
    return merged


def parse_queue(text: str) -> AnyQueue:
    """`email`, or `email/4` for four partitions. A queue that is really called `email/4` is `email/4/1`.

    Raises:
        ConfigurationError: no such partitioned queue can be.

    >>> parse_queue("email/4")
    PartitionedQueue(logical='email', partitions=4)
    """
    match = re.fullmatch(r"(.*)/([0-9]+)", text, re.DOTALL)
    return text if match is None else PartitionedQueue(match[1], int(match[2]))


def _check_positive(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{name} must be a positive integer, not {value!r}")
