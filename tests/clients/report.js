// What the scripts for Node share: one line per check, and a question to the one who runs them.
"use strict";

const assert = require("node:assert");
const readline = require("node:readline");

const answers = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

function check(name, got, expected) {
  try {
    assert.deepStrictEqual(JSON.parse(JSON.stringify(got)), expected);
    console.log(`ok ${name}`);
  } catch {
    console.log(`FAIL ${name}: expected ${JSON.stringify(expected)}, got ${JSON.stringify(got)}`);
  }
}

async function ask(question) {
  console.log(`ask ${question}`);
  await answers.next();
}

async function refused(name, call) {
  const outcome = await call().then((value) => `answered ${value}`, (error) => error.message);
  check(name, outcome.startsWith("UNAVAILABLE ") || outcome, true);
}

function guarded(run) {
  const told = (error) => console.log(`FAIL uncaught: ${error.stack.replaceAll("\n", " | ")}`);
  run().catch(told).finally(() => process.exit(0));
}

module.exports = { check, ask, refused, guarded };
