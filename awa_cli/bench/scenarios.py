"""What `awa bench` can measure. Each scenario runs once on a prepared database and returns its figures."""

from __future__ import annotations

import random
import resource
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from typing import Any

import psycopg
from attrs import frozen

from awa import AwaError, Client, NewJob, PartitionedQueue
from awa.job import JobOptions
from awa.partitions import AnyQueue, merge_queue_configs
from awa_cli.bench.fleet import WorkerFleet, run_producers
from awa_cli.bench.measure import Latencies, Meter, report
from awa_cli.bench.tasks import (
    SAMPLE_EVERY,
    bench_flaky,
    bench_noop,
    bench_pickup,
    bench_stamped,
    bench_timed,
    bench_work,
    noop_args,
)

DRAIN_TIMEOUT = 600.0  # seconds


@frozen(kw_only=True)
class Shape:
    """The flags of a bench."""

    jobs: int
    payload_bytes: int = 100
    queues: int = 1
    concurrency: int = 64
    processes: int = 1
    batch: int = 1000
    mode: str = "one"
    rate: int = 10_000
    seconds: float = 60.0
    pinned: bool = False
    work_ms: float = 0.0
    idle_ms: float = 20.0
    fail_percent: int = 0
    spread: float = 0.0
    shards: int = 1
    partitions: int = 1


Progress = Callable[[int], object]


def run_enqueue(dsn: str, shape: Shape, meter: Meter, progress: Progress) -> dict[str, Any]:
    """Producers enqueue as fast as they can. Latency: of one call."""
    prefix = fresh_name()
    per_producer = shape.jobs // (shape.processes * shape.concurrency)
    jobs = per_producer * shape.processes * shape.concurrency
    meter.checkpoint()
    before = meter.read()
    seconds, results = run_producers(_produce, [(dsn, shape, prefix, per_producer) for _ in range(shape.processes)])
    after = meter.read()
    progress(jobs)
    samples = [sample for result in results for sample in result["latencies"]]
    peak = max(result["peak_rss_growth_mb"] for result in results)
    return report(
        f"enqueue {shape.mode}",
        jobs,
        seconds,
        Latencies(samples),
        before,
        after,
        sum(result["cpu"] for result in results),
        client_rss_growth_mb=round(peak, 1),
    )


def run_drain(dsn: str, shape: Shape, meter: Meter, progress: Progress) -> dict[str, Any]:
    """Workers start on a full queue. Seconds: from their start to the last durable completion. Latency: from their
    start to the start of a job (one in fifty is sampled)."""
    meter.checkpoint()
    names = _fill(dsn, shape)
    with _pinned(dsn, shape.pinned), WorkerFleet(dsn, _concurrency(names, shape), shape.processes) as fleet:
        before = meter.read()
        began = time.monotonic()
        fleet.go()
        seconds = fleet.wait_for(shape.jobs, DRAIN_TIMEOUT, progress) - began
        seen = fleet.stop()
        after = meter.read()
    samples = [(at / 1e9 - began) * 1000 for one in seen for at in one["started_at"]]
    cpu = sum(one["cpu"] for one in seen)
    return report(
        "drain",
        shape.jobs,
        seconds,
        Latencies(samples),
        before,
        after,
        cpu,
        pinned=shape.pinned,
        fail_percent=shape.fail_percent,
        shards=shape.shards,
        partitions=shape.partitions,
        **_batching(shape.jobs, seen),
    )


def run_deferred(dsn: str, shape: Shape, meter: Meter, progress: Progress) -> dict[str, Any]:
    """Deferred jobs fall due, all at one instant or spread over a time, while workers run. Seconds: from the first due time
    to the last durable completion. Latency: from a job's due time to the end of its handler."""
    name = fresh_name()
    lead = 3.0 + shape.jobs / 30_000  # seconds to enqueue them and to start the workers
    meter.checkpoint()
    first_due, first_due_at = time.monotonic() + lead, datetime.now(UTC) + timedelta(seconds=lead)
    with Client(dsn) as client:
        client.enqueue_many_copy(_due_jobs(shape, first_due, first_due_at), kind=bench_stamped, queue=name)
    with WorkerFleet(dsn, {name: shape.concurrency}, shape.processes) as fleet:
        before = meter.read()
        fleet.go(until_ready=True)
        late = time.monotonic() > first_due
        seconds = fleet.wait_for(shape.jobs, DRAIN_TIMEOUT, progress) - first_due
        seen = fleet.stop()
        after = meter.read()
    if late:
        raise AwaError("the jobs fell due before the workers were ready: the figure would flatter nobody, run it again")
    samples = [nanoseconds / 1e6 for one in seen for nanoseconds in one["latencies"]]
    return report(
        "deferred",
        shape.jobs,
        seconds,
        Latencies(samples),
        before,
        after,
        sum(one["cpu"] for one in seen),
        spread_seconds=shape.spread,
        **_batching(shape.jobs, seen),
    )


