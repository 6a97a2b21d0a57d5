"""Celery's side of the benchmark: the tasks, and a sender.

    celery -A celery_app worker ...           a worker
    celery -A celery_app beat ...             BENCH_ENTRIES entries, each due every second
    celery_app.py send COUNT TASK             enqueues; prints the ids
    celery_app.py enqueue COUNT TASK          the same; prints messages per second
    celery_app.py pace COUNT RATE TASK        one by one; prints ids and the times before each
    celery_app.py flow COUNT KIND SIZE        calls workflows of so many no-ops: chain, chord (and a
                                              body) or follow (one, those as a chord, and a body);
                                              prints the ids of their last tasks

BENCH_URL is the Redis, of messages and results. Where no results are kept, a worker's
processes write the ids of what they ran into files in BENCH_IDS when they end.
"""

import os
import pathlib
import subprocess
import sys
import time

from celery import Celery, chain, chord, signals

app = Celery("celery_app", broker=os.environ["BENCH_URL"], backend=os.environ["BENCH_URL"])
app.conf.update(broker_connection_retry_on_startup=True)
entries = range(int(os.environ.get("BENCH_ENTRIES", 0)))
# Without results, or it would subscribe to each one, which is slower.
app.conf.beat_schedule = {f"entry-{number}": {"task": "quiet", "schedule": 1.0} for number in entries}
ran = []


@app.task(name="quiet", bind=True, ignore_result=True)
def quiet(self):
    ran.append(self.request.id)


@app.task(name="noop")
def noop():
    pass


@app.task(name="true")
def true():
    subprocess.run(["/bin/true"], check=True)


@app.task(name="stamp")
def stamp():
    return time.time_ns()


@signals.worker_process_shutdown.connect
@signals.worker_shutdown.connect
def tell(**_):
    if ran:
        file = pathlib.Path(os.environ["BENCH_IDS"]) / f"{os.getpid()}"
        file.write_text("".join(f"{id}\n" for id in ran))


def sent(count, task):
    """Sends over one connection."""
    with app.producer_pool.acquire() as producer:
        for _ in range(count):
            yield app.send_task(task, producer=producer, ignore_result=task == "quiet").id


def send(count, task):
    print("\n".join(sent(int(count), task)))


def enqueue(count, task):
    rest = sent(int(count), task)
    next(rest)
    start = time.perf_counter()
    more = sum(1 for _ in rest)
    print(more / (time.perf_counter() - start))


def pace(count, rate, task):
    rest = sent(int(count), task)
    start = time.monotonic()
    for n in range(int(count)):
        time.sleep(max(0, start + n / float(rate) - time.monotonic()))
        asked = time.time_ns()
        print(next(rest), asked)


def flow(count, kind, size):
    one = noop.si()
    # A task of both, Celery's own: gives its arguments back.
    body = app.signature("celery.accumulate")
    for _ in range(int(count)):
        members = [one.clone() for _ in range(int(size))]
        whole = {"chain": lambda: chain(members), "chord": lambda: chord(members, body),
                 "follow": lambda: chain(one, chord(members, body))}[kind]()
        print(whole.apply_async().id)
    sys.stdout.flush()
    # At the end of the interpreter, each result would ask the server to forget it.
    os._exit(0)


if __name__ == "__main__":
    {"send": send, "enqueue": enqueue, "pace": pace, "flow": flow}[sys.argv[1]](*sys.argv[2:])
