"""What beats know of their entries, in a file or in the broker's store: killed while they write it, and
damaged in every way. On SQLite and on Redis."""

import contextlib
import os
import pathlib
import random
import shutil
import sqlite3
import subprocess
import time

from torture import PATIENCE, until

from .beats import Beat, Chain, Watch, told
from .ground import some
from .life import FileApp, name_of, on_both, place

# Microseconds; no two are written at the same times for long.
WRITTEN = {f"every{period}": period * 1000 for period in range(200, 320, 10)}
ENTRY = "  {name}: {{task: note, schedule: {seconds}, misfire: run_all(1000)}}\n"
USER = "nobody"
ID = range(68, 72)  # where a file says that it is a beat's
BACK = 15.0  # seconds within which a file is used again once there is room
HELD = "; due entries wait"


def write_schedule(app, periods):
    entries = (ENTRY.format(name=name, seconds=period / 1e6) for name, period in periods.items())
    (app.folder / "schedule.yaml").write_text("entries:\n" + "".join(entries))


def complaints(beat):
    return [line for line in beat.log().splitlines()
            if any(word in line for word in ("WARNING", "ERROR", "panicked")) and "missed since" not in line]


def go_on(watch, names, times=2):
    """Are all of these entries sent so often from now on?"""
    before = {name: len(watch.of()[name]) for name in names}
    return until(lambda: all(len(watch.of()[name]) >= before[name] + times for name in names), 20)


def judge(report, what, watch, periods, whole=True):
    chains = {name: Chain(sendings, periods[name]) for name, sendings in watch.of().items()}
    twice = [f"{name}{told(chain.repeated)}" for name, chain in chains.items() if chain.repeated]
    report.check(not twice, f"{what}: nothing is sent twice ({len(twice)}{some(twice)})")
    report.check(set(chains) == set(periods), f"{what}: every entry is sent ({len(chains)} of {len(periods)})")
    if whole:
        odd = [f"{name}{told(chain.missing + chain.strange)}" for name, chain in chains.items()
               if chain.missing or chain.strange]
        report.check(not odd, f"{what}: nothing is left out or out of its phase ({len(odd)}{some(odd)})")


@on_both
def kills(options, report, App):
    """A beat is killed at any moment until its state was written often enough."""
    writes = 150 if options.short else 2000
    for kind in ("file", "broker"):
        what, chance = f"{kind}, {name_of(App)}", random.Random(options.seed)
        with place(options, App) as app, Watch(app) as watch:
            write_schedule(app, WRITTEN)
            file = pathlib.Path(app.notes).parent / "beat.sqlite"
            beat = Beat(app, "beat", *(["-s", str(file)] if kind == "file" else []))
            count, noted, begun = 0, [], True
            while len(watch.sendings) < writes:
                beat.start()
                # At the start too: there the file is looked at, and what is new is noted.
                if chance.random() < 0.8:
                    begun &= until(beat.is_at_work)
                time.sleep(chance.uniform(0, 0.6))
                noted += complaints(beat)
                beat.kill()
                count += 1
            beat.start()
            alive = go_on(watch, WRITTEN)
            noted += complaints(beat)
            code = beat.end()
        print(f"state: {what}: {count} kills, {len(watch.sendings)} sendings, each with a state that is written, "
              f"seed {options.seed}")
        report.check(begun and alive and code == 0, f"{what}: it always starts, and sends all entries ({code})")
        report.check(not noted, f"{what}: without a complaint ({len(noted)}{some(noted)})")
        judge(report, what, watch, WRITTEN)


def settle(file):
    """What is in the log would heal the file, or be all that there is."""
    with contextlib.closing(sqlite3.connect(file)) as db:
        assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    for end in ("-wal", "-shm"):
        pathlib.Path(f"{file}{end}").unlink(missing_ok=True)


def truncated(file, chance):
    # Nothing is lost with the end of the last page.
    os.truncate(file, chance.randrange(ID.stop, file.stat().st_size - 4096))


def flipped(file, chance):
    """Bits of every page, and of the header, for one alone may be where nothing is. Not of what says whose it is."""
    content = bytearray(file.read_bytes())
    for at in [chance.randrange(100), *(chance.randrange(page, page + 4096) for page in range(0, len(content) - 4095, 128))]:
        if at not in ID:
            content[at] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def unreadable(file, _):
    file.chmod(0)


def a_folder(file, _):
    file.unlink()
    file.mkdir()
    shutil.chown(file, USER)


