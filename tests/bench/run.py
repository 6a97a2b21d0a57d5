"""Measures qworker beside the limits of what it stands on, and prints a Markdown table.

    tests/bench/run.py QWORKER HELPER [--tasks N] [--rounds N] [--only WORDS]
    tests/bench/run.py QWORKER HELPER soak [--tasks N]

HELPER is the program of tests/bench/main.rs. Each figure is the median of the rounds; in a
round the limit and qworker are measured one right after the other. Every run checks that
the ids that went in came out. Rows called redis-… are on Redis, beside Celery and BullMQ.
"""

import argparse
import contextlib
import datetime
import os
import pathlib
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

from measures import cpu, percentiles, pss, run, tree
from on_redis import OnRedis, on_redis

ROWS = ["spawn", "wasm", "instance", "latency", "idle", "start", *OnRedis.rows]
HERE = pathlib.Path(__file__).resolve().parent
SLOTS = 10
SHARE_OF_PROCESSES = 5  # of the tasks: one takes longer

TASKS = """
true: {exec: [/bin/true]}
false: {exec: [/bin/false]}
stamp: {exec: ["@STAMP@"]}
noop: {wasm: modules/noop.wat, export: noop}
trap: {wasm: modules/trap.wat, export: trap}
quiet: {wasm: modules/noop.wat, export: noop, ignore_result: true}
stamp_wasm: {wasm: modules/stamp.wat}
"""
NOOP = '(module (func (export "noop")))'
# Prints the nanoseconds since the epoch.
STAMP = """
(module
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (local $time i64) (local $at i32)
    (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 0)))
    (local.set $time (i64.load (i32.const 0)))
    (local.set $at (i32.const 64))
    (loop $digit
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at)
        (i32.wrap_i64 (i64.add (i64.rem_u (local.get $time) (i64.const 10)) (i64.const 48))))
      (local.set $time (i64.div_u (local.get $time) (i64.const 10)))
      (br_if $digit (i64.ne (local.get $time) (i64.const 0))))
    (i32.store (i32.const 64) (local.get $at))
    (i32.store (i32.const 68) (i32.sub (i32.const 64) (local.get $at)))
    (drop (call $write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 72)))))
"""
TRAP = '(module (func (export "trap") unreachable))'


