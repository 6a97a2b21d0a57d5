"""One queue, a Python worker and ours: nothing runs twice because of the other one."""

import collections
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid

from torture import PATIENCE, children, until

from .ground import QUEUE, Mint, application, some

PYTHON = """
import celery, json, os, time
app = celery.Celery("mixed", broker=os.environ["URL"], backend=os.environ["URL"])
app.conf.update(json.loads(os.environ["CONF"]), worker_log_format="%(created)f %(message)s")

def say(task, what):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{task.request.id} {time.time_ns()} {what} python\\n")

@app.task(name="note", bind=True)
def note(self): say(self, "begin")

@app.task(name="long", bind=True)
def long(self, seconds):
    say(self, "begin")
    time.sleep(seconds)
    say(self, "end")
"""
# A Python worker that looks every second for messages older than two, and takes them for lost.
HASTY = {"broker_transport_options": {"visibility_timeout": 2, "unacked_restore_interval": 1,
                                      "unacked_restore_throttle": 1}}


class Python:
    """A stock Python worker of four threads; its log has the second of everything."""

    def __init__(self, app, conf, queue=QUEUE):
        self.app, self.log = app, app.folder.parent / f"python-{uuid.uuid4()}.log"
        (app.folder / "mixed.py").write_text(PYTHON)
        environment = {**os.environ, "URL": app.server.url, "CONF": json.dumps(conf), "NOTES": str(app.notes),
                       "C_FORCE_ROOT": "1", "PYTHONPATH": str(app.folder)}
        command = [sys.executable, "-m", "celery", "-A", "mixed", "worker", "-P", "threads", "-c", "4", "-l", "INFO",
                   "-Q", queue, "-n", f"{uuid.uuid4().hex}@python"]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, cwd=app.folder, env=environment, stdout=log, stderr=log)
        if not until(lambda: " ready." in self.log.read_text()):
            raise RuntimeError(self.log.read_text())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE)

    def received(self):
        """The nanoseconds at which it got each id first."""
        found = {}
        for at, id in re.findall(r"^([\d.]+) Task \w+\[([\w-]+)\] received", self.log.read_text(), re.M):
            found.setdefault(id, int(float(at) * 1e9))
        return found


class Sent:
    """What a Python producer has sent, by its kind."""

    def __init__(self, app, nap):
        self.app, self.longs = app, set()
        self.mints = {"note": Mint(app.server, "note"), "long": Mint(app.server, "long", [nap])}

    def push(self, name, count=1):
        ids = [str(uuid.uuid4()) for _ in range(count)]
        self.app.server.admin.lpush(QUEUE, *(self.mints[name].message(id) for id in ids))
        self.longs.update(ids if name == "long" else ())
        return ids

    def abandoned(self):
        """One that somebody took five seconds ago, and is gone."""
        id, tag = str(uuid.uuid4()), str(uuid.uuid4())
        self.app.server.admin.hset("unacked", tag, f'[{self.mints["note"].message(id)}, "", "{QUEUE}"]')
        self.app.server.admin.zadd("unacked_index", {tag: time.time() - 5})
        return id

    def countdown(self, seconds, count):
        """Their time to come counts from now on."""
        ids, mint = [str(uuid.uuid4()) for _ in range(count)], Mint(self.app.server, "note", countdown=seconds)
        self.app.server.admin.lpush(QUEUE, *map(mint.message, ids))
        return ids

    def all_ran(self, ids):
        """Until each has begun, each `long` has ended, and nothing is left."""
        def done():
            lines = self.app.lines()
            begun, ended = ({line.id for line in lines if line.what == what} for what in ("begin", "end"))
            return set(ids) <= begun and self.longs & set(ids) <= ended and self.app.left()[0] == 0
        return until(done)


def counts(app, ids):
    """How often each began, and who began it."""
    begun = collections.defaultdict(list)
    for line in app.lines():
        if line.what == "begin" and line.id in ids:
            begun[line.id].append(line)
    return {id: begun[id] for id in ids}


def shared(report, name, app, sent, conf, nap, size):
    """Both take from the queue. What Python holds for longer than its timeout it loses
    to itself: such ids are Celery's own affair, and are counted apart."""
    with Python(app, conf) as python:
        ids = [*sent.push("note", size), *sent.push("long", 8), *sent.countdown(nap, 8), *sent.push("note", size)]
        ran = sent.all_ran(ids)
        time.sleep(3)  # its sweeps may still find something
        runs, received = counts(app, ids), python.received()
        python.stop()
    hasty = conf is HASTY
    twice = {id: lines for id, lines in runs.items() if len(lines) > 1}
    # Ours ran it first, and only then Python got it.
    ours = {id for id, lines in twice.items()
            if not hasty or id not in received
            or (lines[0].who != "python" and lines[0].at < received[id])}
    by = collections.Counter(lines[0].who == "python" for lines in runs.values() if lines)
    print(f"mixed: {name}: of {len(ids)} on a shared queue Python began {by[True]} and qworker {by[False]}; {len(twice)} ran more than once, "
          f"{len(twice) - len(ours)} of them messages that the Python worker held for too long and took again")
    report.check(ran and all(runs.values()), f"{name}: all of a shared queue ran")
    report.check(not ours, f"{name}: none that was ours ran twice ({len(ours)} did{some(sorted(ours))})")
    report.check(len(by) == 2, f"{name}: both workers had a part")


