"""A table for people, JSON for machines, and the plot."""

from __future__ import annotations

import json
import pathlib

from . import plot
from .tables import markdown
from .targets import DIRECT, STARTERS

MIB = 2**20
HEADER = ["workload", "through", "per second", "ratio", "ahead", "rate", "p50 ms", "p99 ms", "p99.9 ms", "proxy µs", "Redis µs", "proxy MiB"]
OURS = "tideover"
NOTES = """
Per second: as fast as it goes. Ratio: to direct Redis. Ahead: rounds in which tideover was faster than the best peer in the row. Percentiles: at
the same rate for all, which stands beside them, from intended times; `!`: that rate was not held. µs: CPU per request, as fast as it goes. MiB: the
most resident memory of the proxy in the workload.
"""


def rounds_ahead(result: dict) -> str:
    """Of how many, and of whom: `7/7 haproxy`. Where medians lie within the noise this says more than they do."""
    peers = [name for name in STARTERS if name != OURS and name in result["targets"]]
    if OURS not in result["targets"] or not peers:
        return ""
    best = max(peers, key=lambda name: result["targets"][name]["per_second"])
    ours, theirs = ([run["per_second"] for run in result["runs"]["throughput"][name]] for name in (OURS, best))
    return f"{sum(one > other for one, other in zip(ours, theirs))}/{len(ours)} {best}"


def cells(name: str, target: str, result: dict) -> list[str]:
    row = result["targets"].get(target)
    if row is None:
        return [name, target] + ["-"] * (len(HEADER) - 2)
    at_rate, proxied = row["at_rate"], target != DIRECT
    return [
        name,
        target,
        f"{row['per_second']:.0f}",
        f"{row['ratio_to_direct']:.2f}",
        rounds_ahead(result) if target == OURS else "",
        f"{result['rate']:.0f}{'' if row['rate_held'] else ' !'}",
        *(f"{at_rate[key] / 1e3:.2f}" for key in ("p50_us", "p99_us", "p999_us")),
        f"{row['proxy_cpu_us']:.2f}" if proxied else "",
        f"{row['redis_cpu_us']:.2f}",
        f"{row['rss_peak_bytes'] / MIB:.1f}" if proxied else "",
    ]


def table(document: dict) -> str:
    rows = [cells(name, target, result) for name, result in document["results"].items() for target in document["targets"]]
    return markdown(HEADER, rows, names=2)


def write(document: dict, directory: pathlib.Path, plot_path: str | None) -> None:
    """Prints the table; bench.json and bench.svg go into `directory`, the plot to `plot_path` as well."""
    print(f"\n{table(document)}\n{NOTES}")
    directory.mkdir(exist_ok=True)
    svg = plot.svg(document)
    written = [directory / "bench.json", directory / "bench.svg", *([pathlib.Path(plot_path)] if plot_path else [])]
    written[0].write_text(json.dumps(document, indent=2) + "\n")
    for path in written[1:]:
        path.write_text(svg)
    print("written: " + ", ".join(str(path) for path in written))
