// node-redis, the same directly and through tideover: `node_redis_compared.js DIRECT_PORT PORT PROTOCOL`.
"use strict";

const { createClient, defineScript, RESP_TYPES } = require("@redis/client");
const { compare, until, refused } = require("./compared.js");
const { guarded } = require("./report.js");

const PROTOCOL = Number(process.argv[4]);
const CHANNELS = 3000;
const NUMBERS = Array.from({ length: CHANNELS }, (_, number) => number);

async function identity({ connect }) {
  const client = await connect();
  await client.aclSetUser("worker", ["on", ">secret", "~own:*", "&*", "+@all", "-flushall"]);
  const worker = await connect({ username: "worker", password: "secret", name: "named", database: 2 });
  const info = await worker.clientInfo();
  const seen = [await worker.aclWhoAmI(), await worker.clientGetName(), info.db, info.user, info.name];
  seen.push(await worker.set("own:k", "v"), await refused(() => worker.get("other")), await refused(() => worker.flushAll()));
  seen.push(await refused(() => client.auth({ username: "worker", password: "wrong" })));
  return [...seen, await client.hello(PROTOCOL).then(({ server, version, proto, mode, role }) => ({ server, version, proto, mode, role }))];
}

async function pipeline({ connect }) {
  const client = await connect();
  return Promise.all(NUMBERS.flatMap((number) => [client.set(`k${number}`, `${number}`), client.get(`k${number}`), refused(() => client.lPush("k0", "x"))]));
}

async function transaction({ connect }) {
  const [client, other] = [await connect(), await connect()];
  const failing = await client.multi().incr("n").lPush("n", "x").get("n").exec().catch((error) => [error.message, error.replies]);
  const seen = [failing];
  for (const meddle of [false, true]) {
    seen.push(await client.watch(["n", "m"]));
    if (meddle) await other.set("m", "changed");
    seen.push(await refused(() => client.multi().incr("n").get("m").exec()));
  }
  seen.push(await client.watch("n"), await other.incr("n"), await client.unwatch(), await client.multi().get("n").exec());
  return seen;
}

async function blocked(client) {
  await until("blocked", async () => !(await client.info("clients")).includes("blocked_clients:0"));
}

async function blockingPops({ connect }) {
  const [client, waiter] = [await connect(), await connect()];
  const begun = Date.now();
  const seen = [await waiter.blPop(["a", "b"], 0.2), Date.now() - begun >= 190];
  const pops = [
    [() => waiter.blPop(["a", "b"], 9.5), () => client.rPush("b", ["1", "2"])],
    [() => waiter.brPop(["c", "d"], 0), () => client.rPush("d", ["1", "2"])],
    [() => waiter.blMove("from", "to", "LEFT", "RIGHT", 9.5), () => client.rPush("from", "1")],
    [() => waiter.bzPopMin(["y", "z"], 9.5), () => client.zAdd("z", [{ score: 1.5, value: "m" }, { score: 2, value: "n" }])],
    [() => waiter.blmPop(9.5, ["e", "f"], "LEFT", { COUNT: 2 }), () => client.rPush("f", ["1", "2", "3"])],
  ];
  for (const [pop, push] of pops) {
    const waiting = pop();
    await blocked(client);
    seen.push(await push(), await waiting);
  }
  return seen;
}

async function pubsub({ connect }) {
  const [client, subscriber, heard] = [await connect(), await connect(), []];
  const listener = (...words) => heard.push(words);
  await subscriber.subscribe(["c", "d"], listener);
  await subscriber.pSubscribe(["p*", "c?"], listener);
  await subscriber.sSubscribe("shard", listener);
  const seen = [];
  for (const channel of ["c", "pool", "c1", "nobody"]) seen.push(await client.publish(channel, `to ${channel}`));
  seen.push(await client.sPublish("shard", "to shard"));
  await until("messages", () => heard.length === 4);
  seen.push(heard.splice(0), await client.pubSubNumSub(["c", "d"]), (await client.pubSubChannels()).sort(), await client.pubSubNumPat());
  seen.push(await refused(() => subscriber.ping()), PROTOCOL === 3 ? await subscriber.set("k", "v") : null);
  await subscriber.unsubscribe("c");
  await subscriber.pUnsubscribe("p*");
  seen.push(await client.publish("c", ""), await client.publish("cx", "still"));
  await until("message", () => heard.length === 1);
  await subscriber.unsubscribe();
  await subscriber.pUnsubscribe();
  await subscriber.sUnsubscribe();
  return [...seen, heard, await client.pubSubChannels(), await subscriber.set("k", "v")];
}

