"""Beats that are stopped and killed, edited, cut off, and whose broker forgets. On SQLite and on Redis.

Nothing consumes the messages: they are read where they wait, some milliseconds after they were sent."""

import collections
import contextlib
import datetime
import json
import pathlib
import random
import re
import signal
import sqlite3
import subprocess
import threading
import time

import redis

from torture import PATIENCE, until

from .ground import QUEUE, some
from .life import FileApp, RedisApp, name_of, on_both, place

GAP = 2.0  # seconds within which another beat sends on
SECOND = 1_000_000  # in microseconds, as all instants here
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

Sending = collections.namedtuple("Sending", "name due at args")


class Beat:
    """One `qworker beat` with a log of its own, started again and again."""

    def __init__(self, app, name, *words):
        self.app, self.words, self.process = app, words, None
        self.path = pathlib.Path(app.notes).parent / f"{name}.log"

    def start(self, broker=None):
        self.begun = self.path.stat().st_size if self.path.exists() else 0
        command = self.app.command("beat", "-l", "INFO", *self.words)
        if broker:
            command[command.index("-b") + 1] = broker
        with open(self.path, "ab") as log:
            self.process = subprocess.Popen(command, env=self.app.environment, stdout=log, stderr=log)
        self.wakes = None
        return self

    def log(self):
        """What it has said since it was started last."""
        with open(self.path, errors="replace") as log:
            log.seek(self.begun)
            return log.read()

    def is_loaded(self):
        return "beat: loaded" in self.log()

    def is_at_work(self):
        return self.process.poll() is None and self.wakes is None and self.is_loaded()

    def stop(self, seconds):
        self.process.send_signal(signal.SIGSTOP)
        # It first ends the system call that it is in, which may be the one that gets a lock.
        assert until(self.is_stopped)
        self.wakes = time.monotonic() + seconds

    def is_stopped(self):
        """Every thread of it; or it is dead."""
        if self.process.poll() is not None:
            return True
        threads = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/stat")
        try:
            return all(stat.read_text().rsplit(")", 1)[1].split()[0] in "TZX" for stat in threads)
        except OSError:
            return False  # One has ended meanwhile.

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)
        self.wakes = None

    def kill(self):
        self.process.kill()
        self.process.wait()

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def end(self):
        """Its exit code after TERM."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        return self.process.wait(PATIENCE)


class Watch:
    """Takes down what arrives in the queue, and when."""

    def __init__(self, app):
        self.app, self.sendings, self.seen, self.over = app, [], 0, threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.look = self.look_at_redis if isinstance(app, RedisApp) else self.look_at_file
        self.trouble = None

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        if self.trouble:
            raise self.trouble

    def work(self):
        try:
            while not self.over.wait(0.01):
                self.look()
            self.look()
        except Exception as error:
            self.trouble = error

    def look_at_redis(self):
        with contextlib.suppress(redis.exceptions.ConnectionError):
            pipe = self.app.server.admin.pipeline(transaction=True)
            found, count = pipe.lrange(QUEUE, 0, -self.seen - 1).llen(QUEUE).execute()
            if count < self.seen:
                # It was emptied.
                self.seen = 0
                return self.look_at_redis()
            self.seen = count
            self.note(reversed(found))

    def look_at_file(self):
        path = self.app.folder / "var/qworker.sqlite"
        if not path.exists():
            return  # Whoever sends first makes it.
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", 30, uri=True)) as file:
            if not file.execute("SELECT 1 FROM sqlite_master WHERE name = 'kombu_message'").fetchall():
                return
            sql = "SELECT id, payload FROM kombu_message WHERE id > ? ORDER BY id"
            found = file.execute(sql, [self.seen]).fetchall()
        if found:
            self.seen = found[-1][0]
        self.note(payload for _, payload in found)

    def note(self, payloads):
        at = time.time_ns() // 1000
        for payload in payloads:
            headers = json.loads(payload)["headers"]
            name, due = headers["qworker_occurrence"].rsplit("@", 1)
            due = (datetime.datetime.fromisoformat(due) - EPOCH) // datetime.timedelta(microseconds=1)
            self.sendings.append(Sending(name, due, at, headers["argsrepr"]))

    def has(self, count):
        """Was each entry that has been sent at all sent so many times?"""
        found = self.of()
        return bool(found) and all(len(sendings) >= count for sendings in found.values())

    def of(self):
        """What was sent of each entry, in its order."""
        found = collections.defaultdict(list)
        for sending in self.sendings:
            found[sending.name].append(sending)
        return found


def micros():
    return time.time_ns() // 1000


class Chain:
    """The sendings of an entry against what its schedule says: one each `period` microseconds."""

    def __init__(self, sendings, period=SECOND):
        self.sendings = sendings
        dues = [sending.due for sending in sendings]
        self.first = min(dues)
        counts = collections.Counter(dues)
        self.repeated = sorted(due for due, count in counts.items() if count > 1)
        self.strange = sorted(due for due in counts if (due - self.first) % period)
        self.missing = sorted(set(range(self.first, max(dues), period)) - set(dues))

    def gap(self, end):
        """The longest time between two sendings, or from the last one to the end, in seconds."""
        times = [sending.at for sending in self.sendings] + [end]
        return max(b - a for a, b in zip(times, times[1:])) / SECOND

    def late(self):
        """How late the latest of them was, in seconds."""
        return max(sending.at - sending.due for sending in self.sendings) / SECOND


def told(dues):
    """For whoever reads what went wrong."""
    return some([str(EPOCH + datetime.timedelta(microseconds=due))[11:23] for due in dues])


def is_locked(app):
    """Does somebody hold the file's write lock for longer than a transaction takes?"""
    path = app.folder / "var/qworker.sqlite"
    with contextlib.closing(sqlite3.connect(path, 0.1, isolation_level=None)) as file:
        try:
            file.execute("BEGIN IMMEDIATE")
            file.execute("ROLLBACK")
            return False
        except sqlite3.OperationalError:
            return True


