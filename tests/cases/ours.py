"""The tasks of cases/worker.py as one program: a process for each attempt, with the client of
etc/clients. It needs nothing of Celery's; its first argument is the folder of the client.
"""

import json
import os
import sys

# The client is no file of the tests: nothing is left beside it.
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])

from qworker_task import Task  # noqa: E402

document = json.load(sys.stdin)
args, kwargs, request = document["args"], document["kwargs"], document["request"]
retries = request["retries"]


def value(place, name, default=None):
    return args[place] if place < len(args) else kwargs.get(name, default)


def note(text, key):
    file = os.open(f"notes/{key}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, f"{text}\n".encode())
    os.close(file)


def gate(name):
    try:
        os.mkfifo(f"gates/{name}")
    except FileExistsError:
        pass
    open(f"gates/{name}").readline()


def expected(message):
    # What a Python client finds as the traceback.
    print(f"Expected: {message}", file=sys.stderr)
    Task().fail("Expected", message, "cases.errors")


def with_args(signature, args):
    """As in cases/app.py."""
    kind, inner = signature.get("subtask_type"), signature["kwargs"]
    if kind == "chain":
        with_args(inner["tasks"][0], args)
    elif kind in ("group", "chord"):
        header = inner["tasks" if kind == "group" else "header"]
        for member in header["kwargs"]["tasks"] if isinstance(header, dict) else header:
            with_args(member, args)
    elif not signature["immutable"]:
        signature["args"] = [*args, *signature["args"]]
    return signature


def add():
    x, y, z = value(0, "x"), value(1, "y"), value(2, "z")
    return x + y + z if z else x + y


def mul():
    return value(0, "x") * value(1, "y")


def total():
    return sum(value(0, "values"))


def deep_total():
    return sum(sum(one) if isinstance(one, list) else one for one in value(0, "values"))


def alarm():
    error = args[1]
    text = ", ".join(map(str, error["exc_message"]))
    note(f"{args[0]['id']} {error['exc_type']} {text}", value(3, "key"))


def fails():
    expected(kwargs.get("message", "expected"))


def ids_of(i):
    return [request["root_id"], request["parent_id"], i]


def collect():
    return [value(0, "before"), ids_of(value(1, "i"))]


def seen():
    headers, properties = request["headers"], request["properties"]
    names = "id task root_id parent_id retries"
    fields = {name: request.get(name) for name in names.split()}
    names = "group group_index replaced_task_nesting shadow"
    fields |= {name: headers.get(name) for name in names.split()}
    stamps = headers.get("stamps") or {}
    return {
        **fields,
        "args": args,
        "kwargs": kwargs,
        "custom": {name: headers[name] for name in headers if name.startswith("x-")},
        "stamps": {name: stamps.get(name) for name in headers.get("stamped_headers") or ()},
        "app_id": properties.get("app_id"),
        "correlation_id": properties.get("correlation_id"),
        "priority": properties.get("priority"),
        "timelimit": headers.get("timelimit") or [None, None],
        "ignore_result": bool(headers.get("ignore_result")),
        "expires": bool(headers.get("expires")),
        "follows": [len(request.get("callbacks") or ()), len(request.get("errbacks") or ()),
                    len(request.get("chain") or ()), bool(request.get("chord"))],
    }


def again():
    if retries < kwargs.get("times", 1):
        return Task().retry(countdown=kwargs.get("countdown", 0.05))
    return seen()


def never():
    if retries < 2:
        return Task().retry(countdown=0.05, max_retries=2)
    expected(kwargs.get("message", "never"))


def progress():
    task, name = Task(), value(0, "gate")
    task.progress(3, 10)
    gate(f"{name}-1")
    task.update_state("UPLOADING", {"file": "ä.png", "parts": [1, 2]})
    gate(f"{name}-2")
    return "done"


def rejected():
    requeue, key = value(0, "requeue", False), value(1, "key")
    if requeue:
        note("delivered", key)
        if len(open(f"notes/{key}").readlines()) > 1:
            return "second"
    Task().reject(requeue)


def ignored():
    task = Task()
    if state := kwargs.get("state"):
        task.update_state(state, {"left": 7})
    if key := kwargs.get("key"):
        note("ignored", key)
    task.ignore()


def replaced():
    Task().replace(with_args(kwargs["by"], args) if args else kwargs["by"])


def add_to_all():
    values, other = value(0, "values"), value(1, "value")
    members = [{"task": "add", "args": [one, other]} for one in values]
    Task().replace({"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": members}})


def joins():
    task = Task()
    for member in kwargs["members"]:
        task.add_to_chord(member)
    return 0


def calls():
    task = Task()
    return [task.apply(one, unregistered=True) for one in value(0, "signatures")]


result = {"request": seen}.get(request["task"]) or globals()[request["task"]]
result = result()
if result is not None:
    print(json.dumps(result))
