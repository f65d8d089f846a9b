"""Builds and runs the soak test for `many` and `caught`."""

import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
ROUND_S_MAX = 300


def executable(arguments, root, name):
    """What `cargo` with these arguments built under this name."""
    command = ["cargo", *arguments, "--message-format", "json-render-diagnostics"]
    end = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    for line in end.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == name:
            return message["executable"]
    raise RuntimeError(f"{command} built no {name}")


def soak_test():
    return executable(["test", "--no-run", "--test", "soak"], ROOT, "soak")


def release():
    return executable(["build", "--release"], ROOT, "tideover")


def run(test, binary, name, **environment):
    environment = os.environ | environment | {"TIDEOVER_TEST_BINARY": binary}
    return subprocess.run(
        [test, name, "--nocapture"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=ROUND_S_MAX,
    )


def line_of(end, words):
    return next((line for line in end.stderr.splitlines() if words in line), "it ended without a summary")
