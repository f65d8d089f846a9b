// Runs named checks directly and through tideover, and compares what they return: nobody can tell which it was.
"use strict";

const { check } = require("./report.js");

const DEADLINE_MS = 20_000;

async function outcome(run, port) {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error("too late")), DEADLINE_MS)));
  try {
    return { returned: plain(await Promise.race([run(port), late])) };
  } catch (error) {
    return { failed: String(error) };
  } finally {
    clearTimeout(timer);
  }
}

// What JSON keeps of it; bytes and errors are told apart from text.
function plain(value) {
  const told = (_, inner) => (inner instanceof Error ? `${inner.name}: ${inner.message}` : inner);
  return JSON.parse(JSON.stringify(value ?? null, told));
}

// `checks`: [name, a function of a port that gives what the client saw], each on a server of its own.
async function compare(checks, direct, through) {
  for (const [name, run] of checks) {
    const [expected, got] = [await outcome(run, direct), await outcome(run, through)];
    check(name, got, "failed" in expected ? { returned: "what did not fail directly", ...expected } : expected);
  }
}

// Waits for a condition, not for a time.
async function until(what, condition) {
  const end = Date.now() + DEADLINE_MS / 2;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

// An error that is the answer.
async function refused(call) {
  return call().then((value) => ["answered", value], (error) => ["refused", error.message]);
}

module.exports = { compare, until, refused };
