"""What the cases are made of: a case is a function that sends something and gives what came of it, as
JSON. Ids in that are numbered in the order in which they are met, so outcomes can be compared.
"""

import collections
import json
import os
import re
import time

from celery.result import AsyncResult, GroupResult

from cases.app import app, note, pipe  # noqa: F401

# Seconds in which everything comes about, unless something is wrong.
PATIENCE = 50

Case = collections.namedtuple("Case", "group name run expected redis hangs mixed")

# Seconds between two looks at a store.
PAUSE = 0.02

# All cases by name.
CASES = {}


def cases(group):
    """A decorator for the cases of a group."""

    def case(run=None, *, expected=None, redis=False, hangs=False, mixed=False):
        """`redis`: Celery itself needs results in Redis for it. `hangs`: it never ends with Celery's
        worker, so what came of it is compared with `expected` alone. `mixed`: in the mixed fleet it
        ends all the same, for what Celery's worker has wrong is done by ours."""

        def add(run):
            assert run.__name__ not in CASES, run.__name__
            CASES[run.__name__] = Case(group, run.__name__, run, expected, redis, hangs, mixed)
            return run

        return add(run) if run else add

    return case


class Here:
    """Where a case is: names of its own for what it notes, and for the gates of its tasks."""

    def __init__(self, name):
        self.name, self.noted, self.opened = name, {}, []

    def key(self, name=""):
        key = f"{self.name}{name and '-'}{name}"
        self.noted.setdefault(key, None)
        return key

    def notes(self, count, name="", exactly=True):
        """The lines under a key once there are so many; whether more come is looked at in the end."""
        key = self.key(name)
        until(lambda: len(lines_of(key)) >= count, f"{count} notes under {key}")
        if exactly:
            self.noted[key] = count
        return lines_of(key)

    def open(self, gate):
        # It stays open: what is written waits for the task, which may begin later.
        self.opened.append(os.open(pipe(self.gate(gate)), os.O_RDWR))
        os.write(self.opened[-1], b"\n")

    def gate(self, gate):
        return f"{self.name}-{gate}"


def lines_of(key):
    try:
        return open(f"notes/{key}").read().splitlines()
    except FileNotFoundError:
        return []


def until(look, what):
    """What `look` gives, once it gives anything; a store tells nobody of most of its changes."""
    end = time.monotonic() + PATIENCE
    while not (found := look()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {PATIENCE} s: {what}")
        time.sleep(PAUSE)
    return found


def got(result):
    """What a client gets: a value, or what it raises."""
    try:
        node = result.parent
        while node is not None:
            # Who waits too early may be told of a failure by what comes after it.
            ended(node)
            node = node.parent
        return result.get(timeout=PATIENCE, interval=PAUSE)
    except TimeoutError:
        raise
    except Exception as error:
        return raised(error)


def raised(error):
    if type(error).__name__ == "TimeoutError":
        raise TimeoutError("a result that is waited for does not come")
    return {"raises": f"{type(error).__module__}.{type(error).__name__}", "says": str(error)}


def alone(result):
    """What a client gets that does not know the parents of a result."""
    return got(app.AsyncResult(result.id))


def up(result):
    """A result and what comes before it in its chain: kind, id, state."""
    found = []
    while result is not None:
        # A task stores its result when what follows it is on its way, or has ended.
        ended(result)
        if isinstance(result, GroupResult):
            found.append(["group", result.id, [state(one) for one in result.results]])
        else:
            found.append(["task", result.id, state(result)])
        result = result.parent
    return found


def state(result):
    if isinstance(result, GroupResult):
        return [state(one) for one in result.results]
    return result.state


def down(result, depth=6):
    """The children of a result, as its store has them, to the leaves."""
    ended(result)
    if isinstance(result, GroupResult):
        return {"group": result.id, "members": [down(one, depth) for one in result.results]}
    children = (result.children or []) if depth else []
    return {"task": result.id, "children": [down(one, depth - 1) for one in children]}


def root(result):
    while result.parent is not None:
        result = result.parent
    return result


def outcome(result):
    """All that a client can know of a canvas: what it gets, states up to the root, and from there
    down all children."""
    value = got(result)
    return {"value": value, "up": up(result), "down": down(root(result))}


def ended(*results):
    """Waits until these have ended."""
    for result in results:
        until(result.ready, f"the end of {result.id}")


IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def plain(found):
    """As JSON, with ids numbered in the order in which they are met."""
    numbers = {}
    text = json.dumps(found, default=repr)
    number = lambda match: numbers.setdefault(match[0], f"#{len(numbers) + 1}")  # noqa: E731
    return json.loads(IDS.sub(number, text))


def run(case):
    """The outcome of a case, and how many notes it had under which keys."""
    here = Here(case.name)
    try:
        found = {"outcome": plain(case.run(here))}
    except Exception as error:
        found = {"broken": f"{type(error).__name__}: {error}"}
    return {**found, "notes": {key: count for key, count in here.noted.items() if count is not None}}


def settled(noted):
    """Which keys have other numbers of lines than they had."""
    return {key: [count, len(lines_of(key))] for key, count in noted.items() if len(lines_of(key)) != count}


def make_folders():
    for folder in "notes", "gates":
        os.makedirs(folder, exist_ok=True)


def result_of(id):
    return AsyncResult(id, app=app)
