"""The server is killed and ended under load; a worker goes on by itself, and nothing is lost."""

import random
import signal
import time

from torture import until

from .ground import RESUMES, Load, Mint, application, judge, settle

# Seconds without a server: nearly none, within a client's patience, beyond it.
PAUSES = [0.0, 1.5, 7.0, 3.0, 0.3]


def restart(options, report):
    chance = random.Random(options.seed)
    with application(options, "--appendonly", "yes", "--appendfsync", options.fsync) as app:
        mints = {name: Mint(app.server, name, args) for name, args in (("note", []), ("long", [4]))}
        app.start()
        assert until(app.is_ready)
        before = app.proper()
        load = Load(app)
        for _ in range(3):
            load.every(0.05, lambda: load.call("note"))
        load.every(0.03, lambda: load.push(mints["note"]))
        load.every(1.0, lambda: load.push(mints["long"]))
        gaps = []
        for number, pause in enumerate(PAUSES[:2] if options.short else PAUSES):
            time.sleep(chance.uniform(1.0, 2.5))
            cut = time.time_ns()
            how = (signal.SIGKILL, signal.SIGTERM)[number % 2]
            app.server.end(how)
            time.sleep(pause)
            app.server.start()
            gaps.append(load.resumed(cut, time.time_ns()))
            print(f"restart: {how.name}, {pause} s without a server; "
                  f"the worker works {seconds(gaps[-1])} after its return")
        load.stop()
        same = app.proper() == before
        settle(report, app)
        print(f"restart: appendfsync {options.fsync}, {len(load.accepted)} accepted, {len(load.unsure)} refused "
              f"{dict(load.complaints)}")
        judge(report, app, load.accepted, load.unsure)
        report.check(same, "no worker died")
        report.check(all(gap is not None and gap < RESUMES for gap in gaps),
                     f"the worker works again within {RESUMES} s ({', '.join(map(seconds, gaps))})")


def seconds(gap):
    return "never" if gap is None else f"{gap:.2f} s"


def full(options, report):
    """The server has no memory for more, again and again; what it refuses, it says."""
    chance = random.Random(options.seed)
    with application(options) as app:
        note, long = Mint(app.server, "note"), Mint(app.server, "long", [3])
        app.start()
        assert until(app.is_ready)
        load, gaps = Load(app), []
        load.every(0.01, lambda: load.push(note))
        load.every(0.2, lambda: load.call("note"))
        load.every(1.0, lambda: load.push(long))
        for _ in range(2 if options.short else 6):
            time.sleep(2)
            app.server.admin.config_set("maxmemory", 1)
            cut = time.time_ns()
            time.sleep(chance.choice([0.5, 2] if options.short else [0.5, 4, 8]))
            app.server.admin.config_set("maxmemory", 0)
            gaps.append(load.resumed(cut, time.time_ns()))
        load.stop()
        settle(report, app)
        print(f"full: {len(load.accepted)} accepted, {len(load.unsure)} refused {dict(load.complaints)}")
        judge(report, app, load.accepted, load.unsure)
        report.check(all(gap is not None and gap < RESUMES for gap in gaps),
                     f"the worker works again within {RESUMES} s ({', '.join(map(seconds, gaps))})")
