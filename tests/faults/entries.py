"""Beats whose files are edited under load, and whose broker is away for a while. On SQLite and on Redis."""

import collections
import contextlib
import os
import random
import sqlite3
import time

from torture import until

from .beats import GAP, PERIODS, SECOND, THREE, Beat, Chain, Watch, micros, told
from .ground import some
from .life import FileApp, RedisApp, name_of, on_both, place
from .proxy import Proxy

MINUTE = 60  # seconds after which an entry that comes back is a new one


class Files:
    """The files of 200 entries of one second, most of which are never changed themselves."""

    def __init__(self, folder, chance):
        self.yaml, self.table, self.chance = folder / "schedule.yaml", folder / "more.crontab", chance
        self.round, self.flips, self.away = 0, {f"flip-{n}" for n in range(20)}, {f"away-{n}" for n in range(5)}
        self.kept = [f"keep-{n}" for n in range(100)] + [f"line-{n}" for n in range(50)]
        self.edited = [f"edit-{n}" for n in range(25)]
        self.names = {"flip": sorted(self.flips), "away": sorted(self.away)}

    def texts(self):
        """What the files are to say; lines move each time."""
        args = {name: 0 for name in self.kept if name.startswith("keep")}
        args |= {name: self.round for name in [*self.edited, *self.flips, *self.away]}
        lines = [f"  {name}: {{task: note, schedule: 1.0, args: [{arg}]}}" for name, arg in args.items()]
        table = [f"@every 1s note 0 name={name}" for name in self.kept if name.startswith("line")]
        for some_lines in (lines, table):
            self.chance.shuffle(some_lines)
            some_lines.insert(self.chance.randrange(len(some_lines)), f"# {self.round}")
        return "\n".join(["entries:", *lines, ""]), "\n".join([*table, ""])

    def write(self, path, text, whole):
        """In one step, or as an editor without manners does."""
        if whole:
            new = path.with_name(".new")
            new.write_text(text)
            return os.replace(new, path)
        with open(path, "w") as file:
            third = len(text) // 3
            for part in (text[:third], text[third:2 * third], text[2 * third:]):
                file.write(part)
                file.flush()
                time.sleep(self.chance.uniform(0, 0.015))  # A slow editor: a half file is there to be read.

    def save(self, whole=True):
        self.round += 1
        yaml, table = self.texts()
        self.write(self.yaml, yaml, whole)
        self.write(self.table, table, whole)

    def break_one(self, whole):
        """Writes a file with a mistake; gives what a beat has to say of it."""
        self.round += 1
        yaml, table = self.texts()
        if self.chance.random() < 0.3:
            path, lines, mistake = self.table, table.split("\n"), "0 25 * * * note"
        else:
            mistake = self.chance.choice(["  wrong: {task: note, schedule: {crontab: '61 * * * *'}}", "  wrong: {task: note]"])
            path, lines = self.yaml, yaml.split("\n")
        at = self.chance.randrange(1, len(lines) - 1)
        lines.insert(at, mistake)
        self.write(path, "\n".join(lines), whole)
        return f"{path.name}:{at + 1}"


