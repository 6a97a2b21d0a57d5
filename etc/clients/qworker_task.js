// What a task asks of the qworker worker that runs it: one file, Node alone.
//
//     const { Task } = require("./qworker_task.js");
//     const task = await Task.connect();
//     await task.progress(3, 10);
//     await task.retry({ countdown: 30 });
//     process.exit();
//
// What retry, reject, ignore, fail and replace say counts when the process ends: exit after them.
// The protocol is described in qworker-task-protocol(7).

"use strict";

const net = require("node:net");

const VERSION = 1;
const BUSY_MAX = 10_000;

// The worker refuses a request; `code` is a word for programs.
class TaskError extends Error {
  constructor(code, message) {
    super(message);
    this.name = "TaskError";
    this.code = code;
  }
}

// A connection to the worker of this task. Requests may overlap.
class Task {
  static async connect(
    address = process.env.QWORKER_TASK_SOCKET,
    token = process.env.QWORKER_TASK_TOKEN,
  ) {
    if (!address || !token) {
      throw new TaskError("environment", "QWORKER_TASK_SOCKET and QWORKER_TASK_TOKEN are not set");
    }
    const end = Date.now() + BUSY_MAX;
    for (;;) {
      const task = new Task();
      try {
        await task.#open(address);
        await task.#ask("hello", { version: VERSION, token });
        return task;
      } catch (error) {
        task.close();
        if (error.code !== "busy" || Date.now() > end) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  #socket;
  #last = 0;
  #waiting = new Map();
  #data = Buffer.alloc(0);

  // The complete request: args, kwargs and request, as with `stdin: json`.
  request() {
    return this.#ask("request");
  }

  // Sets a state of its own, which clients see until the task has ended.
  updateState(state, meta = null) {
    return this.#ask("update-state", { state, meta });
  }

  // Sets the state PROGRESS.
  progress(done, total) {
    return this.#ask("progress", { done, total });
  }

  // Runs the task again; after `countdown` seconds, or the delay of its definition.
  retry({ countdown = null, maxRetries = null } = {}) {
    return this.#ask("retry", { countdown, max_retries: maxRetries });
  }

  // Refuses the message; with `requeue` it returns to its queue.
  reject({ requeue = false } = {}) {
    return this.#ask("reject", { requeue });
  }

  // Stores no result, and calls nothing.
  ignore() {
    return this.#ask("ignore");
  }

  // Fails with an exception of this Python class.
  fail(type, message, module = null) {
    return this.#ask("fail", { type, message, module });
  }

  // Lets another task, or a canvas, take the place of this one: Celery's signature.
  replace(signature) {
    return this.#ask("replace", { signature });
  }

  // Sends a task as a child of this one, with Celery's options; gives its id.
  call(name, args = [], kwargs = {}, options = {}, unregistered = false) {
    return this.apply({ task: name, args, kwargs, options }, unregistered);
  }

  // The same with a signature, which may be a canvas; gives the id of its result.
  async apply(signature, unregistered = false) {
    return (await this.#ask("call", { signature, unregistered })).id;
  }

  // Closes the connection; else the process does not end by itself.
  close() {
    this.#socket?.destroy();
  }

  #open(address) {
    // An abstract name begins with a zero byte.
    const path = address.startsWith("@") ? "\0" + address.slice(1) : address;
    this.#socket = net.connect({ path });
    this.#socket.on("data", (data) => this.#receive(data));
    this.#socket.on("close", () => this.#fail(new Error("the worker has closed the connection")));
    return new Promise((resolve, reject) => {
      this.#socket.once("connect", resolve);
      this.#socket.on("error", reject);
    });
  }

  #ask(method, params = {}) {
    const id = ++this.#last;
    const text = Buffer.from(JSON.stringify({ id, method, params }));
    const head = Buffer.alloc(4);
    head.writeUInt32BE(text.length);
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#socket.write(Buffer.concat([head, text]));
    });
  }

  #receive(data) {
    this.#data = Buffer.concat([this.#data, data]);
    while (this.#data.length >= 4 && this.#data.length >= 4 + this.#data.readUInt32BE()) {
      const end = 4 + this.#data.readUInt32BE();
      const { id, result, error } = JSON.parse(this.#data.subarray(4, end));
      this.#data = this.#data.subarray(end);
      const failed = error && new TaskError(error.code, error.message);
      if (id === null) return this.#fail(failed);
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (failed) waiting?.reject(failed);
      else waiting?.resolve(result);
    }
  }

  // Nobody who waits gets an answer any more.
  #fail(error) {
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}

module.exports = { Task, TaskError };
