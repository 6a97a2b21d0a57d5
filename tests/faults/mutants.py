"""Broken messages: each ends in the dead-letter list or with a result, and the good ones run."""

import collections
import time
import uuid

from torture import PATIENCE, until

from .broken import Mutants
from .ground import LISTS, SCHEDULED, Mint, application, pss

GOOD = 100
GROWTH = 2.0  # MB between the first thousand and the fifth


class Account:
    """What became of every mutant."""

    def __init__(self, app, made):
        self.app, self.made = app, made  # id: kind

    def take(self):
        admin = self.app.server.admin
        letters = self.app.letters()
        self.unexplained = [letter for letter in letters if not letter["reason"]]
        self.reasons = collections.Counter(letter["reason"] for letter in letters)
        prefix = "celery-task-meta-"
        results = {key.decode("utf-8", "replace").removeprefix(prefix) for key in admin.scan_iter(prefix + "*", 5000)}
        # What is called after a mutant is none.
        ended = (results | set(self.app.runs())) - {"followed"}
        dead = {letter["id"] for letter in letters}
        self.unknown = set(self.made) - ended - dead
        self.dead = len(letters)
        # Those whose id did not survive: letters one by one, results by the id they got.
        self.strangers = sum(letter["id"] not in self.made for letter in letters)
        self.strangers += len(ended - dead - set(self.made)) + self.app.waiting()
        self.ended = len((ended - dead) & set(self.made))
        return len(self.unknown) - self.strangers

    def kinds(self):
        return dict(collections.Counter(self.made[id] for id in self.unknown))


def round_of(app, mutants, mint, made, count, first):
    """Pushes so many, and good ones behind them; gives the seconds until those were done."""
    admin = app.server.admin
    with admin.pipeline(transaction=False) as pipe:
        for number in range(first, first + count):
            kind, id, payload = mutants.make(number)
            made[id] = kind
            pipe.lpush(LISTS[number % 4 if number % 20 == 0 else 0], payload)
        pipe.execute()
    good = [str(uuid.uuid4()) for _ in range(GOOD)]
    begin = time.monotonic()
    admin.lpush(LISTS[0], *map(mint.message, good))
    until(lambda: set(good) <= set(app.runs()))
    took = time.monotonic() - begin
    return good, took


def settled(app, seconds):
    """Waits nothing but what is for later, is nothing held, and has nothing moved for so long?"""
    state, since = None, time.monotonic()

    def still():
        nonlocal state, since
        with app.server.admin.pipeline() as pipe:
            # At once: what is handed over meanwhile would be in neither place.
            pipe.hlen("unacked").zcard("unacked_index")
            for name in LISTS:
                pipe.llen(name)
            *places, later, keys = pipe.zcard(SCHEDULED).dbsize().execute()
        now = (places, later, keys)
        if now != state or any(places):
            state, since = now, time.monotonic()
        return time.monotonic() - since > seconds
    return until(still, PATIENCE)


def strangers(app, report, grace):
    """Two tasks that no file defines: one gets its file in time."""
    later, never = (app.run("call", name, "--unregistered").stdout.strip() for name in ("later", "never"))
    begin = time.monotonic()
    time.sleep(0.5)
    states = [app.run("result", id).returncode for id in (later, never)]
    report.check(states == [75, 75], f"tasks without a file are held ({states})")
    (app.folder / "tasks.d/later.yaml").write_text("later: {shell: 'echo here'}\n")
    done = app.run("result", later, "--wait", "--timeout", "30")
    print(f"mutants: a task whose file appeared ran {time.monotonic() - begin:.1f} s after it was sent")
    report.check(done.stdout == "here\n", f"it runs once its file is there ({done.stderr.strip() or 'it did'})")
    until(lambda: never in app.dead(), 30)
    took = time.monotonic() - begin
    report.check(never in app.dead() and grace[0] < took < grace[1],
                 f"without a file it is a dead letter after its grace ({took:.1f} s)")


def mutants(options, report):
    size, rounds = (300, 2) if options.short else (1000, 5)
    unknown = "task_unregistered: dead\n"
    settings, grace, still = ((unknown + "task_max_deliveries: 3\n", (2, 8), 3) if options.short
                              else (unknown, (12, 25), 10))
    made, memory = {}, []
    with application(options, settings=settings) as app:
        mint = Mint(app.server, "note")
        source = Mutants(mint, options.seed)
        app.start()
        assert until(app.is_ready)
        before = app.proper()
        for number in range(rounds):
            good, took = round_of(app, source, mint, made, size, number * size)
            ran = sum(len(app.runs()[id]) == 1 for id in good)
            calm = settled(app, still)
            memory.append(pss(app.worker.pid, "Pss_Anon"))
            print(f"mutants: {GOOD} good ones behind {size} broken ones took {took:.2f} s; "
                  f"then {pss(app.worker.pid):.1f} MB, {memory[-1]:.1f} MB of it anonymous", flush=True)
            report.check(ran == GOOD and calm, f"{ran} of {GOOD} good ones ran once, and all came to rest")
            made.update(dict.fromkeys(good, "good"))
        same = app.proper() == before
        sum_up(report, Account(app, made))
        left = (app.server.admin.hlen("unacked"), app.server.admin.zcard("unacked_index"))
        report.check(left == (0, 0), f"nothing is held {left}")
        report.check(same, "the worker did not die")
        if not options.short:
            report.check(memory[-1] - memory[0] < GROWTH,
                         f"anonymous memory is flat ({', '.join(f'{one:.1f} MB' for one in memory)})")
        strangers(app, report, grace)
        code = app.stop()
        report.check(code == 0, f"the worker ended with 0 ({code})")


def sum_up(report, account):
    missing = account.take()
    reasons = ", ".join(f"{count} {reason}" for reason, count in account.reasons.most_common())
    print(f"mutants: {account.dead} dead letters ({reasons}), {account.ended} ran or have a result, "
          f"{account.strangers} of all that have another id now")
    report.check(missing == 0, f"every one is accounted for ({missing} are not)")
    if missing:
        print(f"mutants: among those without a trace under their id: {account.kinds()}")
    report.check(not account.unexplained, "every dead letter has a reason")
