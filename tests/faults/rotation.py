"""The log is rotated under a busy worker: every line is there, once, and whole."""

import collections
import os
import pathlib
import re
import shutil
import signal
import time

from torture import until

from .life import FileApp, place, send, start

LINE = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}[+-]\d\d:\d\d: [A-Z]+/MainProcess\] .*")


def stand_still(pid):
    """Stops it; what it was about to write is written when this returns."""
    os.kill(pid, signal.SIGSTOP)

    def is_stopped():
        states = [open(f"/proc/{pid}/task/{one}/stat").read().rsplit(")", 1)[1].split()[0]
                  for one in os.listdir(f"/proc/{pid}/task")]
        return set(states) <= {"T", "t"}
    assert until(is_stopped, 10)


def by_rename(log, aside, pid):
    log.rename(aside)


def by_copy(log, aside, pid):
    # What is written between the two steps is lost whoever writes it; here nothing is.
    stand_still(pid)
    shutil.copyfile(log, aside)
    os.truncate(log, 0)
    os.kill(pid, signal.SIGCONT)


def rotation(options, report):
    rounds = 50 if options.short else 1000
    for how in (by_rename, by_copy):
        # What is taken ahead may be given back, and is received twice.
        with place(options, FileApp, "worker_disable_prefetch: true\n") as app:
            folder = pathlib.Path(app.notes).parent / "logs"
            folder.mkdir()
            log, ids, number = folder / "worker.log", [], 0
            start(app, "-f", str(log))
            pid, begin = app.proper(), time.monotonic()
            while number < rounds:
                ids += send(app, "true", 1000)
                while number < rounds and app.left()[0] > 50:
                    # One that has something in it: under load that is soon.
                    if until(lambda: log.exists() and log.stat().st_size > 0, 0.5):
                        number += 1
                        how(log, folder / f"worker.log.{number}", pid)
            took = time.monotonic() - begin
            settled, code = until(lambda: app.left()[0] == 0), app.stop()
            texts = [path.read_text() for path in folder.iterdir()]
        lines = [line for text in texts for line in text.splitlines()]
        torn = [line for line in lines if not LINE.fullmatch(line)]
        torn += [text[-80:] for text in texts if text and not text.endswith("\n")]
        count = collections.Counter((what, id) for line in lines
                                    for id, what in re.findall(r"Task true\[([^]]+)\] (\w+)", line))
        right = {(what, id): 1 for id in ids for what in ("received", "succeeded")}
        others = len(lines) - sum(count.values())
        print(f"rotation: {how.__name__}: {number} times in {took:.0f} s, {len(ids)} tasks, {len(lines)} lines, "
              f"{others} of them about the worker")
        report.check(not torn, f"{how.__name__}: every line is whole ({torn[:2]})")
        report.check(count == right, f"{how.__name__}: each of {len(right)} lines is there once "
                                     f"({len(right.keys() - count.keys())} are not, "
                                     f"{sum(n > 1 for n in count.values())} more than once)")
        report.check(settled and code == 0, f"{how.__name__}: the worker ended with 0 ({code})")
