"""Hundreds of thousands of tasks for later do not delay those for now behind them."""

import datetime
import json
import threading
import time
import uuid

from torture import PATIENCE, until

from .ground import HOUR, QUEUE, Mint, application, pss

LATER, NOW = 200_000, 1_000
MEMORY = 30.0  # MB
BATCH = 1_000


class Watch:
    """The most memory that a worker has had, looked at ten times a second."""

    def __init__(self, pid):
        self.pid, self.most, self.over = pid, 0.0, threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        while True:
            over = self.over.wait(0.1)
            self.most = max(self.most, pss(self.pid))
            if over:
                return

    def stop(self):
        self.over.set()
        self.thread.join()
        return self.most


def push_later(app, count):
    """As a Python producer does."""
    eta = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=HOUR)
    mint = Mint(app.server, "noop", eta=eta)
    for _ in range(0, count, BATCH):
        app.server.admin.lpush(QUEUE, *(mint.message(str(uuid.uuid4())) for _ in range(BATCH)))
    return True


def call_later(app, count):
    """As `qworker call --from-jsonl` does; False if there is no such option."""
    if "--from-jsonl" not in app.run("call", "--help").stdout:
        return False
    path = app.folder / "later.jsonl"
    path.write_text("".join(json.dumps({"countdown": HOUR}) + "\n" for _ in range(count)))
    done = app.run("call", "noop", "--from-jsonl", path, limit=600)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return True


def push_now(app, ready):
    """Pushes the immediate ones; gives when the last was pushed."""
    app.server.admin.lpush(QUEUE, *ready.values())
    return time.monotonic()


def done(app, ids):
    keys = [f"celery-task-meta-{id}" for id in ids]
    return app.server.admin.exists(*keys)


def flood(options, report):
    count = LATER // 20 if options.short else LATER
    for way in (push_later, call_later):
        for running in (True, False):
            one(options, report, way, running, count)


def one(options, report, way, running, count):
    name = f"{count} by {'LPUSH' if way is push_later else 'qworker call'}, " \
           f"worker {'running' if running else 'started afterwards'}"
    with application(options) as app:
        mint = Mint(app.server, "noop")
        ready = {id: mint.message(id) for id in (str(uuid.uuid4()) for _ in range(NOW))}
        app.start()
        assert until(app.is_working) and app.run("call", "noop", "--wait").returncode == 0
        if not running:
            app.stop()
        watch = Watch(app.worker.pid)
        begin = time.monotonic()
        if not way(app, count):
            return print("flood: there is no `qworker call --from-jsonl`")
        pushing = time.monotonic() - begin
        since = push_now(app, ready)
        if not running:
            app.start()
            watch = Watch(app.worker.pid)
        ended = until(lambda: done(app, ready) == NOW)
        took = time.monotonic() - since
        parked = until(lambda: app.waiting() == count, PATIENCE)
        settled = time.monotonic() - since
        most, rest = watch.stop(), pss(app.worker.pid)
        print(f"flood: {name}: pushed in {pushing:.1f} s; the {NOW} for now done after {took:.2f} s, all others put "
              f"by after {settled:.2f} s; at most {most:.1f} MB, then {rest:.1f} MB")
        report.check(ended, f"{name}: all {NOW} ran")
        if running:
            report.check(took < 1, f"{name}: in under 1 s ({took:.2f} s)")
        report.check(parked and app.held() == 0, f"{name}: the others wait ({app.waiting()}, {app.held()} held)")
        report.check(most < MEMORY, f"{name}: under {MEMORY:.0f} MB ({most:.1f} MB)")
        code = app.stop()
        report.check(code == 0 and app.waiting() == count, f"{name}: after the worker they still wait ({code})")
