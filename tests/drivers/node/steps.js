// Runs a program's steps, each whatever became of those before; the process ends with 1 if one failed.
"use strict";

const failed = [];

async function step(name, run) {
  try {
    await run();
    console.log(`ok ${name}`);
  } catch (error) {
    failed.push(name);
    console.log(`FAILED ${name}`);
    console.log(error);
  }
}

function finish() {
  if (failed.length > 0) console.log(`failed: ${failed.join(", ")}`);
  process.exit(failed.length > 0 ? 1 : 0);
}

module.exports = { step, finish };
