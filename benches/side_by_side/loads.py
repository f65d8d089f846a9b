"""Runs of redis-benchmark and of our load generator against one target."""

from __future__ import annotations

import csv
import io
import json
import os
import pathlib
import subprocess
from dataclasses import dataclass

from .measuring import Watch, rss_bytes
from .targets import ROOT, Redis, Target, as_load
from .workloads import Workload

RUN_DEADLINE_S = 120
FILL_DEADLINE_S = 120


@dataclass(frozen=True)
class Run:
    """What one run gave. Latencies in microseconds, CPU in microseconds per counted request, None where it was not measured."""

    per_second: float
    redis_cpu_us: float
    proxy_cpu_us: float
    p50_us: float | None = None
    p99_us: float | None = None
    p999_us: float | None = None
    unsent: int = 0
    rss_with_clients_bytes: int | None = None


class RunFailed(Exception):
    """An error, a wrong reply or none came through the target: its numbers would be worth nothing."""


def load_binary() -> pathlib.Path:
    """Builds the load generator, unless TIDEOVER_BENCH_LOAD names one."""
    if named := os.environ.get("TIDEOVER_BENCH_LOAD"):
        return pathlib.Path(named).resolve()
    command = [os.environ.get("CARGO", "cargo"), "build", "--profile", "load", "--bench", "load", "--message-format", "json"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    artifacts = [json.loads(line) for line in built.stdout.splitlines() if line.startswith("{")]
    return next(pathlib.Path(one["executable"]) for one in artifacts if one.get("executable") and one["target"]["name"] == "load")


def fill(binary: pathlib.Path, redis: Redis, workload: Workload) -> None:
    """The keyspace becomes the workload's keys and nothing else."""
    subprocess.run(["redis-cli", "-p", str(redis.port), "flushall"], check=True, stdout=subprocess.DEVNULL, timeout=FILL_DEADLINE_S)
    sizes = ["--keys", workload.keys, "--value-bytes", workload.value_bytes]
    words = [binary, "--port", redis.port, "--workload", "fill", *sizes]
    subprocess.run(as_load(words), check=True, timeout=FILL_DEADLINE_S)


def run_redis_benchmark(redis: Redis, target: Target, workload: Workload, requests: int) -> Run:
    """As fast as it goes. Its latencies are left out: they leave out what could not be asked meanwhile."""
    sizes = ["-c", workload.clients, "-P", workload.pipeline, "-d", workload.value_bytes, "-r", workload.keys, "-n", requests]
    words = ["redis-benchmark", "-p", target.port, "-t", workload.redis_benchmark, *sizes, "--csv"]
    watch = Watch(redis=redis.process, proxy=target.process)
    try:
        done = subprocess.run(as_load(words), capture_output=True, text=True, timeout=RUN_DEADLINE_S)
    except subprocess.TimeoutExpired as expired:
        raise RunFailed(str(expired)) from expired
    cpu = watch.used_s()
    # nutcracker refuses CONFIG GET, about which redis-benchmark warns on the lines before the table.
    lines = done.stdout.splitlines()
    header = next((at for at, line in enumerate(lines) if line.startswith('"test"')), None)
    if done.returncode != 0 or header is None:
        raise RunFailed(f"redis-benchmark: {done.stdout}{done.stderr}")
    row = next(csv.DictReader(io.StringIO("\n".join(lines[header:]))))
    return Run(float(row["rps"]), cpu["redis"] / requests * 1e6, cpu["proxy"] / requests * 1e6)


def run_load(
    binary: pathlib.Path, redis: Redis, target: Target, workload: Workload, seconds: float, per_second: float | None = None
) -> Run:
    """At a fixed rate, or, without one, as fast as it goes. CPU is counted once the clients are connected, and before they leave."""
    sizes = ["--clients", workload.clients, "--pipeline", workload.pipeline, "--value-bytes", workload.value_bytes, "--keys", workload.keys]
    words = [binary, "--port", target.port, "--workload", workload.load, *sizes, "--seconds", seconds, "--stay"]
    words += ["--rate", per_second] if per_second else []
    process = subprocess.Popen(as_load(words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        process.stdout.readline()
        watch = Watch(redis=redis.process, proxy=target.process)
        line = process.stdout.readline()
        cpu, rss = watch.used_s(), rss_bytes(target.process)
        process.stdin.close()
        # It ends by itself: its own deadlines are shorter.
        if process.wait(timeout=RUN_DEADLINE_S) != 0 or not line:
            raise RunFailed(f"exit code {process.returncode}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    report = json.loads(line)
    latencies = {key: report[key] for key in ("p50_us", "p99_us", "p999_us", "unsent")}
    per_request = {f"{name}_cpu_us": used / max(1, report["answered"]) * 1e6 for name, used in cpu.items()}
    return Run(report["rate"], rss_with_clients_bytes=rss, **per_request, **latencies)
