"""RQ: `rq_check.py PORT` starts a worker with its scheduler and gives it work; the jobs are functions that every Python has."""

import contextlib
import math
import operator
import pathlib
import subprocess
import sys
import time
from datetime import timedelta

import redis
import rq
from report import ask, check, check_that, guarded, wait_until_nothing_is_on_its_way

URL = f"redis://127.0.0.1:{sys.argv[1]}/7"
DEADLINE_S = 20


def command(*args):
    return [pathlib.Path(sys.executable).parent / "rq", "worker", "--url", URL, "--quiet", *args]


@contextlib.contextmanager
def worker(*args):
    process = subprocess.Popen(command(*args), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def holds_at_last(condition):
    end = time.monotonic() + DEADLINE_S
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def result(job):
    """Its status once it is over, and what it returned."""
    holds_at_last(lambda: job.get_status(refresh=True) in ("finished", "failed"))
    return job.get_status(refresh=True).value, job.return_value(refresh=True)


def work(when, connection):
    queue = rq.Queue("work", connection=connection)
    check(f"{when}: job", result(queue.enqueue(math.factorial, 10)), ("finished", 3628800))
    many = queue.enqueue_many([rq.Queue.prepare_data(operator.add, (n, n)) for n in range(20)])
    check(f"{when}: jobs", [result(job)[1] for job in many], [2 * n for n in range(20)])
    first = queue.enqueue(operator.mul, 6, 7)
    check(f"{when}: dependent job", result(queue.enqueue(operator.neg, 1, depends_on=first)), ("finished", -1))
    failed = queue.enqueue(operator.truediv, 1, 0)
    check(f"{when}: failure", result(failed), ("failed", None))
    check_that(f"{when}: why it failed", "ZeroDivisionError" in failed.latest_result().exc_string, failed.latest_result())
    check(f"{when}: failed registry", failed.id in queue.failed_job_registry, True)
    queue.failed_job_registry.requeue(failed)
    check(f"{when}: requeued", result(failed)[0], "failed")
    retried = queue.enqueue(operator.truediv, 1, 0, retry=rq.Retry(max=2))
    check(f"{when}: retried", holds_at_last(lambda: retried.refresh() or retried.retries_left == 0), True)
    kept = queue.enqueue(operator.add, 2, 2, result_ttl=100)
    check(f"{when}: kept", result(kept), ("finished", 4))
    check(f"{when}: finished registry", kept.id in queue.finished_job_registry, True)
    check(f"{when}: queue", len(queue), 0)


def main():
    connection = redis.Redis.from_url(URL)
    connection.flushdb()
    queue = rq.Queue("work", connection=connection)
    burst = [queue.enqueue(operator.add, n, n) for n in range(3)]
    subprocess.run(command("--burst", "work"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=DEADLINE_S, check=True)
    check("burst", [job.return_value(refresh=True) for job in burst], [0, 2, 4])
    with worker("--with-scheduler", "work") as process:
        work("before", connection)
        # RQ's scheduler ends with the first error of Redis, also of one that it talks to directly: not asked again.
        scheduled = queue.enqueue_in(timedelta(seconds=1), operator.add, 1, 1)
        check("scheduled", scheduled.id in queue.scheduled_job_registry, True)
        check("scheduled job", result(scheduled), ("finished", 2))
        wait_until_nothing_is_on_its_way(connection)
        ask("down")
        ask("up")
        work("after", connection)
        check("the worker lives", process.poll(), None)


guarded(main)