def run_sustained(dsn: str, shape: Shape, meter: Meter, progress: Progress) -> dict[str, Any]:
    """Jobs are offered at a fixed rate while workers run. Latency: from the instant a job was to be enqueued to the end
    of its handler, so that a producer that falls behind is not forgiven."""
    name = fresh_name()
    jobs = int(shape.rate * shape.seconds)
    depths: list[int] = []
    stop_sampling = threading.Event()

    def sample_depth() -> None:
        with Client(dsn, max_connections=1) as client:
            while not stop_sampling.wait(1.0):
                depths.append(client.queue_counts(name, exact=False).available)

    meter.checkpoint()
    with WorkerFleet(dsn, {name: shape.concurrency}, shape.processes) as fleet:
        before = meter.read()
        fleet.go(until_ready=True)
        sampler = threading.Thread(target=sample_depth)
        sampler.start()
        began = time.monotonic()
        _, (producer,) = run_producers(offer, [(dsn, shape, name)])
        cpu = producer["cpu"]
        offered = time.monotonic() - began
        seconds = fleet.wait_for(jobs, DRAIN_TIMEOUT, progress) - began
        stop_sampling.set()
        sampler.join()
        seen = fleet.stop()
        after = meter.read()
    samples = [nanoseconds / 1e6 for one in seen for nanoseconds in one["latencies"]]
    return report(
        "sustained",
        jobs,
        seconds,
        Latencies(samples),
        before,
        after,
        cpu + sum(one["cpu"] for one in seen),
        **_batching(jobs, seen),
        offered_per_s=shape.rate,
        offered_seconds=round(offered, 2),
        depth_max=max(depths, default=0),
        depth_last=depths[-1] if depths else 0,
    )


def run_pickup(dsn: str, shape: Shape, meter: Meter, progress: Progress) -> dict[str, Any]:
    """One job at a time to an idle worker. Latency: from the return of `enqueue` to the start of the handler."""
    name = fresh_name()
    returned: dict[int, int] = {}
    meter.checkpoint()
    with WorkerFleet(dsn, {name: shape.concurrency}, shape.processes, look_every=0.02) as fleet, Client(dsn) as client:
        before = meter.read()  # while no worker is connected: it waits for their statistics otherwise
        fleet.go(until_ready=True)
        began, cpu = time.monotonic(), time.process_time()
        for n in range(shape.jobs):
            client.enqueue(bench_pickup, noop_args(n, shape.payload_bytes), queue=name)
            returned[n] = time.monotonic_ns()
            fleet.wait_for(n + 1, 30.0, progress)
            # Let everything go idle: the worker's quick looks after a job must not stand in for a wake-up.
            time.sleep(random.uniform(1, 3) * shape.idle_ms / 1000)
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        client.close()
        seen = fleet.stop()
        after = meter.read()
    samples = [(at - returned[n]) / 1e6 for one in seen for n, at in one["seen"]]
    return report("pickup", shape.jobs, seconds, Latencies(samples), before, after, cpu + sum(one["cpu"] for one in seen))