async function manyChannels({ connect }) {
  const [client, subscriber, heard] = [await connect(), await connect(), []];
  const names = NUMBERS.map((number) => `channel:${number}`);
  await subscriber.subscribe(names, (...words) => heard.push(words));
  const seen = await Promise.all(names.map((name) => client.publish(name, `to ${name}`)));
  await until("messages", () => heard.length === CHANNELS);
  await subscriber.unsubscribe(names.slice(1));
  return [...seen, heard, await client.pubSubChannels()];
}

async function keyspaceNotifications({ connect }) {
  const [client, subscriber, heard] = [await connect(), await connect(), []];
  const seen = [await client.configSet("notify-keyspace-events", "KEA")];
  await subscriber.pSubscribe("__key*__:*", (...words) => heard.push(words));
  seen.push(await client.set("k", "v"), await client.rename("k", "kk"), await client.lPush("l", "1"), await client.del(["kk", "l"]));
  seen.push(await client.set("e", "1", { PX: 5 }));
  await until("messages", () => heard.length === 18);
  return [...seen, heard, await client.configSet("notify-keyspace-events", "")];
}

async function cachedClient({ connect }) {
  const cached = await connect({ clientSideCache: { ttl: 0, maxEntries: 0 } });
  const [other, seen] = [await connect(), []];
  for (const value of ["1", "2", "3"]) {
    await other.set("k", value);
    await until("the new value", async () => (await cached.get("k")) === value);
    seen.push(await cached.get("k"), await cached.hGetAll("h"));
  }
  await other.flushAll();
  await until("nothing", async () => (await cached.get("k")) === null);
  return seen;
}

// RESP3: the client's own pushes; RESP2: what its second connection hears.
async function tracked({ connect }, options) {
  const [client, marker, heard] = [await connect({ emitInvalidate: PROTOCOL === 3 }), await connect(), []];
  if (PROTOCOL === 3) {
    client.on("invalidate", (key) => heard.push(key === null ? null : String(key)));
    // It tracks from its connect on, without these options.
    const on = [await client.clientTracking(false), await client.clientTracking(true, options)];
    return [client, heard, on, () => client.ping()];
  }
  const [second, marked] = [await connect(), []];
  const REDIRECT = await second.clientId();
  await second.subscribe("marker", () => marked.push("marker"));
  await second.subscribe("__redis__:invalidate", (keys) => heard.push(keys));
  const settled = async () => {
    const before = marked.length;
    await marker.publish("marker", "");
    await until("marker", () => marked.length > before);
  };
  return [client, heard, await client.clientTracking(true, { ...options, REDIRECT }), settled];
}

function tracking(options, caching) {
  return async (place) => {
    const [client, heard, on, settled] = await tracked(place, options);
    const [other, seen] = [await place.connect(), [on]];
    for (const key of ["a:1", "b:1"]) {
      if (key === "b:1" && caching !== undefined) seen.push(await client.clientCaching(caching));
      seen.push(await client.get(key));
    }
    for (const writer of [other, client]) {
      for (const key of ["a:1", "b:1", "c:1"]) {
        seen.push(await writer.set(key, "new"));
        await settled();
        seen.push(heard.splice(0), await client.get(key));
      }
    }
    return [...seen, (await client.clientTrackingInfo()).flags];
  };
}

async function scripts({ connect }) {
  const put = defineScript({
    SCRIPT: "redis.call('SET', KEYS[1], ARGV[1]) return {ARGV[1] + 1, KEYS[1]}",
    NUMBER_OF_KEYS: 1,
    parseCommand: (parser, key, value) => (parser.pushKey(key), parser.push(value)),
    transformReply: (reply) => reply,
  });
  const client = await connect({ scripts: { put } });
  const seen = [await client.put("k", "41"), await client.put("k", "1"), await client.scriptFlush(), await client.put("k", "7")];
  seen.push(await client.multi().put("p", "1").get("p").exec(), await refused(() => client.evalSha("0".repeat(40))));
  const code = "#!lua name=lib\nredis.register_function('write', function(k, a) return redis.call('SET', k[1], a[1]) end)";
  const call = { keys: ["k"], arguments: ["v"] };
  seen.push(await client.functionLoad(code), await client.fCall("write", call), await refused(() => client.fCallRo("write", call)));
  return [...seen, await client.functionList(), await client.functionDelete("lib"), await refused(() => client.fCall("write", call))];
}

