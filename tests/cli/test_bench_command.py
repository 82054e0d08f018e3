"""`awa bench`: the object it prints, and that what it measures leaves no dead tuples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

import awa
from awa.postgres import Connection
from awa.storage.runtimes import retire_runtime
from awa_cli.bench.matrix import copy_pays
from tests.cli.commands import run, run_json
from tests.sql.engine import RUNTIME, read

KEYS = {
    "scenario",
    "jobs",
    "seconds",
    "jobs_per_s",
    "latency_ms",
    "wal_bytes_per_job",
    "xacts_per_job",
    "dead_tuples",
    "server_cpu_s_per_1k",
    "client_cpu_s_per_1k",
    "environment",
}
RINGS = {
    "ready_entries",
    "lease_claim_batches",
    "lease_claim_closures",
    "receipt_completion_batches",
    "done_entries",
    "leases",
}
PER_CLAIM = {"jobs_per_claim", "jobs_per_flush", "claim_complete_xacts_per_job"}

DRAIN = {"pinned", "fail_percent", "shards", "partitions", *PER_CLAIM}

SCENARIOS: dict[str, tuple[tuple[str, ...], int, set[str]]] = {
    "enqueue one": (("enqueue", "--mode", "one", "--jobs", "60", "--concurrency", "2"), 60, {"client_rss_growth_mb"}),
    "enqueue many": (("enqueue", "--mode", "many", "--jobs", "100", "--batch", "30"), 100, {"client_rss_growth_mb"}),
    "enqueue copy": (("enqueue", "--mode", "copy", "--jobs", "200", "--queues", "2"), 200, {"client_rss_growth_mb"}),
    "drain": (("drain", "--jobs", "200", "--concurrency", "4", "--pinned"), 200, DRAIN),
    "drain of shards": (("drain", "--jobs", "200", "--shards", "3"), 200, DRAIN),
    "drain of partitions": (("drain", "--jobs", "200", "--partitions", "3", "--concurrency", "4"), 200, DRAIN),
    "deferred": (("deferred", "--jobs", "100", "--spread", "0.5"), 100, {"spread_seconds", *PER_CLAIM}),
    "sustained": (
        ("sustained", "--rate", "100", "--seconds", "1"),
        100,
        {"offered_per_s", "offered_seconds", "depth_max", "depth_last", *PER_CLAIM},
    ),
    "pickup": (("pickup", "--jobs", "20"), 20, set()),
}


def check_run(result: dict[str, Any], jobs: int) -> None:
    """Every figure of one run makes sense."""
    assert result["jobs"] == jobs
    assert result["seconds"] > 0
    assert result["jobs_per_s"] == pytest.approx(jobs / result["seconds"], rel=0.05)
    latency = result["latency_ms"]
    assert set(latency) == {"p50", "p95", "p99"}
    assert 0 <= latency["p50"] <= latency["p95"] <= latency["p99"]
    assert result["wal_bytes_per_job"] > 50
    assert result["xacts_per_job"] > 0
    assert set(result["dead_tuples"]) >= RINGS
    assert {table: result["dead_tuples"][table] for table in RINGS} == dict.fromkeys(RINGS, 0)
    assert result["client_cpu_s_per_1k"] > 0


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_prints_the_documented_object(dsn: str, client: awa.Client, scenario: str) -> None:
    arguments, jobs, extra = SCENARIOS[scenario]
    result = run_json(dsn, "bench", *arguments)
    assert set(result) == KEYS | extra
    assert result["scenario"] == scenario.partition(" of ")[0]
    check_run(result, jobs)
    environment = result["environment"]
    assert environment["awa"] == awa.__version__
    assert environment["postgres"]["server_version"]
    counts = client.list_queues()
    if not scenario.startswith("enqueue"):
        assert sum(one.completed for one in counts if not one.queue.endswith("_warm")) == jobs
        assert sum(one.failed + one.running + one.retryable for one in counts) == 0
    else:
        assert sum(one.available for one in counts if not one.queue.endswith("_warm")) == jobs


def test_several_runs_are_reported_with_their_medians(dsn: str) -> None:
    result = run_json(dsn, "bench", "enqueue", "--mode", "copy", "--jobs", "50", "--runs", "2")
    assert set(result) == KEYS | {"client_rss_growth_mb", "runs"}
    assert len(result["runs"]) == 2
    for one in result["runs"]:
        assert set(one) == KEYS - {"environment"} | {"client_rss_growth_mb"}
        check_run(one, 50)
    seconds = [one["seconds"] for one in result["runs"]]
    assert result["seconds"] == pytest.approx(sum(seconds) / 2)


def test_the_drained_queue_was_spread_as_asked_for(dsn: str, conn: Connection) -> None:
    run_json(dsn, "bench", "drain", "--jobs", "60", "--shards", "2", "--partitions", "3", "--concurrency", "3")
    rows = read(
        conn,
        "SELECT regexp_replace(l.queue, '^.*_0', ''), l.enqueue_shard, count(*)"
        " FROM awa.ready_entries JOIN awa.queue_lanes l USING (lane_id) GROUP BY 1, 2",
    )
    assert {(partition, shard) for partition, shard, _ in rows} == {
        (partition, shard) for partition in ("", "__p1", "__p2") for shard in (0, 1)
    }
    assert sum(n for *_, n in rows) == 60


def test_the_matrix_has_a_cell_for_everything_that_was_asked_for(dsn: str, client: awa.Client) -> None:
    result = run_json(dsn, "bench", "enqueue-matrix", "--sizes", "5,40", "--producers", "1,2", "--jobs", "80")
    cells = result["cells"]
    assert {(cell["mode"], cell["size"], cell["producers"]) for cell in cells} == {
        (mode, size, producers) for mode in ("many", "copy") for size in (5, 40) for producers in (1, 2)
    }
    assert all(cell["jobs_per_s"] > 0 and cell["call_ms"]["p50"] > 0 and cell["wal_bytes_per_job"] > 50 for cell in cells)
    assert set(result["copy_pays"]) == {"1", "2"}
    warm = 6 * sum(cell["producers"] for cell in cells)
    enqueued = sum(cell["calls"] * cell["size"] for cell in cells)
    assert sum(counts.available for counts in client.list_queues()) == enqueued + warm


def test_the_matrix_is_printed_with_what_follows_from_it(dsn: str) -> None:
    done = run(dsn, "bench", "enqueue-matrix", "--sizes", "5", "--producers", "1", "--jobs", "20")
    assert (done.returncode, done.stderr) == (0, "")
    assert "with 1 producer COPY is faster" in done.stdout


def test_copy_pays_from_the_size_from_which_on_it_is_always_faster() -> None:
    def cells(*rates: tuple[int, int, int]) -> list[dict[str, Any]]:
        return [
            {"mode": mode, "size": size, "producers": 1, "jobs_per_s": rate}
            for size, many, copy in rates
            for mode, rate in (("many", many), ("copy", copy))
        ]

    assert copy_pays(cells((1, 5, 9), (10, 9, 5), (100, 5, 9), (1000, 5, 9))) == {"1": 100}
    assert copy_pays(cells((1, 5, 9), (10, 9, 5))) == {"1": None}
    assert copy_pays(cells((1, 5, 9), (10, 5, 9))) == {"1": 1}


def test_a_table_is_printed_without_json(dsn: str) -> None:
    done = run(dsn, "bench", "enqueue", "--jobs", "50", "--mode", "many")
    assert (done.returncode, done.stderr) == (0, "")
    assert "awa bench enqueue many" in done.stdout
    assert "0 in every table" in done.stdout


def test_a_bench_on_a_database_without_a_schema_names_the_command(empty_dsn: str) -> None:
    done = run(empty_dsn, "bench", "drain", "--jobs", "50", env={"PYTHONWARNINGS": ""})
    assert done.returncode == 1
    assert "awa migrate" in done.stderr
    assert "Traceback" not in done.stderr


def test_horizon_watches_a_pinned_database(
    dsn: str, conn: psycopg.Connection[Any], client: awa.Client, tmp_path: Path
) -> None:
    retire_runtime(conn, RUNTIME)  # the tests' own, which nobody beats for
    plot = tmp_path / "horizon.svg"
    result = run_json(
        dsn,
        *("bench", "horizon", "--rate", "100", "--minutes", "0.1", "--writer-minutes", "0.05"),
        *("--completed-retention", "1", "--plot", str(plot)),
    )
    assert result["jobs"] == 602  # one to warm up, one of the pinning writer
    assert result["dead_tuples_in_rings"] == 0
    assert result["prunes"] > 0  # the fast path was taken: slots were emptied under the pinned reader
    (minute,) = result["minutes"]
    assert minute["jobs_per_s"] == pytest.approx(100, rel=0.05)
    assert 0 < minute["p50_ms"] <= minute["p99_ms"]
    assert len(result["samples"]) >= 6
    assert plot.read_text().startswith("<?xml")
    assert client.storage_settings().completed_retention == 3600.0  # put back


def test_a_plot_is_png_or_svg(dsn: str) -> None:
    done = run(dsn, *("bench", "horizon", "--rate", "10", "--minutes", "0.1", "--writer-minutes", "0"), "--plot", "x.pdf")
    assert done.returncode == 2
    assert "--plot writes .png or .svg, not 'x.pdf'" in done.stderr


def test_counts_are_timed_as_history_grows(dsn: str, client: awa.Client) -> None:
    result = run_json(dsn, "bench", "counts", "--jobs", "300", "--jobs-per-claim", "10")
    assert [row["completed"] for row in result["rows"]] == [3, 30, 300]
    assert all(row["fast_ms"] > 0 and row["exact_ms"] > 0 for row in result["rows"])
    assert client.storage_settings().history_max_bytes == 1 << 30