@on_both
def edits(options, report, App):
    """Two beats; their files are rewritten about every second."""
    where, span, chance = name_of(App), 15 if options.short else 100, random.Random(options.seed)
    done, silent, gone = collections.Counter(), [], collections.defaultdict(list)
    with place(options, App) as app, Watch(app) as watch:
        files = Files(app.folder, chance)
        files.save()
        two = [Beat(app, f"beat{number}").start() for number in range(2)]
        assert until(lambda: all(beat.is_at_work() for beat in two))

        def loaded(hup):
            """Until both have read what there is."""
            before = [beat.log().count("beat: loaded") for beat in two]
            if hup:
                for beat in two:
                    beat.reload()
            return until(lambda: all(beat.log().count("beat: loaded") > count for beat, count in zip(two, before)), 6)
        begin = time.monotonic()
        removed = None
        while time.monotonic() < begin + span:
            whole, hup = chance.random() < 0.5, chance.random() < 0.5
            what = chance.choice(["edit", "flip", "break"])
            if what == "edit":
                files.save(whole)
                if hup:
                    for beat in two:
                        beat.reload()
                time.sleep(chance.uniform(0.3, 1.5))  # The next edit comes at any moment, also while this one is read.
            elif what == "flip":
                flipped = set(chance.sample(files.names["flip"], 8))
                leaving = flipped & files.flips
                files.flips ^= flipped
                came = micros()
                for name in flipped - leaving:
                    gone[name][-1].append(came)
                if removed is None:
                    leaving |= files.away
                    removed, files.away = time.monotonic(), set()
                files.save(whole)
                if not loaded(hup):
                    silent.append(f"no load in round {files.round}")
                for name in leaving:
                    gone[name].append([micros()])
                time.sleep(chance.uniform(0.5, 1))  # Time in which what was removed must not be sent.
            else:
                place_of_it, marks = files.break_one(whole), [len(beat.log()) for beat in two]
                if hup:
                    for beat in two:
                        beat.reload()
                if not until(lambda: all(place_of_it in beat.log()[mark:] for beat, mark in zip(two, marks)), 5):
                    silent.append(place_of_it)
                time.sleep(chance.uniform(0, 1))  # The mistake stands for a while; the old entries are sent on.
                files.save(whole)
            done[what, "whole" if whole else "in parts", "HUP" if hup else "noticed"] += 1
            if not files.away and removed and time.monotonic() > removed + MINUTE + 5:
                for name in files.names["away"]:
                    gone[name][-1].append(micros())
                files.away = set(files.names["away"])
                files.save()
                loaded(True)
        files.save()
        loaded(True)
        loaded(True)
        time.sleep(2)  # What is gone would be sent in this time: nothing tells that it is not.
        codes, now, sendings = [beat.end() for beat in two], micros(), watch.of()
        strange = [line for beat in two for line in beat.log().splitlines() if "missed" in line or "cannot" in line]
    chains = {name: Chain(sendings[name]) for name in files.kept + files.edited}
    fast = max(chain.late() for chain in chains.values())
    print(f"edits: {where}: {span} s, seed {options.seed}: {sum(done.values())} edits "
          f"({', '.join(f'{count} {what}' for what, count in sorted(collections.Counter(k[0] for k in done.elements()).items()))}), "
          f"{sum(map(len, sendings.values()))} messages, at most {fast:.2f} s late; {len(strange)} complaints{some(strange)}")
    for text, names in (("not changed", files.kept), ("changed but for when it is due", files.edited)):
        for what in ("missing", "repeated", "strange"):
            wrong = {name: getattr(chains[name], what) for name in names if getattr(chains[name], what)}
            report.check(not wrong, f"{where}: what is {text}: none {what} "
                         f"({len(wrong)}{some([name + told(dues) for name, dues in wrong.items()])})")
    ends = [name for name, chain in chains.items() if now - chain.sendings[-1].at > GAP * SECOND]
    report.check(not ends, f"{where}: all of them are sent to the end ({len(ends)}{some(ends)})")
    old = [name for name in files.edited if sendings[name][-1].args != f"[{files.round}]"]
    report.check(not old, f"{where}: new definitions are in force ({len(old)}{some(old)})")
    report.check(not silent, f"{where}: each mistake is told with its place ({len(silent)}{some(silent)})")
    judge_gone(report, where, gone, sendings, now)
    report.check(set(codes) == {0}, f"{where}: beats end with 0 ({codes})")


