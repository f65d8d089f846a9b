"""redis-py, the same directly and through tideover: `redis_py_compared.py DIRECT_PORT PORT sync|async PROTOCOL`.

Each check is written once: `said` awaits what the asyncio client gives and takes what the blocking one gives.
"""

import asyncio
import inspect
import re
import sys
import time

import redis
import redis.asyncio
from compared import compare
from redis.cache import CacheConfig
from redis.connection import CacheProxyConnection
from report import guarded

KIND, PROTOCOL = sys.argv[3], int(sys.argv[4])
SYNC = KIND == "sync"
DEADLINE_S = 10
CHANNELS = 3000
# What it asks of open-source Redis is in 6.0 already; Debian 12 has 7.0.
CacheProxyConnection.MIN_ALLOWED_VERSION = "6.0.0"


async def said(value):
    return await value if inspect.isawaitable(value) else value


async def until(condition):
    end = time.monotonic() + DEADLINE_S
    while not await condition():
        if time.monotonic() > end:
            raise TimeoutError(condition.__name__)
        await asyncio.sleep(0.005)


class Place:
    """One way to a server: makes clients and closes them."""

    def __init__(self, port):
        self.port, self.clients = port, []

    def connect(self, **options):
        kind = redis.Redis if SYNC else redis.asyncio.Redis
        client = kind(port=self.port, **{"protocol": PROTOCOL, "decode_responses": True, **options})
        self.clients.append(client)
        return client

    async def alone(self, **options):
        """A client with one connection of its own."""
        client = self.connect(single_connection_client=True, **options)
        if not SYNC:
            await client.initialize()
        return client

    async def close(self):
        for client in self.clients:
            await said(client.close() if SYNC else client.aclose())


def started(call, *args, **options):
    """The call goes on beside what follows."""
    return asyncio.ensure_future(asyncio.to_thread(call, *args, **options) if SYNC else call(*args, **options))


async def somebody_is_blocked(r):
    async def blocked():
        return (await said(r.info("clients")))["blocked_clients"] > 0

    await until(blocked)


async def refused(call):
    try:
        return "answered", await said(call())
    except redis.RedisError as error:
        return type(error).__name__, str(error)


async def messages(pubsub, count):
    got = [await said(pubsub.get_message(timeout=DEADLINE_S)) for _ in range(count)]
    return [message and (message["type"], message["pattern"], message["channel"], message["data"]) for message in got]


async def listed(items):
    return list(items) if SYNC else [item async for item in items]


async def identity(place):
    r = place.connect()
    await said(r.acl_setuser("worker", reset=True, enabled=True, passwords=["+secret"], keys=["own:*"], commands=["+@all", "-flushall"]))
    worker = place.connect(username="worker", password="secret", client_name="named", db=2)
    stranger = place.connect(username="worker", password="wrong")
    seen = [await said(worker.acl_whoami()), await said(worker.client_getname()), (await said(worker.client_info()))["db"]]
    seen.append(await said(worker.set("own:k", "v")))
    return [*seen, *[await refused(call) for call in [lambda: worker.get("other"), worker.flushall, stranger.ping]]]


async def pipeline(place):
    pipe = place.connect().pipeline(transaction=False)
    for number in range(1000):
        pipe.set(f"k{number}", number).get(f"k{number}")
    pipe.lpush("k1", "x").incr("n")
    results = await said(pipe.execute(raise_on_error=False))
    return [str(result) for result in results]


async def transaction(place):
    r, other = place.connect(), place.connect()
    pipe = r.pipeline()
    seen = [await said(pipe.incr("n").lpush("n", "x").get("n").execute(raise_on_error=False))]
    for meddle in [False, True]:
        await said(pipe.watch("n", "m"))
        value = int(await said(pipe.get("n")))
        if meddle:
            await said(other.set("m", "changed"))
        pipe.multi()
        pipe.set("n", value + 10).strlen("n")
        seen.append(await refused(pipe.execute))
        await said(pipe.reset())
    await said(pipe.watch("n"))
    await said(other.incr("n"))
    await said(pipe.unwatch())
    pipe.multi()
    seen.append(await refused(pipe.incr("n").execute))
    return str(seen)


