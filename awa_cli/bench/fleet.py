"""Worker and producer processes under a bench's control."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from awa import AwaError, Worker
from awa_cli.bench import tasks

_spawn = multiprocessing.get_context("spawn")


class WorkerFleet:
    """`processes` worker processes, imported and constructed but not started until `go`.

    They publish their counts, and `wait_for` reads them, every `look_every` seconds. `settings` are the workers' own.
    """

    def __init__(
        self, dsn: str, queues: Mapping[str, int], processes: int, *, look_every: float = 0.002, **settings: Any
    ) -> None:
        self._look_every = look_every
        self._counters = [_spawn.Value("q", 0, lock=False) for _ in range(processes)]
        self._pipes: list[Connection] = []
        self._processes = []
        for counter in self._counters:
            ours, theirs = _spawn.Pipe()
            process = _spawn.Process(
                target=_work, args=(dsn, dict(queues), theirs, counter, look_every, settings), name="awa-bench-worker"
            )
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            _expect(pipe, "constructed")

    def go(self, *, until_ready: bool = False) -> None:
        """Start the workers; `until_ready` waits until they listen."""
        for pipe in self._pipes:
            pipe.send("go and tell" if until_ready else "go")
        if until_ready:
            for pipe in self._pipes:
                _expect(pipe, "ready")

    @property
    def completed(self) -> int:
        """Jobs whose completion is durable."""
        return sum(counter.value for counter in self._counters)

    def wait_for(self, jobs: int, timeout: float, progress: Callable[[int], object]) -> float:
        """Wait until so many jobs are completed; the monotonic instant at which that was seen.

        Raises:
            AwaError: they were not within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while (done := self.completed) < jobs:
            if time.monotonic() > deadline:
                raise AwaError(f"only {done:,} of {jobs:,} jobs were completed within {timeout:g} s")
            progress(done)
            time.sleep(self._look_every)
        return time.monotonic()

    def stop(self) -> list[dict[str, Any]]:
        """Stop the workers; what their handlers saw, and the seconds of CPU each has used since `go`."""
        for pipe in self._pipes:
            pipe.send("stop")
        seen = [pipe.recv() for pipe in self._pipes]
        for process in self._processes:
            process.join()
        return seen

    def __enter__(self) -> WorkerFleet:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for process in self._processes:
            if process.is_alive():
                process.kill()
            process.join()


def run_producers(target: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> tuple[float, list[Any]]:
    """Run `target(pipe, *arguments)` in a process per element; seconds between the common go and the last end, results.

    A target sends "ready", waits for "go", works, and sends its result.
    """
    pipes, processes = [], []
    for given in arguments:
        ours, theirs = _spawn.Pipe()
        process = _spawn.Process(target=target, args=(theirs, *given), name="awa-bench-producer")
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        for pipe in pipes:
            _expect(pipe, "ready")
        began = time.monotonic()
        for pipe in pipes:
            pipe.send("go")
        results = [pipe.recv() for pipe in pipes]
        seconds = time.monotonic() - began
        for process in processes:
            process.join()
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
    return seconds, results


def _expect(pipe: Connection, word: str) -> None:
    try:
        said = pipe.recv()
    except EOFError:
        raise AwaError("a bench process died at its start; its error is above") from None
    assert said == word, said


def _work(
    dsn: str, queues: dict[str, int], pipe: Connection, counter: Any, look_every: float, settings: dict[str, Any]
) -> None:
    logging.basicConfig(level=logging.ERROR)  # ten thousand tracebacks on a terminal are not what is measured
    worker = Worker(queues, dsn=dsn, **settings)
    pipe.send("constructed")
    command = pipe.recv()
    cpu = time.process_time()
    worker.start()
    if command == "go and tell":
        worker.wait_until_ready()
        pipe.send("ready")
    while not pipe.poll(look_every):
        counter.value = worker.stats().completed
    pipe.recv()
    worker.stop()
    cpu = time.process_time() - cpu
    stats = worker.stats()
    pipe.send(
        {
            "cpu": cpu,
            "claims": stats.claims,
            "flushes": stats.flushes,
            "started_at": tasks.started_at,
            "latencies": tasks.latencies,
            "timed": tasks.timed,
            "seen": tasks.seen,
        }
    )