def judge_gone(report, where, gone, sendings, now):
    """Of each entry the times at which it was gone, and at which it was to come back."""
    ghosts, held, back, spans = [], [], [], [span for spans in gone.values() for span in spans]
    for name, times in gone.items():
        for left, came in ((times + [now])[:2] for times in times):
            # What was due before may still be on its way.
            ghosts += [name for s in sendings[name] if s.at < came and (s.due > left or s.at > left + GAP * SECOND)]
            late = [s for s in sendings[name] if left < s.due < came - SECOND // 10]
            # Back at once, nothing is late; back within the minute, they were missed.
            most = 3 if came - left < 3 * SECOND else 1 if came - left < MINUTE * SECOND else 0
            held += [name] * (len(late) > most)
            if came < now - 5 * SECOND:
                after = [s for s in sendings[name] if s.at > came]
                back += [name] * (not after or after[0].at > came + 5 * SECOND)
    report.check(not ghosts, f"{where}: nothing is sent of what was removed, {len(spans)} times ({len(ghosts)}{some(ghosts)})")
    report.check(not held, f"{where}: nor later, when it is back ({len(held)}{some(held)})")
    report.check(not back, f"{where}: what is back is sent ({len(back)}{some(back)})")


RULES = """
entries:
  skip: {task: note, schedule: 1.0, misfire: skip}
  near: {task: note, schedule: 1.0, misfire: skip, grace: 3s}
  once: {task: note, schedule: 1.0, misfire: run_once}
  three: {task: note, schedule: 1.0, misfire: run_all(3)}
  grace: {task: note, schedule: 1.0, misfire: run_all(1000), grace: 3500ms}
  all: {task: note, schedule: 1.0, misfire: run_all(1000)}
"""
# What is sent of the missed ones, at least and at most; of those within 3.5 s there are three or four.
COUNTS = {"skip": (0, 0), "near": (1, 1), "once": (1, 1), "three": (3, 3), "grace": (3, 4)}


@contextlib.contextmanager
def cut(app, proxy):
    """Nobody reaches the broker."""
    if proxy:
        proxy.stall(new_too=True)
        yield
        proxy.flow()
        return
    path = app.folder / "var/qworker.sqlite"
    path.parent.mkdir(exist_ok=True)
    with contextlib.closing(sqlite3.connect(path, 30, isolation_level=None)) as file:
        file.execute("BEGIN IMMEDIATE")
        yield
        file.execute("ROLLBACK")


def missed(beats):
    """How often it was said of each entry that occurrences were missed, and how many were sent then."""
    found = collections.defaultdict(list)
    for beat in beats:
        for line in beat.log().splitlines():
            if ": missed since " in line:
                name = line.split("] ", 1)[1].split(":")[0]
                found[name].append(int(line.rsplit("; ", 1)[1].split()[0]))
    return found


@on_both
def outage(options, report, App):
    """The broker does not answer for a while, under two beats; a third one starts meanwhile."""
    where, span = name_of(App), 6 if options.short else 30
    with contextlib.ExitStack() as stack:
        app = stack.enter_context(place(options, App))
        proxy = stack.enter_context(Proxy(app.server.port)) if App is RedisApp else None
        watch, url = stack.enter_context(Watch(app)), proxy and proxy.url
        (app.folder / "schedule.yaml").write_text(RULES)
        three = [Beat(app, f"beat{number}") for number in range(3)]
        for beat in three[:2]:
            beat.start(url)
        assert until(lambda: all(beat.is_at_work() for beat in three[:2]))
        assert until(lambda: watch.has(2))
        with cut(app, proxy):
            begin = micros()
            # The broker is away for so long.
            time.sleep(span - 5)
            three[2].start(url)
            time.sleep(5)
        back = micros()
        time.sleep(6)  # What is sent too often would come in this time: nothing tells that it does not.
        joined = three[2].is_at_work()
        now, sendings, counts = micros(), watch.of(), missed(three)
        codes = [beat.end() for beat in three]
        complaints = [len([line for line in beat.log().splitlines() if "ERROR" in line]) for beat in three]
    chains = {name: Chain(sendings[name]) for name in (*COUNTS, "all")}
    resumed = max(min((s.at for s in chain.sendings if s.at > back), default=now) - back for chain in chains.values())
    print(f"outage: {where}: {span} s; sent on {resumed / SECOND:.2f} s after; sent of what was missed: "
          f"{ {name: counts[name] for name in chains} }, left out {({name: len(chain.missing) for name, chain in chains.items()})}; "
          f"errors told {complaints}")
    report.check(resumed <= 3 * GAP * SECOND, f"{where}: all is sent on within {3 * GAP:.0f} s ({resumed / SECOND:.2f} s)")
    for name, (least, most) in COUNTS.items():
        count, total = sum(counts[name]), sum(counts["all"])
        report.check(least <= count <= most, f"{where}: {name}: {count} sent of what was missed, as is its rule")
        left = len(chains[name].missing)
        report.check(abs(left - (total - count)) <= 1, f"{where}: {name}: {left} left out, of {total}")
        # What was on its way when the network broke was not missed, nor what is less late than GAP;
        # and it takes a moment to be seen.
        after = [s for s in chains[name].sendings if s.at > back and s.due > begin + SECOND // 2]
        late = max(s.at - s.due for s in after) / SECOND
        report.check(late <= most + 1.25 * GAP, f"{where}: {name}: none later than {most + 1.25 * GAP} s ({late:.2f} s)")
    total = sum(counts["all"])
    report.check(not chains["all"].missing and total >= span - 4, f"{where}: all: none left out, {total} sent of what was missed")
    for what in ("repeated", "strange"):
        wrong = {name: getattr(chain, what) for name, chain in chains.items() if getattr(chain, what)}
        report.check(not wrong, f"{where}: none is {what} ({len(wrong)}{some([n + told(d) for n, d in wrong.items()])})")
    report.check(joined, f"{where}: the beat that was started meanwhile works too")
    report.check(set(codes) == {0}, f"{where}: beats end with 0 ({codes})")
    without(options, report, App)


def without(options, report, App):
    """All beats are started while nobody is there."""
    where = name_of(App)
    with contextlib.ExitStack() as stack:
        app = stack.enter_context(place(options, App))
        watch = stack.enter_context(Watch(app))
        (app.folder / "schedule.yaml").write_text(THREE)
        away = contextlib.ExitStack()
        if App is RedisApp:
            app.server.end()
            away.callback(app.server.start)
        else:
            away.enter_context(cut(app, None))
        with away:
            two = [Beat(app, f"beat{number}").start() for number in range(2)]
            # A file that is locked for longer than 10 s is none to work with: then a start fails.
            # The broker is away for so long.
            time.sleep(3 if options.short else 8 if App is FileApp else 20)
            alive = [beat.process.poll() is None for beat in two]
        back = micros()
        time.sleep(4)  # What is sent twice would come in this time: nothing tells that it does not.
        chains = {name: Chain(sendings, PERIODS[name]) for name, sendings in watch.of().items()}
        codes = [beat.end() for beat in two]
    report.check(all(alive), f"{where}: beats start without a broker, and wait ({alive})")
    first = {name: (chain.sendings[0].at - back) / SECOND for name, chain in chains.items()}
    in_time = len(first) == 3 and max(first["second"], first["clock"]) <= GAP
    report.check(in_time, f"{where}: they send as soon as it is there ({({name: round(at, 2) for name, at in first.items()})})")
    wrong = [name for name, chain in chains.items() if chain.repeated or chain.missing or chain.strange]
    report.check(not wrong, f"{where}: each occurrence once from then on ({some(wrong)})")
    report.check(set(codes) == {0}, f"{where}: beats end with 0 ({codes})")