async def blocking_pops(place):
    r, waiter = place.connect(), place.connect()
    seen, begun = [], time.monotonic()
    seen.append(await said(waiter.blpop(["a", "b"], timeout=0.2)))
    seen.append(0.2 <= time.monotonic() - begun < 2)
    pops = [
        (lambda: waiter.blpop(["a", "b", "c"], timeout=9.5), lambda: r.rpush("b", "1", "2")),
        (lambda: waiter.brpop(["c", "d"], timeout=0), lambda: r.rpush("d", "1", "2")),
        (lambda: waiter.blmove("from", "to", 9.5, "LEFT", "RIGHT"), lambda: r.rpush("from", "1")),
        (lambda: waiter.bzpopmin(["y", "z"], timeout=9.5), lambda: r.zadd("z", {"m": 1.5, "n": 2})),
        (lambda: waiter.bzpopmax(["y", "zz"], timeout=9.5), lambda: r.zadd("zz", {"m": 1.5, "n": 2})),
        (lambda: waiter.blmpop(9.5, 2, "e", "f", direction="LEFT", count=2), lambda: r.rpush("f", "1", "2", "3")),
    ]
    for pop, push in pops:
        waiting = started(pop)
        await somebody_is_blocked(r)
        seen += [await said(push()), await waiting]
    return str(seen)


async def pubsub(place):
    r, heard = place.connect(), place.connect().pubsub()
    await said(heard.subscribe("c", "d"))
    await said(heard.psubscribe("p*", "c?"))
    await said(heard.ssubscribe("shard"))
    seen = await messages(heard, 5)
    for publish, channel in [(r.publish, "c"), (r.publish, "pool"), (r.publish, "c1"), (r.publish, "nobody"), (r.spublish, "shard")]:
        seen.append(await said(publish(channel, f"to {channel}")))
    seen += await messages(heard, 4)
    seen += [await said(r.pubsub_numsub("c", "d")), sorted(await said(r.pubsub_channels())), await said(r.pubsub_numpat())]
    await said(heard.ping("hello"))
    seen += await messages(heard, 1)
    await said(heard.unsubscribe())
    await said(heard.punsubscribe("p*"))
    await said(heard.sunsubscribe("shard"))
    # Redis ends all subscriptions in no order, and counts down.
    seen += [sorted(message[:3] for message in await messages(heard, 2)), await messages(heard, 2)]
    await said(r.publish("cx", "still"))
    return str([*seen, await messages(heard, 1), await said(r.pubsub_numsub("c"))])


async def many_channels(place):
    r, heard = place.connect(), place.connect().pubsub()
    names = [f"channel:{number}" for number in range(CHANNELS)]
    await said(heard.subscribe(*names))
    seen = await messages(heard, CHANNELS)
    pipe = r.pipeline(transaction=False)
    for name in names:
        pipe.publish(name, f"to {name}")
    seen += await said(pipe.execute())
    seen += await messages(heard, CHANNELS)
    await said(heard.unsubscribe(*names[1:]))
    seen += await messages(heard, CHANNELS - 1)
    return [*seen, await said(r.pubsub_channels())]


async def keyspace_notifications(place):
    r, heard = place.connect(), place.connect().pubsub()
    await said(r.config_set("notify-keyspace-events", "KEA"))
    await said(heard.psubscribe("__key*__:*"))
    seen = await messages(heard, 1)
    for call in [r.set("k", "v"), r.expire("k", 100), r.rename("k", "kk"), r.lpush("l", "x"), r.delete("kk", "l"), r.set("e", 1, px=5)]:
        seen.append(await said(call))
    seen += await messages(heard, 18)
    await said(r.config_set("notify-keyspace-events", ""))
    return seen


async def cached_client(place):
    r, other = place.connect(cache_config=CacheConfig()), place.connect()
    seen = [r.mset({"k": "1", "other": "1"})]
    for value in ["1", "2", None]:
        seen.append(other.flushdb() if value is None else other.set("k", value))

        async def invalidated():
            return r.get("k") == value

        await until(invalidated)
        seen += [r.get("k"), r.get_cache().size]
    return seen


