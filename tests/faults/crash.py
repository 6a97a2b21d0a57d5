"""Workers and clients are killed, as in tests/torture.py, on Redis."""

import contextlib
import os
import random
import signal
import time
import uuid

import torture
from torture import until

from .ground import QUEUE, App, Mint, application


def crash(options, report):
    torture.crash(options, report, App)


def survivors(options, report):
    """A worker that has lost its guard tidies up; killed just then, it leaves nobody."""
    chance, found = random.Random(options.seed), []
    rounds = 30 if options.short else 600
    with application(options, settings="task_max_deliveries: 100000\n") as app:
        mint = Mint(app.server, "true")
        for _ in range(rounds):
            missing = max(0, 1000 - app.server.admin.llen(QUEUE))
            app.server.admin.lpush(QUEUE, *(mint.message(str(uuid.uuid4())) for _ in range(missing + 1)))
            results = app.server.admin.dbsize()
            app.start()
            until(lambda: app.server.admin.dbsize() > results + 100)
            guard, proper = app.worker.pid, app.proper()
            os.kill(guard, signal.SIGKILL)
            time.sleep(chance.uniform(0, 0.003))
            os.kill(proper, signal.SIGKILL)
            app.worker.wait()
            until(lambda: not app.survivors(), 1)
            for pid in app.survivors():
                found.append(f"{pid}, {state(pid)}")
                os.kill(pid, signal.SIGKILL)
        app.start()
        settled = until(lambda: app.left()[0] == 0)
        code = app.stop()
    print(f"survivors: {rounds} guards and, within 3 ms, their workers killed while processes were started; "
          f"outlived by {len(found)}: {'; '.join(found) or 'nobody'}")
    report.check(not found, f"nobody outlives guard and worker ({len(found)} did)")
    report.check(settled and code == 0, f"all that was accepted ran afterwards ({code})")


def state(pid):
    """What it is, how it is, and whether it holds its worker's lease."""
    with contextlib.suppress(OSError):
        held = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")]
        how = open(f"/proc/{pid}/status").read().split("State:")[1].split("\n")[0].strip()
        lease = "holds the lease" if any(path.endswith(".lease") for path in held) else "without the lease"
        return f"{os.path.basename(os.readlink(f'/proc/{pid}/exe'))}, {how}, {lease}"
    return "gone"
