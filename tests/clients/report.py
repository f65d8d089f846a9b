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


def guarded(run):
    try:
        run()
    except BaseException:
        trace = traceback.format_exc().replace("\n", " | ")
        print(f"FAIL uncaught: {trace}", flush=True)
