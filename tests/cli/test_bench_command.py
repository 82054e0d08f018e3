"""`awa bench`: the object it prints, and that what it measures leaves no dead tuples."""

from __future__ import annotations

from typing import Any

import pytest

import awa
from tests.cli.commands import run, run_json

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

SCENARIOS: dict[str, tuple[tuple[str, ...], int, set[str]]] = {
    "enqueue one": (("enqueue", "--mode", "one", "--jobs", "60", "--concurrency", "2"), 60, {"client_rss_growth_mb"}),
    "enqueue many": (("enqueue", "--mode", "many", "--jobs", "100", "--batch", "30"), 100, {"client_rss_growth_mb"}),
    "enqueue copy": (("enqueue", "--mode", "copy", "--jobs", "200", "--queues", "2"), 200, {"client_rss_growth_mb"}),
    "drain": (("drain", "--jobs", "200", "--concurrency", "4", "--pinned"), 200, {"pinned", "fail_percent", *PER_CLAIM}),
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
    assert result["scenario"] == scenario
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
