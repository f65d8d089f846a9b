// ioredis, the same directly and through tideover: `ioredis_compared.js DIRECT_PORT PORT`.
"use strict";

const { Redis } = require("ioredis");
const { compare, until, refused } = require("./compared.js");
const { guarded } = require("./report.js");

const CHANNELS = 3000;
const NUMBERS = Array.from({ length: CHANNELS }, (_, number) => number);

async function identity({ connect }) {
  const redis = connect();
  await redis.acl("SETUSER", "worker", "on", ">secret", "~own:*", "&*", "+@all", "-flushall");
  const worker = connect({ username: "worker", password: "secret", connectionName: "named", db: 2 });
  const seen = [await worker.acl("WHOAMI"), await worker.client("GETNAME"), /db=\d+/.exec(await worker.client("INFO"))[0]];
  seen.push(await worker.set("own:k", "v"), await refused(() => worker.get("other")), await refused(() => worker.flushall()));
  return [...seen, await refused(() => redis.auth("worker", "wrong")), await redis.call("HELLO", "2").then((hello) => hello.slice(0, 6))];
}

async function pipeline({ connect }) {
  const pipe = connect().pipeline();
  for (const number of NUMBERS) pipe.set(`k${number}`, number).get(`k${number}`);
  return pipe.lpush("k1", "x").incr("n").exec();
}

async function transaction({ connect }) {
  const [redis, other] = [connect(), connect()];
  const seen = [await redis.multi().incr("n").lpush("n", "x").get("n").exec()];
  for (const meddle of [false, true]) {
    seen.push(await redis.watch("n", "m"));
    if (meddle) await other.set("m", "changed");
    seen.push(await redis.multi().incr("n").get("m").exec());
  }
  seen.push(await redis.multi({ pipeline: false }), await redis.get("n"), await refused(() => redis.call("GET")));
  return [...seen, await refused(() => redis.exec()), await redis.get("n")];
}

async function blockingPops({ connect }) {
  const [redis, waiter] = [connect(), connect()];
  const begun = Date.now();
  const seen = [await waiter.blpop("a", "b", 0.2), Date.now() - begun >= 190];
  const pops = [
    [() => waiter.blpop("a", "b", 9.5), () => redis.rpush("b", 1, 2)],
    [() => waiter.brpop("c", "d", 0), () => redis.rpush("d", 1, 2)],
    [() => waiter.blmove("from", "to", "LEFT", "RIGHT", 9.5), () => redis.rpush("from", 1)],
    [() => waiter.bzpopmin("y", "z", 9.5), () => redis.zadd("z", 1.5, "m", 2, "n")],
    [() => waiter.blmpop(9.5, 2, "e", "f", "LEFT", "COUNT", 2), () => redis.rpush("f", 1, 2, 3)],
  ];
  for (const [pop, push] of pops) {
    const waiting = pop();
    await until("blocked", async () => !(await redis.info("clients")).includes("blocked_clients:0"));
    seen.push(await push(), await waiting);
  }
  return seen;
}

// What a subscriber hears, in order.
function listen(subscriber) {
  const heard = [];
  for (const event of ["message", "pmessage", "smessage"]) subscriber.on(event, (...words) => heard.push([event, ...words]));
  return heard;
}

async function pubsub({ connect }) {
  const [redis, subscriber] = [connect(), connect()];
  const heard = listen(subscriber);
  const seen = [await subscriber.subscribe("c", "d"), await subscriber.psubscribe("p*", "c?"), await subscriber.ssubscribe("shard")];
  for (const channel of ["c", "pool", "c1", "nobody"]) seen.push(await redis.publish(channel, `to ${channel}`));
  seen.push(await redis.spublish("shard", "to shard"));
  await until("messages", () => heard.length === 4);
  seen.push(heard.splice(0), await redis.pubsub("NUMSUB", "c", "d"), (await redis.pubsub("CHANNELS")).sort(), await redis.pubsub("NUMPAT"));
  seen.push(await refused(() => subscriber.get("k")), await subscriber.unsubscribe("c"), await subscriber.punsubscribe("p*"));
  seen.push(await redis.publish("c", ""), await redis.publish("cx", "still"));
  await until("message", () => heard.length === 1);
  return [...seen, heard, await subscriber.unsubscribe("d"), await subscriber.punsubscribe("c?"), await subscriber.sunsubscribe("shard")];
}

