"""Many named workers: `qworker multi` beside `celery multi`, on the Redis of the benchmark."""

import os
import pathlib
import signal
import subprocess
import tempfile
import time

from measures import cpu, pss, tree
from parties import PEERS, SLOTS

NODES = 20
QUIET = 10  # seconds that a detached worker is watched


class Fleet:
    """Nodes of one party, with their files in a folder of their own."""

    def __init__(self, words, environ):
        self.words, self.environ = [str(word) for word in words], environ

    def multi(self, folder, *words):
        files = [f"--pidfile={folder}/%n.pid", f"--logfile={folder}/%n.log"]
        done = subprocess.run([*self.words, "multi", *words, "-l", "INFO", *files], env=self.environ, cwd=PEERS,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise RuntimeError(f"multi {words[0]} ended with {done.returncode}:\n{done.stdout}")

    def started(self, count, concurrency):
        """Seconds until all are ready, seconds until all have ended, and the guards' numbers in between are looked at
        by `look`; gives both times and what it saw."""
        with tempfile.TemporaryDirectory() as name:
            folder, start = pathlib.Path(name), time.monotonic()
            self.multi(folder, "start", str(count), "-c", str(concurrency))
            while sum("ready." in file.read_text() for file in folder.glob("*.log")) < count:
                time.sleep(0.01)
            up = time.monotonic() - start
            pids = [int(file.read_text()) for file in folder.glob("*.pid")]
            try:
                assert len(pids) == count, f"{len(pids)} pidfiles of {count}"
                yield up, [one for pid in pids for one in tree(pid)]
                start = time.monotonic()
                self.multi(folder, "stopwait", str(count))
                yield time.monotonic() - start
            except Exception:
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                raise

    def fleet(self):
        """Seconds up, seconds down, bytes of all."""
        steps = self.started(NODES, 1)
        up, pids = next(steps)
        memory = pss(pids)
        down = next(steps)
        return up, down, memory

    def alone(self):
        """Of one detached worker without work: bytes, and its share of a core."""
        steps = self.started(1, SLOTS)
        _, pids = next(steps)
        time.sleep(2)
        spent = cpu(pids)
        time.sleep(QUIET)
        share, memory = (cpu(pids) - spent) / QUIET, pss(pids)
        next(steps)
        return memory, share
