"""Python workers and ours on one queue, with tasks that only Python knows: whoever gets a message
first, its task runs in Python, and whoever does not know it does not spin."""

import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import torture
from torture import PATIENCE, children, until

from .ground import QUEUE, App

FLEET = """
import celery, os
app = celery.Celery("fleet", broker=os.environ["BROKER"], backend=os.environ["BACKEND"])

@app.task(name="py.add")
def add(x, y): return x + y
"""
SENDER = """
import fleet, sys, time
for n in range(int(sys.argv[1])):
    print(fleet.add.apply_async((n, n)).id, flush=True)
    time.sleep(float(sys.argv[2]))
"""
LOOK = """
import collections, fleet, json, sys
ids = [line.strip() for line in sys.stdin]
print(json.dumps(collections.Counter(fleet.add.AsyncResult(id).state for id in ids)))
"""


class Fleet:
    """Workers of both kinds on the broker of an application."""

    def __init__(self, app, broker, backend):
        self.app, self.ours, self.pythons = app, {}, []
        (app.folder / "fleet.py").write_text(FLEET)
        self.environment = {**app.environment, "BROKER": broker, "BACKEND": backend, "C_FORCE_ROOT": "1",
                            "PYTHONPATH": str(app.folder)}

    def start(self, name):
        command = self.app.command("worker", "-c", "4", "-n", f"{name}@fleet", "-l", "INFO")
        log = open(self.app.notes.with_name(f"{name}.log"), "ab")
        self.ours[name] = subprocess.Popen(command, env=self.app.environment, stdout=log, stderr=log)

    def kill(self, name, chance):
        """The guard, the worker, or both, in one instant."""
        guard = self.ours[name]
        victims = chance.choice([[guard.pid], children(guard.pid)[:1], [guard.pid, *children(guard.pid)[:1]]])
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if guard.pid in victims:
            guard.wait()
            self.start(name)

    def python(self):
        number = len(self.pythons)
        command = [sys.executable, "-m", "celery", "-A", "fleet", "worker", "-P", "threads", "-c", "4", "-l", "INFO",
                   "-n", f"p{number}@fleet", "-Q", QUEUE]
        log = open(self.app.notes.with_name(f"python{number}.log"), "ab")
        self.pythons.append(subprocess.Popen(command, cwd=self.app.folder, env=self.environment, stdout=log, stderr=log))

    def script(self, text, *words, **more):
        command = [sys.executable, "-c", text, *map(str, words)]
        return subprocess.run(command, env=self.environment, cwd=self.app.folder, stdout=subprocess.PIPE, text=True,
                              check=True, **more).stdout

    def send(self, count):
        return self.script(SENDER, count, 0).split()

    def sender(self, count, pause):
        command = [sys.executable, "-c", SENDER, str(count), str(pause)]
        return subprocess.Popen(command, env=self.environment, cwd=self.app.folder, stdout=subprocess.PIPE, text=True)

    def states(self, ids):
        return json.loads(self.script(LOOK, input="\n".join(ids)))

    def spent(self):
        """Seconds of processor time of our workers, their guards left out."""
        ticks = 0
        for guard in self.ours.values():
            for pid in children(guard.pid)[:1]:
                fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in [*self.ours.values(), *self.pythons]:
            process.kill()
            process.wait()


def all_succeed(fleet, ids, seconds):
    states = {}

    def done():
        nonlocal states
        states = fleet.states(ids)
        return states.get("SUCCESS") == len(ids)
    until(done, seconds)
    return states


def trial(options, report, name, app, broker, backend, count):
    chance = random.Random(options.seed)
    with Fleet(app, broker, backend) as fleet:
        for number in range(2):
            fleet.start(f"q{number}")
        assert until(app.is_ready)
        # Nobody knows these yet, but for the senders.
        ids = fleet.send(count // 4)
        until(lambda: "py.add" in app.run("health", "-n", "q0@fleet").stdout, PATIENCE)
        report.check("py.add" in app.run("health", "-n", "q0@fleet").stdout,
                     f"{name}: health says what is left to others")
        before, begin = fleet.spent(), time.monotonic()
        until(lambda: False, 3)
        share = (fleet.spent() - before) / (time.monotonic() - begin)
        print(f"fleet: {name}: two workers of ours before {count // 4} tasks that they do not know: "
              f"{share:.1%} of a processor")
        report.check(share < 0.2, f"{name}: nobody spins ({share:.0%} of a processor)")
        own = app.run("call", "true", "--wait", "--timeout", "60")
        report.check(own.returncode == 0, f"{name}: a task of ours behind them runs {own.stderr.strip()}")
        fleet.python()
        fleet.python()
        rounds = 8 if options.short else 60
        # They come all the while.
        sender = fleet.sender(count - len(ids), rounds * 0.5 / count)
        for _ in range(rounds):
            fleet.kill(chance.choice(list(fleet.ours)), chance)
            time.sleep(chance.uniform(0.1, 0.8))
        ids += sender.communicate(timeout=10 * PATIENCE)[0].split()
        report.check(len(ids) == count, f"{name}: all were sent ({len(ids)})")
        states = all_succeed(fleet, ids, 3 * PATIENCE)
        print(f"fleet: {name}: {rounds} kills of our workers while {len(ids)} tasks of Python's ran: {states}")
        report.check(states == {"SUCCESS": len(ids)}, f"{name}: each task of Python's ran ({states})")
        dead = json.loads(app.run("dead", "list", "--json").stdout)
        report.check(not dead, f"{name}: none is a dead letter ({len(dead)} are)")


def fleet(options, report):
    with tempfile.TemporaryDirectory(prefix="qworker-fleet-", ignore_cleanup_errors=True) as folder:
        (pathlib.Path(folder) / "app").mkdir()
        with App(options.qworker, f"{folder}/app", f"{folder}/notes") as app:
            trial(options, report, "Redis", app, app.server.url, app.server.url, 400 if options.short else 2000)
    with tempfile.TemporaryDirectory(prefix="qworker-fleet-", ignore_cleanup_errors=True) as folder:
        (pathlib.Path(folder) / "app").mkdir()
        with Embedded(options.qworker, f"{folder}/app", f"{folder}/notes") as app:
            file = app.folder / "var/qworker.sqlite"
            trial(options, report, "SQLite", app, f"sqla+sqlite:///{file}", f"db+sqlite:///{file}",
                  120 if options.short else 600)


class Embedded(torture.App):
    """An application on the embedded broker."""

    tasks = '"true": {exec: [/bin/true]}\n'

    def run(self, *words, limit=PATIENCE):
        command, environment = self.command(*words), self.environment
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit)