async function manyChannels({ connect }) {
  const [redis, subscriber] = [connect(), connect()];
  const heard = listen(subscriber);
  const names = NUMBERS.map((number) => `channel:${number}`);
  const seen = [await subscriber.subscribe(...names), await Promise.all(names.map((name) => redis.publish(name, `to ${name}`)))];
  await until("messages", () => heard.length === CHANNELS);
  return [...seen, heard, await subscriber.unsubscribe(...names.slice(1)), await redis.pubsub("CHANNELS")];
}

async function keyspaceNotifications({ connect }) {
  const [redis, subscriber] = [connect(), connect()];
  const heard = listen(subscriber);
  const seen = [await redis.config("SET", "notify-keyspace-events", "KEA"), await subscriber.psubscribe("__key*__:*")];
  seen.push(await redis.set("k", "v"), await redis.rename("k", "kk"), await redis.lpush("l", 1), await redis.del("kk", "l"));
  seen.push(await redis.set("e", 1, "PX", 5));
  await until("messages", () => heard.length === 18);
  return [...seen, heard, await redis.config("SET", "notify-keyspace-events", "")];
}

function tracking(options, beforeGet = []) {
  return async ({ connect }) => {
    const [redis, other, second] = [connect(), connect(), connect()];
    const heard = listen(second);
    const redirect = await second.client("ID");
    await second.subscribe("__redis__:invalidate", "marker");
    const seen = [await redis.client("TRACKING", "ON", "REDIRECT", redirect, ...options)];
    for (const key of ["a:1", "b:1"]) {
      if (key === "b:1" && beforeGet.length > 0) seen.push(await redis.call(...beforeGet));
      seen.push(await redis.get(key));
    }
    for (const client of [other, redis]) {
      for (const key of ["a:1", "b:1", "c:1"]) {
        seen.push(await client.set(key, "new"), await redis.get(key));
      }
    }
    await other.publish("marker", "");
    await until("marker", () => heard.some(([, channel]) => channel === "marker"));
    return [...seen, heard, (await redis.client("GETREDIR")) === redirect, (await redis.client("TRACKINGINFO"))[1]];
  };
}

async function scripts({ connect }) {
  const redis = connect();
  redis.defineCommand("put", { numberOfKeys: 1, lua: "redis.call('SET', KEYS[1], ARGV[1]) return {ARGV[1] + 1, KEYS[1]}" });
  const seen = [await redis.put("k", 41), await redis.put("k", 1), await redis.script("FLUSH"), await redis.put("k", 7)];
  seen.push(await redis.script("FLUSH"), await redis.pipeline().put("p", 1).get("p").exec(), await refused(() => redis.evalsha("0".repeat(40), 0)));
  const code = "#!lua name=lib\nredis.register_function('write', function(k, a) return redis.call('SET', k[1], a[1]) end)";
  seen.push(await redis.function("LOAD", code), await redis.fcall("write", 1, "k", "v"), await refused(() => redis.fcall_ro("write", 1, "k", "v")));
  return [...seen, await redis.function("LIST"), await redis.function("DELETE", "lib"), await refused(() => redis.fcall("write", 1, "k", "v"))];
}

async function streams({ connect }) {
  const [redis, reader] = [connect(), connect()];
  const seen = [await redis.xgroup("CREATE", "x", "g", "0", "MKSTREAM"), await refused(() => redis.xgroup("CREATE", "x", "g", "0"))];
  for (const number of [1, 2, 3, 4, 5]) seen.push(await redis.xadd("x", `${number}-1`, "number", number, "text", "ü"));
  seen.push(await reader.xreadgroup("GROUP", "g", "one", "COUNT", 3, "STREAMS", "x", ">"), await reader.xreadgroup("GROUP", "g", "two", "STREAMS", "x", ">"));
  const waiting = reader.xreadgroup("GROUP", "g", "two", "BLOCK", 9000, "STREAMS", "x", ">");
  await until("blocked", async () => !(await redis.info("clients")).includes("blocked_clients:0"));
  seen.push(await redis.xadd("x", "9-1", "late", 1), await waiting, await redis.xack("x", "g", "1-1", "4-1"), await redis.xpending("x", "g"));
  seen.push(await redis.xclaim("x", "g", "two", 0, "2-1"), await redis.xautoclaim("x", "g", "two", 0, "0", "COUNT", 2));
  return [...seen, await redis.xread("BLOCK", 10, "STREAMS", "x", "5"), await redis.xinfo("GROUPS", "x")];
}

