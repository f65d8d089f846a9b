"""redis-cli, the same directly and through tideover: `redis_cli_compared.py DIRECT_PORT PORT`."""

import contextlib
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time

from compared import compare
from report import guarded

DEADLINE_S = 30
PIPED = 100_000
ENV = {**os.environ, "TERM": "dumb", "REDISCLI_HISTFILE": "/dev/null", "REDISCLI_RCFILE": "/dev/null"}


def plain(printed, port):
    """Without what differs between two servers: the port, and a client's ID in what HELLO answers."""
    return re.sub(r'(\bid\b[\s":,=>]*(?:\d+\))?[\s>a-z()]*)\d+', r"\1N", printed.replace(f"127.0.0.1:{port}", "127.0.0.1:PORT"))


class Cli:
    def __init__(self, port):
        self.port = str(port)
        self.command = ["redis-cli", "-p", self.port]

    def run(self, *args, stdin=""):
        """What it printed, where to, and its exit code; without the port."""
        done = subprocess.run([*self.command, *args], input=stdin.encode(), capture_output=True, timeout=DEADLINE_S, env=ENV)
        printed = [plain(stream.decode(errors="backslashreplace"), self.port) for stream in [done.stdout, done.stderr]]
        return [*printed, done.returncode]

    def each(self, options, *lines):
        return [self.run(*options, *line.split()) for line in lines]

    @contextlib.contextmanager
    def running(self, *args):
        process = subprocess.Popen([*self.command, *args], stdout=subprocess.PIPE, text=True, env=ENV)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    @contextlib.contextmanager
    def terminal(self, *args):
        """A person at a terminal."""
        pid, screen = pty.fork()
        if pid == 0:
            os.execvpe("redis-cli", [*self.command, *args], ENV)
        try:
            yield Terminal(self.port, screen)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(screen)


class Terminal:
    def __init__(self, port, screen):
        self.port, self.screen = port, screen

    def until(self, ending):
        """What appears, until it ends like this or, for None, until redis-cli ends."""
        shown, end = "", time.monotonic() + DEADLINE_S
        while ending is None or not re.search(ending + r"\Z", shown):
            ready, _, _ = select.select([self.screen], [], [], max(0, end - time.monotonic()))
            if not ready:
                raise TimeoutError(f"no {ending!r} after {shown!r}")
            try:
                shown += os.read(self.screen, 65536).decode()
            except OSError:
                if ending is None:
                    break
                raise
        return plain(shown, self.port)

    def type(self, text, ending="> "):
        os.write(self.screen, text.encode())
        return self.until(ending)


def replies(*options):
    def check(cli):
        return cli.each(
            options,
            "SET k value", "GET k", "GET nothing", "INCR n", "HSET h a 1 b 2", "HGETALL h", "RPUSH l x y z", "LRANGE l 0 -1", "SADD s m", "SMEMBERS s",
            "ZADD z 1.5 m 2 n", "ZRANGE z 0 -1 WITHSCORES", "CONFIG GET maxmemory", "XADD x 1-1 f v", "XRANGE x - +", "LPUSH k x", "NOTHING", "GET",
            "EVAL return{1,{2,'x'},false} 0", "HELLO 3 SETNAME a", "OBJECT ENCODING k", "DEBUG SLEEP 0", "COMMAND COUNT", "COMMAND DOCS get",
            "CLIENT GETNAME", "CLIENT REPLY ON", "CLIENT TRACKING ON", "ACL WHOAMI", "SELECT 99", "DBSIZE", "PUBLISH c m", "MEMORY USAGE k", "LOLWUT VERSION 5 1 1 1",
        )

    return check


