"""Plots of benches, where matplotlib is installed."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import pairwise
from typing import Any

from awa.errors import ConfigurationError


def check_plot(path: str) -> None:
    """See that a plot can be written, before minutes are spent on its figures.

    Raises:
        ConfigurationError: the ending is none of .png and .svg, or matplotlib is not installed.
    """
    if not path.endswith((".png", ".svg")):
        raise ConfigurationError(f"--plot writes .png or .svg, not {path!r}")
    if find_spec("matplotlib") is None:
        raise ConfigurationError("plots need matplotlib: pip install 'awa-queue[plot]'")


def plot_horizon(result: dict[str, Any], path: str) -> None:
    """Throughput and latency above, dead tuples and storage below, over time.

    Args:
        result: what `awa bench horizon --json` prints.
        path: of the file to write; its ending is the format.
    """
    from matplotlib.figure import Figure

    samples, minutes = result["samples"], result["minutes"]
    at = [sample["at"] for sample in samples]
    rates = [(b["completed"] - a["completed"]) / (b["at"] - a["at"]) for a, b in pairwise(samples)]
    middles = [minute["minute"] * 60 - 30 for minute in minutes]

    figure = Figure(figsize=(10, 9), layout="constrained")
    throughput, latency, dead, storage = figure.subplots(4, 1, sharex=True)
    throughput.plot(at[1:], rates, linewidth=0.8, label="completed per second")
    throughput.plot(at, [sample["depth"] for sample in samples], linewidth=0.8, label="jobs waiting")
    throughput.set_ylabel("jobs")
    latency.plot(middles, [minute["p50_ms"] for minute in minutes], marker="o", label="p50")
    latency.plot(middles, [minute["p99_ms"] for minute in minutes], marker="o", label="p99")
    latency.set_ylabel("ms, enqueued to ended")
    dead.plot(at, [sample["dead_hot"] for sample in samples], label="dead tuples: rings")
    dead.plot(at, [sum(sample["dead_cold"].values()) for sample in samples], label="elsewhere in awa")
    dead.plot(at, [sample["catalog_dead"] for sample in samples], label="catalog")
    dead.set_ylabel("tuples")
    storage.plot(at, [sample["storage_bytes"] / 1e6 for sample in samples], label="rings, MB")
    storage.plot(at, [sample["catalog_bytes"] / 1e6 for sample in samples], label="catalog, MB")
    storage.set_ylabel("MB")
    storage.set_xlabel("seconds")
    for axes in (throughput, latency, dead, storage):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper right", fontsize=8)
        if result["pinned_writer_seconds"]:
            begin = (result["seconds"] - result["pinned_writer_seconds"]) / 2
            axes.axvspan(begin, begin + result["pinned_writer_seconds"], alpha=0.08, color="black")
    reader = "with" if result["pinned_reader"] else "without"
    throughput.set_title(
        f"{result['rate']:,} jobs/s offered, {reader} a pinned reader; a writer's transaction is open where it is grey"
    )
    figure.savefig(path)
