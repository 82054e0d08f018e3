"""How commands take queues."""

from __future__ import annotations

import click
import pytest

from awa import PartitionedQueue
from awa.partitions import AnyQueue
from awa_cli.queue_types import QUEUE, QUEUES


@pytest.mark.parametrize(
    ("text", "queues"),
    [
        ("email:4", {"email": 4}),
        (" email:4, default:10", {"email": 4, "default": 10}),
        ("email/3:10", {"email": 10, "email__p1": 10, "email__p2": 10}),
        ("email/2:1,default:5", {"email": 1, "email__p1": 1, "default": 5}),
        ("email/4/1:2", {"email/4": 2}),
        ("a:b:4", {"a:b": 4}),
    ],
)
def test_queues_and_their_partitions(text: str, queues: dict[str, int]) -> None:
    assert QUEUES.convert(text, None, None) == queues
    assert QUEUES.convert(queues, None, None) == queues


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("email", "'email' is not name:jobs"),
        ("email:0", "'email:0' is not name:jobs"),
        (":4", "':4' is not name:jobs"),
        ("email:4,email:5", "queue 'email' is named twice"),
        ("email/2:4,email__p1:5", "queue 'email__p1' is named twice"),
        ("email/2:4,email/3:5", "queue 'email' is named twice"),
        ("email/0:4", "partitions must be between 1 and 32767, not 0"),
        ("/2:4", "must not be empty"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, said: str) -> None:
    with pytest.raises(click.BadParameter, match=said):
        QUEUES.convert(text, None, None)


def test_queues_of_a_framework_s_settings_may_be_partitioned() -> None:
    queues: dict[AnyQueue, int] = {PartitionedQueue("email", 2): 10, "default": 5}
    assert QUEUES.convert(queues, None, None) == {"email": 10, "email__p1": 10, "default": 5}
    with pytest.raises(click.BadParameter, match="queue 'email' is named twice"):
        QUEUES.convert({**queues, "email": 5}, None, None)


def test_one_queue() -> None:
    assert QUEUE.convert("email", None, None) == "email"
    assert QUEUE.convert("email/4", None, None) == PartitionedQueue("email", 4)
    with pytest.raises(click.BadParameter, match="between 1 and 32767"):
        QUEUE.convert("email/0", None, None)
