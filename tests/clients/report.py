"""What the client scripts share: one line per check, and a question to the one who runs them."""

import sys
import time
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
    """Until tideover knows that a worker's blocking pop waits: one that may just have been given something is lost with its connection."""
    with connection.monitor() as monitor:
        begun = popped = None
        for seen in monitor.listen():
            name, at = seen["command"].split()[0].upper(), seen["time"]
            begun = begun or at
            if name in ("BLPOP", "BRPOP"):
                popped = at
            # tideover asks a little after each pop, and once a second. Celery's pop ends after a second, and another follows;
            # RQ's waits for minutes.
            age_s = at - (popped or begun)
            if name == "PING" and (popped and 0.01 < age_s < 0.8 or age_s > 2):
                # It is to be answered, too.
                time.sleep(0.1)
                return


def guarded(run):
    try:
        run()
    except BaseException:
        trace = traceback.format_exc().replace("\n", " | ")
        print(f"FAIL uncaught: {trace}", flush=True)
