"""What can happen to a worker, most of it on Redis; nothing that was accepted may be lost. And
what can happen to beats; each occurrence is sent once.

    tests/faults.py QWORKER [--seed N] [--short] TRIAL...

crash:     workers and clients are killed while tasks are sent and run (as tests/torture.py does).
survivors: guard and worker are killed within some milliseconds while they start processes.
restart:   the server is killed and ended five times under load.
full:      the server has no memory for more.
cuts:      60 times the network between worker and server breaks or stalls; nothing runs twice.
partition: of two workers on two hosts one is cut off until it is taken for dead.
client:    `qworker call` where nobody answers, or nobody may: it ends in time and says why.
mutants:   thousands of broken messages; all are accounted for, and the worker stays as it was.
flood:     200,000 tasks for later, and 1,000 for now behind them.
keys:      what stays in the server after work, a crash and a stop; what an idle worker asks.
mixed:     a Python worker with a visibility timeout of 2 s on the same queue.
fleet:     Python workers and ours on one queue, with 2,000 tasks that only Python knows, while ours
           are killed: each runs, and none is failed or kept.
multi:     eight `qworker multi` commands at once on the same five nodes, and a KILL of one of them.
cycles:    300 times a worker is started and, at any moment, ended by TERM with 2 s of grace.
orphans:   worker, guard or both are killed with 20 tasks that ignore TERM and have grandchildren.
reload:    50 times HUP under load, with new tasks, new settings, and broken ones.
helpers:   whoever compiles a module is killed while it does.
descriptors: what a task has open, of a worker with all that it may have open.
first:     the worker is process 1 of a container, its tasks fork twice.
beside:    two minutes of Celery's beat and of ours with the same schedule: the same sendings.
state:     beats are killed while they write what they know, in a file and in the store; the file is
           damaged in every way, and its disk is full.
rotation:  the log is rotated 1,000 times under load.
beats:     of three beats two are stopped or killed at a time; each occurrence is sent once, and
           there is no gap over 2 s.
edits:     the files of 200 entries are edited, broken, and written in parts under two beats.
outage:    the broker does not answer for 30 s; what was missed is sent as each entry's rule says.
lostredis: the server of three beats is emptied 20 times, or starts again without anything.

Each trial but multi, helpers, first and rotation has a redis-server of its own; cycles, orphans, reload,
descriptors, beats, edits and outage are done on SQLite too. Needs a Python with celery and redis: target/venv.
"""

import argparse
import os
import pathlib
import signal
import sys
import time

import torture
from faults.beats import beats, lostredis
from faults.beside import beside
from faults.client import client
from faults.crash import crash, survivors
from faults.cuts import cuts
from faults.entries import edits, outage
from faults.fleet import fleet
from faults.flood import flood
from faults.keys import keys
from faults.life import cycles, descriptors, first, helpers, orphans, reload
from faults.mixed import mixed
from faults.multi import multi
from faults.mutants import mutants
from faults.partition import partition
from faults.restart import full, restart
from faults.rotation import rotation
from faults.state import state

ALL = (crash, survivors, restart, full, cuts, partition, client, mutants, flood, keys, mixed, fleet, multi,
       cycles, orphans, reload, helpers, descriptors, first, rotation, beats, lostredis, edits, outage, state,
       beside)
TRIALS = {trial.__name__: trial for trial in ALL}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qworker", type=lambda path: str(pathlib.Path(path).resolve()))
    parser.add_argument("trials", nargs="*", default=list(TRIALS), metavar="TRIAL")
    parser.add_argument("--short", action="store_true", help="some seconds of each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tasks", type=int, help="of crash [2000; 800 when short]")
    parser.add_argument("--kill-every", type=float, default=0.3, help="seconds, of crash")
    parser.add_argument("--fsync", choices=["always", "everysec"], default="always", help="of restart")
    parser.add_argument("--cuts", type=int, help="how many [60; 12 when short]")
    parser.add_argument("--keep", metavar="FOLDER", help="copy what a trial leaves to this new folder")
    options = parser.parse_intermixed_args()
    options.tasks = options.tasks or (800 if options.short else 2000)
    options.cuts = options.cuts or (12 if options.short else 60)
    unknown = [name for name in options.trials if name not in TRIALS]
    if unknown:
        parser.error(f"no trial {unknown[0]}; there are {', '.join(TRIALS)}")
    for name in [name for name in os.environ if name.startswith("QWORKER_")]:
        del os.environ[name]
    os.environ["NO_COLOR"] = "1"
    # What was started is stopped when this is told to stop.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    report = torture.Report()
    for name in options.trials:
        begin = time.monotonic()
        TRIALS[name](options, report)
        print(f"{name}: {time.monotonic() - begin:.0f} s", flush=True)
    sys.exit(report.failed)


if __name__ == "__main__":
    main()
