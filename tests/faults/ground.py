"""What the trials stand on: a Redis of their own, an application on it, and Celery's own messages."""

import collections
import contextlib
import datetime
import json
import pathlib
import random
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid

import redis
import redis.backoff
import redis.retry

import torture
from torture import PATIENCE, children, until

RESUMES = 5.0  # seconds in which a worker works again once its broker is back
QUEUE = "celery"
LISTS = [QUEUE, *(f"{QUEUE}\x06\x16{step}" for step in (3, 6, 9))]
SCHEDULED = f"qworker.scheduled.{QUEUE}"
HOUR = 3600

# The file is written by one call each, with O_APPEND: lines are whole.
TASKS = """
note:
  shell: echo "$QWORKER_TASK_ID $(date +%s%N) begin $PPID" >>"$NOTES"
long:
  shell: |
    echo "$QWORKER_TASK_ID $(date +%s%N) begin qworker" >>"$NOTES"
    sleep "$1"
    echo "$QWORKER_TASK_ID $(date +%s%N) end qworker" >>"$NOTES"
"true": {exec: [/bin/true]}
noop: {wasm: modules/noop.wat, export: noop}
"""
NOOP = '(module (func (export "noop")))'

Line = collections.namedtuple("Line", "id at what who")


def a_port():
    """A free one below those that the kernel gives to clients: such a client could connect to
    itself while the server is away."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port


class Server:
    """A redis-server in a folder of its own; nobody else's is ever touched."""

    def __init__(self, folder, *options):
        self.folder, self.options, self.port = pathlib.Path(folder), options, a_port()
        self.folder.mkdir()
        self.log = open(self.folder / "log", "ab")
        self.url = f"redis://127.0.0.1:{self.port}/0"
        password = options[options.index("--requirepass") + 1] if "--requirepass" in options else None
        # Without retries: a push that is sent again is two messages.
        once = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
        self.admin = redis.Redis(port=self.port, password=password, retry=once)
        self.start()

    def start(self):
        command = ["/usr/bin/redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder]
        command += ["--save", "", *self.options]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        if not until(self.answers):
            raise RuntimeError(f"no Redis: {(self.folder / 'log').read_text()}")

    def answers(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"Redis ended: {(self.folder / 'log').read_text()}")
        with contextlib.suppress(redis.exceptions.ConnectionError):
            return self.admin.ping()

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.end(signal.SIGKILL)
        self.admin.close()
        self.log.close()


class App(torture.App):
    """An application whose broker is a Redis of its own."""

    tasks = TASKS

    def __init__(self, qworker, folder, notes, *server):
        folder = pathlib.Path(folder)
        self.server = Server(folder.parent / "redis", *server)
        self.broker = ("-b", self.server.url)
        super().__init__(qworker, folder, notes)
        # Leases are there: those of others would be looked at too.
        self.temporary = folder.parent / "tmp"
        self.temporary.mkdir()
        self.environment["TMPDIR"] = str(self.temporary)
        (folder / "tasks.d/modules").mkdir()
        (folder / "tasks.d/modules/noop.wat").write_text(NOOP)

    def __exit__(self, *error):
        super().__exit__(*error)
        self.server.__exit__(*error)

    def run(self, *words, limit=PATIENCE):
        """A command of qworker, run to its end."""
        command, environment = self.command(*words), self.environment
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit)

    def say(self, what):
        """Into the worker's log, which --keep keeps."""
        self.log.write(f"[{datetime.datetime.now()}] {what}\n".encode())
        self.log.flush()

    def proper(self):
        return next(iter(children(self.worker.pid)), None)

    def is_working(self):
        """Asks a task, not the list of the living, in which a dead worker stays for a while."""
        return self.run("call", "true", "--wait", "--timeout", "30").returncode == 0

    def lines(self):
        # An id may be anything, also nothing, or two lines.
        fields = (line.rsplit(" ", 3) for line in self.notes.read_text(errors="replace").split("\n"))
        return [Line(id, int(at), what, who) for id, at, what, who in (four for four in fields if len(four) == 4)]

    def runs(self):
        """The nanoseconds at which each id began."""
        runs = collections.defaultdict(list)
        for line in self.lines():
            if line.what == "begin":
                runs[line.id].append(line.at)
        return runs

    def runners(self):
        """The same of the task `note`, each with the process id of the worker that ran it."""
        runs = collections.defaultdict(list)
        for line in self.lines():
            runs[line.id].append((line.at, int(line.who)))
        return runs

    def held(self):
        """Messages that somebody has taken, by either book."""
        return max(self.server.admin.hlen("unacked"), self.server.admin.zcard("unacked_index"))

    def waiting(self):
        """Messages for later."""
        return self.server.admin.zcard(SCHEDULED)

    def left(self):
        """How many messages there are, and how many of them are held."""
        with self.server.admin.pipeline() as pipe:
            # At once: what is handed over meanwhile would be in neither place.
            pipe.hlen("unacked").zcard("unacked_index").zcard(SCHEDULED)
            for name in LISTS:
                pipe.llen(name)
            book, index, *others = pipe.execute()
        held = max(book, index)
        return held + sum(others), held

    def letters(self):
        """The dead-letter list."""
        return json.loads(self.run("dead", "list", "--json").stdout)

    def dead(self):
        return [letter["id"] for letter in self.letters()]


