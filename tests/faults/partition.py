"""Of two workers on two hosts one is cut off until the other one takes it for dead."""

import subprocess
import time

from torture import SLOTS, until

from .ground import Load, Mint, application, some
from .proxy import Proxy
from .restart import seconds


def another_host(app, broker):
    """A worker as on another host: it sees no lease of this one."""
    elsewhere = app.folder.parent / "elsewhere"
    elsewhere.mkdir()
    command = [app.qworker, "-A", app.folder, "-b", broker, "worker", "-c", str(SLOTS), "-n", "far@elsewhere"]
    environment = {**app.environment, "TMPDIR": str(elsewhere)}
    return subprocess.Popen(command, env=environment, stdout=app.log, stderr=app.log)


def taken_over(app, ids, patience):
    """Seconds until one of them began for the second time."""
    begin = time.monotonic()
    until(lambda: any(len(app.runs()[id]) > 1 for id in ids), patience)
    return time.monotonic() - begin


def partition(options, report):
    with application(options) as app, Proxy(app.server.port) as proxy:
        far = another_host(app, proxy.url)
        # It gets these for itself, and runs them for longer than it is cut off.
        load, note, long = Load(app), Mint(app.server, "note"), Mint(app.server, "long", [45])
        ids = [load.push(long) for _ in range(3)]
        assert until(lambda: all(app.runs()[id] for id in ids))
        app.start()
        assert until(lambda: app.run("status").stdout.count("OK") == 2)
        load.every(0.02, lambda: load.push(note))
        time.sleep(2)
        proxy.stall(new_too=True)
        app.say("cut off")
        took = taken_over(app, ids, 40)
        time.sleep(max(0, 30 - took))
        cut = time.time_ns()
        proxy.flow()
        app.say("back")
        load.stop()
        settled = until(lambda: app.left()[0] == 0, 90)
        left = app.left()
        known = app.run("status").stdout.count("OK")
        far.terminate()
        codes = (app.stop(), far.wait(60))
        runs, lines = app.runs(), app.lines()
        ends = {line.id: line.at for line in lines if line.what == "end"}
    lost = sorted(load.accepted - set(runs))
    twice = sorted(id for id, times in runs.items() if len(times) > 1)
    print(f"partition: {len(load.accepted)} accepted; what the one held that was cut off was taken over "
          f"after {seconds(took)}; {len(twice)} ran twice, {len(set(twice) & set(ids))} of the 3 long ones; "
          f"{sum(at > cut for at in ends.values())} of those ended after the cut")
    report.check(not lost, f"every accepted id is there ({len(lost)} are not{some(lost)})")
    report.check(len(twice) <= SLOTS, f"only what it held ran twice ({len(twice)} did)")
    report.check(all(len(times) <= 2 for times in runs.values()), "none ran three times")
    report.check(settled, f"no message is left {left}")
    report.check(known == 2, f"afterwards both are known ({known})")
    report.check(codes == (0, 0), f"both ended with 0 {codes}")
