"""Clients where nobody answers, or nobody may: they end in time and say why."""

import concurrent.futures
import contextlib
import pathlib
import socket
import subprocess
import tempfile
import threading
import time

from .ground import Server, a_port

DEADLINE = 6.0  # seconds: the broker has 5 to take a message
SECRET = "open-sesame"


@contextlib.contextmanager
def listener(answer=None):
    """Somebody who takes connections and says this, or nothing; gives the URL."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        kept = []

        def work():
            with contextlib.suppress(OSError):
                while True:
                    kept.append(door.accept()[0])
                    if answer is not None:
                        kept[-1].sendall(answer)
                        kept.pop().close()
        threading.Thread(target=work, daemon=True).start()
        yield f"redis://127.0.0.1:{door.getsockname()[1]}/0"
        with contextlib.suppress(OSError):
            door.shutdown(socket.SHUT_RDWR)
        for one in kept:
            one.close()


def ask(command):
    """Runs it; gives how it ended and after how many seconds, None if it does not end."""
    begin = time.monotonic()
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(command, capture_output=True, text=True, timeout=30), time.monotonic() - begin
    return None, 30


def judge(report, case, command, done, took):
    if done is None:
        return report.check(False, f"{case}: it does not end")
    said = done.stderr.strip().splitlines()
    url = command[command.index("-b") + 1]
    address = url.split("@")[-1].split("//")[-1].split("/")[0]
    print(f"client: {case}: {done.returncode} after {took:.2f} s: {done.stderr.strip()}")
    faults = [fault for fault, there in {
        f"it ended with {done.returncode}": done.returncode == 0 or done.returncode < 0,
        "it took too long": took >= DEADLINE,
        "it does not say one sentence": sum(line.startswith("Error: ") for line in said) != 1,
        "it says more": not all(line.startswith(("Error: ", "Hint: ")) for line in said),
        "it does not name the address": address not in done.stderr,
        "it tells the password": any(SECRET in text for text in (done.stderr, done.stdout)),
        "it printed something": done.stdout != "",
        "it panicked": "panicked" in done.stderr,
    }.items() if there]
    report.check(not faults, f"{case}{': ' if faults else ''}{', '.join(faults)}")


def client(options, report):
    with tempfile.TemporaryDirectory(prefix="qworker-faults-") as folder, contextlib.ExitStack() as stack:
        app = pathlib.Path(folder) / "app"
        (app / "tasks.d").mkdir(parents=True)
        (app / "tasks.d/tasks.yaml").write_text("note: {shell: ':'}\n")

        def server(name, *words):
            return stack.enter_context(Server(pathlib.Path(folder) / name, *words))

        locked, paused = server("locked", "--requirepass", SECRET), server("paused")
        full = server("full", "--maxmemory", "1")
        paused.admin.client_pause(60_000)
        silent = stack.enter_context(listener())
        port = locked.port
        cases = {
            "a closed port": f"redis://127.0.0.1:{a_port()}/0",
            "a closed port, a password": f"redis://:{SECRET}@127.0.0.1:{a_port()}/0",
            "a silent listener": silent,
            "a silent listener, a password": silent.replace("//", f"//me:{SECRET}@"),
            "a listener that hangs up": stack.enter_context(listener(b"")),
            "a listener that is no Redis": stack.enter_context(listener(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
            "a paused server": paused.url,
            "a server that demands a password": locked.url,
            "the wrong password": f"redis://:{SECRET}-not@127.0.0.1:{port}/0",
            "the wrong user": f"redis://nobody:{SECRET}@127.0.0.1:{port}/0",
            "a database that is not there": f"redis://:{SECRET}@127.0.0.1:{port}/99",
            "a server without memory": full.url,
        }
        words = ["call", "note", "-a", '["x"]']
        commands = {case: [options.qworker, "-A", app, "-b", url, *words] for case, url in cases.items()}
        for words in (["result", "some-id"], ["status"], ["dead", "list"], ["purge", "-f"]):
            for case in ("a closed port", "a silent listener"):
                commands[f"{case}, {words[0]}"] = [options.qworker, "-A", app, "-b", cases[case], *words]
        with concurrent.futures.ThreadPoolExecutor(len(commands)) as clients:
            endings = list(clients.map(ask, commands.values()))
        for (case, command), (done, took) in zip(commands.items(), endings):
            judge(report, case, command, done, took)
