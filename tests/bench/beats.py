"""Schedules: `qworker beat` beside `celery beat`, on the Redis of the benchmark, both with their own defaults."""

import contextlib
import json
import os
import pathlib
import random
import subprocess
import tempfile
import time

from measures import cpu, pss, run, tree
from parties import PEERS

MANY = 100_000  # entries of all kinds, hardly one of which is due
EACH_SECOND = 10_000  # entries that are due each second
FEW = 1000  # of Celery's, that it keeps up with
SETTLE = 3  # seconds until what is measured is usual
SPAN = 10  # seconds


def mixed():
    """Intervals and crontabs as people have them, the same in each run."""
    chance = random.Random(1)
    for number in range(MANY):
        minute, hour, day = chance.randrange(60), chance.randrange(24), chance.randrange(1, 29)
        schedule = [f"{chance.randrange(100_000, 400_000)}.0", f'{{crontab: "{minute} {hour} * * *"}}',
                    f'{{crontab: "{minute} {hour} * * mon-fri"}}', f'{{crontab: "{minute} {hour} {day} * *"}}'][number % 4]
        yield f"  entry-{number}: {{task: quiet, schedule: {schedule}, args: [{number}]}}\n"


class Beats:
    """Who sends by a schedule, each with its files in a folder of its own."""

    def __init__(self, server, python, environ, qworker=None):
        self.server, self.python, self.environ, self.qworker = server, python, environ, qworker

    @contextlib.contextmanager
    def started(self, command, **more):
        """A process, killed in the end: what it does at its end is not measured."""
        process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, **more)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def load(self):
        """Of a beat with many entries: seconds from its exec until they are loaded, the first time and the second,
        bytes, the most bytes, and its share of a core without work."""
        with tempfile.TemporaryDirectory() as name:
            file = pathlib.Path(name) / "schedule.yaml"
            file.write_text("entries:\n" + "".join(mixed()))
            self.server.clear()
            first, *_ = self.loaded(file, 0)
            second, *quiet = self.loaded(file, SPAN)
            return first, second, *quiet

    def loaded(self, file, span):
        begin = time.monotonic()
        command = [*self.qworker, "beat", "-l", "INFO", "--entries", file]
        with self.started(command, stderr=subprocess.PIPE, text=True) as beat:
            line = next((line for line in beat.stderr if "beat: loaded" in line), "")
            took = time.monotonic() - begin
            assert f"loaded {MANY} entries" in line, line
            time.sleep(SETTLE if span else 0)
            pids, begin = tree(beat.pid), time.monotonic()
            spent, memory = cpu(pids), pss(pids)
            time.sleep(span)
            share = (cpu(pids) - spent) / max(time.monotonic() - begin, 0.001)
            peak = next(line for line in open(f"/proc/{beat.pid}/status") if line.startswith("VmHWM"))
            return took, memory, 1024 * int(peak.split()[1]), share

    def paced(self, command, count, environ):
        """Sendings per second with so many entries of a second, the share of a core that they cost, and how late
        they are, in ms: the median and the 99th percentile, if they tell what they were due at."""
        self.server.clear()
        with self.started(command, stderr=subprocess.DEVNULL, env=environ, cwd=PEERS) as beat:
            while self.server.ask("LLEN", "celery") == ["0"]:
                time.sleep(0.05)
            time.sleep(SETTLE)
            pids, begin = tree(beat.pid), time.monotonic()
            spent = cpu(pids)
            said = json.loads(run(self.python, PEERS / "consume.py", self.server.port, SPAN))
            share = (cpu(pids) - spent) / (time.monotonic() - begin)
        assert not said["twice"], said
        return said["count"] / SPAN, share, *(said["late_ms"] or (0, 0))

    def ours(self):
        with tempfile.TemporaryDirectory() as name:
            file = pathlib.Path(name) / "schedule.yaml"
            entries = (f"  entry-{number}: {{task: quiet, schedule: 1.0}}\n" for number in range(EACH_SECOND))
            file.write_text("entries:\n" + "".join(entries))
            command = [*self.qworker, "beat", "-l", "WARNING", "--entries", file]
            return self.paced(command, EACH_SECOND, os.environ)

    def celery(self, count):
        with tempfile.TemporaryDirectory() as name:
            command = [self.python, "-m", "celery", "-A", "celery_app", "beat", "-l", "WARNING", "-s", f"{name}/state"]
            return self.paced(command, count, self.environ | {"BENCH_ENTRIES": str(count)})
