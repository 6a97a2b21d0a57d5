"""A worker's life under signals: ended again and again, killed with all it runs, started anew
in place, without its helpers. On SQLite and on Redis."""

import collections
import contextlib
import os
import pathlib
import random
import signal
import subprocess
import tempfile
import time
import uuid

import torture
from torture import SLOTS, children, until

from . import ground
from .ground import some

GRACE = 2  # seconds that a warm shutdown waits
LONG = 5  # seconds
TASKS = ground.TASKS.replace("noop: {wasm: modules/noop.wat, export: noop}\n", "") + """
stubborn:
  shell: |
    echo "$QWORKER_TASK_ID $(date +%s%N) begin qworker" >>"$NOTES"
    [ -e "$NOTES.$QWORKER_TASK_ID" ] && exit
    trap '' TERM
    setsid sh -c 'setsid sh -c "sleep 600; true" & wait' &
    touch "$NOTES.$QWORKER_TASK_ID"
    sleep 600
    wait
"""


class FileApp(ground.App):
    """The same on the embedded broker."""

    tasks = TASKS

    def __init__(self, qworker, folder, notes):
        torture.App.__init__(self, qworker, folder, notes)

    __exit__ = torture.App.__exit__
    left = torture.App.left


class RedisApp(ground.App):
    tasks = TASKS


@contextlib.contextmanager
def place(options, App, settings="", slots=SLOTS):
    with tempfile.TemporaryDirectory(prefix="qworker-faults-", ignore_cleanup_errors=True) as folder:
        (pathlib.Path(folder) / "app").mkdir()
        with App(options.qworker, f"{folder}/app", f"{folder}/notes") as app:
            (app.folder / "qworker.yaml").write_text(settings)
            app.node, app.slots = f"t{uuid.uuid4().hex[:12]}@test", slots
            yield app
            if options.keep:
                subprocess.run(["cp", "-r", folder, options.keep], check=True)


def start(app, *words):
    """A worker that begins; a signal to it is kept until it listens."""
    command = app.command("worker", "-c", str(app.slots), "-n", app.node, "-l", "INFO", *words)
    app.worker = subprocess.Popen(command, env=app.environment, stdout=app.log, stderr=app.log)
    assert until(app.proper)


def send(app, task, count, *args):
    """Tasks in one command; gives their ids."""
    lines = f"[{', '.join(map(str, args))}]\n" * count
    command = app.command("-q", "call", task, "--from-jsonl", "-")
    done = subprocess.run(command, input=lines, env=app.environment, capture_output=True, text=True, check=True)
    ids = done.stdout.split()
    assert len(ids) == count
    return ids


def on_both(trial):
    def both(options, report):
        for App in (FileApp, RedisApp):
            trial(options, report, App)
    both.__name__ = trial.__name__
    return both


def name_of(App):
    return {FileApp: "SQLite", RedisApp: "Redis"}[App]


@on_both
def cycles(options, report, App):
    chance, rounds, where = random.Random(options.seed), 5 if options.short else 300, name_of(App)
    sent, longs, terms, codes = [], [], [], collections.Counter()
    with place(options, App, f"worker_soft_shutdown_timeout: {GRACE}\n") as app:
        for number in range(rounds):
            start(app)
            sent += send(app, "long", 10, 0.01)
            done = {line.id for line in app.lines() if line.what == "end"}
            if len(set(longs) - done) < 6:
                longs += send(app, "long", 1, LONG)
            # Now and then there is time for the long ones to end.
            time.sleep(chance.uniform(3, 7) if number % 10 == 4 else chance.uniform(0, 0.6))
            terms.append(time.time_ns())
            app.worker.terminate()
            codes[app.worker.wait(torture.PATIENCE)] += 1
        start(app)
        settled = until(lambda: app.left()[0] == 0)
        left, dead, code = app.left(), app.dead(), app.stop()
        runs, ends, survivors = app.runs(), collections.Counter(), app.survivors()
        over = {}
        for line in app.lines():
            if line.what == "end":
                ends[line.id] += 1
                over.setdefault(line.id, line.at)
    ids = sent + longs
    lost = [id for id in ids if not ends[id]]
    twice = [id for id in ids if len(runs[id]) > 1]
    # Between two runs of a task there was a TERM, and the first had not ended by then.
    wrong = [id for id in twice if ends[id] > 1 or not all(
        any(a < term + 100_000_000 and term < b for term in terms) for a, b in zip(runs[id], runs[id][1:]))]
    print(f"cycles: {where}: {rounds} cycles, {len(ids)} tasks, {len(longs)} of them of {LONG} s; "
          f"{len(twice)} ran more than once, one of them {max(map(len, runs.values()))} times")
    report.check(not lost, f"{where}: every id is done ({len(lost)} are not{some(lost)})")
    report.check(not wrong, f"{where}: only what ran at a TERM ran again ({len(wrong)} else{some(wrong)})")
    report.check(codes == {0: rounds} and code == 0, f"{where}: every worker ended with 0 {dict(codes)}")
    report.check(settled and left == (0, 0), f"{where}: no message is left {left}")
    report.check(not dead, f"{where}: none is in the dead-letter list ({len(dead)} are)")
    report.check(not survivors, f"{where}: no process outlives the workers ({len(survivors)} do)")


