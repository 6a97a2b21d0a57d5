"""Many `qworker multi` commands at once on the same nodes, which are killed meanwhile."""

import collections
import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import tempfile
import time

import torture
from torture import PATIENCE, until

NODES = [f"w{number}" for number in range(1, 6)]
AT_ONCE = 8
COMMANDS = (["start"], ["stop"], ["restart"], ["stopwait", "--timeout", "30"], ["restart", "--rolling", "--timeout", "30"])
WEIGHTS = (4, 2, 3, 1, 2)


class App(torture.App):
    """An application of several nodes, on the embedded broker."""

    def __init__(self, qworker, folder, notes):
        super().__init__(qworker, folder, notes)
        self.run_folder = self.folder / "run"
        self.temporary = self.folder.parent / "tmp"
        self.temporary.mkdir()
        self.environment["TMPDIR"] = str(self.temporary)
        # Or sockets are where other workers of this user have theirs.
        self.environment.pop("XDG_RUNTIME_DIR", None)

    def multi(self, command, nodes):
        """The command line of one `multi`."""
        words = [f"--pidfile={self.run_folder}/%n.pid", f"--logfile={self.folder}/log/%n.log"]
        return self.command("multi", command[0], *nodes, *command[1:], "-c", "2", *words)

    def run(self, command, nodes):
        words = self.multi(command, nodes)
        return subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=PATIENCE)

    def pid(self, node):
        with contextlib.suppress(OSError, ValueError):
            return int((self.run_folder / f"{node}.pid").read_text())
        return None

    def workers(self):
        """How many guards there are of each node: workers whose parent is none."""
        found = {}
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                words = (entry / "cmdline").read_bytes().decode().split("\0")
                if str(self.folder) in words and "worker" in words and "--detach" in words:
                    parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                    found[int(entry.name)] = (parent, words[words.index("-n") + 1].split("@")[0])
        return collections.Counter(name for parent, name in found.values() if parent not in found)


def multi(options, report):
    """At the end of all rounds: one worker a name, no stale file, no lost task."""
    rounds = 5 if options.short else 20
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="qworker-faults-", ignore_cleanup_errors=True) as folder:
        (pathlib.Path(folder) / "app").mkdir()
        with App(options.qworker, f"{folder}/app", f"{folder}/notes") as app:
            codes, accepted = collections.Counter(), []
            for turn in range(rounds):
                clients = {f"{turn}-{number}": None for number in range(10)}
                for id in clients:
                    clients[id] = app.client(id)
                one_round(app, chance, codes)
                accepted += [id for id, client in clients.items() if client.wait() == 0]
                settled = until(lambda: max(app.workers().values(), default=0) <= 1, 30)
                if not settled:
                    report.check(False, f"round {turn}: never two workers of a name for long ({app.workers()})")
            judge(app, report, rounds, codes, accepted)
            if options.keep:
                subprocess.run(["cp", "-r", folder, options.keep], check=True)


def one_round(app, chance, codes):
    """Eight commands at the same time, and a KILL of one node among them."""
    commands = []
    for _ in range(AT_ONCE):
        command = chance.choices(COMMANDS, WEIGHTS)[0]
        nodes = chance.sample(NODES, chance.randint(1, len(NODES)))
        # All five are meant in some order, most of the time.
        nodes = chance.sample(NODES, len(NODES)) if chance.random() < 0.6 else nodes
        commands.append((command, nodes))
    running = [(command, subprocess.Popen(app.multi(command, nodes), env=app.environment, stdout=app.log, stderr=app.log))
               for command, nodes in commands]
    time.sleep(chance.uniform(0, 0.6))
    victim = app.pid(chance.choice(NODES))
    if victim:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    for command, process in running:
        try:
            codes[command[0], process.wait(PATIENCE)] += 1
        except subprocess.TimeoutExpired:
            process.kill()
            codes[command[0], "hung"] += 1


def judge(app, report, rounds, codes, accepted):
    ended = app.run(["restart"], NODES)
    report.check(ended.returncode == 0, f"a last restart works ({ended.returncode}: {ended.stderr.strip()})")
    alone = until(lambda: all(app.workers()[name] == 1 for name in NODES), 30)
    report.check(alone, f"exactly one worker a name ({dict(app.workers())})")
    files = sorted(path.name for path in app.run_folder.iterdir())
    report.check(files == [f"{name}.pid" for name in NODES], f"no stale file ({files})")
    nodes = json.loads(app.run(["status", "--json"], NODES).stdout)
    same = all(node["pid"] == app.pid(name) and node["ready"] for name, node in zip(NODES, nodes))
    report.check(same, f"each pidfile names the worker that answers ({nodes if not same else len(nodes)})")
    hung = {what: count for what, count in codes.items() if what[1] == "hung"}
    report.check(not hung, f"every command ended ({hung or 'all'})")
    # A start that a stop, or the KILL, has met on its way says that it failed.
    told = ", ".join(f"{command} {code}: {count}" for (command, code), count in sorted(codes.items(), key=str))
    print(f"multi: {rounds} rounds of {AT_ONCE} commands at once on {len(NODES)} nodes; exit codes: {told}")
    until(lambda: app.left()[0] == 0)
    lost = set(accepted) - set(app.runs())
    report.check(not lost, f"no task is lost ({len(lost)} of {len(accepted)} are)")
    app.run(["stopwait", "--timeout", "30"], NODES)
    survivors = until(lambda: not app.survivors(), 10)
    report.check(survivors, f"no process outlives the workers ({len(app.survivors())} do)")
    left = sorted(path.name for path in app.run_folder.iterdir())
    report.check(not left, f"no file either ({left})")