class App:
    """An application in a temporary folder with the tasks above."""

    def __init__(self, tools, folder):
        self.tools, self.folder = tools, pathlib.Path(folder)
        self.database = self.folder / "var/qworker.sqlite"
        self.url = f"sqlite:///{self.database}"
        # Hidden, so that the modules are no tasks by themselves.
        (self.folder / "tasks.d/modules").mkdir(parents=True)
        (self.folder / "tasks.d/modules/noop.wat").write_text(NOOP)
        (self.folder / "tasks.d/modules/trap.wat").write_text(TRAP)
        (self.folder / "tasks.d/modules/stamp.wat").write_text(STAMP)
        (self.folder / "tasks.d/bench.yaml").write_text(TASKS.replace("@STAMP@", str(tools.stamp)))
        # Compiles the module: what is measured are warm runs.
        (self.folder / "var").mkdir()
        with self.worker():
            for task in ("noop", "stamp_wasm", "true"):
                run(tools.qworker, "-A", self.folder, "call", task, "--wait")
        self.forget()

    def forget(self):
        for path in self.folder.glob("var/qworker.sqlite*"):
            if path.is_file():
                path.unlink()

    def forget_results(self):
        with contextlib.closing(sqlite3.connect(self.database, 30)) as file, file:
            file.execute("DELETE FROM celery_taskmeta")

    def send(self, count, task):
        """Enqueues with no worker there; gives the ids."""
        return run(self.tools.helper, "send", self.url, count, task).split()

    def start(self):
        command = [self.tools.qworker, "-A", self.folder, "worker", "-c", str(SLOTS), "-l", "WARNING"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @contextlib.contextmanager
    def worker(self):
        """A worker that is ready; stopped in the end."""
        worker = self.start()
        try:
            while subprocess.run([self.tools.qworker, "-A", self.folder, "status"], capture_output=True).returncode:
                time.sleep(0.02)
            yield worker
        finally:
            worker.terminate()
            if worker.wait(60) != 0:
                raise RuntimeError(f"the worker ended with {worker.returncode}")

    def query(self, sql):
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", 30, uri=True)) as file:
            return file.execute(sql).fetchall()

    def wait_until_empty(self, pause=0.005):
        """Looks every `pause` seconds, and towards the end every 5 ms."""
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", 30, uri=True)) as file:
            while (rows := file.execute("SELECT min(id), max(id) FROM kombu_message").fetchone()) != (None, None):
                time.sleep(pause if rows[1] - rows[0] > 200 else 0.005)

    def drain(self, count, task, kept=True, pause=0.005):
        """Tasks per second, from the start of the worker to the last acknowledgement, looked
        for every `pause` seconds."""
        self.forget()
        ids = self.send(count, task)
        start = time.monotonic()
        worker = self.start()
        self.wait_until_empty(pause)
        rate = count / (time.monotonic() - start)
        worker.terminate()
        worker.wait(60)
        done = [row[0] for row in self.query("SELECT task_id FROM celery_taskmeta WHERE status = 'SUCCESS'")]
        assert sorted(done) == sorted(ids if kept else []), f"{len(ids)} went in, {len(done)} came out"
        assert self.query("SELECT count(*) FROM qworker_dead") == [(0,)]
        return rate


class Tools:
    """The programs that take part."""

    def __init__(self, options, folder):
        self.qworker, self.helper = options.qworker, options.helper
        self.spawner, self.stamp = folder / "bare_spawn", folder / "stamp"
        run("gcc", "-O2", "-o", self.spawner, HERE / "bare_spawn.c")
        run("gcc", "-O2", "-static", "-o", self.stamp, HERE / "stamp.c")


class Bench:
    def __init__(self, options, tools, app):
        self.options, self.tools, self.app = options, tools, app

    def medians(self, *measures):
        """Measures in turn, round by round; the median of each."""
        return [statistics.median(column) for column in zip(*self.measured(*measures))]

    def measured(self, *measures):
        rounds = [[measure() for measure in measures] for _ in range(self.options.rounds)]
        print(".", end="", file=sys.stderr, flush=True)
        return rounds

    def beside(self, *measures):
        """As `medians`, and then the median of the second's ratio to the first in the same round, and so on:
        how fast the machine is changes between the rounds more than within one."""
        rounds = self.measured(*measures)
        ratios = [statistics.median(row[1] / row[n] for row in rounds) for n in range(len(measures)) if n != 1]
        return [statistics.median(column) for column in zip(*rounds)] + ratios

    def spawn(self):
        count = self.options.tasks // SHARE_OF_PROCESSES
        bare, ours, xargs, to_bare, to_xargs = self.beside(
            lambda: float(run(self.tools.spawner, count, SLOTS, "/bin/true")),
            # Looking costs some of what is measured, so rarely.
            lambda: self.app.drain(count, "true", pause=0.04),
            lambda: self.xargs(count),
        )
        yield ("`exec: [/bin/true]`, preloaded, `-c 10`", f"{ours:,.0f}/s",
               f"{bare:,.0f}/s: posix_spawn, 10 in flight", f"{to_bare:.2f}", "≥ 0.85")
        yield ("", "", f"{xargs:,.0f}/s: `xargs -P10`", f"{to_xargs:.2f}", "")

    def xargs(self, count):
        start = time.monotonic()
        subprocess.run(["xargs", "-P10", "-n1", "/bin/true"], input="x\n" * count, text=True, check=True)
        return count / (time.monotonic() - start)

    def bare_drain(self, results):
        self.app.forget()
        self.app.send(self.options.tasks, "noop")
        return float(run(self.tools.helper, "drain", self.app.database, results))

    def wasm(self):
        count = self.options.tasks
        bare, ours, ratio = self.beside(lambda: self.bare_drain("kept"), lambda: self.app.drain(count, "noop"))
        yield ("warm WASM no-op, results kept", f"{ours:,.0f}/s", f"{bare:,.0f}/s: the same rows, batches of 100",
               f"{ratio:.2f}", "≥ 0.5")
        bare, ours, ratio = self.beside(lambda: self.bare_drain("dropped"), lambda: self.app.drain(count, "quiet", False))
        yield ("warm WASM no-op, results ignored", f"{ours:,.0f}/s", f"{bare:,.0f}/s: the same rows, batches of 100",
               f"{ratio:.2f}", "")

    def instance(self):
        module = self.app.folder / "tasks.d/modules/noop.wat"
        times = lambda how: float(run(self.tools.helper, how, module, "noop", 100_000).split()[0])
        bare, ours, ratio = self.beside(lambda: times("bare"), lambda: times("ours"))
        yield ("WASM: instance, call, drop", f"{ours:.1f} µs", f"{bare:.1f} µs: Wasmtime, pool and epochs",
               f"{ratio:.2f}", "≤ 5 µs")

    def latency(self):
        medians = lambda rows: [statistics.median(column) for column in zip(*rows)]
        rounds = [(self.delays("stamp_wasm"), self.delays("stamp"), self.bare_start()) for _ in range(self.options.rounds)]
        wasm, process, bare = (medians(rows) for rows in zip(*rounds))
        sync = statistics.median(self.sync() for _ in range(200)) * 1e3
        yield ("enqueue to start, 100/s, another process, durable: WASM", f"p50 {wasm[0]:.2f} ms, p99 {wasm[1]:.2f} ms",
               f"{sync:.2f} ms: one `fdatasync` of 4 KiB", "", "≤ 1 ms, ≤ 10 ms")
        yield ("the same, to the `main` of a process", f"p50 {process[0]:.2f} ms, p99 {process[1]:.2f} ms",
               f"p50 {bare[0]:.2f} ms, p99 {bare[1]:.2f} ms: from posix_spawn to `main`, and no queue", "", "")

    def bare_start(self):
        """Median and 99th percentile, in ms, from posix_spawn to the program's main(), 100 times a second."""
        delays = []
        for _ in range(300):
            time.sleep(0.01)
            reader, writer = os.pipe()
            start = time.time_ns()
            pid = os.posix_spawn(self.tools.stamp, ["stamp"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)])
            os.close(writer)
            os.waitpid(pid, 0)
            delays.append((int(os.read(reader, 64)) - start) / 1e6)
            os.close(reader)
        return percentiles(delays)

    def delays(self, task):
        """Median and 99th percentile, in ms, from before the sender's commit to the task's first step."""
        self.app.forget()
        with self.app.worker():
            run(self.tools.qworker, "-A", self.app.folder, "call", task, "--wait")
            self.app.forget_results()
            sent = run(self.tools.helper, "pace", self.app.url, 1000, 100, task).splitlines()
            self.app.wait_until_empty()
        started = dict(self.app.query("SELECT task_id, result FROM celery_taskmeta"))
        asked = dict(line.split() for line in sent)
        assert asked.keys() == started.keys(), f"{len(asked)} went in, {len(started)} came out"
        return percentiles((int(started[id]) - int(at)) / 1e6 for id, at in asked.items())

    def sync(self):
        with open(self.app.folder / "var/sync", "ab") as file:
            file.write(bytes(4096))
            file.flush()
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            return time.perf_counter() - start

    def idle(self):
        memory, share = self.medians(*self.idle_measures())
        yield ("idle `worker -c 10`, all processes", f"{memory / 1e6:.1f} MB PSS", "", "", "≤ 12 MB")
        yield ("", f"{share * 100:.2f} % of a core", "", "", "≤ 0.5 %")

    def idle_measures(self):
        found = {}

        def look():
            self.app.forget()
            with self.app.worker() as worker:
                time.sleep(2)
                pids = tree(worker.pid)
                before = cpu(pids)
                time.sleep(10)
                found["share"] = (cpu(pids) - before) / 10
                return pss(pids)

        return look, lambda: found["share"]

    def start(self):
        shell, wasm = self.medians(lambda: self.first("true"), lambda: self.first("noop"))
        yield ("start to first task done", f"{shell:.0f} ms (`/bin/true`), {wasm:.0f} ms (WASM)", "", "", "≤ 60 ms")

    def first(self, task):
        """Milliseconds from the worker's exec to the time of the first result."""
        self.app.forget()
        self.app.send(1, task)
        start = time.time()
        worker = self.app.start()
        self.app.wait_until_empty()
        worker.terminate()
        worker.wait(60)
        [(done,)] = self.app.query("SELECT date_done FROM celery_taskmeta")
        done = datetime.datetime.fromisoformat(done).replace(tzinfo=datetime.timezone.utc)
        return (done.timestamp() - start) * 1e3


