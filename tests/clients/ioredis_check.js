// ioredis: `ioredis_check.js PORT`.
"use strict";

const { Redis } = require("ioredis");
const { check, ask, refused, guarded } = require("./report.js");

const PORT = Number(process.argv[2]);

// Any lost connection is one too many: the proxy keeps its clients through the outage.
function connect(name) {
  const redis = new Redis({ port: PORT, db: 3 });
  redis.on("error", (error) => console.log(`FAIL ${name}: connection error ${error}`));
  redis.on("reconnecting", () => console.log(`FAIL ${name}: reconnecting`));
  return redis;
}

async function whileUp(redis) {
  await redis.flushdb();
  check("ping", await redis.ping(), "PONG");
  check("set", await redis.set("k", "v", "EX", 100), "OK");
  check("get", await redis.get("k"), "v");
  check("nil", await redis.get("nothing"), null);
  check("hset", await redis.hset("h", { a: 1, b: 2 }), 2);
  check("hgetall", await redis.hgetall("h"), { a: "1", b: "2" });
  check("multi", await redis.multi().incr("n").get("k").exec(), [[null, 1], [null, "v"]]);
  const echoes = Array.from({ length: 1000 }, (_, number) => redis.echo(String(number)));
  check("pipeline", await Promise.all(echoes), Array.from({ length: 1000 }, (_, number) => String(number)));
  redis.defineCommand("addOne", { numberOfKeys: 0, lua: "return ARGV[1] + 1" });
  check("script", await redis.addOne(41), 42);
  check("script again", await redis.addOne(1), 2);
  const [waiter, subscriber] = [redis.duplicate(), redis.duplicate()];
  const waiting = waiter.blpop("q", 10);
  await redis.rpush("q", "job");
  check("blpop", await waiting, ["q", "job"]);
  await subscriber.subscribe("c");
  const message = new Promise((resolve) => subscriber.once("message", (channel, text) => resolve([channel, text])));
  check("publish", await redis.publish("c", "hello"), 1);
  check("message", await message, ["c", "hello"]);
  waiter.disconnect();
  subscriber.disconnect();
}

async function whileDown(name, redis) {
  check(`${name}: get`, await redis.get("k"), null);
  check(`${name}: hgetall`, await redis.hgetall("h"), {});
  check(`${name}: set`, await redis.set(`${name}:set`, "queued", "EX", 100), "OK");
  check(`${name}: rpush`, await redis.rpush("queue", name), 1);
  check(`${name}: multi`, await redis.multi().set(`${name}:t`, 1).rpush("queue", `${name}:t`).exec(), [[null, "OK"], [null, 1]]);
  await refused(`${name}: incr is refused`, () => redis.incr("n"));
  await refused(`${name}: set nx is refused`, () => redis.set("k", "v", "NX"));
}

async function main() {
  const before = connect("before");
  await whileUp(before);
  await ask("down");
  await whileDown("before", before);
  const during = connect("during");
  await whileDown("during", during);
  await ask("up");
  check("replayed", await before.mget("before:set", "before:t", "during:set", "during:t"), ["queued", "1", "queued", "1"]);
  check("order", await before.lrange("queue", 0, -1), ["before", "before:t", "during", "during:t"]);
  await whileUp(during);
  before.disconnect();
  during.disconnect();
}

guarded(main);