THREE = """
entries:
  second: {task: note, schedule: 1.0}
  clock: {task: note, schedule: {crontab: "* * * * * *"}}
  two: {task: note, schedule: 2.0}
"""
PERIODS = {"second": SECOND, "clock": SECOND, "two": 2 * SECOND}


# Who is stopped while it waits for an answer finds, when it goes on, that the time for it is over.
SLEPT = re.compile("no answer within|the broker answers again")


@on_both
def beats(options, report, App):
    """Three beats, of which two at the most are stopped, or dead, at a time."""
    where, span, chance = name_of(App), 15 if options.short else 180, random.Random(options.seed)
    done, held = collections.Counter(), 0
    with place(options, App) as app, Watch(app) as watch:
        (app.folder / "schedule.yaml").write_text(THREE)
        three = [Beat(app, f"beat{number}").start() for number in range(3)]
        assert until(lambda: all(beat.is_at_work() for beat in three))
        end = time.monotonic() + span
        while time.monotonic() < end:
            time.sleep(chance.uniform(0.02, 0.5))  # The faults come at any moment.
            for beat in three:
                if beat.wakes and time.monotonic() > beat.wakes:
                    beat.go_on() if beat.process.poll() is None else beat.start()
            victim = chance.choice(three)
            if victim.wakes or not any(beat.is_at_work() for beat in three if beat is not victim):
                continue
            away = chance.choice([chance.uniform(0, 0.3), chance.uniform(0.5, 2), chance.uniform(2, 8)])
            if chance.random() < 0.6:
                victim.stop(away)
                if App is FileApp and is_locked(app):
                    # Who is stopped within a transaction holds up everybody, and nobody can help it.
                    victim.go_on()
                    held += 1
                done["stops"] += 1
            else:
                victim.kill()
                victim.wakes = time.monotonic() + chance.choice([0, away])
                done["kills"] += 1
        now, chains = micros(), watch.of()
        for beat in three:
            if beat.process.poll() is not None:
                beat.start()
        codes = [beat.end() for beat in three]
        noted = [line for beat in three for line in beat.path.read_text().splitlines()
                 if ("WARNING" in line or "ERROR" in line) and not SLEPT.search(line)]
    chains = {name: Chain(chains[name], period) for name, period in PERIODS.items()}
    sent = sum(len(chain.sendings) for chain in chains.values())
    print(f"beats: {where}: {span} s, seed {options.seed}: {done['stops']} stops, {done['kills']} kills, {sent} messages; "
          f"longest gap of a 1 s entry {max(chains[name].gap(now) for name in ('second', 'clock')):.2f} s, "
          f"at most {max(chain.late() for chain in chains.values()):.2f} s late, {held} stopped with the lock, and let go, "
          f"{len(noted)} complaints")
    for name, chain in chains.items():
        report.check(not chain.repeated, f"{where}: {name}: nothing is sent twice ({len(chain.repeated)}{told(chain.repeated)})")
        report.check(not chain.missing and not chain.strange,
                     f"{where}: {name}: nothing is left out ({len(chain.missing)}{told(chain.missing)}), "
                     f"nor sent that is not due ({len(chain.strange)}{told(chain.strange)})")
        gap, most = chain.gap(now), max(GAP, PERIODS[name] / SECOND + 1)
        report.check(gap <= most, f"{where}: {name}: no gap over {most:.0f} s ({gap:.2f} s)")
    report.check(not noted, f"{where}: no beat has a complaint ({len(noted)}{some(noted)})")
    report.check(set(codes) <= {0, -signal.SIGTERM}, f"{where}: beats end with 0 ({codes})")


