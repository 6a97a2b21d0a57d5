"""What a task asks of the qworker worker that runs it: one file, the standard library alone.

    import sys
    from qworker_task import Task

    task = Task()
    for number, name in enumerate(names):
        task.progress(number, len(names))
        ...
    if not available:
        task.retry(countdown=30)
        sys.exit()

What `retry`, `reject`, `ignore`, `fail` and `replace` say counts when the process ends: exit after
them. The protocol is described in qworker-task-protocol(7).
"""

import json
import os
import socket
import struct
import threading
import time

VERSION = 1
BUSY_MAX = 10.0


class TaskError(Exception):
    """The worker refuses a request; `code` is a word for programs."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Task:
    """A connection to the worker of this task. Threads may share it."""

    def __init__(self, address=None, token=None):
        address = address or os.environ.get("QWORKER_TASK_SOCKET")
        token = token or os.environ.get("QWORKER_TASK_TOKEN")
        if not address or not token:
            raise TaskError("environment", "QWORKER_TASK_SOCKET and QWORKER_TASK_TOKEN are not set")
        self._lock = threading.Lock()
        self._last = 0
        end = time.monotonic() + BUSY_MAX
        while True:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            # An abstract name begins with a zero byte.
            self._socket.connect("\0" + address[1:] if address[0] == "@" else address)
            try:
                self._ask("hello", version=VERSION, token=token)
                return
            except TaskError as error:
                self._socket.close()
                if error.code != "busy" or time.monotonic() > end:
                    raise
            time.sleep(0.05)

    def request(self):
        """The complete request: `args`, `kwargs` and `request`, as with `stdin: json`."""
        return self._ask("request")

    def update_state(self, state, meta=None):
        """Sets a state of its own, which clients see until the task has ended."""
        return self._ask("update-state", state=state, meta=meta)

    def progress(self, done, total):
        """Sets the state PROGRESS."""
        return self._ask("progress", done=done, total=total)

    def retry(self, countdown=None, max_retries=None):
        """Runs the task again; after `countdown` seconds, or the delay of its definition."""
        return self._ask("retry", countdown=countdown, max_retries=max_retries)

    def reject(self, requeue=False):
        """Refuses the message; with `requeue` it returns to its queue."""
        return self._ask("reject", requeue=requeue)

    def ignore(self):
        """Stores no result, and calls nothing."""
        return self._ask("ignore")

    def fail(self, error, message=None, module=None):
        """Fails with an exception: an object, or the name of a class and a message."""
        if isinstance(error, BaseException):
            kind = type(error)
            message = str(error) if message is None else message
            error, module = kind.__qualname__.rpartition(".")[2], module or kind.__module__
        return self._ask("fail", type=error, message=message or "", module=module)

    def replace(self, signature):
        """Lets another task, or a canvas, take the place of this one: Celery's signature."""
        return self._ask("replace", signature=signature)

    def call(self, name, args=(), kwargs=None, unregistered=False, **options):
        """Sends a task as a child of this one, with Celery's options; gives its id."""
        signature = {"task": name, "args": list(args), "kwargs": kwargs or {}, "options": options}
        return self.apply(signature, unregistered)

    def apply(self, signature, unregistered=False):
        """The same with a signature, which may be a canvas; gives the id of its result."""
        return self._ask("call", signature=signature, unregistered=unregistered)["id"]

    def close(self):
        """Closes the connection."""
        self._socket.close()

    def _ask(self, method, **params):
        with self._lock:
            self._last += 1
            text = json.dumps({"id": self._last, "method": method, "params": params})
            data = text.encode()
            try:
                self._socket.sendall(struct.pack(">I", len(data)) + data)
            except BrokenPipeError:
                pass  # Closed with an answer that says why.
            (length,) = struct.unpack(">I", self._read(4))
            answer = json.loads(self._read(length))
        if "error" in answer:
            raise TaskError(answer["error"]["code"], answer["error"]["message"])
        return answer["result"]

    def _read(self, count):
        data = b""
        while len(data) < count:
            more = self._socket.recv(min(count - len(data), 1 << 20))
            if not more:
                raise ConnectionError("the worker of this task has closed the connection")
            data += more
        return data
