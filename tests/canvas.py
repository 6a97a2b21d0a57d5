"""Random canvases of Python's tasks and ours, while workers are killed: each ends, as a model says.

    tests/canvas.py QWORKER [--trees N] [--kill-every SECONDS] [--seed N] [--tree N]... [--fleet FLEET]

A tree is a chain, a group, a chord, a map or a task, up to four deep. Its tasks add up what they get.
Some retry, some are killed by KILL once, some are replaced by trees of their own, and in every third
tree some fail or are rejected. Then: each root ends, with the model's value, or with a failure where
a task has failed; each task ran once (at least once, if workers are killed), or not at all behind one
that failed; in Redis nothing is left that does not expire, but bindings and the keys of `KEPT`; nothing
is unacknowledged; the dead-letter list has the rejected tasks, each once.

`--kill-every` kills one of our workers (its guard, the worker proper, or both) and starts it again.
Python's workers are not killed: they lose what they have begun. Celery's worker leaves some canvases
that fail without an end (cases/differences.py), so in a tree with failures all members of groups and
chords are ours. Others do not end there though nothing fails: the body of a chord in a group that a
worker begins does not count for the chord in whose header that group is
(cases/chords.py, `a_chord_in_a_group_at_the_end_of_a_chain_in_a_header`). And Celery's client makes
messages of some canvases that run their tasks twice. So a tree that comes out wrong is tried with
Python's workers alone: what comes out wrong there too is told, and is no failure. `--tree` does these
trees of a seed alone, and shows them.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid

import redis
from celery import chain, chord, group
from celery.result import GroupResult

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from cases.app import app, configure, OURS, PYTHONS  # noqa: E402
from torture import children, Report, until  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
DEPTH_MAX = 4
IN_FLIGHT = 40
# Seconds in which a root must end; kills cost time.
PATIENCE = 120

# Keys that do not expire, by their beginnings: what the broker is declared to have, and what our
# workers register.
KEPT = "_kombu.binding", "qworker.queues", "qworker.workers", "qworker.worker.", "qworker.dead"

Node = collections.namedtuple("Node", "kind parts n key python", defaults=((), 0, "", False))


class Tree:
    """A random tree: what it is, what its value is, and which of its tasks run."""

    def __init__(self, seed, number, fleet):
        self.number, self.fleet = number, fleet
        self.chance = random.Random(f"{seed} {number}")
        self.fails = self.chance.random() < 1 / 3
        self.count = 0
        self.root = self.node(0, in_group=False)
        self.ran, self.rejected = [], []
        self.value = self.run(self.root, 0)

    # Making one.

    def node(self, depth, in_group):
        kinds = ["chain", "group", "chord"] if depth == 0 else ["task"] * 4 + ["chain", "group", "chord", "map"]
        kind = self.chance.choice(kinds if depth < DEPTH_MAX else ["task"])
        inner = lambda in_group: self.node(depth + 1, in_group)  # noqa: E731
        size = self.chance.randint(1, 4)
        match kind:
            case "chain":
                return Node(kind, tuple(inner(in_group) for _ in range(size)))
            case "group":
                return Node(kind, tuple(inner(True) for _ in range(size)))
            case "chord":
                return Node(kind, (*(inner(True) for _ in range(size)), inner(in_group)))
            case "map":
                return Node(kind, n=size, key=self.key(), python=self.is_python(in_group))
        return self.task(depth, in_group)

    def task(self, depth, in_group):
        kinds = ["fold"] * 6 + ["fold_late", "fold_killed"]
        kinds += ["fold_not", "fold_rejected"] if self.fails else []
        kinds += ["fold_replaced"] if depth < DEPTH_MAX else []
        kind = self.chance.choice(kinds)
        if self.fleet == "python" and kind not in ("fold_late", "fold_replaced"):
            kind = "fold"
        python = self.is_python(in_group) and kind in ("fold", "fold_late", "fold_replaced")
        parts = ()
        if kind == "fold_replaced":
            parts = (self.node(max(depth + 1, DEPTH_MAX - 1), True),)
        return Node(kind, parts, self.chance.randint(0, 9), self.key(), python)

    def is_python(self, in_group):
        # A tree of a seed has the same shape in each fleet.
        drawn = self.chance.random() < 0.4
        if self.fleet != "mixed":
            return self.fleet == "python"
        return drawn and not (self.fails and in_group)

    def key(self):
        self.count += 1
        return f"{self.number}.{self.count}"

    # What comes of it: a number, lists of them, or None if a task has failed.

    def run(self, node, value):
        match node.kind:
            case "chain":
                for part in node.parts:
                    value = self.run(part, value)
                    if value is None:
                        return None
                return value
            case "group":
                values = [self.run(part, value) for part in node.parts]
                return None if None in values else values
            case "chord":
                values = [self.run(part, value) for part in node.parts[:-1]]
                return None if None in values else self.run(node.parts[-1], values)
            case "map":
                self.ran += [f"{node.key}-{n}" for n in range(node.n)]
                return [3 * n + 1 for n in range(node.n)]
            case "fold_replaced":
                return self.run(node.parts[0], 0)
        self.ran.append(node.key)
        if node.kind == "fold_rejected":
            self.rejected.append(node.key)
        return None if node.kind in ("fold_not", "fold_rejected") else flat(value) + node.n

    # As Celery has it.

    def signature(self, node, first=False):
        """`first`: nothing comes before it, so it has all its arguments."""
        queue = PYTHONS if node.python else OURS
        match node.kind:
            case "chain":
                return chain([self.signature(part, first and at == 0) for at, part in enumerate(node.parts)])
            case "group":
                return group([self.signature(part, first) for part in node.parts])
            case "chord":
                header = [self.signature(part, first) for part in node.parts[:-1]]
                return chord(header, self.signature(node.parts[-1]))
            case "map":
                # The task is called with one argument: its item has all.
                items = [[n, 2 * n + 1, f"{node.key}-{n}"] for n in range(node.n)]
                one = app.signature("celery.starmap", kwargs={"task": dict(app.signature("fold")), "it": items})
                return one.set(queue=queue, immutable=True)
            case "fold_replaced":
                # What replaces it is called by a worker: its own routes are used.
                args = [json.dumps(self.signature(node.parts[0], True), default=dict)]
            case _:
                args = [node.n, node.key]
        return app.signature(node.kind, args=[0, *args] if first else args, queue=queue)

    def show(self, node=None, indent=0):
        node = node or self.root
        whose = " (Python's)" if node.python else ""
        print(f"{'  ' * indent}{node.kind} {node.key} {node.n or ''}{whose}")
        for part in node.parts:
            self.show(part, indent + 1)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def flat(value):
    return sum(map(flat, value)) if isinstance(value, list) else value


class World:
    """A server, our workers and one of Python's, in a folder."""

    def __init__(self, options, folder):
        self.options, self.folder = options, pathlib.Path(folder)
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        server = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
        self.server = subprocess.Popen(server, stdout=subprocess.DEVNULL)
        self.store = redis.Redis.from_url(self.url, decode_responses=True)
        until(self.answers)
        for name in "notes", "gates", "tasks.d":
            (self.folder / name).mkdir()
        (self.folder / "tasks.d/tasks.yaml").write_text((HERE / "cases/tasks.yaml").read_text())
        ours = f"{sys.executable} -I -S {HERE}/cases/ours.py {HERE.parent}/etc/clients"
        # A kill three times a second is no poisoned task: nothing may be given up.
        settings = {"task_default_queue": OURS, "task_max_deliveries": 1000, "broker_url": self.url,
                    "task_env": {"QW": options.qworker, "OURS": ours}}
        (self.folder / "qworker.yaml").write_text(json.dumps(settings))
        self.ours, self.python = [], None
        if options.fleet != "python":
            self.ours = [self.start(number) for number in range(options.workers)]
        if options.fleet != "ours":
            words = [sys.executable, "-m", "cases.worker", self.url, self.url, options.fleet, "-c", "4"]
            environment = {**os.environ, "PYTHONPATH": str(HERE), "C_FORCE_ROOT": "1"}
            with open(self.folder / "python.log", "ab") as log:
                self.python = subprocess.Popen(words, cwd=folder, env=environment, stdout=log, stderr=log)

    def answers(self):
        try:
            return self.store.ping()
        except redis.ConnectionError:
            return False

    def start(self, number):
        words = [self.options.qworker, "worker", "-c", "8", "-n", f"w{number}@cases", "-l", "INFO"]
        with open(self.folder / f"w{number}.log", "ab") as log:
            return subprocess.Popen(words, cwd=self.folder, stdout=log, stderr=log)

    def kill(self, chance):
        """Kills one of our workers, as tests/torture.py does."""
        number = chance.randrange(len(self.ours))
        guard = self.ours[number]
        dying = children(guard.pid)[:1]
        victims = chance.choice([[guard.pid], dying, [guard.pid, *dying]])
        for victim in victims:
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if guard.pid in victims:
            guard.wait()
            self.ours[number] = self.start(number)
        elif guard.poll() is not None:
            self.ours[number] = self.start(number)

    def stop(self):
        """Stops the workers as they should be stopped; their exit codes."""
        workers = [*self.ours, *([self.python] if self.python else [])]
        for worker in workers:
            worker.terminate()
        return [worker.wait(60) for worker in workers]

    def end(self):
        for process in [*self.ours, self.python, self.server]:
            if process and process.poll() is None:
                process.kill()
                process.wait()

    def runs(self):
        try:
            return collections.Counter((self.folder / "notes/runs").read_text().split())
        except FileNotFoundError:
            return collections.Counter()