LOST = "the broker has lost the state of the schedule"


def lostredis(options, report):
    """A server under three beats is emptied, or starts again without anything."""
    rounds, chance = 3 if options.short else 20, random.Random(options.seed)
    losses = []
    with place(options, RedisApp) as app, Watch(app) as watch:
        (app.folder / "schedule.yaml").write_text(THREE)
        three = [Beat(app, f"beat{number}").start() for number in range(3)]
        assert until(lambda: all(beat.is_at_work() for beat in three))
        assert until(lambda: watch.has(2))
        for number in range(rounds):
            begin = micros()
            if number % 4 == 2:
                app.server.end(signal.SIGKILL)
                time.sleep(chance.choice([0, 0.5, 3]))  # It is away for so long.
                app.server.start()
            else:
                app.server.admin.flushall()
            losses.append((begin, micros()))
            # Time in which they send on, or what they must not; the next loss comes at any moment.
            time.sleep(chance.uniform(2.5, 4))
        now, sendings = micros(), watch.of()
        logs = [beat.path.read_text() for beat in three]
        codes = [beat.end() for beat in three]
    warned = [log.count(LOST) for log in logs]
    back, wrong = [], collections.defaultdict(list)
    for name, period in PERIODS.items():
        chain = Chain(sendings[name], period)
        wrong["phase"] += chain.strange
        wrong["twice"] += chain.repeated
        # What was sent and lost before anybody has seen it, and what was due while the server was away.
        near = lambda due: any(begin - SECOND // 2 <= due <= end + GAP * SECOND for begin, end in losses)
        wrong["left out"] += [due for due in chain.missing if not near(due)]
        if period == SECOND:
            back += [min((s.at for s in chain.sendings if s.at > end), default=now) - end for _, end in losses]
    print(f"lostredis: {rounds} losses, seed {options.seed}: {sum(map(len, sendings.values()))} messages, sent on at most "
          f"{max(back) / SECOND:.2f} s later; warnings {warned}")
    report.check(max(back) <= GAP * SECOND, f"beats send on within {GAP:.0f} s ({max(back) / SECOND:.2f} s)")
    for what in ("phase", "twice", "left out"):
        report.check(not wrong[what], f"nothing is {what if what != 'phase' else 'out of its phase'} "
                     f"({len(wrong[what])}{told(wrong[what])})")
    report.check(max(warned) <= rounds <= sum(warned), f"each beat warns once a loss at the most, and one does ({warned})")
    report.check(set(codes) == {0}, f"beats end with 0 ({codes})")
