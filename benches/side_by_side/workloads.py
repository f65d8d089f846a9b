"""The workloads, as data."""

from __future__ import annotations

from dataclasses import dataclass

SMALL_BYTES = 3
MANY_KEYS = 100_000


@dataclass(frozen=True)
class Workload:
    """What clients do.

    `load` is the load generator's name of it. `redis_benchmark` is that of redis-benchmark, which then measures the throughput; where it is None
    the load generator does, in a closed loop. `keys` are that many of each of the two programs. `counted` is what a number of requests counts.
    """

    name: str
    load: str
    redis_benchmark: str | None = None
    clients: int = 50
    pipeline: int = 1
    value_bytes: int = SMALL_BYTES
    keys: int = MANY_KEYS
    counted: str = "requests"
    cannot: tuple[str, ...] = ()


# 64 MB of values each.
FEW_KEYS_OF_64_KB = 1000
FEW_KEYS_OF_1_MB = 64
NUTCRACKER = ("nutcracker",)

WORKLOADS = [
    Workload("get", "get", "get"),
    Workload("set", "set", "set"),
    Workload("get-pipeline-16", "get", "get", pipeline=16),
    Workload("set-pipeline-16", "set", "set", pipeline=16),
    Workload("get-500-clients", "get", "get", clients=500),
    Workload("set-500-clients", "set", "set", clients=500),
    # redis-benchmark would count the time in which they connect.
    Workload("get-5000-clients", "get", clients=5000),
    Workload("get-10-clients", "get", "get", clients=10),
    Workload("set-10-clients", "set", "set", clients=10),
    Workload("get-1-client", "get", "get", clients=1),
    Workload("set-1-client", "set", "set", clients=1),
    Workload("mset-10", "mset", "mset"),
    Workload("mixed-90-10", "mixed"),
    Workload("get-64KB", "get", "get", value_bytes=65_536, keys=FEW_KEYS_OF_64_KB),
    Workload("set-64KB", "set", "set", value_bytes=65_536, keys=FEW_KEYS_OF_64_KB),
    Workload("get-1MB", "get", "get", clients=10, value_bytes=1_048_576, keys=FEW_KEYS_OF_1_MB),
    Workload("set-1MB", "set", "set", clients=10, value_bytes=1_048_576, keys=FEW_KEYS_OF_1_MB),
    Workload("connect-and-get", "visit", clients=20),
    Workload("multi-5", "multi", counted="transactions", cannot=NUTCRACKER),
    Workload("pubsub-fan-out", "fan-out", clients=100, counted="messages", cannot=NUTCRACKER),
    Workload("blpop-ping-pong", "ping-pong", clients=50, counted="hops", cannot=NUTCRACKER),
]