def options(cli):
    seen = cli.each([], "-r 3 -i 0.01 INCR n", "-n 3 SET k v", "-n 3 GET k", "-n 99 GET k", "-e LPUSH n x", "-d , LRANGE l 0 -1", "--no-raw GET k", "--raw KEYS k*")
    seen += [cli.run("-x", "SET", "k", stdin="from ü\nstdin"), cli.run("-X", "tag", "SET", "k2", "tag", stdin="tagged"), cli.run("MGET", "k", "k2")]
    seen += [cli.run("--quoted-input", "SET", '"k\\x00"', '"\\xff\\r\\n"'), cli.run("--quoted-input", "--no-raw", "GET", '"k\\x00"')]
    seen += [cli.run(stdin="SET a 1\nMULTI\nINCR a\nGET a\nEXEC\nSELECT 2\nDBSIZE\nNOTHING\n"), cli.run("--hotkeys"), cli.run("--help")]
    return seen


def passwords(cli):
    seen = [cli.run(*"ACL SETUSER worker on >secret ~* &* +@all -flushall".split())]
    for words in ["--user worker --no-auth-warning -a secret", "--user worker --pass secret", "--user worker -a wrong", "-a nothing"]:
        seen += cli.each(words.split(), "ACL WHOAMI", "FLUSHALL", "-3 CLIENT GETNAME")
    return seen


def eval_file(cli):
    with tempfile.TemporaryDirectory() as place:
        script = pathlib.Path(place) / "script.lua"
        script.write_text("redis.call('SET', KEYS[1], ARGV[1]) return {KEYS[1], KEYS[2], ARGV[1], ARGV[2], redis.call('GET', KEYS[1])}")
        seen = [cli.run("--eval", str(script), "one", "two", ",", "ü", "more")]
        script.write_text("return redis.call('nothing')")
        return [*seen, [part for part in cli.run("--eval", str(script))][1:]]


def pipe(cli):
    commands = "".join(f"SET pipe:{number} {number}\r\n" for number in range(PIPED)) + "LPUSH pipe:1 x\r\n"
    seen = [cli.run("--pipe", stdin=commands), *cli.each([], "GET pipe:99999", "DBSIZE")]
    found = cli.run("--scan", "--pattern", "pipe:*9")[0].splitlines()
    # SCAN may say a key twice.
    return [*seen, sorted(set(found)), sorted(set(cli.run("--scan", "--count", "1000")[0].splitlines()))]


def sampled_keys(cli):
    small = []
    for number in range(300):
        small += [f"SET string:{number} {number}", f"RPUSH list:{number % 7} {number}", f"HSET hash:{number % 9} {number} v", f"ZADD zset:{number % 5} 1 {number}"]
    # Ties are broken by the order of the scan, which is the server's secret: one of each type is the biggest alone.
    # Small enough to stay in one piece of memory each: the rest is sampled, or built with chance.
    big = [f"{word} {'x' * 60}" for word in ["SET string:0", "RPUSH list:0", "HSET hash:0 g", "ZADD zset:0 1", "SADD set:0"]]
    cli.run(stdin="\n".join(small + big))
    return [cli.run(option)[0].split("summary")[1] for option in ["--bigkeys", "--memkeys"]]


def stat(cli):
    with cli.running("--stat", "-i", "0.005") as process:
        lines = [process.stdout.readline() for _ in range(5)]
    return [lines[:2], [re.sub(r"[\d.]+[BKMG]?", "N", line).split() for line in lines[2:]]]


def latency(cli):
    seen = [cli.run("--latency", "--raw", "-i", "0.2"), cli.run("--latency", "--csv", "-i", "0.2")]
    return [re.sub(r"[\d.]+", "N", printed) for printed, _, _ in seen] + [code for _, _, code in seen]


def rdb(option):
    def check(cli):
        cli.run("CONFIG", "SET", "repl-diskless-sync-delay", "0")
        cli.run(stdin="".join(f"SET k{number} {'x' * 1000} EX 1000\n" for number in range(2000)))
        code = "#!lua name=lib\nredis.register_function('f', function() return 1 end)"
        seen = [cli.run("FUNCTION", "LOAD", code)]
        with tempfile.TemporaryDirectory() as place:
            file = pathlib.Path(place) / "dump.rdb"
            printed, _, code = cli.run(option, str(file))
            found = subprocess.run(["redis-check-rdb", file], capture_output=True, text=True).stdout
            seen += [code, re.findall(r"\[info\] (\d+ \w+ ?\w*)", found), "RDB looks OK" in found, b"redis.register_function" in file.read_bytes()]
        return [*seen, cli.run("PING")]

    return check


