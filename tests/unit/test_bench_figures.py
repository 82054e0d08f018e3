"""How bench runs become figures."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awa_cli.bench.command import medians
from awa_cli.bench.measure import Latencies, percentile
from awa_cli.bench.tasks import noop_args


@pytest.mark.parametrize(
    ("samples", "share", "value"),
    [
        ([], 0.5, None),
        ([7.0], 0.5, 7.0),
        ([7.0], 0.99, 7.0),
        ([1.0, 2.0], 0.5, 1.0),
        ([1.0, 2.0, 3.0], 0.5, 2.0),
        ([float(n) for n in range(1, 101)], 0.5, 50.0),
        ([float(n) for n in range(1, 101)], 0.95, 95.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 102)], 0.99, 100.0),
        ([0.00049], 0.5, 0.0),
    ],
)
def test_a_percentile_is_the_nearest_rank(samples: list[float], share: float, value: float | None) -> None:
    assert percentile(samples, share) == value


@given(st.lists(st.integers(0, 1000), min_size=1), st.sampled_from([0.5, 0.95, 0.99]))
def test_so_large_a_share_of_the_samples_lies_at_or_below_a_percentile(samples: list[int], share: float) -> None:
    ordered = sorted(float(sample) for sample in samples)
    found = percentile(ordered, share)
    assert found is not None
    assert sum(sample <= found for sample in ordered) >= math.ceil(len(ordered) * round(share * 100) / 100)
    assert sum(sample < found for sample in ordered) < len(ordered) * share


def test_latencies_are_sorted_before_they_are_ranked() -> None:
    assert Latencies([3.0, 1.0, 2.0]).percentiles() == {"p50": 2.0, "p95": 3.0, "p99": 3.0}
    assert Latencies([]).percentiles() == {"p50": None, "p95": None, "p99": None}


def test_medians_are_taken_figure_by_figure() -> None:
    runs: list[dict[str, Any]] = [
        {"name": "x", "flag": True, "n": 1, "deep": {"p": 9.0, "none": None}},
        {"name": "y", "flag": False, "n": 30, "deep": {"p": 7.0, "none": None}},
        {"name": "z", "flag": False, "n": 2, "deep": {"p": 8.0, "none": None}},
    ]
    assert medians(runs) == {"name": "x", "flag": True, "n": 2, "deep": {"p": 8.0, "none": None}}
    assert medians(runs[:1]) == runs[0]


def test_a_figure_that_some_runs_lack_is_the_median_of_the_others() -> None:
    assert medians([{"a": 1.0}, {"a": None}, {"a": 3.0}]) == {"a": 2.0}
    assert medians([{"dead": {"t": 0}}, {"dead": {}}]) == {"dead": {"t": 0}}


@pytest.mark.parametrize("payload_bytes", [30, 100, 5000])
@pytest.mark.parametrize("number", [0, 999_999])
def test_arguments_have_the_size_that_was_asked_for(number: int, payload_bytes: int) -> None:
    import json

    assert len(json.dumps(noop_args(number, payload_bytes), separators=(",", ":"))) == payload_bytes