def leaves(result):
    """The ids of what a client waits for."""
    if isinstance(result, GroupResult):
        return [id for one in result.results for id in leaves(one)]
    return [result.id]


class Roots:
    """Canvases that were sent, and what came of them."""

    def __init__(self, world):
        self.world, self.waiting, self.ended, self.never = world, {}, {}, []

    def send(self, tree):
        result = tree.signature(tree.root, True).apply_async()
        self.waiting[tree.number] = tree, leaves(result), time.monotonic()

    def look(self):
        """Moves those that have ended; whether any has."""
        found = False
        for number, (tree, ids, _) in list(self.waiting.items()):
            texts = self.world.store.mget([f"celery-task-meta-{id}" for id in ids]) if ids else []
            documents = [json.loads(text) for text in texts if text]
            if len(documents) == len(ids) and all(one["status"] in ("SUCCESS", "FAILURE") for one in documents):
                self.ended[number] = tree, documents
                del self.waiting[number]
                found = True
        return found

    def give_up(self):
        """Moves those that have had time enough."""
        now = time.monotonic()
        for number, (tree, _, sent) in list(self.waiting.items()):
            if now - sent > self.world.options.patience:
                self.never.append(tree)
                del self.waiting[number]


def play(options, world, trees):
    """Sends the trees, kills workers meanwhile, and waits for all roots."""
    chance, roots, left = random.Random(options.seed), Roots(world), list(reversed(trees))
    kills, next_kill = 0, time.monotonic() + (options.kill_every or 0)
    while left or roots.waiting:
        while left and len(roots.waiting) < IN_FLIGHT:
            roots.send(left.pop())
        if options.kill_every and world.ours and time.monotonic() > next_kill:
            world.kill(chance)
            kills, next_kill = kills + 1, time.monotonic() + options.kill_every
        if not roots.look():
            # Roots end in any order, and kills come by the clock.
            time.sleep(0.01)
        roots.give_up()
    return roots, kills


