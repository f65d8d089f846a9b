"""Runs named checks directly and through tideover, and compares what they return: nobody can tell which it was."""

from report import check_that


def outcome(run, port):
    try:
        return run(port)
    except Exception as error:
        return error


def shown(result):
    """redis-py's errors keep what the server said out of their representation."""
    return f"{type(result).__name__}: {result}" if isinstance(result, Exception) else repr(result)


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
            check_that(name, False, f"directly {shown(expected)}, through tideover {shown(got)}")
        elif got == expected:
            check_that(name, True)
        else:
            check_that(name, False, "directly {}, through tideover {}".format(*map(shown, differing(expected, got))))
