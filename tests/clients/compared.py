"""Runs named checks directly and through tideover, and compares what they return: nobody can tell which it was."""

from report import check_that


def outcome(run, port):
    try:
        return run(port)
    except Exception as error:
        return error


def differing(expected, got):
    """Only the parts that differ, where both have as many."""
    if isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        return tuple(list(part) for part in zip(*[pair for pair in zip(expected, got) if pair[0] != pair[1]]))
    return expected, got


def compare(checks, direct, through):
    """`checks`: (name, a function of a port that gives what the client saw), each on a server of its own."""
    for name, run in checks:
        expected, got = outcome(run, direct), outcome(run, through)
        if isinstance(expected, Exception):
            check_that(name, False, f"directly {expected!r}, through tideover {got!r}")
        elif got == expected:
            check_that(name, True)
        else:
            check_that(name, False, "directly {!r}, through tideover {!r}".format(*differing(expected, got)))
