"""Who works on the Redis of the benchmark: qworker, Celery and BullMQ, all with the same methods.

A party sends tasks, starts workers, and tells what came out. The tasks of all of them: `quiet` does nothing and keeps
no result, `noop` does nothing, `true` is a process. (No file here is called redis.py, and Celery's has a folder of its
own, because Celery imports a module of that name.)
"""

import contextlib
import datetime
import json
import os
import pathlib
import socket
import subprocess
import time

from measures import Void, run, tree

PEERS = pathlib.Path(__file__).resolve().parent / "peers"
TARGET = PEERS.parents[2] / "target"
SLOTS = 10


class Server:
    """A redis-server of our own on the loopback, that keeps nothing on disk."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        folder.mkdir()
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
             "--dir", str(folder)], stdout=subprocess.DEVNULL)
        while subprocess.run(["redis-cli", "-p", str(self.port), "ping"], capture_output=True).returncode:
            time.sleep(0.01)

    def stop(self):
        self.process.terminate()
        self.process.wait(60)

    def ask(self, *words):
        """What the server answers, line by line."""
        return run("redis-cli", "-p", self.port, "--raw", *words).splitlines()

    def info(self, section):
        return dict(line.split(":", 1) for line in self.ask("INFO", section) if ":" in line)

    def clear(self):
        self.ask("FLUSHALL")

    def results(self):
        """What Celery and qworker keep: the documents by task id."""
        keys, found = [key for key in self.ask("KEYS", "celery-task-meta-*") if key], []
        for at in range(0, len(keys), 1000):
            found += self.ask("MGET", *keys[at : at + 1000])
        documents = map(json.loads, found)
        return {document["task_id"]: document for document in documents}


class Party:
    """What is common: a folder where workers write the ids that they ran when they keep no results."""

    processes = 1  # that are started by hand

    def __init__(self, server, folder):
        self.server, self.folder = server, folder
        folder.mkdir(exist_ok=True)
        self.environ = os.environ | {"BENCH_URL": server.url, "BENCH_IDS": str(folder)}

    def forget(self):
        self.server.clear()
        for file in self.folder.iterdir():
            file.unlink()

    @contextlib.contextmanager
    def worker(self, task):
        """Worker processes, just started; told to finish in the end, and ended by their own will."""
        command = [str(word) for word in self.command(task)]
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": self.environ, "cwd": PEERS}
        workers = [subprocess.Popen(command, **silent) for _ in range(self.processes)]
        try:
            yield workers[0]
        finally:
            for worker in workers:
                worker.terminate()
            codes = [worker.wait(60) for worker in workers]
        if any(codes):
            raise Void(f"workers ended with {codes}")

    @contextlib.contextmanager
    def ready(self, task="noop"):
        """A worker that has done one task."""
        self.forget()
        with self.worker(task) as worker:
            (id,) = self.send(1, task)
            while not self.ended(id):
                time.sleep(0.02)
            yield worker

    def ran(self):
        """The ids that the workers wrote."""
        return [id for file in self.folder.iterdir() for id in file.read_text().split()]

    def came_out(self, task):
        return self.ran() if task == "quiet" else self.kept()


class Kombu(Party):
    """Those who speak Celery's protocol."""

    stamp = "stamp"  # the task that gives the nanoseconds since the epoch
    waiting = "celery"
    lengths = ["LLEN", "celery", "LLEN", "celery\x06\x163", "LLEN", "celery\x06\x166", "LLEN", "celery\x06\x169",
               "HLEN", "unacked"]

    def kept(self):
        return [id for id, result in self.server.results().items() if result["status"] == "SUCCESS"]

    def ended(self, id):
        """When a task was done, in seconds since the epoch; None if it is not."""
        result = "".join(self.server.ask("GET", f"celery-task-meta-{id}"))
        if not result:
            return None
        done = datetime.datetime.fromisoformat(json.loads(result)["date_done"])
        return done.replace(tzinfo=done.tzinfo or datetime.timezone.utc).timestamp()

    def flow(self, count, kind, size):
        """Workflows, called by Celery's client whoever works; gives the ids of their last tasks."""
        return run(Celery.python, "celery_app.py", "flow", count, kind, size, env=self.environ, cwd=PEERS).split()

    def forget_results(self):
        self.server.ask("DEL", *(f"celery-task-meta-{id}" for id in self.server.results()))

    def stamps(self):
        return {id: int(result["result"]) for id, result in self.server.results().items()}


class Ours(Kombu):
    name, stamp = "qworker", "stamp_wasm"

    def __init__(self, server, folder, tools, app):
        super().__init__(server, folder)
        self.helper, self.app = tools.helper, app
        self.qworker = [tools.qworker, "-A", app, "-b", server.url]

    def command(self, task):
        return [*self.qworker, "worker", "-c", SLOTS, "-l", "WARNING"]

    def send(self, count, task):
        return run(self.helper, "send", self.server.url, count, task).split()

    def enqueue(self, count, batch, _):
        return float(run(self.helper, "enqueue", self.server.url, count, "quiet", batch))

    def pace(self, count, rate):
        return run(self.helper, "pace", self.server.url, count, rate, self.stamp)

    def came_out(self, task):
        """Without results nothing tells the ids: what is left, or was put aside, tells that one is missing."""
        kept = "_kombu.", "qworker.queues"
        left = [key for key in self.server.ask("KEYS", "*") if key and not key.startswith(kept)]
        if task == "quiet" and left:
            raise Void(f"left behind: {left[:5]}")
        return None if task == "quiet" else self.kept()


class Celery(Kombu):
    python = TARGET / "venv/bin/python"

    def __init__(self, server, folder, pool):
        super().__init__(server, folder)
        self.pool, self.name = pool, f"Celery, {pool}"

    def command(self, task):
        return [self.python, "-m", "celery", "-A", "celery_app", "worker", "-c", SLOTS, "-P", self.pool,
                "-l", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]

    def app(self, *words):
        return run(self.python, "celery_app.py", *words, env=self.environ, cwd=PEERS)

    def send(self, count, task):
        return self.app("send", count, task).split()

    def enqueue(self, count, batch, _):
        assert batch == 1, "it has no batches"
        return float(self.app("enqueue", count, "quiet"))

    def pace(self, count, rate):
        return self.app("pace", count, rate, self.stamp)


class Bull(Party):
    waiting = "bull:bench:wait"
    lengths = ["LLEN", "bull:bench:wait", "LLEN", "bull:bench:active"]

    def __init__(self, server, folder, concurrency=SLOTS, processes=1, pipelining=False):
        super().__init__(server, folder)
        self.concurrency, self.processes = concurrency, processes
        self.environ |= {"NODE_PATH": str(TARGET / "bench-peers/node_modules"), "AUTO": str(int(pipelining))}
        self.name = f"BullMQ, concurrency {concurrency}" + f" in each of {processes} processes" * (processes > 1)

    def command(self, task):
        return ["node", PEERS / "bullmq.js", "worker", task, self.concurrency]

    def script(self, *words):
        return run("node", PEERS / "bullmq.js", *words, env=self.environ)

    def send(self, count, task):
        return self.script("send", count).split()

    def enqueue(self, count, batch, pad):
        return float(self.script("enqueue", count, batch, pad))

    def kept(self):
        return [id for id in self.server.ask("ZRANGE", "bull:bench:completed", 0, -1) if id]

    def ended(self, id):
        done = "".join(self.server.ask("HGET", f"bull:bench:{id}", "finishedOn"))
        return int(done) / 1e3 if done else None