def judge(options, world, trees, roots, kills, seconds, report):
    runs, never = world.runs(), roots.never
    wrong, often, strangers = [], [], []
    for tree, documents in roots.ended.values():
        failed = any(one["status"] == "FAILURE" for one in documents)
        values = [one["result"] for one in documents]
        if failed != (tree.value is None) or not failed and flat(values) != flat(tree.value):
            wrong.append((tree.number, values if not failed else "a failure", tree.value))
    expected = collections.Counter(key for tree in trees for key in tree.ran)
    for key, count in expected.items():
        is_right = runs[key] >= count if options.kill_every else runs[key] == count
        if not is_right:
            often.append((key, runs[key]))
    strangers = sorted(set(runs) - set(expected))
    numbers = {tree.number for tree in never} | {one[0] for one in wrong}
    numbers |= {int(key.split(".")[0]) for key in [*(key for key, _ in often), *strangers]}
    print(f"trees that come out wrong: {sorted(numbers)}")
    celerys = wrong_in_celery(options, numbers)
    never = [tree for tree in never if tree.number not in celerys]
    wrong = [one for one in wrong if one[0] not in celerys]
    often = [one for one in often if int(one[0].split(".")[0]) not in celerys]
    strangers = [key for key in strangers if int(key.split(".")[0]) not in celerys]
    tasks = sum(expected.values())
    print(f"{len(trees)} trees of {tasks} tasks, {sum(tree.fails for tree in trees)} with failures, "
          f"{kills} kills, {sum(runs.values()) - tasks} runs more than tasks, {seconds:.0f} s")
    if options.fleet != "python":
        print(f"{len(celerys)} of them with Python's workers alone too: {sorted(celerys)}")
    report.check(not never, f"each root ends ({len(never)} do not: {[tree.number for tree in never[:8]]})")
    report.check(not wrong, f"each value is the model's ({len(wrong)} are not: {wrong[:4]})")
    how = "at least once" if options.kill_every else "once"
    report.check(not often, f"each task ran {how} ({len(often)} did not: {often[:8]})")
    report.check(not strangers, f"no task ran behind one that failed ({len(strangers)} did: {strangers[:8]})")
    leftovers(world, trees, bool(celerys), report)


