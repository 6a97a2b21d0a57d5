"""Kills workers, kills clients, fills the disk; nothing that was accepted may be lost.

    tests/torture.py QWORKER [--tasks N] [--kill-every SECONDS] [--seed N] [crash | disk]...

crash: tasks append their id to a file. Meanwhile the worker (its guard, the worker proper,
    or both) is killed every so often and started again at once, and every fourth client
    is killed while it sends. Each id that a client was told is accepted has to be there;
    twice only if its task ran when something was killed.
disk:  the application's disk, a small tmpfs (needs root), is filled by clients until they
    are refused, then served, then freed. What was accepted runs; what was refused does not.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import json
import os
import pathlib
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid

SLOTS = 10
PATIENCE = 60.0  # seconds in which what is left must be done once the harm is over

# The file is written by one call each, with O_APPEND: lines are whole.
TASKS = """
note:
  shell: echo "$1 $(date +%s%N) $PPID" >>"$NOTES"
  params: [id, {ballast: ""}]
"""


class App:
    """An application folder, its one worker, and what its tasks have noted."""

    broker = ()  # options that name another one than the file in the folder
    tasks = TASKS
    # A kill three times a second is no poisoned task: here nothing may be given up.
    settings = "task_max_deliveries: 1000\n"

    def __init__(self, qworker, folder, notes):
        self.qworker, self.folder, self.notes = qworker, pathlib.Path(folder), pathlib.Path(notes)
        (self.folder / "tasks.d").mkdir()
        (self.folder / "tasks.d/tasks.yaml").write_text(self.tasks)
        (self.folder / "qworker.yaml").write_text(self.settings)
        self.notes.touch()
        self.environment = {**os.environ, "NOTES": str(self.notes)}
        self.log = open(self.notes.with_suffix(".log"), "ab")
        self.worker = None

    def command(self, *words):
        return [self.qworker, "-A", self.folder, *self.broker, *words]

    def start(self):
        command = self.command("worker", "-c", str(SLOTS))
        self.worker = subprocess.Popen(command, env=self.environment, stdout=self.log, stderr=self.log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.worker and self.worker.poll() is None:
            self.worker.kill()
            self.worker.wait()
        # Its worker ends by itself; what is left of a trial that failed does not.
        until(lambda: not self.survivors(), 5)
        for pid in self.survivors():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.log.close()

    def is_ready(self):
        return subprocess.run(self.command("status"), stdout=self.log, stderr=self.log).returncode == 0

    def stop(self):
        """Stops it with TERM and gives its exit code."""
        until(self.is_ready)  # before that, TERM just ends it
        self.worker.terminate()
        return self.worker.wait(PATIENCE)

    def survivors(self):
        """Processes that a worker or one of its tasks has left."""
        mark = f"NOTES={self.notes}".encode()
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if mark in environment(pid)]

    def client(self, id, ballast=""):
        """A process that sends one task."""
        arguments = json.dumps([id, ballast] if ballast else [id])
        command = self.command("call", "note", "--task-id", id, "-a", arguments)
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def runs(self):
        """The nanoseconds at which each id was noted."""
        return {id: [at for at, _ in runs] for id, runs in self.runners().items()}

    def runners(self):
        """The same, each with the process id of the worker that ran it."""
        runs = collections.defaultdict(list)
        for line in self.notes.read_text().splitlines():
            id, at, worker = line.split()
            runs[id].append((int(at), int(worker)))
        return runs

    def left(self):
        """How many messages are in the store, and how many of them nobody may take."""
        with contextlib.closing(sqlite3.connect(self.folder / "var/qworker.sqlite", 30)) as file:
            count = "SELECT count(*), coalesce(sum(visible = 0), 0) FROM kombu_message"
            return file.execute(count).fetchone()

    def dead(self):
        with contextlib.closing(sqlite3.connect(self.folder / "var/qworker.sqlite", 30)) as file:
            return [row[0] for row in file.execute("SELECT task_id FROM qworker_dead")]


class Report:
    def __init__(self):
        self.failed = False

    def check(self, right, text):
        print(("ok      " if right else "FAILED  ") + text, flush=True)
        self.failed |= not right


def until(condition, patience=PATIENCE):
    """Asks until it is so; whether it became so."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def children(pid):
    try:
        return [int(child) for child in open(f"/proc/{pid}/task/{pid}/children").read().split()]
    except OSError:
        return []


def environment(pid):
    """The variables that a process was started with; none if it is gone."""
    try:
        return open(f"/proc/{pid}/environ", "rb").read().split(b"\0")
    except OSError:
        return []


def kill(app, chance):
    """Kills the guard, the worker proper, or both, and says which workers die of it; starts a
    guard that was hit."""
    guard, dying = app.worker.pid, children(app.worker.pid)[:1]
    victims = chance.choice([[guard], dying, [guard, *dying]])
    for victim in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        # One that loses its guard has begun to tidy up when it is hit itself.
        time.sleep(chance.choice([0, chance.uniform(0, 0.004)]))
    if guard in victims:
        app.worker.wait()
        app.start()
    return dying


def send(app, chance, accepted, unsure):
    """Sends one task; every fourth client is killed within the time that sending takes."""
    id = str(uuid.uuid4())
    client = app.client(id)
    if chance.random() < 0.25:
        time.sleep(chance.uniform(0, 0.02))
        client.kill()
    complaint = client.communicate()[1]
    if client.returncode == 0:
        accepted.append(id)
    elif client.returncode == -signal.SIGKILL:
        unsure.append(id)
    else:
        raise RuntimeError(f"refused: {complaint}")