@on_both
def damages(options, report, App):
    """A beat that is no root starts with a damaged file, and goes on when it is replaced in use."""
    where, chance = name_of(App), random.Random(options.seed)
    rounds = 1 if options.short else 5
    with place(options, App) as app, Watch(app) as watch:
        folder = pathlib.Path(app.notes).parent
        write_schedule(app, WRITTEN)
        (folder / "state").mkdir()
        file = folder / "state/beat.sqlite"
        folder.chmod(0o755)
        as_user = ["--uid", USER] if os.geteuid() == 0 else []
        if as_user:
            subprocess.run(["chown", "-R", USER, folder], check=True)
        beat = Beat(app, "beat", "-s", str(file), *as_user).start()
        wrong, aside, stuck, done = [], 0, [], 0
        for damage in [truncated, flipped] * (rounds + 1):
            if not go_on(watch, WRITTEN):
                stuck.append(damage.__name__)
            beat.kill()
            settle(file)
            damage(file, chance)
            beat.start()
            if not (until(beat.is_at_work) and go_on(watch, WRITTEN)):
                stuck.append(damage.__name__)
            if len(lines := complaints(beat)) != 1 or "set aside as" not in lines[0]:
                wrong.append((damage.__name__, lines))
            done += 1
        before = len(complaints(beat))
        file.unlink()
        if not go_on(watch, WRITTEN, 8):
            stuck.append("removed")
        lines = complaints(beat)[before:]
        if len(lines) != 1 or "removed or replaced" not in lines[0]:
            wrong.append(("removed", lines))
        # While there is something else in its place, nothing is sent.
        before = len(complaints(beat))
        os.replace(shutil.copy(__file__, f"{file}.new"), file)
        if not until(lambda: complaints(beat)[before:]):
            stuck.append("replaced")
        file.unlink()
        if not go_on(watch, WRITTEN, 8):
            stuck.append("replaced, and removed")
        lines = complaints(beat)[before:]
        if len(lines) != 2 or "found a text" not in lines[0] or "answers again" not in lines[1]:
            wrong.append(("replaced", lines))
        done += 2
        code = beat.end()
        refused = []
        for damage in (unreadable, a_folder):
            file.unlink()
            file.write_bytes(b"SQLite format 3\0")
            damage(file, chance)
            before = file.stat()
            beat.start()
            if beat.process.wait(PATIENCE) != 2 or "expected no file, or one of a beat" not in beat.log() \
                    or (file.stat().st_ino, file.stat().st_mode) != (before.st_ino, before.st_mode):
                refused.append((damage.__name__, beat.log()))
        aside = sum(".damaged-" in one.name and one.suffix == one.suffix.split("-wal")[0].split("-shm")[0]
                    for one in file.parent.iterdir())
    print(f"state: {where}: {done} damages as {USER if as_user else 'this user'}, {aside} files set aside")
    report.check(not stuck and code == 0, f"{where}: it starts with any file, and sends all entries ({stuck}, {code})")
    report.check(not wrong, f"{where}: each damage has one warning ({len(wrong)}{some(wrong)})")
    report.check(not refused, f"{where}: what is not recognisably a beat's is refused, and stays ({refused})")
    judge(report, f"{where}, damages", watch, WRITTEN, whole=False)


@contextlib.contextmanager
def small_disk(folder):
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder):
    with open(folder / "ballast", "ab", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(512))


@on_both
def disk(options, report, App):
    """The state's disk is full while a beat runs, and when two others start; then there is room again."""
    where = name_of(App)
    if options.short and App is FileApp:
        # The broker's store has no part in it, and it takes its time.
        return
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        return print(f"state: {where}: no full disk: only who may mount a small one can fill it")
    with place(options, App) as app, small_disk(pathlib.Path(app.notes).parent / "small") as small, Watch(app) as watch:
        write_schedule(app, WRITTEN)
        one, two = (Beat(app, name, "-s", str(small / "beat.sqlite")) for name in ("one", "two"))
        one.start()
        assert until(one.is_at_work) and go_on(watch, WRITTEN)
        # A log that is cut makes room once more.
        held = until(lambda: fill(small) or complaints(one))
        first = complaints(one)
        # One that starts meanwhile may read the file, and waits as the first one does.
        two.start()
        (small / "ballast").unlink()
        back = until(lambda: "answers again" in one.log(), BACK)
        alive = go_on(watch, WRITTEN, 8) and until(two.is_at_work)
        # One after the other they are killed, and what they know is in the file.
        one.kill()
        alive &= go_on(watch, WRITTEN, 8)
        two.kill()
        one.start()
        alive &= until(one.is_at_work) and go_on(watch, WRITTEN)
        judge(report, f"{where}, full disk", watch, WRITTEN)
        # Begun on a full disk, without any file.
        one.kill()
        (small / "beat.sqlite").unlink()
        for end in ("-wal", "-shm"):
            (small / f"beat.sqlite{end}").unlink(missing_ok=True)
        fill(small)
        one.start()
        code = one.process.wait(PATIENCE)
        last = one.log()
    print(f"state: {where}: full disk: {len(watch.sendings)} sendings")
    named = str(small / "beat.sqlite")
    errors = [line for line in first if HELD in line and named in line]
    again = [line for line in first if "answers again" in line]
    is_one = errors and len(errors) + len(again) == len(first) and len(errors) <= len(again) + 1
    report.check(held and is_one, f"{where}: a full disk has one error, which names the file ({first})")
    report.check(back, f"{where}: the file is used again within {BACK:.0f} s")
    report.check(alive, f"{where}: all entries are sent again")
    is_told = code == 1 and "cannot keep its state" in last and named in last
    report.check(is_told, f"{where}: on a full disk it does not start, and says why ({code}, {last})")


def state(options, report):
    for part in (kills, damages, disk):
        part(options, report)