def conditions(options):
    cpu = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    wasmtime = next((line.split()[1] for line in run("cargo", "tree", "--locked", "--prefix=none", "--invert", "wasmtime",
                     "--depth=0", cwd=HERE).splitlines()), "")
    return (f"{run(options.qworker, '--version').strip()}, Wasmtime {wasmtime}, {run('rustc', '--version').strip()}; "
            f"Linux {platform.release()}, {os.cpu_count()} × {cpu}; {datetime.date.today()}, load "
            f"{os.getloadavg()[0]:.1f} before; medians of {options.rounds}, {options.tasks:,} tasks a run "
            f"({options.tasks // SHARE_OF_PROCESSES:,} processes).")


def bench(options, tools, app):
    said = conditions(options)
    bench = Bench(options, tools, app)
    names = options.only.split(",") if options.only else ROWS
    with contextlib.ExitStack() as stack:
        if set(names) & set(OnRedis.rows):
            redis = stack.enter_context(on_redis(options, tools, app, app.folder.parent))
            said += f"\n\n{redis.conditions()}"
        print("| what | qworker | the limit, or for scale | ratio | goal |\n| --- | --- | --- | --- | --- |")
        for name in names:
            for row in redis.row(name) if name in OnRedis.rows else getattr(bench, name)():
                print("| " + " | ".join(row) + " |", flush=True)
    print(f"\n{said}")