def identity(pid):
    """The process, not its number; None if it is gone, or only waits to be buried."""
    with contextlib.suppress(OSError):
        state, *rest = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        return None if state in "ZX" else rest[18]


@on_both
def orphans(options, report, App):
    chance, where, slowest, again = random.Random(options.seed), name_of(App), 0, 0
    victims = {"worker": [0, 1], "guard": [1, 0], "both": [1, 1]}
    rounds = list(victims) * (1 if options.short else 10)
    with place(options, App, slots=20) as app:
        start(app)
        for what in rounds:
            ids = send(app, "stubborn", 20)
            assert until(lambda: all(pathlib.Path(f"{app.notes}.{id}").exists() for id in ids))
            time.sleep(chance.uniform(0, 0.2))
            known = {pid: identity(pid) for pid in app.survivors()}
            guard, proper = app.worker.pid, app.proper()
            grown = len(known)
            for wanted, pid in zip(victims[what], (guard, proper)):
                if wanted:
                    os.kill(pid, signal.SIGKILL)
            # The survivor of the two is no process of a task.
            known = {pid: mark for pid, mark in known.items() if pid not in (guard, proper)}
            begin = time.monotonic()
            if what == "both":
                # Nobody is left who could end them: the next worker finds them.
                app.worker.wait(torture.PATIENCE)
                start(app)
            gone = until(lambda: not any(identity(pid) == mark for pid, mark in known.items()), 10)
            took = time.monotonic() - begin
            slowest = max(slowest, took)
            if what == "guard":
                app.worker.wait(torture.PATIENCE)
                start(app)
            ran = until(lambda: app.left()[0] == 0)
            back = time.monotonic() - begin
            again = max(again, back)
            count = sum(len(app.runs()[id]) == 2 for id in ids)
            if not (gone and took < 2 and ran and count == 20):
                report.check(False, f"{where}: {what} killed with {grown} processes: gone after {took:.2f} s, "
                                    f"{count} of 20 ran again within {back:.1f} s")
        code, survivors, dead = app.stop(), app.survivors(), app.dead()
    print(f"orphans: {where}: {len(rounds)} times worker, guard or both killed with 20 tasks that have "
          f"grandchildren in new sessions: all gone after {slowest:.2f} s, all done again after {again:.1f} s")
    report.check(slowest < 2, f"{where}: none is alive after 2 s")
    report.check(not dead and not survivors and code == 0,
                 f"{where}: none is lost for good ({len(dead)}), nobody is left ({len(survivors)}), exit {code}")


