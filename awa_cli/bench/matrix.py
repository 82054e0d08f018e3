"""`awa bench enqueue-matrix`: a batch in one statement against COPY, by the size of a call and the number of producers."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final

from attrs import frozen

from awa import Client
from awa_cli.bench.fleet import run_producers
from awa_cli.bench.measure import Latencies, Meter
from awa_cli.bench.scenarios import fresh_name
from awa_cli.bench.tasks import bench_noop, noop_args

MODES: Final = ("many", "copy")


@frozen(kw_only=True)
class MatrixShape:
    """The flags of the matrix."""

    sizes: tuple[int, ...]
    producers: tuple[int, ...]
    jobs: int
    payload_bytes: int

    @property
    def cells(self) -> int:
        """How many figures it has."""
        return len(self.sizes) * len(self.producers) * len(MODES)


def run_matrix(dsn: str, shape: MatrixShape, meter: Meter, progress: Callable[[int], object]) -> dict[str, Any]:
    """Every cell in turn: producers that call again as soon as a call returns, each call a transaction."""
    cells = []
    for size in shape.sizes:
        for producers in shape.producers:
            for mode in MODES:
                cells.append(_run_cell(dsn, shape, meter, mode, size, producers))
                progress(len(cells))
    return {
        "scenario": "enqueue-matrix",
        "payload_bytes": shape.payload_bytes,
        "cells": cells,
        "copy_pays": copy_pays(cells),
    }


def _run_cell(dsn: str, shape: MatrixShape, meter: Meter, mode: str, size: int, producers: int) -> dict[str, Any]:
    calls = max(3, round(shape.jobs / (size * producers)))
    jobs = calls * size * producers
    meter.checkpoint()
    before = meter.read()
    arguments = [(dsn, mode, size, calls, shape.payload_bytes, fresh_name()) for _ in range(producers)]
    seconds, results = run_producers(_produce, arguments)
    after = meter.read()
    latencies = Latencies([sample for result in results for sample in result["latencies"]])
    return {
        "mode": mode,
        "size": size,
        "producers": producers,
        "calls": calls * producers,
        "jobs_per_s": round(jobs / seconds, 1),
        "call_ms": latencies.percentiles(),
        "wal_bytes_per_job": round((after.wal_bytes - before.wal_bytes) / jobs, 1),
    }


def copy_pays(cells: list[dict[str, Any]]) -> dict[str, int | None]:
    """By number of producers: the smallest size from which on COPY is faster at every size that was measured."""
    found: dict[str, int | None] = {}
    for producers in sorted({cell["producers"] for cell in cells}):
        rates = {(cell["mode"], cell["size"]): cell["jobs_per_s"] for cell in cells if cell["producers"] == producers}
        size_from = None
        for size in sorted({size for _, size in rates}, reverse=True):
            if rates["copy", size] <= rates["many", size]:
                break
            size_from = size
        found[str(producers)] = size_from
    return found


def _produce(pipe: Connection, dsn: str, mode: str, size: int, calls: int, payload_bytes: int, queue: str) -> None:
    latencies: list[float] = []
    with Client(dsn, max_connections=1) as client:
        enqueue: Callable[..., object] = client.enqueue_many if mode == "many" else client.enqueue_many_copy
        # Connections, lanes and prepared statements are not what is measured.
        for _ in range(6):
            enqueue([noop_args(0, payload_bytes)], kind=bench_noop, queue=queue)
        pipe.send("ready")
        assert pipe.recv() == "go"
        for call in range(calls):
            batch = [noop_args(n, payload_bytes) for n in range(call * size, (call + 1) * size)]
            began = time.perf_counter()
            enqueue(batch, kind=bench_noop, queue=queue)
            latencies.append((time.perf_counter() - began) * 1000)
    pipe.send({"latencies": latencies})