def _produce(pipe: Connection, dsn: str, shape: Shape, prefix: str, per_producer: int) -> None:
    """One producer process with `concurrency` threads."""
    latencies: list[float] = []
    with Client(dsn, max_connections=shape.concurrency, min_connections=shape.concurrency) as client:
        queues = [f"{prefix}_{index}" for index in range(shape.queues)]
        for queue in queues:  # connections, lanes and prepared statements are not what is measured
            client.enqueue(bench_noop, noop_args(0, shape.payload_bytes), queue=f"{queue}_warm")
        pipe.send("ready")
        assert pipe.recv() == "go"
        rss = _peak_rss_mb()
        cpu = time.process_time()
        threads = [
            threading.Thread(target=_produce_one, args=(client, shape, queues, per_producer, latencies))
            for _ in range(shape.concurrency)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        cpu = time.process_time() - cpu
    pipe.send({"latencies": latencies, "peak_rss_growth_mb": _peak_rss_mb() - rss, "cpu": cpu})


def _produce_one(client: Client, shape: Shape, queues: list[str], jobs: int, latencies: list[float]) -> None:
    def timed(call: Callable[..., object], *args: Any, **options: Any) -> None:
        began = time.perf_counter()
        call(*args, **options)
        latencies.append((time.perf_counter() - began) * 1000)

    if shape.mode == "one":
        for n in range(jobs):
            timed(client.enqueue, bench_noop, noop_args(n, shape.payload_bytes), queue=queues[n % len(queues)])
    elif shape.mode == "many":
        for first in range(0, jobs, shape.batch):
            batch = list(_jobs(range(first, min(first + shape.batch, jobs)), shape.payload_bytes, queues))
            timed(client.enqueue_many, batch, kind=bench_noop)
    else:
        timed(client.enqueue_many_copy, _jobs(range(jobs), shape.payload_bytes, queues), kind=bench_noop)


def _jobs(numbers: range, payload_bytes: int, queues: Sequence[AnyQueue]) -> Iterator[NewJob]:
    """Jobs spread over the queues. Their arguments are made as they are read, as an application's would be."""
    options = [JobOptions(queue=queue) for queue in queues]
    for n in numbers:
        yield NewJob(noop_args(n, payload_bytes), options=options[n % len(options)])


def _due_jobs(shape: Shape, first_due: float, first_due_at: datetime) -> Iterator[NewJob]:
    """Jobs in the order of their due times, each stamped with its own. Neighbours share one, so that options are few."""
    steps = max(1, min(shape.jobs, round(shape.spread * 1000)))
    options: dict[int, JobOptions] = {}
    for n in range(shape.jobs):
        step = n * steps // shape.jobs
        offset = shape.spread * step / steps
        if step not in options:
            options = {step: JobOptions(run_at=first_due_at + timedelta(seconds=offset))}
        at = int((first_due + offset) * 1e9)
        body = "x" * max(0, shape.payload_bytes - len(f'{{"at":{at},"body":""}}'))
        yield NewJob({"at": at, "body": body}, options=options[step])


def offer(pipe: Connection, dsn: str, shape: Shape, queue: str, what: str = "stamped") -> None:
    """Enqueue at a fixed rate, a tick's worth at a time, each job stamped with the instant of its tick."""
    kind = bench_timed if what == "timed" else bench_stamped
    tick = 0.005
    per_tick = shape.rate * tick
    with Client(dsn) as client:
        client.enqueue(bench_noop, noop_args(0, shape.payload_bytes), queue=f"{queue}_warm")
        pipe.send("ready")
        assert pipe.recv() == "go"
        cpu = time.process_time()
        began = time.monotonic()
        sent = 0
        for number in range(1, round(shape.seconds / tick) + 1):
            due = began + number * tick
            time.sleep(max(0.0, due - time.monotonic()))
            target = min(round(number * per_tick), int(shape.rate * shape.seconds))
            at = int(due * 1e9)
            body = "x" * max(0, shape.payload_bytes - len(f'{{"at":{at},"body":""}}'))
            if target > sent:
                client.enqueue_many([{"at": at, "body": body}] * (target - sent), kind=kind, queue=queue)
                sent = target
    pipe.send({"cpu": time.process_time() - cpu, "began": began})


def _fill(dsn: str, shape: Shape) -> list[PartitionedQueue]:
    prefix = fresh_name()
    queues = [PartitionedQueue(f"{prefix}_{index}", shape.partitions) for index in range(shape.queues)]
    with Client(dsn) as client:
        if shape.shards > 1:
            for queue in queues:
                client.set_enqueue_shards(queue, shape.shards)
        jobs = _jobs(range(shape.jobs), shape.payload_bytes, queues)
        if shape.fail_percent:
            client.enqueue_many_copy(jobs, kind=bench_flaky, metadata={"fail_percent": shape.fail_percent})
        elif shape.work_ms:
            client.enqueue_many_copy(jobs, kind=bench_work, metadata={"work_ms": shape.work_ms})
        else:
            client.enqueue_many_copy(jobs, kind=bench_noop)
    return queues


def _concurrency(queues: list[PartitionedQueue], shape: Shape) -> dict[str, int]:
    """As many threads a logical queue as without partitions."""
    return merge_queue_configs(
        *(queue.queue_configs(min_workers_per_partition=1, workers=shape.concurrency) for queue in queues)
    )


@contextmanager
def _pinned(dsn: str, wanted: bool) -> Iterator[None]:
    """Another session that holds a snapshot and a written row open, so that nothing dead may be removed."""
    if not wanted:
        yield
        return
    with psycopg.connect(dsn, application_name="pin") as conn:
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        conn.execute("CREATE TEMPORARY TABLE pin (n int)")
        conn.execute("INSERT INTO pin VALUES (1)")
        yield
        conn.rollback()


def _batching(jobs: int, seen: list[dict[str, Any]]) -> dict[str, Any]:
    """How well the workers batched: a claim, empty or not, and a flush are a transaction each."""
    claims, flushes = sum(one["claims"] for one in seen), sum(one["flushes"] for one in seen)
    return {
        "jobs_per_claim": round(jobs / claims, 1),
        "jobs_per_flush": round(jobs / flushes, 1),
        "claim_complete_xacts_per_job": round((claims + flushes) / jobs, 5),
    }


def fresh_name() -> str:
    """A name for a queue that nobody has used."""
    return f"bench_{secrets.token_hex(4)}"


def _peak_rss_mb() -> float:
    """The most memory that this process has had resident."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


__all__ = [
    "DRAIN_TIMEOUT",
    "SAMPLE_EVERY",
    "Shape",
    "fresh_name",
    "offer",
    "run_deferred",
    "run_drain",
    "run_enqueue",
    "run_pickup",
    "run_sustained",
]
