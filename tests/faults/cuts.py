"""The network between a worker and its server breaks; nothing is lost, nothing runs twice."""

import collections
import contextlib
import random
import statistics
import time

import redis

from torture import until

from .ground import RESUMES, Load, Mint, application, judge, settle
from .proxy import Proxy
from .restart import seconds

LONG = 5  # of ten slots, for tasks that run across cuts: others have to begin

# How many of each kind among 60, and the seconds that it takes.
KINDS = {
    "reset": (12, 0, 0),
    "half-close towards the worker": (8, 0, 0),
    "half-close towards the server": (8, 0, 0),
    "stall": (8, 0.2, 6),
    "long stall": (3, 20, 30),
    "stall of the connections there are": (7, 1, 12),
    "CLIENT KILL": (8, 0, 0),
    "CLIENT PAUSE": (6, 1, 4),
}


def plan(options, chance):
    """`(kind, seconds)` of each cut."""
    kinds = {kind: count for kind, (count, _, _) in KINDS.items()}
    if options.short:
        kinds = {kind: 1 if least or longest else 2 for kind, (_, least, longest) in KINDS.items()}
        del kinds["long stall"]
    sequence = [kind for kind, count in kinds.items() for _ in range(count)]
    while len(sequence) < options.cuts:
        sequence.append(chance.choice(list(kinds)))
    chance.shuffle(sequence)
    shrink = 3 if options.short else 1
    return [(kind, chance.uniform(*KINDS[kind][1:]) / shrink) for kind in sequence[:options.cuts]]


def cut(kind, span, proxy, server):
    """Does it, and returns when it is over."""
    if kind == "reset":
        proxy.reset()
    elif kind.startswith("half-close"):
        proxy.half_close("client" if kind.endswith("worker") else "server")
    elif "stall" in kind:
        proxy.stall(new_too="there are" not in kind)
        time.sleep(span)
        proxy.flow()
    elif kind == "CLIENT KILL":
        for address in proxy.addresses():
            # It may be gone.
            with contextlib.suppress(redis.exceptions.ResponseError):
                server.admin.client_kill(address)
    elif kind == "CLIENT PAUSE":
        server.admin.client_pause(int(span * 1000))
        time.sleep(span)


def cuts(options, report):
    chance = random.Random(options.seed)
    lengths = (2, 4) if options.short else (5, 40)
    with application(options) as app, Proxy(app.server.port) as proxy:
        straight, app.broker = app.server.url, ("-b", proxy.url)
        app.start()
        assert until(app.is_ready)
        before = app.proper()
        load, results = Load(app), collections.defaultdict(list)
        note, long, longer = Mint(app.server, "note"), *(Mint(app.server, "long", [span]) for span in lengths)
        load.every(0.04, lambda: load.push(note))
        load.every(0.5, lambda: load.call("note", broker=straight))
        load.every(1.0, lambda: load.call("note"))
        load.every(2.0, lambda: load.outstanding() < LONG and load.push(long))
        load.push(longer)
        for kind, span in plan(options, chance):
            time.sleep(chance.uniform(0.1, 0.7 if options.short else 1.5))
            if kind == "long stall":
                load.push(longer)
                time.sleep(1)
            app.say(f"cut: {kind}, {span:.1f} s")
            begin = time.time_ns()
            cut(kind, span, proxy, app.server)
            gap = load.resumed(begin, time.time_ns())
            results[kind].append(gap)
            app.say(f"cut: works again after {seconds(gap)}")
            if gap is None or gap >= RESUMES:
                print(f"cuts: {kind} of {span:.1f} s: the worker works again {seconds(gap)} after it")
        load.stop()
        same = app.proper() == before
        app.broker = ("-b", straight)
        settle(report, app, 120)
        table(results)
        print(f"cuts: {len(load.accepted)} accepted, {len(load.unsure)} refused {dict(load.complaints)}")
        judge(report, app, load.accepted, load.unsure)
        report.check(same, "no worker died")
        gaps = [gap for all in results.values() for gap in all]
        late = sum(gap is None or gap >= RESUMES for gap in gaps)
        report.check(not late, f"after each of {len(gaps)} cuts it works again within {RESUMES} s ({late} took longer)")


def table(results):
    for kind, gaps in results.items():
        known = [gap for gap in gaps if gap is not None]
        print(f"cuts: {len(gaps):2} x {kind}: works again after "
              f"{seconds(statistics.median(known) if known else None)} (median), "
              f"{seconds(None if None in gaps else max(gaps))} (longest)")
