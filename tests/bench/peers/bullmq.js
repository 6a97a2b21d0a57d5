// BullMQ's side of the benchmark: a worker, and a sender.
//
//     bullmq.js worker TASK CONCURRENCY        a worker; ends at TERM
//     bullmq.js send COUNT                     enqueues in batches of 1,000; prints the ids
//     bullmq.js enqueue COUNT BATCH PAD        the same with PAD bytes in each; prints jobs per second
//
// BENCH_URL is the Redis. Where no results are kept, a worker writes the ids of what it ran
// into a file in BENCH_IDS when it ends. NODE_PATH tells where BullMQ is.
"use strict";
const { spawn } = require("node:child_process");
const { writeFileSync } = require("node:fs");
const { Queue, Worker } = require("bullmq");

const queue = "bench";
const url = new URL(process.env.BENCH_URL);
const connection = { host: url.hostname, port: Number(url.port), enableAutoPipelining: process.env.AUTO === "1" };
const ran = [];

const tasks = {
  quiet: async (job) => void ran.push(job.id),
  noop: async () => null,
  true: () =>
    new Promise((done, failed) => {
      const child = spawn("/bin/true", { stdio: "ignore" });
      child.on("error", failed);
      child.on("exit", (code) => (code === 0 ? done(null) : failed(new Error(`exit code ${code}`))));
    }),
};

async function worker(task, concurrency) {
  const worker = new Worker(queue, tasks[task], {
    connection: { ...connection, maxRetriesPerRequest: null },
    concurrency: Number(concurrency),
    ...(task === "quiet" && { removeOnComplete: { count: 0 } }),
  });
  worker.on("error", console.error);
  process.once("SIGTERM", async () => {
    await worker.close();
    if (ran.length) writeFileSync(`${process.env.BENCH_IDS}/${process.pid}`, ran.map((id) => `${id}\n`).join(""));
    process.exit(0);
  });
}

const batch = (count, data) => Array.from({ length: count }, () => ({ name: "task", data }));

async function send(count) {
  const jobs = new Queue(queue, { connection });
  for (let left = Number(count); left > 0; left -= 1000) {
    const added = await jobs.addBulk(batch(Math.min(left, 1000), {}));
    process.stdout.write(added.map((job) => `${job.id}\n`).join(""));
  }
  await jobs.close();
}

async function enqueue(count, size, pad) {
  const jobs = new Queue(queue, { connection });
  const data = pad > 0 ? { pad: "x".repeat(Number(pad)) } : {};
  await jobs.add("task", data);
  const start = performance.now();
  for (let left = count - 1; left > 0; left -= size) {
    await (size > 1 ? jobs.addBulk(batch(Math.min(left, size), data)) : jobs.add("task", data));
  }
  console.log((count - 1) / ((performance.now() - start) / 1000));
  await jobs.close();
}

const [what, ...words] = process.argv.slice(2);
({ worker, send, enqueue })[what](...words);
