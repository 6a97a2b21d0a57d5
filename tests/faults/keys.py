"""What stays in the server after work, a crash and a stop; and what an idle worker asks of it."""

import os
import signal
import threading
import time
import uuid

import redis

from torture import until

from .ground import LISTS, QUEUE, Mint, application, tree

COMMANDS = 1.0  # a second, of an idle worker
CONNECTIONS = 3  # for commands, for waiting, for the watch over its queues
SETTLES = 40.0  # seconds until a dead worker is known to be dead
OLD = 15  # seconds without a sign of life


def living(admin):
    """Our workers with a sign of life that is not old."""
    now = admin.time()[0]
    return {name.decode() for name in admin.zrangebyscore("qworker.workers", now - OLD, "+inf")}


def owner(admin, key, instances):
    """Why a key may stay without an end; None: it may not."""
    name = key.decode("utf-8", "replace")
    if name.startswith("_kombu.binding") or name == "qworker.queues":
        return "queues that were declared"
    if name in LISTS or name == "qworker.dead" or name.startswith("qworker.scheduled."):
        return "a queue with something in it"  # Redis has no empty ones
    if name == "qworker.workers":
        return "the living" if admin.zcard(key) == len(instances) else None
    if name.startswith("qworker.worker."):
        return "a living worker's" if name.removeprefix("qworker.worker.") in instances else None
    if name in ("unacked", "unacked_index"):
        tags = admin.hkeys(name) if name == "unacked" else admin.zrange(name, 0, -1)
        return "held by the living" if {tag.decode().split(":")[0] for tag in tags} <= instances else None
    return None


def look(app, report, when):
    """Lists every key; each has an end or an owner."""
    admin, kept, orphans = app.server.admin, {}, []
    instances = living(admin)
    for key in admin.scan_iter(count=5000):
        ttl, kind = admin.pttl(key), admin.type(key).decode()
        why = "until its end" if ttl > 0 else owner(admin, key, instances)
        # Many of one kind are one line.
        name = key.decode("utf-8", "replace")
        name = "celery-task-meta-*" if name.startswith("celery-task-meta-") else name
        if why is None:
            orphans.append(f"{name} ({kind})")
        kept.setdefault((name, kind, why), []).append(ttl)
    for (name, kind, why), ttls in sorted(kept.items(), key=str):
        end = f", ends in {min(ttls) / 1000:.0f} s" if max(ttls) > 0 else ""
        print(f"keys: {when}: {len(ttls)} x {name!r} ({kind}): {why}{end}")
    leases = [path.name for path in app.temporary.rglob("*.lease")]
    report.check({name.removesuffix(".lease") for name in leases} == instances,
                 f"{when}: every lease is a living worker's ({len(leases)} leases, {len(instances)} living)")
    report.check(not orphans, f"{when}: every key has an end or an owner ({', '.join(sorted(set(orphans))) or 'all'})")
    return instances


class Monitor:
    """Every command that clients other than this process send."""

    def __init__(self, server, ours):
        self.said, self.ours, self.server = [], ours, server
        self.watch = redis.Redis(port=server.port)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        with self.watch.monitor() as monitor:
            for one in monitor.listen():
                if self.over.is_set():
                    return
                address = f"{one['client_address']}:{one['client_port']}"
                if one["client_type"] != "lua" and address not in self.ours:
                    self.said.append(one["command"])

    def stop(self):
        self.over.set()
        self.server.admin.ping()
        self.thread.join()
        self.watch.close()
        return self.said


def idle(app, report, seconds):
    """What a worker without work sends, and over how many connections."""
    admin = app.server.admin
    ours = {one["addr"] for one in admin.client_list()} - others(app)
    monitor = Monitor(app.server, ours)
    time.sleep(0.5)
    begin, before = time.monotonic(), admin.info("stats")["total_commands_processed"]
    monitor.said.clear()
    time.sleep(seconds)
    said = monitor.stop()
    span, total = time.monotonic() - begin, admin.info("stats")["total_commands_processed"] - before
    count, rate = len(others(app)), len(said) / span
    print(f"keys: idle for {span:.0f} s: {len(said)} commands sent, {total} run by the server, {count} connections: "
          f"{sorted({one.split()[0] for one in said})}")
    report.check(rate < COMMANDS, f"an idle worker sends under {COMMANDS:.0f} command a second ({rate:.2f})")
    report.check(0 < count <= CONNECTIONS, f"over at most {CONNECTIONS} connections ({count})")


def others(app):
    """Addresses of the connections of the worker's processes."""
    inodes = set()
    for pid in tree(app.worker.pid):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            link = os.readlink(entry.path)
            if link.startswith("socket:["):
                inodes.add(link[8:-1])
    found = set()
    for line in open("/proc/net/tcp").read().splitlines()[1:]:
        fields = line.split()
        local, inode = fields[1], fields[9]
        if inode in inodes:
            found.add(f"127.0.0.1:{int(local.split(':')[1], 16)}")
    return found


def push(app, mint, count):
    for _ in range(0, count, 500):
        app.server.admin.lpush(QUEUE, *(mint.message(str(uuid.uuid4())) for _ in range(500)))


def crashed(app):
    """Kills both processes, and starts a new one."""
    for pid in tree(app.worker.pid)[:2]:
        os.kill(pid, signal.SIGKILL)
    app.worker.wait()
    app.start()


def keys(options, report):
    # In less than this a few things that are done every five seconds make any rate.
    count, seconds = 1_000 if options.short else 10_000, 20
    with application(options, settings="task_max_deliveries: 1000\n") as app:
        mint = Mint(app.server, "true")
        app.start()
        assert until(app.is_working)
        push(app, mint, count)
        report.check(until(lambda: app.left()[0] == 0), f"{count} tasks are done")
        idle(app, report, seconds)
        look(app, report, "after the work")
        push(app, mint, 1000)
        time.sleep(0.2)
        crashed(app)
        begin = time.monotonic()
        report.check(until(lambda: app.left()[0] == 0), "after a crash all tasks are done")
        print(f"keys: {time.monotonic() - begin:.1f} s after the crash")
        until(lambda: app.server.admin.zcard("qworker.workers") == 1, SETTLES)
        known = look(app, report, "after the crash")
        report.check(len(known) == 1, f"one worker is known ({len(known)})")
        code = app.stop()
        report.check(code == 0, f"the worker ended with 0 ({code})")
        known = look(app, report, "after the stop")
        report.check(not known, f"no worker is known ({len(known)})")
        results = [key for key in app.server.admin.scan_iter("celery-task-meta-*", 5000)]
        report.check(len(results) >= count + 1000, f"each task has a result ({len(results)})")