@on_both
def reload(options, report, App):
    where, rounds, refused, wrong = name_of(App), 6 if options.short else 50, 0, []
    chance = random.Random(options.seed)
    settings = "task_env: {{ROUND: '{}'}}\n"
    with place(options, App, settings.format("none")) as app:
        start(app)
        guard, load = app.worker.pid, ground.Load(app)
        assert until(app.is_working)
        for _ in range(3):
            load.every(0.01, lambda: load.call("note"))
        load.every(0.5, lambda: load.call("long", "-a", "[1]"))
        for number in range(rounds):
            proper = app.proper()
            if number % 5 == 4:
                (app.folder / "qworker.yaml").write_text("worker_concurrency: [nonsense\n")
                before = log(app).count("refused") + log(app).count("not restarted")
                app.worker.send_signal(signal.SIGHUP)
                until(lambda: log(app).count("refused") + log(app).count("not restarted") > before, 5)
                time.sleep(0.3)
                refused += app.proper() == proper and app.worker.poll() is None
                (app.folder / "qworker.yaml").write_text(settings.format(number))
            else:
                (app.folder / "qworker.yaml").write_text(settings.format(number))
            (app.folder / "tasks.d/version.yaml").write_text(f"version: {{shell: 'echo {number} $ROUND', result: text}}\n")
            app.worker.send_signal(signal.SIGHUP)
            until(lambda: app.proper() not in (None, proper), 20)
            answer = app.run("call", "version", "--unregistered", "--wait", "--timeout", "60").stdout.strip()
            time.sleep(chance.uniform(0, 0.3))
            if answer != f"{number} {number}" or app.worker.poll() is not None:
                wrong.append(f"{number}: {answer!r}")
        load.stop()
        settled = until(lambda: app.left()[0] == 0)
        left, dead, same, code = app.left(), app.dead(), app.worker.pid == guard and app.worker.poll() is None, app.stop()
        runs = app.runs()
    lost = sorted(load.accepted - set(runs))
    twice = [id for id, times in runs.items() if len(times) > 1]
    print(f"reload: {where}: {rounds} times HUP, {len(load.accepted)} accepted, {len(load.unsure)} refused "
          f"{dict(load.complaints)}, {len(twice)} ran twice")
    report.check(same and code == 0, f"{where}: the same process all the time, exit {code}")
    report.check(not wrong, f"{where}: tasks and settings are new each time ({some(wrong)})")
    report.check(refused == rounds // 5, f"{where}: a broken qworker.yaml was refused ({refused} of {rounds // 5})")
    strange = [why for why in load.complaints if "wrong settings" not in why]
    report.check(not lost and not strange, f"{where}: nothing is lost ({len(lost)}{some(lost or strange)})")
    report.check(not twice, f"{where}: nothing ran twice ({len(twice)}{some(twice)})")
    report.check(settled and left == (0, 0) and not dead, f"{where}: no message is left {left}, {len(dead)} dead")


def log(app):
    return app.notes.with_suffix(".log").read_text(errors="replace")


def of_all_threads(pid):
    """Children of a process, whichever of its threads has started them."""
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            found += map(int, open(f"/proc/{pid}/task/{thread}/children").read().split())
    return found


def helpers(options, report):
    """Whoever compiles a module is killed while it does."""
    body = "".join(f"(func $f{n} (param i64) (result i64) local.get 0 i64.const {n} i64.mul "
                   + "i64.const 7 i64.add i64.const 3 i64.rem_u " * 40 + ")" for n in range(3000))
    module = f'(module {body} (func (export "answer") (result i64) i64.const 42))'
    kills = 3
    with place(options, FileApp, slots=2) as app:
        (app.folder / "tasks.d/modules").mkdir()
        (app.folder / "tasks.d/modules/large.wat").write_text(module)
        (app.folder / "tasks.d/large.yaml").write_text("large: {wasm: modules/large.wat, export: answer}\n")
        start(app)
        ids, killed, proper = send(app, "large", 2), set(), app.proper()

        def kill_compiler():
            for pid in of_all_threads(proper):
                with contextlib.suppress(OSError):
                    if b"compile" in open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0") and pid not in killed:
                        os.kill(pid, signal.SIGKILL)
                        killed.add(pid)
            return len(killed) >= kills
        hit = until(kill_compiler, 30)
        answers = [app.run("result", id, "--wait", "--timeout", "60").stdout.strip() for id in ids]
        begin = time.monotonic()
        app.run("call", "large", "--wait", "--timeout", "60")
        longs = send(app, "long", 2, 1)
        began = until(lambda: all(app.runs()[id] for id in longs), 0.9)
        same, left = app.proper() == proper, until(lambda: app.left()[0] == 0)
        code, dead = app.stop(), app.dead()
    print(f"helpers: {len(killed)} compilers killed; then the answers were {answers}")
    report.check(hit, f"compilers were killed ({len(killed)})")
    report.check(answers == ["42", "42"] and not dead, "their tasks ran all the same")
    report.check(same and began and left and code == 0, f"the worker is the same one, with both slots (exit {code})")


def descriptors(options, report):
    """What a task has open: detached or not, with log, pidfile, sockets and a server."""
    wrong, seen = [], 0
    for App in (FileApp, RedisApp):
        for detached in (False, True):
            with place(options, App) as app:
                (app.folder / "tasks.d/fds.yaml").write_text(
                    "fds: {exec: [/bin/ls, -l, /proc/self/fd], result: text}\n"
                    "shell: {shell: 'ls -l /proc/$$/fd', result: text}\n")
                run = pathlib.Path(app.notes).parent
                words = ("-f", str(run / "worker.log"), "--pidfile", str(run / "worker.pid"))
                if detached:
                    done = app.run("worker", "-D", "-c", "4", "-n", app.node, *words)
                    assert done.returncode == 0, done.stderr
                else:
                    start(app, *words)
                    assert until((run / "worker.pid").exists)
                for task in ("fds", "shell") * (5 if options.short else 100):
                    text = app.run("call", task, "--wait", "--timeout", "60").stdout
                    open_ones = [line.split(" -> ")[-1] for line in text.splitlines() if " -> " in line]
                    # Its three streams, and the folder that ls reads.
                    extra = [one for one in open_ones[3:] if not (task == "fds" and one.startswith("/proc/"))]
                    seen += 1
                    if len(open_ones) < 3 or extra:
                        wrong.append(f"{name_of(App)}, {task}: {open_ones}")
                pid = int((run / "worker.pid").read_text())
                os.kill(pid, signal.SIGTERM)
                until(lambda: identity(pid) is None)
                if not detached:
                    app.worker.wait()
    print(f"descriptors: {seen} tasks looked at what they have open")
    report.check(not wrong, f"none has more than its streams ({some(wrong)})")


FORKS = """
forks:
  shell: |
    (sh -c 'setsid sh -c "(sleep 0.02; exit 3) & (setsid true &) exit 0" & (sleep 0.01 &) exit 1' &)
    echo "$QWORKER_TASK_ID $(date +%s%N) begin qworker" >>"$NOTES"
"""


def first(options, report):
    """The worker is process 1 of a container: whoever loses its parent is its child."""
    count, most = 200 if options.short else 1000, 0
    if os.geteuid() != 0:
        return print("first: only root can make a container")
    with place(options, FileApp) as app:
        (app.folder / "tasks.d/forks.yaml").write_text(FORKS)
        container = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
        command = app.command("worker", "-c", str(app.slots), "-n", app.node)
        app.worker = subprocess.Popen(container + command, env=app.environment, stdout=app.log, stderr=app.log)
        assert until(lambda: app.proper() and children(app.proper()))
        guard = app.proper()

        def dead():
            below = [one for pid in (guard, *children(guard)) for one in of_all_threads(pid)]
            return [pid for pid in below if open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] == "Z"]

        def zombies():
            # Who is buried meanwhile is none.
            with contextlib.suppress(OSError):
                return len(dead())
            return 0
        number = pathlib.Path(f"/proc/{guard}/status").read_text().split("NSpid:")[1].split("\n")[0].split()[-1]
        ids = send(app, "forks", count)
        while app.left()[0]:
            most = max(most, zombies())
        runs, gone = app.runs(), until(lambda: zombies() == 0, 2)
        left = zombies()
        os.kill(guard, signal.SIGTERM)
        code, survivors = app.worker.wait(torture.PATIENCE), app.survivors()
    print(f"first: as process {number} it ran {count} tasks that fork twice; at most {most} zombies at a time, then {left}")
    report.check(number == "1" and gone and left == 0, "process 1 buries everybody")
    report.check(all(len(runs[id]) == 1 for id in ids) and code == 0 and not survivors,
                 f"every task ran once, exit {code}, {len(survivors)} survivors")
