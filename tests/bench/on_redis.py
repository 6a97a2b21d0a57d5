"""The rows of the benchmark on Redis: qworker beside its peers and the bare limits, all on one server."""

import contextlib
import json
import time

from beats import EACH_SECOND, FEW, MANY, Beats
from measures import Rounds, Void, cpu, percentiles, pss, run, same, tree
from nodes import NODES, Fleet
from parties import SLOTS, TARGET, Bull, Celery, Ours, Server

# Of the tasks of a run: who is slower gets fewer, so that all runs take a similar time.
SHARE_OF_BARE, SHARE_OF_BULL, SHARE_OF_CELERY, SHARE_OF_PROCESSES, SHARE_OF_FLOWS = 5, 2, 20, 5, 50
LEAST = 1000  # tasks of a run
CONCURRENCIES = 25, 50, 100, 200, 500  # that BullMQ is tried with
BATCH = 100
RATE = 100  # tasks per second where delays are measured
IDLE = 10  # seconds


class OnRedis:
    """One server, and everybody who works on it."""

    rows = ["redis-drain", "redis-workflows", "redis-spawn", "redis-latency", "redis-enqueue", "redis-idle",
            "redis-multi", "redis-beat"]

    def __init__(self, options, tools, app, folder):
        self.options, self.tools, self.server = options, tools, Server(folder / "redis")
        ids = folder / "ids"
        self.prefork, self.threads = (Celery(self.server, ids, pool) for pool in ("prefork", "threads"))
        self.bull = lambda concurrency=SLOTS: Bull(self.server, ids, concurrency)
        self.ours = None
        if run(tools.helper, "knows", self.server.url).strip() == "true":
            self.ours = Ours(self.server, ids, tools, app.folder)
        else:
            print("This qworker has no broker for redis://: the others are measured without it.\n", flush=True)

    def row(self, name):
        return getattr(self, name.removeprefix("redis-"))()

    def rounds(self, **measures):
        return Rounds(self.options.rounds, measures)

    def by_us(self, measure):
        """None, so that it is left out, if there is nothing of ours to measure."""
        return measure if self.ours else None

    def drained(self, party, task, share):
        """Tasks per second of a worker that is warm: from the moment when a twentieth of what waited is done to
        that when all is, so that nobody's start, import or compiler counts. What is done is what neither waits nor
        is held by a worker; who acknowledges early is so let off its last few tasks."""
        count = max(self.options.tasks // share, LEAST)
        party.forget()
        ids = party.send(count, task)
        with party.worker(task):
            words = run(self.tools.helper, "redis-watch", self.server.url, count, count // 20, *party.lengths).split()
        out = party.came_out(task)
        if out is not None:
            same(ids, out)
        return int(words[1]) / float(words[0])

    def bare_drained(self, results, batch):
        count, size = max(self.options.tasks // (1 if batch > 1 else SHARE_OF_BARE), LEAST), self.message()
        self.server.clear()
        run(self.tools.helper, "redis-push", self.server.url, "celery", count, size, BATCH)
        drained, rate = run(self.tools.helper, "redis-drain", self.server.url, "celery", results, batch).split()
        left = len(self.server.results()) if results == "kept" else count
        if not int(drained) == left == count:
            raise Void(f"{count} went in, {drained} came out, {left} results")
        return float(rate)

    def message(self):
        """Bytes of a message of a task without arguments: our own, else Celery's."""
        if not hasattr(self, "bytes"):
            self.server.clear()
            (self.ours or self.prefork).send(1, "quiet")
            self.bytes = len("\n".join(self.server.ask("LINDEX", "celery", 0)).encode())
        return self.bytes

    def best_bull(self, task):
        """With the concurrency that is fastest here."""
        figures = {many: max(self.drained(self.bull(many), task, SHARE_OF_BULL) for _ in range(2))
                   for many in CONCURRENCIES}
        return self.bull(max(figures, key=figures.get))

    def drain(self):
        for what, task, results, goals in (
            ("warm WASM no-op, no results", "quiet", "dropped", ("≥ 0.7", "≥ 20")),
            ("warm WASM no-op, results kept", "noop", "kept", ("≥ 0.5", "≥ 18")),
        ):
            bull = self.best_bull(task)
            rounds = self.rounds(
                bare=lambda: self.bare_drained(results, 1),
                qworker=self.by_us(lambda: self.drained(self.ours, task, 1)),
                batches=lambda: self.bare_drained(results, BATCH),
                bull=lambda: self.drained(bull, task, SHARE_OF_BULL),
                prefork=lambda: self.drained(self.prefork, task, SHARE_OF_CELERY),
                threads=lambda: self.drained(self.threads, task, SHARE_OF_CELERY),
            )
            yield from beside(what, rounds, {
                "bare": ("one by one: pop into `unacked`; remove", goals[0]),
                "batches": (f"the same in batches of {BATCH}", ""),
                "bull": (bull.name, "> 1"),
                "prefork": (f"{self.prefork.name}, -c {SLOTS}", goals[1]),
                "threads": (f"{self.threads.name}, -c {SLOTS}", ""),
            })

    def workflows(self):
        """Called before the worker starts, by Celery's client for both."""
        for what, kind, size in (
            ("chains of 10", "chain", 10),
            ("chords of 100", "chord", 100),
            ("a task, then a chord of 100", "follow", 100),
        ):
            tasks = size + {"chain": 0, "chord": 1, "follow": 2}[kind]
            rounds = self.rounds(
                qworker=self.by_us(lambda: self.flowed(self.ours, kind, size, tasks, SHARE_OF_BARE)),
                prefork=lambda: self.flowed(self.prefork, kind, size, tasks, SHARE_OF_FLOWS),
            )
            yield from beside(f"{what} WASM no-ops, results kept", rounds, {
                "prefork": (f"{self.prefork.name}, -c {SLOTS}", "≥ 15"),
            })

    def flowed(self, party, kind, size, tasks, share):
        """Workflows per second of a warm worker: from the moment when a twentieth of all results are there to that
        when the last one of each workflow is."""
        count = max(self.options.tasks // share, LEAST) // tasks
        party.forget()
        ids = party.flow(count, kind, size)
        with party.worker("noop"):
            words = run(self.tools.helper, "redis-results", self.server.url, count * tasks // 20, *ids).split()
        kept = party.kept()
        if not set(ids) <= set(kept) or len(kept) != count * tasks:
            raise Void(f"{count} of {tasks} tasks went in, {len(kept)} came out")
        return int(words[1]) / float(words[0]) / tasks

    def spawn(self):
        count = self.options.tasks // SHARE_OF_PROCESSES
        bull = self.bull()
        rounds = self.rounds(
            bare=lambda: float(run(self.tools.spawner, count, SLOTS, "/bin/true")),
            qworker=self.by_us(lambda: self.drained(self.ours, "true", SHARE_OF_PROCESSES)),
            bull=lambda: self.drained(bull, "true", SHARE_OF_CELERY),
            prefork=lambda: self.drained(self.prefork, "true", SHARE_OF_CELERY),
            threads=lambda: self.drained(self.threads, "true", SHARE_OF_CELERY),
        )
        yield from beside(f"`exec: [/bin/true]`, `-c {SLOTS}`, results kept", rounds, {
            "bare": (f"`posix_spawn`, {SLOTS} in flight", "≥ 0.9"),
            "bull": (f"{bull.name}, `spawn`", "> 1"),
            "prefork": (f"{self.prefork.name}, -c {SLOTS}, `subprocess.run`", "> 1"),
            "threads": (f"{self.threads.name}, -c {SLOTS}, `subprocess.run`", "> 1"),
        })

    def latency(self):
        said = lambda pair: f"p50 {pair[0]:.2f} ms, p99 {pair[1]:.2f} ms"
        rounds = self.rounds(
            bare=self.passage,
            qworker=self.by_us(lambda: self.delays(self.ours, 1000)),
            prefork=lambda: self.delays(self.prefork, 300),
        )
        yield (f"enqueue to start, {RATE}/s, another process: WASM", ours(rounds, said),
               f"{said(rounds.median('bare'))}: `LPUSH` to `BRPOP`", "", "p50 ≤ 0.3 ms, p99 ≤ 0.7 ms")
        yield "", "", f"{said(rounds.median('prefork'))}: {self.prefork.name}", "", ""

    def passage(self):
        self.server.clear()
        return tuple(map(float, run(self.tools.helper, "redis-passage", self.server.url, 1000, RATE).split()))

    def delays(self, party, count):
        """Median and 99th percentile, in ms, from before the sender's first step to the task's."""
        with party.ready(party.stamp):
            party.forget_results()
            asked = dict(line.split() for line in party.pace(count, RATE).splitlines())
            until = time.monotonic() + 30
            while len(started := party.stamps()) < len(asked) and time.monotonic() < until:
                time.sleep(0.1)
        same(asked, started)
        return percentiles((started[id] - int(at)) / 1e6 for id, at in asked.items())

    def enqueue(self):
        bull, size = self.bull(), self.message()
        # As much on the wire for each, as the message of a task without arguments is long.
        pads = {batch: round(max(0, size - self.wire(bull, batch, 0))) for batch in (1, BATCH)}
        count = max(self.options.tasks // SHARE_OF_BARE, LEAST)
        for what, batch, goal in ("one by one", 1, "≥ 0.7"), (f"in batches of {BATCH}", BATCH, "≥ 0.3"):
            rounds = self.rounds(
                bare=lambda: self.enqueued(count, lambda: float(run(
                    self.tools.helper, "redis-push", self.server.url, "celery", count, size, batch))),
                qworker=self.by_us(lambda: self.enqueued(count, lambda: self.ours.enqueue(count, batch, 0))),
                bull=lambda: self.enqueued(
                    count, lambda: bull.enqueue(count, batch, pads[batch]), bull.waiting),
                prefork=batch == 1 and (lambda: self.enqueued(LEAST, lambda: self.prefork.enqueue(LEAST, 1, 0))),
            )
            wires = {"bull": self.wire(bull, batch, pads[batch])}
            if batch == 1:
                wires["prefork"] = self.wire(self.prefork, 1, 0)
            mine = f", {self.wire(self.ours, batch, 0):,.0f} bytes each on the wire" if self.ours else ""
            yield from beside(f"enqueue on one connection, {what}{mine}", rounds, {
                "bare": (f"{'`LPUSH`' if batch == 1 else 'pipelined `LPUSH`'} of {size:,} bytes", goal),
                "bull": (f"BullMQ `{'add' if batch == 1 else 'addBulk'}`, {wires['bull']:,.0f} bytes each", ""),
                "prefork": (f"Celery `send_task`, {wires.get('prefork', 0):,.0f} bytes each", ""),
            })

    def enqueued(self, count, measure, key="celery"):
        self.server.clear()
        rate = measure()
        if int(self.server.ask("LLEN", key)[0]) != count:
            raise Void(f"{count} were sent, {self.server.ask('LLEN', key)} wait")
        return rate

    def wire(self, party, batch, pad):
        """Bytes that reach the server for each message."""
        self.server.clear()
        sent = lambda: int(self.server.info("stats")["total_net_input_bytes"])
        before = sent()
        party.enqueue(LEAST, batch, pad)
        return (sent() - before) / LEAST

    def idle(self):
        bull = self.bull()
        looks = self.rounds(
            qworker=self.by_us(lambda: self.look(self.ours)),
            prefork=lambda: self.look(self.prefork),
            bull=lambda: self.look(bull),
        )
        firsts = self.rounds(
            qworker=self.by_us(lambda: (self.first(self.ours, "true"), self.first(self.ours, "noop"))),
            prefork=lambda: (self.first(self.prefork, "true"), self.first(self.prefork, "noop")),
            bull=lambda: (self.first(bull, "true"), self.first(bull, "noop")),
        )
        quiet = (lambda f: f"{f[0] / 1e6:.1f} MB PSS", lambda f: f"{f[1]:.1f} commands/s, {f[2]:.0f} connections",
                 lambda f: f"{f[3] * 100:.2f} % of a core")
        first = lambda f: f"{f[0]:.0f} ms (`/bin/true`), {f[1]:.0f} ms (no-op)"
        for what, rounds, said, goal in (
            (f"idle `worker -c {SLOTS}`, all processes", looks, quiet[0], "≤ 12 MB"), ("", looks, quiet[1], ""),
            ("", looks, quiet[2], ""), ("start to first task done", firsts, first, "≤ 60 ms"),
        ):
            others = "; ".join(f"{party.name}: {said(rounds.median(name))}"
                               for name, party in (("prefork", self.prefork), ("bull", bull)))
            yield what, ours(rounds, said), others, "", goal

    def multi(self):
        """Many nodes, and one without a terminal, as operators start them."""
        celery = Fleet([self.prefork.python, "-m", "celery", "-A", "celery_app"], self.prefork.environ)
        fleets = {"prefork": celery}
        if self.ours:
            fleets["qworker"] = Fleet(self.ours.qworker, self.ours.environ)
        many = self.rounds(**{name: fleet.fleet for name, fleet in fleets.items()})
        alone = self.rounds(**{name: fleet.alone for name, fleet in fleets.items()})
        seconds = lambda f: f"{f[0]:.2f} s"
        down = lambda f: f"{f[1]:.2f} s"
        memory = lambda f: f"{f[2] / 1e6:.0f} MB PSS"
        idle = lambda f: f"{f[0] / 1e6:.1f} MB PSS, {f[1] * 100:.2f} % of a core"
        for what, rounds, said, goal in (
            (f"`multi start {NODES}`, `-c 1`: all ready", many, seconds, "≤ 2 s"),
            ("`multi stopwait` of them", many, down, ""),
            ("all of them, idle", many, memory, ""),
            (f"one detached, `-c {SLOTS}`, idle", alone, idle, "≤ 12 MB, ≤ 0.5 %"),
        ):
            yield what, ours(rounds, said), f"Celery, prefork: {said(rounds.median('prefork'))}", "", goal

    def beat(self):
        """Who sends by a schedule: many entries, and many that are due."""
        beats = Beats(self.server, self.prefork.python, self.prefork.environ, self.ours and self.ours.qworker)
        if self.ours:
            loads = self.rounds(qworker=beats.load)
            for what, said, goal in (
                (f"`beat` with {MANY:,} entries: loaded, the first time and again",
                 lambda f: f"{f[0]:.2f} s, {f[1]:.2f} s", "≤ 2 s"),
                ("memory, and the most of it", lambda f: f"{f[2] / 1e6:.0f} MB PSS, {f[3] / 1e6:.0f} MB RSS", "≤ 100 MB"),
                ("idle", lambda f: f"{f[4] * 100:.2f} % of a core", "≤ 1 %"),
            ):
                yield what, ours(loads, said), "", "", goal
        rates = self.rounds(
            qworker=self.by_us(beats.ours),
            few=lambda: beats.celery(FEW),
            many=lambda: beats.celery(EACH_SECOND),
        )
        rate = lambda f, due: f"{f[0]:,.0f}/s ({100 * f[0] / due:.0f} % of what is due), {f[1] * 100:.0f} % of a core"
        ratios = dict.fromkeys(("few", "many"), "")
        if "qworker" in rates:
            ratios = {name: f"{rates.ratio('qworker', name, 0):,.0f}" for name in ratios}
        yield (f"`beat` with {EACH_SECOND:,} entries of 1 s", ours(rates, lambda f: rate(f, EACH_SECOND)),
               f"{rate(rates.median('many'), EACH_SECOND)}: Celery, the same", ratios["many"], "all")
        yield ("", ours(rates, lambda f: f"late p50 {f[2]:.1f} ms, p99 {f[3]:.1f} ms"),
               f"{rate(rates.median('few'), FEW)}: Celery, {FEW:,} entries of 1 s", ratios["few"], "p99 ≤ 50 ms")

    def look(self, party):
        """Memory in bytes, commands per second, connections, and share of a core of a worker without work."""
        commands = lambda: int(self.server.info("stats")["total_commands_processed"])
        with party.ready("true") as worker:
            time.sleep(2)
            pids = tree(worker.pid)
            start, sent, spent = time.monotonic(), commands(), cpu(pids)
            time.sleep(IDLE)
            # One is the first question itself.
            sent, spent, took = commands() - sent - 1, cpu(pids) - spent, time.monotonic() - start
            connections = len([line for line in self.server.ask("CLIENT", "LIST") if line]) - 1
            return pss(pids), sent / took, connections, spent / took

    def first(self, party, task):
        """Milliseconds from the worker's exec to the time of the first result."""
        party.forget()
        (id,) = party.send(1, task)
        start = time.time()
        with party.worker(task):
            while not (end := party.ended(id)):
                time.sleep(0.1)
        return (end - start) * 1e3

    def conditions(self):
        python = self.prefork.python
        celery = run(python, "-c", "import celery, redis, platform as p;"
                     "print(f'Celery {celery.__version__}, redis-py {redis.__version__}, Python {p.python_version()}')")
        package = json.loads((TARGET / "bench-peers/node_modules/bullmq/package.json").read_text())
        return (f"Redis {self.server.info('server')['redis_version']} on the loopback, nothing on disk (`--save \"\" "
                f"--appendonly no`); {celery.strip()}, -c {SLOTS}, without gossip, mingle and heartbeat, early "
                f"acknowledgement; BullMQ {package['version']}, node {run('node', '--version').strip()}, one process.")


def ours(rounds, said):
    return said(rounds.median("qworker")) if "qworker" in rounds else "-"


def beside(what, rounds, others):
    """Lines of rates: ours beside each of the others, and the ratio to it."""
    rate = lambda figure: f"{figure:,.0f}/s" if figure >= 100 else f"{figure:,.1f}/s"
    first = what, ours(rounds, rate)
    for name, (who, goal) in others.items():
        if name in rounds:
            ratio = f"{rounds.ratio('qworker', name):.2f}" if "qworker" in rounds else ""
            yield *first, f"{rate(rounds.median(name))}: {who}", ratio, goal
            first = "", ""


@contextlib.contextmanager
def on_redis(options, tools, app, folder):
    """The rows, and a server as long as they need it."""
    run(TARGET.parent / "tests/bench/peers/install")
    rows = OnRedis(options, tools, app, folder)
    try:
        yield rows
    finally:
        rows.server.stop()