def wrong_in_celery(options, numbers):
    """Which trees are wrong in a fleet of Python's workers too? Its client makes the messages."""
    if options.fleet == "python" or not numbers:
        return set()
    words = [sys.executable, __file__, options.qworker, "--seed", options.seed, "--fleet", "python"]
    words += ["--patience", "20", *(word for number in sorted(numbers) for word in ("--tree", str(number)))]
    told = subprocess.run(words, capture_output=True, text=True).stdout
    (line,) = [line for line in told.splitlines() if line.startswith("trees that come out wrong: ")]
    return set(json.loads(line.split(": ")[1]))


def leftovers(world, trees, has_celerys, report):
    store = world.store
    until(lambda: not store.hlen("unacked"), 30)
    waiting = {key: store.llen(key) for key in store.keys() if store.type(key) == "list"}
    codes = world.stop()
    report.check(all(code == 0 for code in codes), f"the workers end with 0 ({codes})")
    report.check(not waiting, f"no message is left ({waiting})")
    unacked = store.hlen("unacked") + store.zcard("unacked_index")
    report.check(not unacked, f"nothing is unacknowledged ({unacked})")
    lasting = [key for key in store.keys() if store.ttl(key) == -1 and not key.startswith(KEPT)]
    report.check(not lasting, f"nothing is left that does not expire ({len(lasting)}: {lasting[:4]})")
    counters = [key for key in store.keys("celery-taskset-meta-*") if key.endswith((".j", ".d"))]
    # What a killed worker had counted may be left to expire.
    report.check(not counters or has_celerys or world.options.kill_every, f"no chord is left half counted ({len(counters)}: {counters[:4]})")
    words = [world.options.qworker, "dead", "list", "--json"]
    dead = subprocess.run(words, cwd=world.folder, capture_output=True, text=True)
    rejected = sorted(key for tree in trees for key in tree.rejected)
    found = json.loads(dead.stdout or "[]")
    reasons = collections.Counter(one["reason"] for one in found)
    is_right = len(found) == len(rejected) and set(reasons) <= {"rejected"}
    report.check(is_right, f"the rejected ones are dead letters ({dict(reasons)}, expected {len(rejected)})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qworker", type=lambda path: str(pathlib.Path(path).resolve()))
    parser.add_argument("--trees", type=int, default=1000)
    parser.add_argument("--kill-every", type=float)
    parser.add_argument("--seed", default=str(uuid.uuid4())[:8])
    parser.add_argument("--tree", type=int, action="append")
    parser.add_argument("--fleet", choices=["mixed", "ours", "python"], default="mixed")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds in which a root must end")
    parser.add_argument("--keep", action="store_true", help="keep the folder, with the logs")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    print(f"seed {options.seed}", flush=True)
    numbers = options.tree or range(options.trees)
    trees = [Tree(options.seed, number, options.fleet) for number in numbers]
    report = Report()
    folder = tempfile.mkdtemp(prefix="qworker-canvas-")
    world = World(options, folder)
    try:
        configure(world.url, world.url, options.fleet)
        for tree in trees if options.tree else []:
            tree.show()
            print(tree.value)
        begin = time.monotonic()
        roots, kills = play(options, world, trees)
        judge(options, world, trees, roots, kills, time.monotonic() - begin, report)
        for tree in roots.never[:3]:
            tree.show()
    finally:
        world.end()
        if options.keep:
            print(folder)
        else:
            shutil.rmtree(folder)
    # Results that nobody waits for would look for the server, which has ended.
    sys.stdout.flush()
    os._exit(report.failed)


if __name__ == "__main__":
    main()
