"""redis-py, blocking: `redis_py_sync.py PORT PROTOCOL`."""

import sys
import time

import redis
from report import ask, check, check_that, guarded

PORT, PROTOCOL = int(sys.argv[1]), int(sys.argv[2])


def connect(db=1):
    return redis.Redis(port=PORT, db=db, protocol=PROTOCOL, decode_responses=True, client_name="check")


def while_up(r):
    r.flushdb()
    check("ping", r.ping(), True)
    check("set", r.set("k", "v", ex=100), True)
    check("get", r.get("k"), "v")
    check("ttl", r.ttl("k"), 100)
    check("nil", r.get("nothing"), None)
    check("hset", r.hset("h", mapping={"a": 1, "b": 2}), 2)
    check("hgetall", r.hgetall("h"), {"a": "1", "b": "2"})
    check("rpush", r.rpush("l", *range(5)), 5)
    check("lrange", r.lrange("l", 0, -1), list("01234"))
    check("blpop", tuple(r.blpop("l", timeout=1)), ("l", "0"))
    check("sadd", r.sadd("s", "m"), 1)
    check("smembers", set(r.smembers("s")), {"m"})
    check("zadd", r.zadd("z", {"m": 1.5}), 1)
    check("zscore", r.zscore("z", "m"), 1.5)
    check("incr", r.incr("n"), 1)
    with r.pipeline(transaction=True) as pipe:
        pipe.incr("n").get("k").lpush("k", "x")
        results = pipe.execute(raise_on_error=False)
    check("transaction", results[:2], [2, "v"])
    check_that("error in a transaction", isinstance(results[2], redis.ResponseError), results)
    with r.pipeline(transaction=False) as pipe:
        for number in range(1000):
            pipe.echo(str(number))
        check("pipeline", pipe.execute(), [str(number) for number in range(1000)])
    check("transaction with WATCH", r.transaction(lambda pipe: (pipe.multi(), pipe.set("w", 1)), "w"), [True])
    check("script", r.register_script("return ARGV[1] + 1")(args=[41]), 42)
    check("lock", r.lock("lock", timeout=5).acquire(blocking=False), True)
    check("lock held", r.lock("lock", timeout=5).acquire(blocking=False), False)
    r.xadd("x", {"f": "v"})
    check("stream", [fields for _, fields in r.xrange("x")], [{"f": "v"}])
    check("scan", sorted(r.scan_iter(match="[hk]")), ["h", "k"])
    big = "x" * 1_000_000
    r.set("big", big)
    check("big value", r.get("big") == big, True)
    pubsub = r.pubsub(ignore_subscribe_messages=False)
    pubsub.subscribe("c")
    check("subscribed", pubsub.get_message(timeout=5)["type"], "subscribe")
    check("publish", r.publish("c", "hello"), 1)
    check("message", pubsub.get_message(timeout=5)["data"], "hello")
    pubsub.close()
    check_that("info", r.info()["redis_version"].startswith(("6", "7", "8")), r.info("server"))


def while_down(name, r):
    check(f"{name}: ping", r.ping(), True)
    check(f"{name}: get", r.get("k"), None)
    check(f"{name}: hgetall", r.hgetall("h"), {})
    check(f"{name}: mget", r.mget("a", "b"), [None, None])
    check(f"{name}: set", r.set(f"{name}:set", "queued"), True)
    check(f"{name}: setex", r.set(f"{name}:setex", "queued", ex=100), True)
    check(f"{name}: rpush", r.rpush("queue", name), 1)
    check(f"{name}: blpop", r.blpop("nothing", timeout=1), None)
    with r.pipeline(transaction=True) as pipe:
        check(f"{name}: transaction", pipe.set(f"{name}:t", 1).rpush("queue", f"{name}:t").execute(), [True, 1])
    for what, refused in {
        "incr": lambda: r.incr("n"),
        "set nx": lambda: r.set("k", "v", nx=True),
        "lock": lambda: r.lock("lock2", timeout=5).acquire(blocking=False),
        "eval": lambda: r.eval("return 1", 0),
    }.items():
        try:
            check_that(f"{name}: {what} is refused", False, refused())
        except redis.ResponseError as error:
            check_that(f"{name}: {what} is refused", str(error).startswith("UNAVAILABLE "), error)


def heard(publisher, subscriber):
    """What a subscriber from before the outage hears, once it is subscribed upstream again."""
    end = time.monotonic() + 10
    while publisher.publish("kept", "hello") == 0 and time.monotonic() < end:
        time.sleep(0.01)
    message = None
    while message is None and time.monotonic() < end:
        message = subscriber.get_message(timeout=1)
    return message and message["data"]


def main():
    before = connect()
    while_up(before)
    before.delete("queue")
    subscriber = before.pubsub(ignore_subscribe_messages=True)
    subscriber.subscribe("kept")
    subscriber.get_message(timeout=5)
    ask("down")
    while_down("before", before)
    while_down("during", connect())
    ask("up")
    for name in ["before", "during"]:
        check(f"replayed {name}", before.mget(f"{name}:set", f"{name}:setex", f"{name}:t"), ["queued", "queued", "1"])
        check_that(f"expiry {name}", 0 < before.ttl(f"{name}:setex") <= 100, before.ttl(f"{name}:setex"))
    check("order", before.lrange("queue", 0, -1), ["before", "before:t", "during", "during:t"])
    check("refused is not there", before.exists("lock2"), 0)
    check("a subscription is kept", heard(before, subscriber), "hello")
    while_up(before)


guarded(main)