def monitor(cli):
    with cli.running("MONITOR") as process:
        seen = [process.stdout.readline()]
        cli.run("-n", "3", "SET", "monitored", 'ü "quoted" \r\n')
        cli.run(stdin="MULTI\nINCR monitored:n\nEXEC\n")
        for line in process.stdout:
            if "monitored" in line:
                seen.append(re.sub(r"^[\d.]+ \[(\d+) \S+\]", r"\1", line))
            if "EXEC" in line.upper():
                return seen


def subscribed(*options):
    def check(cli):
        seen = []
        for subscribe, publish in [("SUBSCRIBE c d", "PUBLISH c hello"), ("PSUBSCRIBE p*", "PUBLISH pool hello"), ("SSUBSCRIBE s", "SPUBLISH s hello")]:
            with cli.running(*options, *subscribe.split()) as process:
                lines = 3 * (len(subscribe.split()) - 1)
                seen += [process.stdout.readline() for _ in range(1 if "--csv" in options or "--json" in options else lines)]
                seen += [cli.run(*publish.split()), process.stdout.readline()]
        return seen

    return check


def terminal(*args):
    def check(cli):
        lines = ["SET k v", "get k", "SELECT 3", "DBSIZE", "MULTI", "INCR n", "GET n", "EXEC", "MULTI", "DISCARD", "WATCH n", "UNWATCH", "SELECT 99", "NOTHING", "LPUSH n x"]
        lines += ["HSET h a 1", "HELLO 3", "HGETALL h", "CLIENT GETNAME", "help @nothing", "HELLO 2", "HGETALL h", "3 INCR n", "SELECT 0", "GET k"]
        with cli.terminal(*args) as terminal:
            seen = [terminal.until("> ")] + [terminal.type(f"{line}\n") for line in lines]
            return [*seen, terminal.type("quit\n", None)]

    return check


def terminal_subscribed(*args):
    def check(cli):
        with cli.terminal(*args) as terminal:
            seen = [terminal.until("> "), terminal.type("SUBSCRIBE c\n", r"\(integer\) 1\r\n"), cli.run("PUBLISH", "c", "hello")]
            return [*seen, terminal.until('"hello"\r\n'), terminal.type("\x03"), terminal.type("quit\n", None), cli.run("PUBLISH", "c", "nobody")]

    return check


CHECKS = [
    ("replies, RESP2", replies("-2")),
    ("replies, RESP3", replies("-3")),
    ("replies, --csv", replies("--csv")),
    ("replies, --json", replies("--json")),
    ("replies, --no-raw", replies("--no-raw")),
    ("options", options),
    ("passwords", passwords),
    ("--eval", eval_file),
    ("--pipe, --scan", pipe),
    ("--bigkeys, --memkeys", sampled_keys),
    ("--stat", stat),
    ("--latency", latency),
    ("--rdb", rdb("--rdb")),
    ("--functions-rdb", rdb("--functions-rdb")),
    ("MONITOR", monitor),
    ("SUBSCRIBE", subscribed()),
    ("SUBSCRIBE, RESP3", subscribed("-3")),
    ("SUBSCRIBE, --csv", subscribed("--csv")),
    ("a terminal", terminal()),
    ("a terminal, RESP3", terminal("-3")),
    ("a terminal subscribed", terminal_subscribed()),
    ("a terminal subscribed, RESP3", terminal_subscribed("-3")),
]


def on_port(check):
    def whole(port):
        cli = Cli(port)
        cli.run("FLUSHALL")
        cli.run("FUNCTION", "FLUSH")
        return check(cli)

    return whole


guarded(lambda: compare([(name, on_port(check)) for name, check in CHECKS], *map(int, sys.argv[1:3])))