async def tracked(place, *options):
    """A client that tracks, and what gives the invalidations so far: its own pushes, or those of its second connection."""
    r, heard = await place.alone(), []
    if PROTOCOL == 3:
        async def take_later(push):
            heard.append(push)

        r.connection._parser.invalidation_push_handler_func = heard.append if SYNC else take_later
        await said(r.execute_command("CLIENT", "TRACKING", "ON", *options))

        async def so_far():
            await said(r.ping())
            return str(heard)

        return r, so_far
    second, marker = place.connect().pubsub(), place.connect()
    await said(second.execute_command("CLIENT", "ID"))
    redirect = await said(second.parse_response(block=True))
    await said(second.subscribe("__redis__:invalidate", "marker"))
    await messages(second, 2)
    await said(r.execute_command("CLIENT", "TRACKING", "ON", "REDIRECT", redirect, *options))

    async def so_far():
        await said(marker.publish("marker", ""))
        while (message := await messages(second, 1))[0][2] != "marker":
            heard.append(message)
        return str(heard)

    return r, so_far


def tracking(options, before_get=()):
    async def check(place):
        r, so_far = await tracked(place, *options)
        other = place.connect()
        seen = []
        for key in ["a:1", "b:1", "c:1"]:
            for words in before_get if key == "b:1" else ():
                seen.append(await said(r.execute_command(*words)))
            seen.append(await said(r.get(key)))
        for client in [other, r]:
            for key in ["a:1", "b:1", "c:1", "a:2"]:
                seen.append(await said(client.set(key, "new")))
                seen.append(await so_far())
                await said(r.get(key))
        seen += [await said(other.flushall()), await so_far()]
        info = await said(r.execute_command("CLIENT", "TRACKINGINFO"))
        flags = info["flags"] if isinstance(info, dict) else info[1]
        return [*seen, sorted(flags), await said(r.execute_command("CLIENT", "TRACKING", "OFF"))]

    return check


async def scripts(place):
    r = place.connect()
    add, seen = r.register_script("redis.call('SET', KEYS[1], ARGV[1]) return {ARGV[1] + 1, KEYS[1]}"), []
    for _ in range(2):
        seen += [await said(add(keys=["k"], args=[41])), await said(r.script_flush()), await said(add(keys=["k"], args=[1]))]
    seen += [await said(r.script_exists(add.sha)), await refused(lambda: r.evalsha("0" * 40, 0))]
    pipe = r.pipeline()
    await said(r.script_flush())
    await said(add(keys=["p"], args=[7], client=pipe))
    return [*seen, await said(pipe.execute()), await refused(lambda: r.eval("return redis.call('nothing')", 0))]


async def functions(place):
    r = place.connect()
    code = "#!lua name=lib\nredis.register_function('put', function(k, a) return redis.call('SET', k[1], a[1]) end)\n"
    code += "redis.register_function{function_name='get', callback=function(k) return redis.call('GET', k[1]) end, flags={'no-writes'}}"
    seen = [await said(r.function_load(code)), await refused(lambda: r.function_load(code))]
    seen += [await said(r.fcall("put", 1, "k", "v")), await said(r.fcall_ro("get", 1, "k")), await refused(lambda: r.fcall_ro("put", 1, "k", "v"))]
    # A library's functions come in no order.
    names = sorted(re.findall(r"\w+", str(await said(r.function_list()))))
    return [*seen, names, await said(r.function_delete("lib")), await refused(lambda: r.fcall("put", 1, "k", "v"))]


async def streams(place):
    r, reader = place.connect(), place.connect()
    seen = [await said(r.xgroup_create("x", "g", id="0", mkstream=True)), await refused(lambda: r.xgroup_create("x", "g"))]
    for number in range(1, 6):
        seen.append(await said(r.xadd("x", {"number": number, "text": "ü"}, id=f"{number}-1")))
    seen.append(await said(reader.xreadgroup("g", "one", {"x": ">"}, count=3)))
    seen.append(await said(reader.xreadgroup("g", "two", {"x": ">"})))
    waiting = started(reader.xreadgroup, "g", "two", {"x": ">"}, block=9000)
    await somebody_is_blocked(r)
    seen += [await said(r.xadd("x", {"late": 1}, id="9-1")), await waiting]
    seen += [await said(r.xack("x", "g", "1-1", "4-1")), await said(r.xpending("x", "g"))]
    seen += [await said(r.xclaim("x", "g", "two", 0, ["2-1"])), await said(r.xautoclaim("x", "g", "two", 0, count=2))]
    seen += [await said(r.xrange("x", "2", "4")), await said(r.xread({"x": "5"}, block=10)), await said(r.xtrim("x", maxlen=2))]
    return str([*seen, await said(r.xinfo_groups("x")), await said(r.xlen("x"))])


