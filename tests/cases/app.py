"""The application of the cases: what its workers and its client have in common."""

import contextlib
import os
import random
import warnings

from celery import Celery

warnings.simplefilter("ignore")

# The fleets: who runs the tasks. All of them have all tasks, under the same names.
FLEETS = ("python", "ours", "mixed")

# The queue of each: in the mixed fleet a signature says whose it is.
PYTHONS, OURS = "celery", "ours"


class Fleet:
    """Which queue a signature gets."""

    name = "python"
    chance = random.Random()

    @classmethod
    def queue(cls):
        match cls.name:
            case "python":
                return PYTHONS
            case "ours":
                return OURS
        return cls.chance.choice((PYTHONS, OURS))


app = Celery("cases")


def configure(broker, backend, fleet):
    """Sets the application up for these addresses."""
    Fleet.name = fleet
    if broker.startswith("sqla"):
        from kombu.transport import sqlalchemy

        sqlalchemy.Transport.polling_interval = 0.05
    app.conf.update(
        broker_url=broker,
        result_backend=backend,
        broker_connection_retry_on_startup=True,
        task_default_queue=OURS if fleet == "ours" else PYTHONS,
        task_routes={name: {"queue": PYTHONS} for name in ["python.*"]},
        task_track_started=True,
        result_extended=True,
        result_chord_retry_interval=0.1,
        worker_hijack_root_logger=False,
    )
    return app


class Task:
    """Makes signatures of a task by its name."""

    def __init__(self, name):
        self.name = name

    def s(self, *args, **kwargs):
        return app.signature(self.name, args=args, kwargs=kwargs, queue=Fleet.queue(), app=app)

    def si(self, *args, **kwargs):
        signature = self.s(*args, **kwargs)
        signature.set(immutable=True)
        return signature

    def send(self, *args, **kwargs):
        return self.s(*args, **kwargs).apply_async()


def tasks(names):
    return [Task(name) for name in names.split()]


def pipe(gate):
    """The named pipe that a task of this gate reads from."""
    with contextlib.suppress(FileExistsError):
        os.mkfifo(f"gates/{gate}")
    return f"gates/{gate}"


def note(text, key):
    """Adds a line to what is noted under `key`, in one write."""
    file = os.open(f"notes/{key}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, f"{text}\n".encode())
    os.close(file)


def with_args(signature, args):
    """Puts `args` before the arguments of what a signature, a dictionary, begins with."""
    kind, kwargs = signature.get("subtask_type"), signature["kwargs"]
    if kind == "chain":
        with_args(kwargs["tasks"][0], args)
    elif kind in ("group", "chord"):
        header = kwargs["tasks" if kind == "group" else "header"]
        for member in header["kwargs"]["tasks"] if isinstance(header, dict) else header:
            with_args(member, args)
    elif not signature["immutable"]:
        signature["args"] = [*args, *signature["args"]]
    return signature