def crash(options, report, App=App):
    chance = random.Random(options.seed)
    accepted, unsure, kills = [], [], []
    with tempfile.TemporaryDirectory(prefix="qworker-torture-") as folder:
        (pathlib.Path(folder) / "app").mkdir()
        with App(options.qworker, f"{folder}/app", f"{folder}/notes") as app:
            app.start()
            with concurrent.futures.ThreadPoolExecutor(4) as clients:
                sent = [clients.submit(send, app, chance, accepted, unsure) for _ in range(options.tasks)]
                # Until all is sent and nearly done; always a few times.
                while not all(one.done() for one in sent) or app.left()[0] > SLOTS or len(kills) < 5:
                    time.sleep(options.kill_every)
                    kills.append(kill(app, chance))
                for one in sent:
                    one.result()
            # The last kill may have left no worker that could end as it should; who runs one more can.
            accepted.append(last := str(uuid.uuid4()))
            app.client(last).communicate()
            settled = until(lambda: last in app.runs() and app.left()[0] == 0)
            code = app.stop()
            # Who was killed dies when a busy machine gets to it.
            until(lambda: not app.survivors(), 5)
            survivors = [what(pid) for pid in app.survivors()]
            runs, (left, held), dead = app.runners(), app.left(), app.dead()

    lost = [id for id in accepted if id not in runs]
    strangers = set(runs) - set(accepted) - set(unsure)
    twice = {id: of for id, of in runs.items() if len(of) > 1}
    # The worker of each run but the last of an id: its death made it run again.
    died = collections.Counter(worker for of in twice.values() for _, worker in of[:-1])
    alive = set(died) - {worker for dying in kills for worker in dying}
    print(f"crash: {len(accepted)} accepted, {len(unsure)} clients killed "
          f"({sum(id in runs for id in unsure)} of their tasks ran), {len(kills)} kills, "
          f"{len(twice)} ids ran more than once, at most {max(died.values(), default=0)} a kill")
    report.check(not lost, f"every accepted id is there ({len(lost)} are not)")
    report.check(not strangers, "nothing ran that nobody sent")
    report.check(not alive, f"only what a killed worker ran is run again ({len(alive)} others' was)")
    report.check(all(n <= SLOTS for n in died.values()), f"at most {SLOTS} ran twice because of one kill")
    report.check(settled and left == 0, f"no message is left ({left}, {held} of them held)")
    report.check(not dead, f"none is in the dead-letter list ({len(dead)} are)")
    report.check(code == 0, f"the last worker ended with 0 ({code})")
    report.check(not survivors, f"no process outlives the workers ({len(survivors)} do: {', '.join(survivors) or 'nobody'})")


def what(pid):
    """A process as a person would ask for it."""
    with contextlib.suppress(OSError):
        words = open(f"/proc/{pid}/cmdline").read().replace("\0", " ").strip()
        how = open(f"/proc/{pid}/status").read().split("State:")[1].split("\n")[0].strip()
        return f"{pid} {words!r} {how}"
    return f"{pid} is gone"


def disk(options, report):
    accepted, refused = [], []
    with tempfile.TemporaryDirectory(prefix="qworker-torture-") as folder:
        mount = pathlib.Path(folder) / "app"
        mount.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={options.disk_mib}m", "tmpfs", mount], check=True)
        try:
            with App(options.qworker, mount, f"{folder}/notes") as app:
                # A third of the disk, to be freed later: more than the log of the store may
                # grow to, since what is in the log has to find a place in the file.
                (mount / "ballast").write_bytes(bytes(options.disk_mib * (1 << 20) // 3))

                def offer():
                    id = str(uuid.uuid4())
                    client = app.client(id, "x" * 100_000)
                    complaint = client.communicate()[1]
                    (refused if client.returncode else accepted).append(id)
                    return complaint

                while len(refused) < 3:
                    complaint = offer()
                print(f"disk: {len(accepted)} accepted before the disk was full; then: {complaint.strip()}")
                app.start()
                time.sleep(2)
                offer()
                # It starts with a row of its own, for which there may be no room; a
                # supervisor would start it again.
                code = app.worker.poll()
                report.check(code in (None, 69), f"the worker lives on a full disk, or could not start ({code})")
                done = sum(id in app.runs() for id in accepted)
                print(f"disk: {done} of {len(accepted)} ran while it was full")
                (mount / "ballast").unlink()
                if code is not None:
                    app.start()
                ran = until(lambda: all(id in app.runs() for id in accepted))
                report.check(ran, "all that was accepted ran once there was room")
                report.check("full" in complaint, "who was refused was told why")
                report.check(not any(id in app.runs() for id in refused), "what was refused did not run")
                before = len(refused)
                offer()
                report.check(len(refused) == before, "afterwards tasks are accepted again")
                until(lambda: app.left()[0] == 0)
                code, (left, invisible) = app.stop(), app.left()
                report.check(left == 0, f"no message is left ({left}, {invisible} of them invisible)")
                report.check(code == 0, f"the worker ended with 0 ({code})")
                repeated = sum(len(times) > 1 for times in app.runs().values())
                print(f"disk: {repeated} ids ran more than once")
        finally:
            subprocess.run(["umount", "--lazy", mount], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qworker", type=lambda path: str(pathlib.Path(path).resolve()))
    parser.add_argument("trials", nargs="*", default=["crash", "disk"], metavar="crash | disk")
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--kill-every", type=float, default=0.3)
    parser.add_argument("--disk-mib", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_intermixed_args()
    # What was started is stopped, and the disk is unmounted, when this is told to stop.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    report = Report()
    for trial in options.trials:
        {"crash": crash, "disk": disk}[trial](options, report)
    sys.exit(report.failed)


if __name__ == "__main__":
    main()