async function streams({ connect }) {
  const [client, reader] = [await connect(), await connect()];
  const next = { key: "x", id: ">" };
  const seen = [await client.xGroupCreate("x", "g", "0", { MKSTREAM: true }), await refused(() => client.xGroupCreate("x", "g", "0"))];
  for (const number of [1, 2, 3, 4, 5]) seen.push(await client.xAdd("x", `${number}-1`, { number: `${number}`, text: "ü" }));
  seen.push(await reader.xReadGroup("g", "one", next, { COUNT: 3 }), await reader.xReadGroup("g", "two", next));
  const waiting = reader.xReadGroup("g", "two", next, { BLOCK: 9000 });
  await blocked(client);
  seen.push(await client.xAdd("x", "9-1", { late: "1" }), await waiting, await client.xAck("x", "g", ["1-1", "4-1"]), await client.xPending("x", "g"));
  seen.push(await client.xClaim("x", "g", "two", 0, "2-1"), await client.xAutoClaim("x", "g", "two", 0, "0", { COUNT: 2 }));
  return [...seen, await client.xRead({ key: "x", id: "5" }, { BLOCK: 10 }), await client.xInfoGroups("x")];
}

async function iterators({ connect }) {
  const client = await connect();
  await client.mSet(Object.fromEntries(NUMBERS.map((number) => [`key:${number}`, `${number}`])));
  await client.hSet("h", Object.fromEntries(NUMBERS.map((number) => [`f${number}`, `${number}`])));
  await client.sAdd("s", NUMBERS.map((number) => `m${number}`));
  const pages = [client.scanIterator({ MATCH: "key:*1", COUNT: 50 }), client.hScanIterator("h"), client.sScanIterator("s")];
  const found = [];
  for (const iterator of pages) {
    // SCAN may say an item twice.
    const all = new Set();
    for await (const page of iterator) for (const item of page) all.add(JSON.stringify(item));
    found.push([...all].sort());
  }
  return found;
}

async function monitor({ connect }) {
  const [watcher, watched, lines] = [await connect(), await connect({ database: 5 }), []];
  await watcher.monitor((line) => line.includes("monitored") && lines.push(line.replace(/^\S+ \[(\d+) \S+\]/, "$1")));
  await watched.set("monitored", "ü \r\n \"q\"");
  await watched.multi().set("monitored", "1").get("monitored").exec();
  await until("lines", () => lines.length === 3);
  return lines;
}

async function values({ connect }) {
  const client = (await connect()).withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
  const [every, seen] = [Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)), []];
  for (const value of [Buffer.from("ünï→🌍"), Buffer.alloc(0), Buffer.from("\r\n$3\r\n\0"), Buffer.concat(Array(4096).fill(every))]) {
    const key = Buffer.concat([Buffer.from("k\0\r\n"), value.subarray(0, 20)]);
    seen.push(await client.set(key, value), (await client.get(key)).equals(value), await client.strLen(key));
    seen.push(await client.rPush("l", [value, value]), (await client.lRange("l", -1, -1))[0].equals(value));
  }
  return [...seen, (await client.keys("k*")).map(String).sort()];
}

async function killedById({ connect }) {
  const [client, other, seen] = [await connect({ name: "victim" }), await connect(), []];
  for (const killer of [client, other]) {
    const [old, reconnected] = [await client.clientId(), new Promise((resolve) => client.once("ready", resolve))];
    seen.push(await refused(() => killer.sendCommand(["CLIENT", "KILL", "ID", String(old), "SKIPME", "no"])));
    await reconnected;
    seen.push(await client.set("k", "v"), await client.get("k"), await client.clientGetName(), (await client.clientId()) !== old);
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
  ...(PROTOCOL === 3 ? [["client-side caching", cachedClient]] : []),
  ["CLIENT TRACKING", tracking({})],
  ["CLIENT TRACKING BCAST", tracking({ BCAST: true, PREFIX: ["a:", "b:"] })],
  ["CLIENT TRACKING OPTIN", tracking({ OPTIN: true }, true)],
  ["CLIENT TRACKING OPTOUT", tracking({ OPTOUT: true }, false)],
  ["CLIENT TRACKING NOLOOP", tracking({ NOLOOP: true })],
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
    const connect = async (options) => {
      const client = createClient({ socket: { port, host: "127.0.0.1" }, RESP: PROTOCOL, ...options });
      client.on("error", () => {});
      clients.push(client);
      return client.connect();
    };
    try {
      await (await connect()).flushAll();
      return await check({ connect });
    } finally {
      for (const client of clients) client.destroy();
    }
  };
}

guarded(() => compare(CHECKS.map(([name, check]) => [name, onPort(check)]), ...process.argv.slice(2, 4).map(Number)));
