"""Plays every workload against every target, and reports.

First throughput, as fast as it goes; then latency, at one rate for all. In each round every target has its turn and another one begins, so that a
slow spell of the machine meets everybody. Medians over rounds and ratios to direct are what counts. With the defaults it takes most of an hour.

Environment: ROUNDS (5), SECONDS_PER_RUN (2), TARGETS and WORKLOADS (comma-separated; all), LOAD_CPUS (comma-separated: the load stays on these
CPUs and what is measured on the others; none: wherever the kernel places them), PLOT (a path for the SVG besides target/bench.svg),
TIDEOVER_BENCH_BINARY (target/release/tideover), TIDEOVER_BENCH_LOAD (built when needed).
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import statistics
import tempfile
from collections.abc import Callable, Iterator

from . import report
from .loads import Run, RunFailed, fill, load_binary, run_load, run_redis_benchmark
from .measuring import rss_bytes, rss_peak_bytes
from .targets import DIRECT, LOAD_CPUS, ROOT, STARTERS, Processes, Redis, Target, direct, installed, raise_descriptor_limit, start_redis
from .workloads import WORKLOADS, Workload

ROUNDS = int(os.environ.get("ROUNDS", "5"))
SECONDS_PER_RUN = float(os.environ.get("SECONDS_PER_RUN", "2"))
# The rate for latencies: moderate for Redis, and, where that can be had without idling, not too much for the slowest peer.
RATE_OF_DIRECT = 0.4
RATE_OF_SLOWEST = 0.7
RATE_OF_DIRECT_MIN = 0.1
# A target holds a rate when it comes this close.
HELD = 0.98
CALIBRATION_S = 0.3
CALIBRATION_REQUESTS = 1000
# Redis and the clients have a descriptor each for a client.
DESCRIPTORS_BESIDES_CLIENTS = 200


def wanted_targets() -> list[str]:
    """Names, direct first: everything is a ratio to it."""
    wanted = os.environ.get("TARGETS", ",".join([DIRECT, *STARTERS])).split(",")
    if unknown := set(wanted) - {DIRECT, *STARTERS}:
        raise SystemExit(f"no such target: {', '.join(sorted(unknown))}")
    missing = [name for name in wanted if name != DIRECT and not installed(name)]
    for name in missing:
        print(f"left out, not installed: {name}", flush=True)
    return [name for name in dict.fromkeys([DIRECT, *wanted]) if name not in missing]


def wanted_workloads(descriptors: int) -> list[Workload]:
    names = [workload.name for workload in WORKLOADS]
    wanted = os.environ.get("WORKLOADS", ",".join(names)).split(",")
    if unknown := set(wanted) - set(names):
        raise SystemExit(f"no such workload: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    # A proxy that has a connection to Redis for each client needs two.
    clients_max = (descriptors - DESCRIPTORS_BESIDES_CLIENTS) // 2
    for workload in WORKLOADS:
        if workload.name in wanted and workload.clients > clients_max:
            print(f"left out, for want of descriptors (ulimit -Hn): {workload.name}", flush=True)
    return [workload for workload in WORKLOADS if workload.name in wanted and workload.clients <= clients_max]


def turns(targets: list[Target]) -> Iterator[tuple[int, Target]]:
    for turn in range(ROUNDS):
        first = turn % len(targets)
        yield from ((turn + 1, target) for target in targets[first:] + targets[:first])


def in_turn(what: str, targets: list[Target], run: Callable[[Target], Run]) -> dict[str, list[Run]]:
    """All rounds of one measurement: runs by target, in the order of the rounds. A peer that fails is left out; we may not fail."""
    runs: dict[str, list[Run]] = {target.name: [] for target in targets}
    for number, target in turns(targets):
        if target.name not in runs:
            continue
        try:
            runs[target.name].append(run(target))
        except RunFailed as failure:
            message = f"{what}, round {number}: {target.name} failed: {failure}"
            if target.name in (DIRECT, "tideover"):
                raise SystemExit(message) from failure
            print(message, flush=True)
            del runs[target.name]
        else:
            print(f"{what}, round {number}: {target.name} {runs[target.name][-1].per_second:.0f}/s", flush=True)
    return runs


def medians(runs: list[Run]) -> dict[str, float | None]:
    """Of each number, over rounds."""
    columns = {field.name: [getattr(run, field.name) for run in runs] for field in dataclasses.fields(Run)}
    return {name: None if None in column else statistics.median(column) for name, column in columns.items()}


def fixed_rate(throughput: dict[str, list[Run]]) -> float:
    """Requests per second that all targets are asked for."""
    medians_per_second = {name: statistics.median(run.per_second for run in runs) for name, runs in throughput.items()}
    of_direct, slowest = medians_per_second[DIRECT], min(medians_per_second.values())
    return max(RATE_OF_DIRECT_MIN * of_direct, min(RATE_OF_DIRECT * of_direct, RATE_OF_SLOWEST * slowest))


def measure_throughput(binary: pathlib.Path, redis: Redis, targets: list[Target], workload: Workload) -> dict[str, list[Run]]:
    if workload.redis_benchmark is None:
        return in_turn(workload.name, targets, lambda target: run_load(binary, redis, target, workload, SECONDS_PER_RUN))
    # redis-benchmark wants to know how many: as many as direct Redis does in the time.
    calibration = run_load(binary, redis, direct(redis), workload, CALIBRATION_S)
    requests = max(CALIBRATION_REQUESTS, int(calibration.per_second * SECONDS_PER_RUN))
    return in_turn(workload.name, targets, lambda target: run_redis_benchmark(redis, target, workload, requests))


def measure(binary: pathlib.Path, redis: Redis, targets: list[Target], workload: Workload) -> dict:
    """{"rate", "targets": {name: row}, "runs": …}; a row has the medians, and what `report` shows of them."""
    fill(binary, redis, workload)
    throughput = measure_throughput(binary, redis, targets, workload)
    targets = [target for target in targets if target.name in throughput]
    rate = fixed_rate(throughput)
    paced = in_turn(
        f"{workload.name} at {rate:.0f}/s", targets, lambda target: run_load(binary, redis, target, workload, SECONDS_PER_RUN, rate)
    )
    targets = [target for target in targets if target.name in paced]
    rows = {}
    for target in targets:
        fast, at_rate = medians(throughput[target.name]), medians(paced[target.name])
        rows[target.name] = {
            "per_second": fast["per_second"],
            "redis_cpu_us": fast["redis_cpu_us"],
            "proxy_cpu_us": fast["proxy_cpu_us"],
            "at_rate": at_rate,
            "rate_held": at_rate["per_second"] >= HELD * rate,
            "rss_bytes": rss_bytes(target.process),
            "rss_peak_bytes": rss_peak_bytes(target.process),
        }
    for row in rows.values():
        row["ratio_to_direct"] = row["per_second"] / rows[DIRECT]["per_second"]
    runs = {
        kind: {name: [dataclasses.asdict(run) for run in runs] for name, runs in by_target.items()}
        for kind, by_target in (("throughput", throughput), ("at_rate", paced))
    }
    return {"workload": dataclasses.asdict(workload), "rate": rate, "targets": rows, "runs": runs}


def end_in_order(*_) -> None:
    """Whoever was started is ended on the way out."""
    raise SystemExit("told to stop")


def main() -> None:
    signal.signal(signal.SIGTERM, end_in_order)
    descriptors = raise_descriptor_limit()
    names, workloads = wanted_targets(), wanted_workloads(descriptors)
    binary = load_binary()
    results = {}
    with tempfile.TemporaryDirectory() as directory, Processes(pathlib.Path(directory)) as processes:
        redis = start_redis(processes)
        for workload in workloads:
            # New proxies for each, whose memory is then that workload's and not the largest so far.
            starters = [STARTERS[name] for name in names if name != DIRECT and name not in workload.cannot]
            targets = [direct(redis), *(start(processes, redis.port) for start in starters)]
            results[workload.name] = measure(binary, redis, targets, workload)
            for target in targets[1:]:
                processes.stop(target.process)
    settings = {
        "rounds": ROUNDS,
        "seconds_per_run": SECONDS_PER_RUN,
        "load_cpus": sorted(LOAD_CPUS),
        # Of loopback connections, too: with BBR large values take twice as long as with CUBIC.
        "tcp_congestion_control": pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
    }
    document = {**settings, "targets": names, "results": results}
    report.write(document, ROOT / "target", os.environ.get("PLOT"))
