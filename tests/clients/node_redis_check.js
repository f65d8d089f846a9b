// node-redis: `node_redis_check.js PORT PROTOCOL`.
"use strict";

const { createClient } = require("@redis/client");
const { check, ask, refused, guarded } = require("./report.js");

const [PORT, PROTOCOL] = process.argv.slice(2).map(Number);

// Any lost connection is one too many: the proxy keeps its clients through the outage.
async function connect(name) {
  const client = createClient({ socket: { port: PORT, host: "127.0.0.1" }, database: 4, RESP: PROTOCOL, name });
  client.on("error", (error) => console.log(`FAIL ${name}: connection error ${error}`));
  client.on("reconnecting", () => console.log(`FAIL ${name}: reconnecting`));
  await client.connect();
  return client;
}

async function whileUp(client) {
  await client.flushDb();
  check("ping", await client.ping(), "PONG");
  check("set", await client.set("k", "v", { EX: 100 }), "OK");
  check("get", await client.get("k"), "v");
  check("nil", await client.get("nothing"), null);
  check("hSet", await client.hSet("h", { a: "1", b: "2" }), 2);
  check("hGetAll", await client.hGetAll("h"), { a: "1", b: "2" });
  check("zAdd", await client.zAdd("z", { score: 1.5, value: "m" }), 1);
  check("zScore", await client.zScore("z", "m"), 1.5);
  check("multi", await client.multi().incr("n").get("k").exec(), [1, "v"]);
  const numbers = Array.from({ length: 1000 }, (_, number) => String(number));
  check("pipeline", await Promise.all(numbers.map((number) => client.echo(number))), numbers);
  check("script", await client.eval("return ARGV[1] + 1", { arguments: ["41"] }), 42);
  const keys = [];
  for await (const page of client.scanIterator({ MATCH: "[hk]" })) keys.push(...page);
  check("scan", keys.sort(), ["h", "k"]);
  const [waiter, subscriber] = [client.duplicate(), client.duplicate()];
  await Promise.all([waiter.connect(), subscriber.connect()]);
  const waiting = waiter.blPop("q", 10);
  await client.rPush("q", "job");
  check("blPop", await waiting, { key: "q", element: "job" });
  const message = new Promise((resolve) => subscriber.subscribe("c", resolve).then(() => client.publish("c", "hello")));
  check("message", await message, "hello");
  waiter.destroy();
  subscriber.destroy();
}

async function whileDown(name, client) {
  check(`${name}: get`, await client.get("k"), null);
  check(`${name}: hGetAll`, await client.hGetAll("h"), {});
  check(`${name}: set`, await client.set(`${name}:set`, "queued", { EX: 100 }), "OK");
  check(`${name}: rPush`, await client.rPush("queue", name), 1);
  check(`${name}: multi`, await client.multi().set(`${name}:t`, "1").rPush("queue", `${name}:t`).exec(), ["OK", 1]);
  check(`${name}: blPop`, await client.blPop("nothing", 0.1), null);
  await refused(`${name}: incr is refused`, () => client.incr("n"));
  await refused(`${name}: set nx is refused`, () => client.set("k", "v", { NX: true }));
}

async function main() {
  const before = await connect("before");
  await whileUp(before);
  await ask("down");
  await whileDown("before", before);
  const during = await connect("during");
  await whileDown("during", during);
  await ask("up");
  check("replayed", await before.mGet(["before:set", "before:t", "during:set", "during:t"]), ["queued", "1", "queued", "1"]);
  check("order", await before.lRange("queue", 0, -1), ["before", "before:t", "during", "during:t"]);
  await whileUp(during);
  before.destroy();
  during.destroy();
}

guarded(main);
