"""redis-py, asyncio, many at once: `redis_py_async.py PORT PROTOCOL`."""

import asyncio
import sys

import redis
import redis.asyncio
from report import ask, check, check_that, guarded

PORT, PROTOCOL = int(sys.argv[1]), int(sys.argv[2])
TASKS = 50


def connect():
    return redis.asyncio.Redis(port=PORT, db=2, protocol=PROTOCOL, decode_responses=True)


async def while_up(r):
    await r.flushdb()

    async def work(number):
        for turn in range(20):
            await r.set(f"k{number}", turn)
            if await r.get(f"k{number}") != str(turn):
                return False
            await r.rpush(f"l{number}", turn)
        return await r.lrange(f"l{number}", 0, -1) == [str(turn) for turn in range(20)]

    check("tasks", await asyncio.gather(*map(work, range(TASKS))), [True] * TASKS)
    async with r.pipeline(transaction=True) as pipe:
        check("transaction", await pipe.incr("n").incr("n").execute(), [1, 2])
    waiting = asyncio.create_task(r.blpop("q", timeout=10))
    await asyncio.sleep(0)
    await r.rpush("q", "job")
    check("blpop", tuple(await waiting), ("q", "job"))
    async with r.pubsub() as pubsub:
        await pubsub.subscribe("c")
        await pubsub.get_message(timeout=5)
        await r.publish("c", "hello")
        check("message", (await pubsub.get_message(timeout=5))["data"], "hello")


async def while_down(name, r):
    async def work(number):
        answers = [await r.get(f"k{number}"), await r.set(f"{name}{number}", 1), await r.rpush(f"{name}:l", number)]
        return answers == [None, True, 1]

    check(f"{name}: tasks", await asyncio.gather(*map(work, range(TASKS))), [True] * TASKS)
    try:
        check_that(f"{name}: incr is refused", False, await r.incr("n"))
    except redis.ResponseError as error:
        check_that(f"{name}: incr is refused", str(error).startswith("UNAVAILABLE "), error)


async def main():
    before = connect()
    await while_up(before)
    ask("down")
    await while_down("before", before)
    during = connect()
    await while_down("during", during)
    await during.aclose()
    ask("up")
    for name in ["before", "during"]:
        values = await before.mget([f"{name}{number}" for number in range(TASKS)])
        check(f"replayed {name}", values, ["1"] * TASKS)
        pushed = sorted(map(int, await before.lrange(f"{name}:l", 0, -1)))
        check(f"pushed once {name}", pushed, list(range(TASKS)))
    check("refused is not there", await before.get("n"), "2")
    await while_up(before)
    await before.aclose()


guarded(lambda: asyncio.run(main()))
