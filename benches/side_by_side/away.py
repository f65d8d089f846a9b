"""A tideover whose Redis was there and is stopped."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .targets import Processes, Redis, Target, start_redis, start_tideover

DEADLINE_S = 120
PAUSE_S = 0.01


@dataclass(frozen=True)
class Away:
    """The tideover, and the port on which its Redis was."""

    target: Target
    redis_port: int


@contextlib.contextmanager
def away(processes: Processes, top: str = "", upstream: str = "") -> Iterator[Away]:
    """With a journal of its own, which goes with it. The lines of TOML are those of `start_tideover`."""
    redis = start_redis(processes)
    target = start_tideover(processes, redis.port, top, upstream)
    wait_until("healthy", lambda: status(target)["mode"] == "healthy")
    processes.stop(redis.process)
    wait_until("down", lambda: status(target)["mode"] in ("down", "probing"))
    try:
        yield Away(target, redis.port)
    finally:
        processes.stop(target.process)
        shutil.rmtree(processes.directory / f"tideover-{target.port}")


def back(processes: Processes, gone: Away, extra: tuple[str, ...] = ()) -> Redis:
    """Its Redis again, and empty."""
    return start_redis(processes, gone.redis_port, extra)


def status(target: Target) -> dict:
    """What /status says of the upstream."""
    with urllib.request.urlopen(f"http://127.0.0.1:{target.admin_port}/status", timeout=10) as response:
        return json.load(response)["upstreams"][0]


def wait_until(what: str, is_so: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    end = time.monotonic() + deadline_s
    while not is_so():
        if time.monotonic() > end:
            raise SystemExit(f"not within {deadline_s:.0f} s: {what}")
        time.sleep(PAUSE_S)
