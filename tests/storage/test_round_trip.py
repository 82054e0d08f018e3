"""What goes in comes out: arbitrary JSON through every way in and every way out of a real server."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from typing import Any

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import awa
from awa.claim import ARGS, PAYLOAD
from awa.postgres import connect
from awa.storage.claim import claim_jobs, prepare_claiming, random_id
from tests.sql.engine import RUNTIME, promote_all

_queues = count(1)
LATER = datetime(2100, 1, 1, tzinfo=UTC)

AWKWARD = [",", '"', "'", "\n", "\r", "\r\n", "\t", "\\", "\\N", "\\.", "", " ", "\x01", "\x7f", "\u2028", "%s", "{}"]
AWKWARD += ["\\u0000", "\ufffe", "\uffff", *(chr(plane * 0x10000 + 0x41) for plane in range(17)), "\U0010ffff"]

texts = st.one_of(
    st.sampled_from(AWKWARD),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20),
    st.lists(st.sampled_from(AWKWARD), max_size=4).map("".join),
)
numbers = st.one_of(st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)
objects = st.dictionaries(texts, values, max_size=4)
# Metadata is kept as jsonb, whose numbers are decimal: compared here without floats.
plain_objects = st.dictionaries(texts, st.one_of(texts, st.integers(-(2**63), 2**63 - 1), st.none()), max_size=3)


@pytest.fixture
def claimer(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection that claims as a worker does."""
    with connect(dsn, "awa test") as conn:
        prepare_claiming(conn)
        yield conn


@settings(max_examples=30)
@given(batch=st.lists(objects, min_size=1, max_size=4), metadata=plain_objects)
@example(batch=[{text: text for text in AWKWARD}, {"all": AWKWARD}, {}], metadata={text: text for text in AWKWARD})
def test_arguments_and_metadata_come_back_equal_by_every_way(
    client: awa.Client, claimer: psycopg.Connection[Any], batch: list[dict[str, Any]], metadata: dict[str, Any]
) -> None:
    queue = f"q{next(_queues)}"
    ids = [client.enqueue("work", args, queue=queue, metadata=metadata) for args in batch]
    ids += client.enqueue_many(batch, kind="work", queue=queue, metadata=metadata)
    client.enqueue_many_copy(batch, kind="work", queue=queue, metadata=metadata)
    ids += client.enqueue_many_copy(batch, kind="work", queue=queue, metadata=metadata, return_ids=True)
    unique = awa.Unique(by_queue=True, on_conflict="return_existing")
    ids += client.enqueue_many_copy(batch, kind="work", queue=queue, metadata=metadata, unique=unique, return_ids=True)
    later = client.enqueue_many_copy(batch, kind="work", queue=queue, metadata=metadata, run_at=LATER, return_ids=True)
    assert client.enqueue_many_copy(batch, kind="work", queue=queue, metadata=metadata, run_at=LATER) == len(batch)

    stored = [job for job_id in (*ids, *later) if (job := client.get_job(job_id))]
    assert [job.args for job in stored] == batch * 5
    assert all(job.metadata == metadata for job in stored)
    promote_all(claimer)
    rows = claim_jobs(claimer, queue, 1000, RUNTIME, random_id())
    written = (
        batch * 4 + [job.args for job_id in sorted(set(ids[-len(batch) :])) if (job := client.get_job(job_id))] + batch * 2
    )
    assert [json.loads(row[ARGS]) for row in rows] == written
    assert all((json.loads(row[PAYLOAD])["metadata"] if row[PAYLOAD] else {}) == metadata for row in rows)
    assert [json.dumps(json.loads(row[ARGS])) for row in rows] == [json.dumps(args) for args in written]


@pytest.mark.parametrize("numbered", [False, True])
def test_each_awkward_character_survives_a_copy_wherever_it_stands(
    client: awa.Client, claimer: psycopg.Connection[Any], numbered: bool
) -> None:
    for character in AWKWARD:
        queue = f"q{next(_queues)}"
        texts = [character, f"{character}end", f"start{character}", f"a{character}b", character * 3, f"\\{character}"]
        args = {text: text for text in texts}
        copied = client.enqueue_many_copy(
            [{"n": 1}, args, {"n": 2}], kind="work", queue=queue, metadata=args, return_ids=numbered
        )
        assert len(copied) == 3 if isinstance(copied, array) else copied == 3
        rows = claim_jobs(claimer, queue, 10, RUNTIME, random_id())
        assert [json.loads(row[ARGS]) for row in rows] == [{"n": 1}, args, {"n": 2}], repr(character)
        assert [json.loads(row[PAYLOAD]) for row in rows] == [{"metadata": args}] * 3, repr(character)


@pytest.mark.parametrize(
    ("args", "options", "field"),
    [
        ({"a": "x\x00y"}, {}, "args.a"),
        ({"a\x00": 1}, {}, "args.'a\\x00'"),
        ({"a": [{"b": "\x00"}]}, {}, "args.a[0].b"),
        ({}, {"metadata": {"m": "\x00"}}, "metadata.m"),
        ({}, {"tags": ["\x00"]}, "tags[0]"),
        ({}, {"queue": "q\x00"}, "queue"),
    ],
)
def test_nul_is_refused_by_the_path_of_its_field_and_nothing_is_enqueued(
    client: awa.Client, args: dict[str, Any], options: dict[str, Any], field: str
) -> None:
    bad = awa.NewJob(args, options=awa.JobOptions(**options))
    for way in (client.enqueue_many, client.enqueue_many_copy):
        with pytest.raises(awa.InvalidJob) as refused:
            way([{"n": 1}, bad], kind="work", queue="q")
        assert refused.value.field == f"jobs[1].{field}"
    assert sum(counts.unfinished for counts in client.list_queues()) == 0


@settings(max_examples=20)
@given(name=st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=200))
@example(name="comma,quote\"'back\\slash\\N")
def test_queues_kinds_and_tags_come_back_equal(client: awa.Client, name: str) -> None:
    ids = [client.enqueue(name, {"n": 1}, queue=name, tags=[name[:100]])]
    ids += client.enqueue_many([{"n": 2}], kind=name, queue=name, tags=[name[:100]])
    assert client.enqueue_many_copy([{"n": 3}], kind=name, queue=name, tags=[name[:100]]) == 1
    ids.append(ids[-1] + 1)
    ids += client.enqueue_many_copy([{"n": 4}], kind=name, queue=name, tags=[name[:100]], return_ids=True)
    for job_id in ids:
        job = client.get_job(job_id)
        assert job is not None
        assert (job.queue, job.kind, job.tags) == (name, name, (name[:100],))
