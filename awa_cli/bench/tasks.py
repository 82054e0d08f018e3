"""The handlers that bench workers run, and where they leave what they saw.

Instants are CLOCK_MONOTONIC nanoseconds, which all processes of one machine share.
"""

from __future__ import annotations

import time

import awa

SAMPLE_EVERY = 50

started_at: list[int] = []
"""When sampled no-op jobs started."""

latencies: list[int] = []
"""Nanoseconds from the instant that a job was meant to be enqueued to the end of its handler."""

timed: list[tuple[int, int]] = []
"""(end, nanoseconds from the instant that the job was meant to be enqueued) of timed jobs."""

seen: list[tuple[int, int]] = []
"""(job number, start) of pickup jobs."""


@awa.task
def bench_noop(n: int, body: str) -> None:
    """Do nothing; every fiftieth tells when."""
    if n % SAMPLE_EVERY == 0:
        started_at.append(time.monotonic_ns())


@awa.task
def bench_work(ctx: awa.JobContext, n: int, body: str) -> None:
    """Wait as a handler does that talks to another service; every fiftieth tells when it started."""
    if n % SAMPLE_EVERY == 0:
        started_at.append(time.monotonic_ns())
    time.sleep(ctx.metadata["work_ms"] / 1000)


@awa.task
def bench_flaky(ctx: awa.JobContext, n: int, body: str) -> None:
    """Fail on the first attempt of some jobs; every fiftieth tells when it started."""
    if n % SAMPLE_EVERY == 0:
        started_at.append(time.monotonic_ns())
    if ctx.attempt == 1 and n % 100 < ctx.metadata["fail_percent"]:
        raise RuntimeError("this job fails once")


@awa.task
def bench_hold(seconds: float) -> None:
    """Take a while."""
    time.sleep(seconds)


@awa.task
def bench_stamped(at: int, body: str) -> None:
    """Tell how long after `at` it ran."""
    latencies.append(time.monotonic_ns() - at)


@awa.task
def bench_timed(at: int, body: str) -> None:
    """Tell when it ran, and how long after `at`."""
    now = time.monotonic_ns()
    timed.append((now, now - at))


@awa.task
def bench_pickup(n: int, body: str) -> None:
    """Tell when it started."""
    seen.append((n, time.monotonic_ns()))


def noop_args(n: int, payload_bytes: int) -> dict[str, object]:
    """Arguments whose JSON text has `payload_bytes` bytes.

    >>> import json; len(json.dumps(noop_args(7, 100), separators=(",", ":")))
    100
    """
    frame = len(f'{{"n":{n},"body":""}}')
    return {"n": n, "body": "x" * max(0, payload_bytes - frame)}
