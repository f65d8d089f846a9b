"""What the client scripts share: one line per check, and a question to the one who runs them."""

import sys
import traceback


def check(name, got, expected):
    if got == expected:
        print(f"ok {name}", flush=True)
    else:
        print(f"FAIL {name}: expected {expected!r}, got {got!r}", flush=True)


def check_that(name, holds, shown=""):
    print(f"ok {name}" if holds else f"FAIL {name}: {shown}", flush=True)


def ask(question):
    """Asks the runner to change the world, and waits until it has."""
    print(f"ask {question}", flush=True)
    sys.stdin.readline()


def wait_until_nothing_is_on_its_way(connection):
    """Until Redis was asked something well after a worker's blocking pop: one that may just have been given something is lost with its connection."""
    with connection.monitor() as monitor:
        waiting_since = None
        for seen in monitor.listen():
            name = seen["command"].split()[0].upper()
            if waiting_since is None or name in ("BLPOP", "BRPOP"):
                waiting_since = seen["time"]
            # Celery's ends after a second, and another follows; RQ's waits for minutes.
            age_s = seen["time"] - waiting_since
            if name == "PING" and (0.1 < age_s < 0.8 or age_s > 2):
                return


def guarded(run):
    try:
        run()
    except BaseException:
        trace = traceback.format_exc().replace("\n", " | ")
        print(f"FAIL uncaught: {trace}", flush=True)
