"""Celery, broker and result backend: `celery_check.py PORT` starts workers on this very module and gives them work.

With the rules of config/celery.toml.
"""

import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import celery
import celery.exceptions
import redis
from report import ask, check, check_that, guarded, wait_until_nothing_is_on_its_way

URL = f"redis://127.0.0.1:{os.environ.get('CELERY_CHECK_PORT') or sys.argv[1]}"
DEADLINE_S = 20

app = celery.Celery("celery_check", broker=f"{URL}/5", backend=f"{URL}/6")
app.conf.update(
    broker_connection_retry_on_startup=True,
    # Each second a sweep for abandoned messages, which takes a lock.
    broker_transport_options={"visibility_timeout": 30, "unacked_restore_interval": 1, "unacked_restore_throttle": 1},
    result_expires=600,
    task_track_started=True,
)


@app.task
def add(a, b):
    return a + b


@app.task
def total(numbers):
    return sum(numbers)


@app.task(bind=True, max_retries=3)
def third_time(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return self.request.retries


@app.task
def fail():
    raise ValueError("on purpose")


@app.task
def over(folder):
    """Begins, and ends when it is told to."""
    (pathlib.Path(folder) / "begun").touch()
    wait_for_file(folder, "end")
    return "over"


@celery.signals.task_postrun.connect(sender=over)
def result_is_stored(kwargs, args, **_):
    (pathlib.Path(args[0]) / "stored").touch()


@celery.signals.worker_ready.connect
def worker_is_ready(**_):
    if folder := os.environ.get("CELERY_CHECK_FOLDER"):
        (pathlib.Path(folder) / "ready").touch()


def wait_for_file(folder, name):
    end = time.monotonic() + DEADLINE_S
    while not (pathlib.Path(folder) / name).exists() and time.monotonic() < end:
        time.sleep(0.01)
    return (pathlib.Path(folder) / name).exists()


@contextlib.contextmanager
def worker(name, folder):
    command = [sys.executable, "-m", "celery", "-A", "celery_check", "worker", "--concurrency=2", "--loglevel=CRITICAL", "-n", name]
    env = {**os.environ, "CELERY_CHECK_PORT": sys.argv[1], "CELERY_CHECK_FOLDER": folder}
    process = subprocess.Popen(command, cwd=pathlib.Path(__file__).parent, env=env, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def pinged():
    return [answer for answers in app.control.ping(timeout=0.5, limit=1) for answer in answers.values()]


def wait_for_worker():
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        # A connection of the pool may be one that a restart has closed.
        with contextlib.suppress(redis.exceptions.ConnectionError):
            if pinged():
                return
    raise TimeoutError("no worker answers a ping")


def wait_until_nothing_is_unacknowledged():
    """Until workers hold no message: one that loses its connections meanwhile may end, with Redis itself as well.

    kombu 5.7.0 gives such messages back when it closes the channel a second time, and has forgotten by then whom it was
    connected to: "'NoneType' object has no attribute 'hostname'". A revoked task with a countdown is held until its time comes.
    """
    broker = redis.Redis.from_url(f"{URL}/5")
    end = time.monotonic() + DEADLINE_S
    while broker.exists("unacked"):
        if time.monotonic() > end:
            raise TimeoutError(f"not acknowledged: {broker.hgetall('unacked')}")
        time.sleep(0.01)


def got(result):
    return result.get(timeout=DEADLINE_S)


def work(when):
    check(f"{when}: task", got(add.delay(1, 2)), 3)
    check(f"{when}: chain", got(celery.chain(add.s(1, 2), add.s(3), add.s(4))()), 10)
    check(f"{when}: group", got(celery.group(add.s(n, n) for n in range(10))()), [2 * n for n in range(10)])
    check(f"{when}: chord", got(celery.chord((add.s(n, n) for n in range(10)), total.s())()), 90)
    began = time.monotonic()
    check(f"{when}: countdown", got(add.apply_async((1, 1), countdown=1)), 2)
    check_that(f"{when}: countdown was waited for", time.monotonic() - began > 0.9, time.monotonic() - began)
    check(f"{when}: retry", got(third_time.delay()), 2)
    failed = fail.delay()
    try:
        check_that(f"{when}: failure", False, got(failed))
    except ValueError as error:
        check(f"{when}: failure", (str(error), failed.state), ("on purpose", "FAILURE"))
    done = add.delay(4, 4)
    check(f"{when}: result", got(done), 8)
    ttl = app.backend.client.ttl(app.backend.get_key_for_task(done.id))
    check_that(f"{when}: result expires", 0 < ttl <= 600, ttl)
    done.forget()
    check(f"{when}: forgotten", app.AsyncResult(done.id).state, "PENDING")
    check(f"{when}: inspect ping", pinged(), [{"ok": "pong"}])
    revoked = add.apply_async((1, 1), countdown=2)
    app.control.revoke(revoked.id, reply=True, timeout=1, limit=1)
    try:
        check_that(f"{when}: revoke", False, got(revoked))
    except celery.exceptions.TaskRevokedError:
        check(f"{when}: revoke", revoked.state, "REVOKED")
    registered = app.control.inspect(timeout=0.5, limit=1).registered() or {}
    check(f"{when}: inspect registered", sum(("celery_check.add" in names) for names in registered.values()), 1)


def main():
    redis.Redis.from_url(URL).flushall()
    with tempfile.TemporaryDirectory() as folder, worker("first", folder) as process:
        wait_for_worker()
        work("before")
        long = over.delay(folder)
        check("a long task has begun", wait_for_file(folder, "begun"), True)
        wait_until_nothing_is_unacknowledged()
        wait_until_nothing_is_on_its_way(redis.Redis.from_url(URL))
        ask("down")
        during = add.delay(20, 22)
        (pathlib.Path(folder) / "end").touch()
        check("a task ended while down", wait_for_file(folder, "stored"), True)
        (pathlib.Path(folder) / "ready").unlink()
        with worker("second", folder) as second:
            check("a worker starts while down", wait_for_file(folder, "ready"), True)
            # Both workers lose their connections and make new ones while Redis is still away.
            ask("restart")
            ask("up")
            check("asked for while down", got(during), 42)
            check("the second worker lives", second.poll(), None)
        check("result of the task that ended while down", got(long), "over")
        wait_for_worker()
        work("after")
        check("the worker lives", process.poll(), None)


if __name__ == "__main__":
    guarded(main)