def swept(report, name, app, sent, nap, hasty):
    """Nobody else serves our queue, but a Python worker looks after all messages of the server."""
    if hasty:
        old = sent.abandoned()
        report.check(until(lambda: app.runs()[old], 10), f"{name}: the Python worker looks for what is old")
    naps, begin, later = sent.push("long", 5), time.time_ns(), sent.countdown(nap, 5)
    ran = sent.all_ran(naps + later)
    runs = counts(app, naps + later)
    early = [id for id in later if runs[id] and runs[id][0].at - begin < nap * 1e9]
    report.check(ran, f"{name}: tasks and countdowns of {nap} s that we hold ran")
    report.check(not early, f"{name}: none before its time ({len(early)} did)")
    return naps + later


def killed(report, name, app, sent, victims):
    """A kill in the middle of a task: it runs again, once."""
    id, = sent.push("long")
    if not until(lambda: app.runs()[id]):
        return report.check(False, f"{name}: a task begins")
    time.sleep(1.5)
    guard = app.worker.pid
    pids = {"guard": [guard], "worker": children(guard)[:1], "both": [guard, *children(guard)[:1]]}[victims]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    at = time.time_ns()
    if guard in pids:
        app.worker.wait()
        app.start()
    until(lambda: len(app.runs()[id]) > 1)
    times = app.runs()[id]
    ended = until(lambda: sum(line.id == id and line.what == "end" for line in app.lines()))
    until(lambda: app.left()[0] == 0)
    time.sleep(3)
    times, ends = app.runs()[id], sum(line.id == id and line.what == "end" for line in app.lines())
    again = f"{(times[1] - at) / 1e9:.2f} s" if len(times) > 1 else "never"
    who = [line.who for line in app.lines() if line.id == id and line.what == "begin"]
    print(f"mixed: {name}: {victims} killed: the task runs again {again} after it ({', '.join(who)})")
    report.check(ended and len(times) == 2 and ends == 1,
                 f"{name}: {victims} killed: exactly once more ({len(times)} began, {ends} ended)")


def theirs(report, app, sent, nap, size):
    """What a Python worker holds stays as it is while ours works, is killed, starts and stops."""
    admin = app.server.admin
    conf = {"task_acks_late": True, "worker_prefetch_multiplier": 2}
    app.stop()  # so that the Python worker gets them
    with Python(app, conf) as python:
        naps, later = sent.push("long", size), sent.countdown(nap + 3, 2)
        until(lambda: len(python.received()) == size + 2)
        held = admin.hgetall("unacked")
        for number in range(3):
            app.start()
            until(app.is_ready)
            sent.push("note", 50)
            time.sleep(0.6)
            if number < 2:
                app.worker.kill()
                app.worker.wait()
        # Those that Python is done with are gone: nothing else may have changed.
        done = set(python.received()) & {line.id for line in app.lines() if line.what == "end"}
        now = admin.hgetall("unacked")
        touched = [tag for tag, text in held.items()
                   if now.get(tag) != text and json.loads(text)[0]["headers"]["id"] not in done]
        print(f"mixed: a Python worker held {len(held)} messages; {len(done)} are done")
        report.check(len(held) >= size and not touched,
                     f"what a Python worker holds is not touched ({len(touched)} were)")
        ran = sent.all_ran(naps + later)
        runs = counts(app, naps + later)
        report.check(ran and all(len(lines) == 1 for lines in runs.values()), "and runs once, there")
        report.check({line.who for lines in runs.values() for line in lines} == {"python"}, "by the Python worker")


def variant(options, report, name, conf):
    nap = 3 if options.short else 7
    with application(options) as app:
        sent = Sent(app, nap)
        app.start()
        assert until(app.is_ready)
        with Python(app, conf, "elsewhere"):
            held = swept(report, name, app, sent, nap, conf is HASTY)
            for victims in ["both"] if options.short else ["guard", "worker", "both"]:
                killed(report, name, app, sent, victims)
            twice = [id for id, lines in counts(app, held).items() if len(lines) > 1]
            report.check(not twice, f"{name}: each of those once ({len(twice)} of {len(held)} ran twice)")
        if not options.short:
            shared(report, name, app, sent, conf, nap, 200)
        if conf is not HASTY or options.short:
            theirs(report, app, sent, nap, 4 if options.short else 6)
        until(lambda: app.left()[0] == 0)
        dead, left = app.dead(), app.left()
        code = app.stop()
        report.check(left == (0, 0), f"{name}: no message is left {left}")
        report.check(not dead, f"{name}: none is a dead letter ({len(dead)} are)")
        report.check(code == 0, f"{name}: our worker ended with 0 ({code})")


def mixed(options, report):
    variant(options, report, "visibility timeout of 2 s", HASTY)
    if not options.short:
        variant(options, report, "stock options", {})