def soak(options, tools, app):
    """Many tasks, one in ten failing: memory and open files have to stay as they were."""
    app.forget()
    share = {"noop": 0.89, "true": 0.01, "trap": 0.07, "false": 0.03}
    chunk = 20_000
    samples, sent = [], 0
    with app.worker() as worker:
        print("| tasks sent | PSS, MB | open files | threads |\n| ---: | ---: | ---: | ---: |")
        while sent < options.tasks:
            for task, part in share.items():
                app.send(round(chunk * part), task)
            sent += chunk
            while app.query("SELECT count(*) FROM (SELECT 1 FROM kombu_message LIMIT 5000)")[0][0] == 5000:
                time.sleep(0.05)
            pids = tree(worker.pid)[:2]  # guard and worker; a task has ended when one looks
            files = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
            threads = sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids)
            samples.append((pss(pids), files))
            if sent % (options.tasks // 10 or 1) < chunk:
                print(f"| {sent:,} | {samples[-1][0] / 1e6:.1f} | {files} | {threads} |", flush=True)
        app.wait_until_empty()
    found = dict(app.query("SELECT status, count(*) FROM celery_taskmeta GROUP BY 1"))
    failing = sum(round(chunk * share[task]) for task in ("trap", "false")) * (sent // chunk)
    print(f"\n{sent:,} went in; {found} came out.")
    assert found == {"SUCCESS": sent - failing, "FAILURE": failing}
    # A sample may see ten processes with their pipes or none: medians of the halves.
    half = len(samples) // 2
    for name, column in zip(("PSS", "open files"), zip(*samples)):
        early, late = (statistics.median(part) for part in (column[len(column) // 10 : half], column[half:]))
        print(f"{name}: median {early:,.0f} in the first half, {late:,.0f} in the second; at most {max(column):,}")
        assert late <= early * 1.05, f"{name} grows"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    absolute = lambda path: str(pathlib.Path(path).resolve())
    parser.add_argument("qworker", type=absolute)
    parser.add_argument("helper", type=absolute)
    parser.add_argument("what", nargs="?", choices=["bench", "soak"], default="bench")
    parser.add_argument("--tasks", type=int, help="tasks in each run [default: 100,000; soak: 1,000,000]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", metavar="ROWS", help=",".join(ROWS))
    options = parser.parse_intermixed_args()
    options.tasks = options.tasks or {"bench": 100_000, "soak": 1_000_000}[options.what]
    # On a disk, as an application is; /tmp may be memory.
    with tempfile.TemporaryDirectory(prefix="qworker-bench-", dir=pathlib.Path(options.helper).parent) as folder:
        tools = Tools(options, pathlib.Path(folder))
        app = App(tools, pathlib.Path(folder) / "app")
        {"bench": bench, "soak": soak}[options.what](options, tools, app)


main()