async def iterators(place):
    r = place.connect()
    await said(r.mset({f"key:{number}": number for number in range(500)}))
    await said(r.hset("h", mapping={f"f{number}": number for number in range(600)}))
    await said(r.sadd("s", *[f"m{number}" for number in range(600)]))
    await said(r.zadd("z", {f"m{number}": number / 2 for number in range(600)}))
    found = [r.scan_iter(match="key:*1", count=20), r.scan_iter(_type="hash"), r.hscan_iter("h"), r.sscan_iter("s"), r.zscan_iter("z")]
    # SCAN may say an item twice.
    return [sorted(set(await listed(items))) for items in found]


async def monitor(place):
    r, monitor = place.connect(db=5), place.connect().monitor()
    lines = []

    async def read():
        while "last" not in (line := (await said(monitor.next_command()))["command"]):
            lines.append(line)

    await said(monitor.__enter__() if SYNC else monitor.__aenter__())
    for call in [r.set("monitored", "ü \r\n \"q\""), r.pipeline().set("monitored", 1).get("monitored").execute(), r.set("monitored", "last")]:
        await said(call)
    await read()
    await said(monitor.__exit__(None, None, None) if SYNC else monitor.__aexit__(None, None, None))
    return [line for line in lines if "monitored" in line]


async def values(place):
    r, seen = place.connect(decode_responses=False), []
    for value in ["ünï→\U0001f30a".encode(), b"", b"\r\n$3\r\n\x00\xff", bytes(range(256)) * 4096]:
        key = b"k\x00\r\n" + value[:20]
        seen += [await said(r.set(key, value)), await said(r.get(key)) == value, await said(r.strlen(key)), await said(r.mget(key, "none")) == [value, None]]
        seen += [await said(r.rpush("l", value, value)), await said(r.lrange("l", -2, -1)) == [value, value], await said(r.echo(value)) == value]
    return [*seen, sorted(await said(r.keys("k*")))]


async def killed_by_id(place):
    r, other, seen = await place.alone(client_name="victim"), place.connect(), []
    for killer in [r, other]:
        old = await said(r.client_id())
        listed = [client["id"] for client in await said(other.client_list()) if client["name"] == "victim"]
        seen.append(listed == [str(old)])
        seen.append(await refused(lambda: killer.client_kill_filter(_id=old, skipme=False)))
        seen += [await said(r.set("k", "v")), await said(r.get("k")), await said(r.client_getname()), await said(r.client_id()) != old]
    return seen


CHECKS = [
    ("ACL user, password, name, database", identity),
    ("pipeline", pipeline),
    ("transactions and WATCH", transaction),
    ("blocking pops", blocking_pops),
    ("subscribe, psubscribe, ssubscribe", pubsub),
    (f"{CHANNELS} channels", many_channels),
    ("keyspace notifications", keyspace_notifications),
    *([("client-side caching", cached_client)] if SYNC and PROTOCOL == 3 else []),
    ("CLIENT TRACKING", tracking([])),
    ("CLIENT TRACKING BCAST", tracking(["BCAST", "PREFIX", "a:", "PREFIX", "b:"])),
    ("CLIENT TRACKING OPTIN", tracking(["OPTIN"], [("CLIENT", "CACHING", "YES")])),
    ("CLIENT TRACKING OPTOUT", tracking(["OPTOUT"], [("CLIENT", "CACHING", "NO")])),
    ("CLIENT TRACKING NOLOOP", tracking(["NOLOOP"])),
    ("scripts", scripts),
    ("functions", functions),
    ("streams", streams),
    ("iterators", iterators),
    ("MONITOR", monitor),
    ("values", values),
    ("CLIENT KILL ID", killed_by_id),
]


def on_port(check):
    async def whole(port):
        place = Place(port)
        try:
            await said(place.connect().flushall())
            return await asyncio.wait_for(check(place), 2 * DEADLINE_S)
        finally:
            await place.close()

    return lambda port: asyncio.run(whole(port))


guarded(lambda: compare([(name, on_port(check)) for name, check in CHECKS], *map(int, sys.argv[1:3])))
