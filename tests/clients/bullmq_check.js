// BullMQ: `bullmq_check.js PORT` runs a worker and gives it work. With the rules of config/bullmq.toml.
"use strict";

const { FlowProducer, Queue, QueueEvents, Worker } = require("bullmq");
const { check, ask, refused, guarded } = require("./report.js");

const PORT = Number(process.argv[2]);
const DEADLINE_MS = 20_000;
const connection = { host: "127.0.0.1", port: PORT, db: 8, maxRetriesPerRequest: null };

async function process_(job) {
  if (job.name === "third time" && job.attemptsMade < 2) throw new Error("not yet");
  if (job.name === "fail") throw new Error("on purpose");
  if (job.name === "sum") return Object.values(await job.getChildrenValues()).reduce((sum, value) => sum + value, 0);
  return job.data.a + job.data.b;
}

async function within(name, promise) {
  const late = new Promise((resolve) => setTimeout(resolve, DEADLINE_MS, `${name}: not within ${DEADLINE_MS} ms`).unref());
  return Promise.race([promise.catch((error) => error.message), late]);
}

async function work(when, { queue, events, flows }) {
  const result = (name, job) => within(name, job.waitUntilFinished(events));
  const expect = async (name, got, expected) => check(`${when}: ${name}`, await got, expected);
  const add = (name, data, options) => queue.add(name, data, options);

  await expect("job", result("job", await add("add", { a: 1, b: 2 })), 3);
  const many = await queue.addBulk(Array.from({ length: 50 }, (_, n) => ({ name: "add", data: { a: n, b: n } })));
  await expect("bulk", Promise.all(many.map((job) => result("bulk", job))), Array.from({ length: 50 }, (_, n) => 2 * n));
  const began = Date.now();
  await expect("delayed", result("delayed", await add("add", { a: 1, b: 1 }, { delay: 500 })), 2);
  await expect("the delay was waited for", Date.now() - began >= 490, true);
  await expect("retried", result("retried", await add("third time", { a: 2, b: 2 }, { attempts: 3, backoff: 50 })), 4);
  const failed = await add("fail", {});
  await expect("failed", result("failed", failed), "on purpose");
  await expect("state of the failed", failed.getState(), "failed");
  const child = (a, b) => ({ name: "add", queueName: queue.name, data: { a, b } });
  const flow = await flows.add({ name: "sum", queueName: queue.name, children: [child(1, 2), child(3, 4)] });
  await expect("flow", result("flow", flow.job), 10);

  await queue.pause();
  const inOrder = [];
  const noted = new Promise((resolve) => {
    const note = ({ returnvalue }) => inOrder.push(Number(returnvalue)) === 3 && (events.off("completed", note), resolve(inOrder));
    events.on("completed", note);
  });
  for (const priority of [3, 1, 2]) await add("add", { a: priority, b: 0 }, { priority });
  await expect("waiting by priority", queue.getPrioritizedCount(), 3);
  await queue.resume();
  await expect("priorities", within("priorities", noted), [1, 2, 3]);

  let ticks = 0;
  const ticked = new Promise((resolve) => {
    const tick = () => (ticks += 1) === 3 && (events.off("completed", tick), resolve(true));
    events.on("completed", tick);
  });
  await queue.upsertJobScheduler("ticks", { every: 200 }, { name: "add", data: { a: 0, b: 0 } });
  await expect("repeated", within("repeated", ticked), true);
  await expect("scheduler removed", queue.removeJobScheduler("ticks"), true);
  const counts = await queue.getJobCounts("wait", "active", "prioritized");
  await expect("nothing waits", counts, { wait: 0, active: 0, prioritized: 0 });
}

async function main() {
  const queue = new Queue("work", { connection });
  const worker = new Worker("work", process_, { connection, stalledInterval: 1000 });
  const events = new QueueEvents("work", { connection });
  const flows = new FlowProducer({ connection });
  // Without a listener an error ends the process; while Redis is down each of them says so.
  for (const part of [queue, worker, events, flows]) part.on("error", () => {});
  await Promise.all([queue.waitUntilReady(), worker.waitUntilReady(), events.waitUntilReady()]);
  await queue.obliterate({ force: true });
  await work("before", { queue, events, flows });
  await queue.pause();
  const waiting = await queue.add("add", { a: 20, b: 22 });
  await ask("down");
  // Neither "it does not exist" nor "it runs".
  await refused("job while down", () => queue.getJob(waiting.id));
  await refused("jobs while down", () => queue.getJobs(["paused"]));
  await refused("is it paused, while down", () => queue.isPaused());
  await refused("a job to add while down", () => queue.add("add", { a: 1, b: 1 }));
  await ask("up");
  check("still paused", await queue.isPaused(), true);
  await queue.resume();
  check("waited for the end", await within("waited", waiting.waitUntilFinished(events)), 42);
  await work("after", { queue, events, flows });
  check("the worker lives", worker.isRunning(), true);
  await Promise.all([worker.close(), events.close(), flows.close()]);
  await queue.close();
}

guarded(main);