@contextlib.contextmanager
def application(options, *server, settings=None):
    """An App in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="qworker-faults-", ignore_cleanup_errors=True) as folder:
        (pathlib.Path(folder) / "app").mkdir()
        with App(options.qworker, f"{folder}/app", f"{folder}/notes", *server) as app:
            if settings is not None:
                (app.folder / "qworker.yaml").write_text(settings)
            yield app
            if options.keep:
                subprocess.run(["cp", "-r", folder, options.keep], check=True)


class Mint:
    """Messages as Celery sends them: one of its own, captured, with other ids."""

    PLACE = "5eed0000-0000-4000-8000-000000000000"

    def __init__(self, server, task, args=(), **options):
        import celery

        self.task = task
        # In another database, where no worker takes it away.
        with celery.Celery(broker=f"redis://127.0.0.1:{server.port}/1", set_as_current=False) as app:
            app.send_task(task, args, task_id=self.PLACE, **options)
        with redis.Redis(port=server.port, db=1) as aside:
            captured = aside.rpop(QUEUE).decode()
            aside.flushdb()
        self.tag = json.loads(captured)["properties"]["delivery_tag"]
        self.text = captured

    def message(self, id):
        return self.text.replace(self.PLACE, id).replace(self.tag, str(uuid.uuid4()))


class Load:
    """Senders at work until told to stop: what was accepted, and what only may have been."""

    def __init__(self, app):
        self.app, self.accepted, self.unsure, self.sent = app, set(), set(), {}
        self.over, self.threads, self.longs = threading.Event(), [], set()
        self.complaints = collections.Counter()

    def note(self, id, taken, why=""):
        (self.accepted if taken else self.unsure).add(id)
        if not taken:
            self.complaints[why.strip()] += 1

    def push(self, mint):
        """One message as a Python producer pushes it, straight into the server."""
        id = str(uuid.uuid4())
        self.sent[id] = time.time_ns()
        self.longs.update([id] if mint.task == "long" else [])
        try:
            self.app.server.admin.lpush(QUEUE, mint.message(id))
            self.note(id, True)
        except redis.exceptions.RedisError as error:
            self.note(id, False, type(error).__name__)
        return id

    def outstanding(self):
        """How many `long` ones have been pushed and have not ended."""
        return len(self.longs - {line.id for line in self.app.lines() if line.what == "end"})

    def call(self, *words, broker=None):
        """One `qworker call`. What was refused may have been taken all the same."""
        id = str(uuid.uuid4())
        self.sent[id] = time.time_ns()
        command = self.app.command("call", *words, "--task-id", id)
        if broker:
            command[command.index("-b") + 1] = broker
        done = subprocess.run(command, capture_output=True, text=True)
        self.note(id, done.returncode == 0, f"{done.returncode}: {done.stderr.splitlines()[0] if done.stderr else ''}")

    def every(self, seconds, send):
        """Sends that often from now on, in a thread."""
        def work():
            while not self.over.wait(seconds):
                send()
        self.threads.append(threading.Thread(target=work, daemon=True))
        self.threads[-1].start()

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join()

    def resumed(self, cut, end, patience=30.0):
        """Seconds from `end` of a cut to the first task that began after it and that cannot
        have been taken before `cut`; None if there was none. Both are nanoseconds."""
        def first():
            late = (line.at for line in self.app.lines()
                    if line.what == "begin" and line.at >= end and self.sent.get(line.id, 0) >= cut)
            return min(late, default=None)
        until(first, patience)
        at = first()
        return at and (at - end) / 1e9


def tree(pid):
    """The process and all below it."""
    return [pid, *(one for child in children(pid) for one in tree(child))]


def pss(pid, what="Pss"):
    """MB of memory of a process and all below it, shared pages in shares. `Pss_Anon` are those
    of no file: how many others run the same program does not matter to them."""
    total = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            rollup = open(f"/proc/{one}/smaps_rollup").read()
            total += int(rollup.split(f"\n{what}:")[1].split()[0])
    return total / 1024


def judge(report, app, accepted, unsure=()):
    """The sum of a trial in which no worker died: all that was accepted ran, and once."""
    runs = app.runs()
    lost = sorted(set(accepted) - set(runs))
    strangers = set(runs) - set(accepted) - set(unsure)
    twice = {id: times for id, times in runs.items() if len(times) > 1}
    report.check(not lost, f"every accepted id is there ({len(lost)} are not{some(lost)})")
    report.check(not strangers, f"nothing ran that nobody sent ({len(strangers)} did)")
    gaps = ", ".join(f"{id} after {(b - a) / 1e9:.2f} s" for id, (a, b, *_) in list(twice.items())[:3])
    report.check(not twice, f"none ran twice ({len(twice)} did{': ' + gaps if gaps else ''})")


def some(items):
    return f": {', '.join(map(str, items[:3]))}" if items else ""


def settle(report, app, patience=PATIENCE):
    """Waits until every message is done with; then stops the worker."""
    settled = until(lambda: app.left()[0] == 0, patience)
    left, held = app.left()
    dead = app.letters()
    reasons = collections.Counter(letter["reason"] for letter in dead)
    code = app.stop()
    until(lambda: not app.survivors(), 5)
    survivors = [torture.what(pid) for pid in app.survivors()]
    report.check(settled, f"no message is left ({left}, {held} of them held)")
    report.check(not dead, f"none is in the dead-letter list ({len(dead)} are{some(list(reasons.items()))})")
    report.check(code == 0, f"the worker ended with 0 ({code})")
    report.check(not survivors, f"no process outlives the workers ({len(survivors)} do{some(survivors)})")
