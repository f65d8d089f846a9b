"""What is measured: one redis-server, and the ways to it. Starts them on free ports of 127.0.0.1, and ends what it started, by its id."""

from __future__ import annotations

import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BINARY = pathlib.Path(os.environ.get("TIDEOVER_BENCH_BINARY", ROOT / "target/release/tideover")).resolve()
DIRECT = "direct"
START_DEADLINE_S = 20
END_DEADLINE_S = 10
# A proxy has two descriptors for each client, and some of its own.
DESCRIPTORS_OF_ITS_OWN = 200
# CPUs of the load, where it is to be apart; what is measured has all others. Where nothing is said the kernel places everybody.
LOAD_CPUS = {int(cpu) for cpu in os.environ.get("LOAD_CPUS", "").split(",") if cpu}


@dataclass(frozen=True)
class Redis:
    port: int
    process: int


@dataclass(frozen=True)
class Target:
    """A way to Redis. `process` is the proxy's id, None where there is no proxy; `admin_port` is tideover's alone."""

    name: str
    port: int
    process: int | None
    admin_port: int | None = None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def program(name: str) -> str | None:
    """Its path. Debian has haproxy and nutcracker where only root looks."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def on_cpus(cpus: set[int], words: list) -> list[str]:
    """The command line, for a process that stays on these CPUs; on any where the load has none of its own."""
    words = [str(word) for word in words]
    return ["taskset", "--cpu-list", ",".join(map(str, sorted(cpus))), *words] if LOAD_CPUS else words


def as_load(words: list) -> list[str]:
    return on_cpus(LOAD_CPUS, words)


def as_measured(words: list) -> list[str]:
    return on_cpus(os.sched_getaffinity(0) - LOAD_CPUS, words)


def raise_descriptor_limit() -> int:
    """To the hard limit, for us and whom we start. Returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Processes:
    """Everything that was started; leaving the `with` ends it. What they print goes to `directory/log`."""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory
        self.log = (directory / "log").open("w")
        self.started: dict[int, subprocess.Popen] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_) -> None:
        for pid in reversed(list(self.started)):
            self.stop(pid)
        self.log.close()

    def start(self, command: list, port: int) -> int:
        """The process id, once it answers a GET on `port`."""
        words = as_measured(command)
        process = subprocess.Popen(words, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, cwd=self.directory)
        self.started[process.pid] = process
        end = time.monotonic() + START_DEADLINE_S
        while not answers(port):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{command[0]} does not answer:\n{(self.directory / 'log').read_text()[-2000:]}")
            time.sleep(0.02)
        return process.pid

    def stop(self, pid: int, how: signal.Signals = signal.SIGTERM) -> None:
        """Sends the signal and waits for the end."""
        process = self.started.pop(pid)
        if process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(timeout=END_DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as client:
            client.sendall(b"*2\r\n$3\r\nGET\r\n$5\r\nbench\r\n")
            return client.recv(1) == b"$"
    except OSError:
        return False


def start_redis(processes: Processes, port: int | None = None, extra: tuple[str, ...] = ()) -> Redis:
    """A server without persistence, unless `extra` (words of its command line) asks for it."""
    port = port or free_port()
    words = ["--port", port, "--bind", "127.0.0.1", "--dir", processes.directory, "--tcp-backlog", 4096, "--save", ""]
    # It would refuse all of 127.0.0.0/8 but 127.0.0.1; who is bound to that is reached from nowhere else.
    words += ["--protected-mode", "no", *extra]
    return Redis(port, processes.start([program("redis-server"), *words], port))


def direct(redis: Redis) -> Target:
    return Target(DIRECT, redis.port, None)


def start_tideover(processes: Processes, redis_port: int, top: str = "", upstream: str = "") -> Target:
    """With the defaults of the configuration; `top` and `upstream` are more lines of TOML for these two places."""
    port, admin_port = free_port(), free_port()
    config = processes.directory / f"tideover-{port}.toml"
    config.write_text(f"""
data_dir = "{processes.directory}/tideover-{port}"
admin = "127.0.0.1:{admin_port}"
{top}
[log]
level = "warn"
[[upstream]]
name = "main"
listen = "127.0.0.1:{port}"
url = "redis://127.0.0.1:{redis_port}"
{upstream}
""")
    return Target("tideover", port, processes.start([BINARY, "run", "--config", config], port), admin_port)


def start_haproxy(processes: Processes, redis_port: int) -> Target:
    """One thread, like Redis and tideover."""
    port = free_port()
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    clients_max = min(20_000, (descriptors - DESCRIPTORS_OF_ITS_OWN) // 2)
    config = processes.directory / f"haproxy-{port}.conf"
    config.write_text(f"""
global
    maxconn {clients_max}
    nbthread 1
defaults
    mode tcp
    maxconn {clients_max}
    timeout connect 5s
    timeout client 1m
    timeout server 1m
listen redis
    bind 127.0.0.1:{port} backlog 4096
    server one 127.0.0.1:{redis_port}
""")
    return Target("haproxy", port, processes.start([program("haproxy"), "-db", "-f", config], port))


def start_nutcracker(processes: Processes, redis_port: int) -> Target:
    port = free_port()
    config = processes.directory / f"nutcracker-{port}.yaml"
    config.write_text(f"""
main:
  listen: 127.0.0.1:{port}
  redis: true
  preconnect: true
  backlog: 4096
  servers:
   - 127.0.0.1:{redis_port}:1
""")
    # Its statistics want a port; mbufs are 16 KiB unless told otherwise.
    command = [program("nutcracker"), "-c", config, "-s", free_port(), "-a", "127.0.0.1"]
    return Target("nutcracker", port, processes.start(command, port))


STARTERS = {"tideover": start_tideover, "haproxy": start_haproxy, "nutcracker": start_nutcracker}


def installed(name: str) -> bool:
    return BINARY.exists() if name == "tideover" else program(name) is not None
