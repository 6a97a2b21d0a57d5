"""The Python worker of the cases: all tasks as Python functions.

    python -m cases.worker BROKER BACKEND FLEET [WORDS OF celery worker]...
"""

import json
import os
import sys
import time

from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

from cases.app import app, configure, Fleet, note, pipe, PYTHONS, tasks, with_args
from cases.errors import Expected

add_, fails_ = tasks("add fails")


@app.task(name="identity")
def identity(x):
    return x


@app.task(name="add")
def add(x, y, z=None):
    return x + y + z if z else x + y


@app.task(name="mul")
def mul(x, y):
    return x * y


@app.task(name="total")
def total(values):
    return sum(values)


@app.task(name="deep_total")
def deep_total(values):
    return sum(sum(one) if isinstance(one, list) else one for one in values)


@app.task(name="tell")
def tell(text, *, key):
    note(text, key)
    return text


@app.task(name="alarm")
def alarm(request, exc, traceback, key=None):
    note(f"{request.id} {type(exc).__name__} {exc}", key)


@app.task(name="fails")
def fails(*args, message="expected"):
    raise Expected(message)


@app.task(name="raises")
def raises(kind, message):
    raise {"KeyError": KeyError, "ValueError": ValueError, "RuntimeError": RuntimeError}[kind](message)


@app.task(name="ids", bind=True)
def ids(self, i):
    return [self.request.root_id, self.request.parent_id, i]


@app.task(name="collect", bind=True)
def collect(self, before, i):
    return [before, [self.request.root_id, self.request.parent_id, i]]


def seen(request):
    """What a task sees of its request."""
    names = "id task root_id parent_id group group_index retries replaced_task_nesting shadow"
    fields = {name: request.get(name) for name in names.split()}
    headers = request.headers or {}
    return {
        **fields,
        "args": list(request.args or ()),
        "kwargs": request.kwargs,
        "custom": {name: headers[name] for name in headers if name.startswith("x-")},
        "stamps": {name: (request.stamps or {}).get(name) for name in request.stamped_headers or ()},
        "app_id": (request.properties or {}).get("app_id"),
        "correlation_id": request.correlation_id,
        "priority": request.delivery_info.get("priority"),
        "timelimit": list(request.timelimit or (None, None)),
        "ignore_result": bool(request.ignore_result),
        "expires": bool(request.expires),
        "follows": [len(request.callbacks or ()), len(request.errbacks or ()), len(request.chain or ()),
                    bool(request.chord)],
    }


@app.task(name="request", bind=True)
def request(self, *args, **kwargs):
    return seen(self.request)


@app.task(name="again", bind=True, max_retries=3)
def again(self, *args, times=1, countdown=0.05):
    """Sees its request after so many retries."""
    if self.request.retries < times:
        raise self.retry(countdown=countdown)
    return seen(self.request)


@app.task(name="never", bind=True)
def never(self, *args, message="never"):
    """Retries twice, and fails."""
    raise self.retry(exc=Expected(message), countdown=0.05, max_retries=2)


@app.task(name="exhausts", bind=True)
def exhausts(self, x):
    raise self.retry(countdown=0.05, max_retries=1)


@app.task(name="automatic", bind=True, autoretry_for=(ValueError,), max_retries=2, default_retry_delay=0.05)
def automatic(self):
    if self.request.retries < 2:
        raise ValueError("automatic")
    return self.request.retries


@app.task(name="gated")
def gated(gate, value=None):
    """Waits until somebody writes to the gate, a named pipe."""
    with open(pipe(gate)) as opened:
        opened.readline()
    return value


@app.task(name="progress", bind=True)
def progress(self, gate):
    self.update_state(state="PROGRESS", meta={"current": 3, "total": 10})
    gated(f"{gate}-1")
    self.update_state(state="UPLOADING", meta={"file": "ä.png", "parts": [1, 2]})
    gated(f"{gate}-2")
    return "done"


@app.task(name="rejected", bind=True, acks_late=True)
def rejected(self, requeue=False, key=None):
    if requeue:
        note("delivered", key)
        if len(open(f"notes/{key}").readlines()) > 1:
            return "second"
    raise Reject(requeue=requeue)


@app.task(name="ignored", bind=True)
def ignored(self, *args, state=None, key=None):
    if state:
        self.update_state(state=state, meta={"left": 7})
    if key:
        note("ignored", key)
    raise Ignore()


@app.task(name="guarded")
def guarded():
    """Ends well at its soft limit, which is the event that its sleep waits for."""
    try:
        time.sleep(30)
    except SoftTimeLimitExceeded:
        return 0


@app.task(name="slow")
def slow():
    """Its sleep is work that only a limit or a revoke ends."""
    time.sleep(30)


@app.task(name="replaced", bind=True)
def replaced(self, *args, by):
    return self.replace(app.signature(with_args(by, args) if args else by))


@app.task(name="add_to_all", bind=True)
def add_to_all(self, values, value):
    from celery import group

    return self.replace(group(add_.s(one, value) for one in values))


@app.task(name="joins", bind=True)
def joins(self, *args, members):
    """Adds members to the chord that it is in."""
    for member in members:
        self.add_to_chord(app.signature(member))
    return 0


@app.task(name="calls", bind=True)
def calls(self, signatures):
    """Calls children; gives their ids."""
    return [app.signature(one).apply_async().id for one in signatures]


def flat(x):
    """The sum of a number, or of all numbers in a list of lists."""
    return sum(map(flat, x)) if isinstance(x, list) else x


@app.task(name="fold")
def fold(x, n, key):
    note(key, "runs")
    return flat(x) + n


@app.task(name="fold_late", bind=True)
def fold_late(self, x, n, key):
    if not self.request.retries:
        raise self.retry(countdown=0.05)
    return fold(x, n, key)


@app.task(name="fold_replaced", bind=True)
def fold_replaced(self, x, by):
    return self.replace(app.signature(json.loads(by)))


def main():
    configure(*sys.argv[1:4])
    Fleet.chance.seed(7)
    app.start(["worker", "-l", "INFO", "-n", "worker@cases", "-Q", PYTHONS, "--without-gossip", "--without-mingle",
               "--without-heartbeat", *sys.argv[4:]])


if __name__ == "__main__":
    main()