async function iterators({ connect }) {
  const redis = connect();
  await redis.mset(Object.fromEntries(NUMBERS.map((number) => [`key:${number}`, number])));
  await redis.hset("h", Object.fromEntries(NUMBERS.map((number) => [`f${number}`, number])));
  await redis.sadd("s", ...NUMBERS.map((number) => `m${number}`));
  const found = [redis.scanStream({ match: "key:*1", count: 50 }), redis.hscanStream("h"), redis.sscanStream("s")];
  const lists = await Promise.all(found.map((stream) => stream.toArray()));
  // SCAN may say an item twice. HSCAN's fields and values are in one list, and differ.
  return lists.map((pages) => [...new Set(pages.flat())].sort());
}

async function monitor({ connect }) {
  const [redis, watched] = [connect(), connect({ db: 5 })];
  await watched.ping();
  // As redis.monitor() does, but ioredis takes what arrives together with the +OK (a line about a dial of tideover) for a reply too many.
  const [monitor, lines] = [redis.duplicate({ monitor: true }), []];
  const begun = new Promise((resolve, reject) => {
    monitor.once("monitoring", resolve);
    monitor.on("error", (error) => error.message.startsWith("Command queue state error") || reject(error));
  });
  await begun;
  monitor.on("monitor", (_time, args, _source, database) => args.includes("monitored") && lines.push([args, database]));
  await watched.set("monitored", "ü \r\n \"q\"");
  await watched.multi().set("monitored", 1).get("monitored").exec();
  await until("lines", () => lines.length === 3);
  monitor.disconnect();
  return lines;
}

async function values({ connect }) {
  const [redis, seen] = [connect(), []];
  const every = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  for (const value of [Buffer.from("ünï→🌍"), Buffer.alloc(0), Buffer.from("\r\n$3\r\n\0"), Buffer.concat(Array(4096).fill(every))]) {
    const key = Buffer.concat([Buffer.from("k\0\r\n"), value.subarray(0, 20)]);
    seen.push(await redis.set(key, value), (await redis.getBuffer(key)).equals(value), await redis.strlen(key));
    seen.push(await redis.rpush("l", value, value), (await redis.lrangeBuffer("l", -1, -1))[0].equals(value));
  }
  return [...seen, (await redis.keys("k*")).sort()];
}

async function killedById({ connect }) {
  const [redis, other, seen] = [connect({ connectionName: "victim" }), connect(), []];
  for (const killer of [redis, other]) {
    const [old, reconnected] = [await redis.client("ID"), new Promise((resolve) => redis.once("ready", resolve))];
    seen.push(await refused(() => killer.client("KILL", "ID", old, "SKIPME", "no")));
    await reconnected;
    seen.push(await redis.set("k", "v"), await redis.get("k"), await redis.client("GETNAME"), (await redis.client("ID")) !== old);
  }
  return seen;
}

const CHECKS = [
  ["ACL user, password, name, database", identity],
  ["pipeline", pipeline],
  ["transactions and WATCH", transaction],
  ["blocking pops", blockingPops],
  ["subscribe, psubscribe, ssubscribe", pubsub],
  [`${CHANNELS} channels`, manyChannels],
  ["keyspace notifications", keyspaceNotifications],
  ["CLIENT TRACKING REDIRECT", tracking([])],
  ["CLIENT TRACKING BCAST", tracking(["BCAST", "PREFIX", "a:", "PREFIX", "b:"])],
  ["CLIENT TRACKING OPTIN", tracking(["OPTIN"], ["CLIENT", "CACHING", "YES"])],
  ["CLIENT TRACKING OPTOUT", tracking(["OPTOUT"], ["CLIENT", "CACHING", "NO"])],
  ["CLIENT TRACKING NOLOOP", tracking(["NOLOOP"])],
  ["scripts and functions", scripts],
  ["streams", streams],
  ["iterators", iterators],
  ["MONITOR", monitor],
  ["values", values],
  ["CLIENT KILL ID", killedById],
];

function onPort(check) {
  return async (port) => {
    const clients = [];
    const connect = (options) => {
      const redis = new Redis({ port, ...options });
      redis.on("error", () => {});
      clients.push(redis);
      return redis;
    };
    try {
      await connect().flushall();
      return await check({ connect });
    } finally {
      for (const client of clients) client.disconnect();
    }
  };
}

guarded(() => compare(CHECKS.map(([name, check]) => [name, onPort(check)]), ...process.argv.slice(2).map(Number)));
