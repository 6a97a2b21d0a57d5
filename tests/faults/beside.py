"""Celery's beat and ours with the same schedule, at the same time: the same sendings."""

import base64
import collections
import contextlib
import datetime
import functools
import json
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
import uuid
import zoneinfo

import redis

from torture import until

from .ground import application, some

STEPS = ("", "\x06\x163", "\x06\x166", "\x06\x169")  # of priorities, in the names of lists
# Each entry in YAML, and as Celery has it; with more entries that are due within seconds.
OURS = """timezone: Asia/Seoul
entries:
  add-every-minute:    {task: multiply_two_numbers, schedule: {crontab: "* * * * *"}, args: [16, 16]}
  add-every-5-seconds: {task: multiply_two_numbers, schedule: 5.0, args: [16, 16]}
  report:              {task: report, schedule: {crontab: {minute: "0", hour: "7-19/2", day_of_week: "mon-fri"}},
                        timezone: Europe/Oslo, options: {queue: ours-reports, expires: 600}}
  lights:              {task: lamp, schedule: {solar: sunset, lat: 59.9, lon: 10.7}}
  heavy:               {task: backup, schedule: {every: 6h, at: "00:15", jitter: 5m}, misfire: run_once, grace: 1h, overlap: skip}

  relative:   {task: relative, schedule: 2.0, relative: true, kwargs: {even: [1, {"a": null}], text: "\\u00fc"}}
  sevenths:   {task: sevenths, schedule: {crontab: {minute: "*/7"}}}
  halves:     {task: halves, schedule: "*/2 * * * *", kwargs: {half: true}}
  now-oslo:   {task: now-oslo, schedule: {crontab: {hour: HERE, day_of_week: DAYS}}, timezone: Europe/Oslo}
  not-oslo:   {task: not-oslo, schedule: {crontab: {hour: AWAY}}, timezone: Europe/Oslo}
  words:      {task: words, schedule: {timedelta: {minutes: 0.05, milliseconds: 500}}, args: [1.5, "x", null, true]}
  options:    {task: options, schedule: 4.5, args: [12345678901234567890123],
               options: {queue: ours-other, priority: 3, expires: 90, ignore_result: true,
                         shadow: other, time_limit: 20, soft_time_limit: 10, headers: {tenant: 7}}}
  later:      {task: later, schedule: 5, options: {countdown: 60}}
  off:        {task: "off", schedule: 1, enabled: false}
"""
THEIRS = """
import datetime, os, zoneinfo
from celery import Celery
from celery.schedules import crontab, solar

timedelta = datetime.timedelta
app = Celery("theirs", broker=os.environ["URL"], backend=os.environ["URL"])
app.conf.update(timezone="Asia/Seoul", task_default_queue="theirs", beat_schedule_filename="theirs-state")
oslo = Celery("oslo", set_as_current=False)
oslo.conf.update(timezone="Europe/Oslo")


class OsloCrontab(crontab):
    # A zone is an application's there; beat gives each entry its own application.
    app = property(lambda self: oslo, lambda self, value: None)
    nowfun = staticmethod(lambda: datetime.datetime.now(zoneinfo.ZoneInfo("Europe/Oslo")))


app.conf.beat_schedule = {
    "add-every-minute": {"task": "multiply_two_numbers", "schedule": crontab(), "args": (16, 16)},
    "add-every-5-seconds": {"task": "multiply_two_numbers", "schedule": 5.0, "args": (16, 16)},
    "report": {"task": "report", "schedule": OsloCrontab(minute="0", hour="7-19/2", day_of_week="mon-fri"),
               "options": {"queue": "theirs-reports", "expires": 600}},
    "lights": {"task": "lamp", "schedule": solar("sunset", 59.9, 10.7)},
    "heavy": {"task": "backup", "schedule": crontab(minute=15, hour="*/6")},
    "relative": {"task": "relative", "schedule": 2.0, "relative": True, "kwargs": {"even": [1, {"a": None}], "text": "\\u00fc"}},
    "sevenths": {"task": "sevenths", "schedule": crontab(minute="*/7")},
    "halves": {"task": "halves", "schedule": crontab.from_string("*/2 * * * *"), "kwargs": {"half": True}},
    "now-oslo": {"task": "now-oslo", "schedule": OsloCrontab(hour="HERE", day_of_week="DAYS")},
    "not-oslo": {"task": "not-oslo", "schedule": OsloCrontab(hour="AWAY")},
    "words": {"task": "words", "schedule": timedelta(minutes=0.05, milliseconds=500), "args": (1.5, "x", None, True)},
    # Priorities on Redis: there 0 is served first, here 9 is.
    "options": {"task": "options", "schedule": 4.5, "args": (12345678901234567890123,),
                "options": {"queue": "theirs-other", "priority": 6, "expires": 90, "ignore_result": True,
                            "shadow": "other", "time_limit": 20, "soft_time_limit": 10, "headers": {"tenant": 7}}},
    "later": {"task": "later", "schedule": 5, "options": {"countdown": 60}},
}
"""
# Seconds after which these come again. SHORT and LONG end nearly a second behind the last one of each, and before the next.
INTERVALS = {"add-every-5-seconds": 5, "relative": 2, "words": 3.5, "options": 4.5, "later": 5}
SHORT, LONG = 12.85, 128.85
# Ours waits up to five minutes before it sends this one.
JITTERED = {"heavy"}

Sending = collections.namedtuple("Sending", "at queue message")
Sent = collections.namedtuple("Sent", "at name occurrence message")


def beside(options, report):
    """Two minutes, or some seconds of them."""
    seconds = SHORT if options.short else LONG
    with application(options) as app:
        here = datetime.datetime.now(zoneinfo.ZoneInfo("Europe/Oslo"))
        soon = here + datetime.timedelta(minutes=5)
        words = {"HERE": ",".join(sorted({str(here.hour), str(soon.hour)})), "AWAY": str((here.hour + 8) % 24),
                 "DAYS": ",".join(sorted({day.strftime("%a").lower() for day in (here, soon)}))}
        ours, theirs = (functools.reduce(lambda text, word: text.replace(*word), words.items(), text) for text in (OURS, THEIRS))
        (app.folder / "schedule.yaml").write_text(ours)
        (app.folder / "qworker.yaml").write_text("task_default_queue: ours\n")
        (app.folder / "theirs.py").write_text(theirs)
        with Reader(app) as reader, both(app) as logs:
            begun = until(lambda: all(begin_of(log) for log in logs.values()), 30)
            report.check(begun, "both have begun")
            if not begun:
                return print(*(log.read_text() for log in logs.values()), sep="\n")
            begins = [begin_of(log) for log in logs.values()]
            time.sleep(max(0.0, max(begins) + seconds + 1 - time.time()))
        # The last moments of Celery's are left out: it ends between a message and the line about it.
        judge(report, [sent(reader, log, name, max(begins) + seconds) for name, log in logs.items()], begins, seconds)


def begin_of(log):
    """When it has begun to count, in seconds since the epoch; None if it has not."""
    line = re.search(r"^\[(.*): INFO.*beat: (?:Starting\.\.\.|loaded \d+ entries)$(?!\n.*beat: )", log.read_text(), re.M)
    return line and datetime.datetime.fromisoformat(line[1].replace(",", ".")).timestamp()


def sent(reader, log, who, end):
    """What one of them has sent until then, with the name of each entry, which its log has."""
    pairs = re.findall(r"Sending due task (\S+) \(.*\n(?:.*\n)*?.* sent\. id->(\S+)", log.read_text())
    names = {id: name for name, id in pairs}
    found = [one for one in reader.found if one.queue.startswith(who) and one.at < end]
    return [Sent(one.at, names.get(one.message["headers"]["id"]), *plain(one, who)) for one in found]


def plain(sending, who):
    """The identity of an occurrence, and all of its message that is the same wherever it was made."""
    message = sending.message
    headers, properties = message["headers"], message["properties"]
    occurrence = headers.pop("qworker_occurrence", None)
    id = headers.pop("id")
    assert headers.pop("root_id") == properties.pop("correlation_id") == id
    assert re.fullmatch(r"\w+@.+", headers.pop("origin"))
    assert headers.pop("lang") == {"ours": "rust", "theirs": "py"}[who]
    for name in ("reply_to", "delivery_tag"):
        uuid.UUID(properties.pop(name))
    for name in ("expires", "eta"):
        if headers[name]:
            headers[name] = round((datetime.datetime.fromisoformat(headers[name]).timestamp() - sending.at) / 5) * 5
    headers["timelimit"] = [limit and float(limit) for limit in headers["timelimit"]]
    message["body"] = json.loads(base64.b64decode(message["body"]))
    text = json.dumps([sending.queue, message], sort_keys=True)
    return occurrence, text.replace(f'"{who}', '"WHO')


def judge(report, sides, begins, seconds):
    ours, theirs = sides
    names = [[one.name for one in side] for side in sides]
    report.check(None not in names[0] + names[1], "every message is one that a log names")
    for name, period in INTERVALS.items():
        counts = [sum(one.name == name and begin <= one.at < begin + seconds for one in side) for side, begin in zip(sides, begins)]
        least = int(seconds / period)
        report.check(counts[0] == counts[1] >= least, f"{name}: as often ({counts[0]}, Celery {counts[1]}) in {seconds} s")
    # What is due at a second of the day, but for those in which only one of them ran.
    begin, end = max(begins) + 1, min(begins) + seconds
    instants = [sorted((one.name, int(one.at)) for one in side if one.name not in INTERVALS and one.name not in JITTERED and begin <= one.at < end)
                for side in sides]
    differ = sorted(set(instants[0]) ^ set(instants[1]))
    report.check(instants[0] == instants[1], f"crontabs: the same entries in the same seconds ({len(instants[0])}; {len(differ)} differ{some(differ)})")
    minutes = int(end // 60 - begin // 60)
    for name in ("add-every-minute", "now-oslo"):
        count = sum(one[0] == name for one in instants[0])
        report.check(count == minutes, f"{name}: each minute ({count} of {minutes})")
    messages = [{(one.name, one.message) for one in side} for side in sides]
    seen = [{name for name, _ in side} for side in messages]
    both = seen[0] & seen[1] - JITTERED
    differ = sorted(pair for pair in messages[0] ^ messages[1] if pair[0] in both)
    report.check(not differ, f"the same messages: task, arguments, options, headers, queue ({len(both)} entries{some(differ)})")
    occurrences = [one.occurrence for one in ours]
    report.check(len(set(occurrences)) == len(occurrences) and None not in occurrences, "each of ours names its occurrence")
    rightly = all(one.occurrence.startswith(f"{one.name}@") for one in ours if one.occurrence)
    report.check(rightly, "by the name of its entry")
    late = [one.at - due_of(one.occurrence) for one in ours if one.occurrence]
    print(f"        late by {statistics.median(late) * 1000:.1f} ms (median), {max(late) * 1000:.1f} ms at the most; {len(ours)} sent, Celery {len(theirs)}")
    report.check(0 <= min(late) and max(late) < 2, "none early, none late enough to be missed")


def due_of(occurrence):
    return datetime.datetime.fromisoformat(occurrence.rsplit("@", 1)[1]).timestamp()


class Reader(threading.Thread):
    """Takes messages as they come, and notes when that was."""

    def __init__(self, app):
        super().__init__(daemon=True)
        self.connection = redis.Redis(port=app.server.port)
        queues = [f"{who}{what}" for who in ("ours", "theirs") for what in ("", "-reports", "-other")]
        self.lists = [queue + step for queue in queues for step in STEPS]
        self.scheduled = "qworker.scheduled.ours"
        self.over, self.found = threading.Event(), []

    def run(self):
        while not self.over.is_set():
            popped = self.connection.brpop(self.lists, timeout=0.2)
            if popped:
                self.found.append(Sending(time.time(), popped[0].decode().split("\x06")[0], json.loads(popped[1])))
            # Ours are put there until they may be run.
            for member, _ in self.connection.zpopmin(self.scheduled, 100):
                self.found.append(Sending(time.time(), "ours", json.loads(member[member.index(b"{"):])))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()
        self.connection.close()


@contextlib.contextmanager
def both(app):
    """The two beats; gives the paths of what they say."""
    ours = [*app.command("beat", "-l", "DEBUG")]
    theirs = [sys.executable, "-m", "celery", "-A", "theirs", "beat", "-l", "DEBUG"]
    environment = {**app.environment, "URL": app.server.url, "PYTHONPATH": str(app.folder)}
    logs = {name: app.folder.parent / f"{name}.log" for name in ("ours", "theirs")}
    running = []
    try:
        # Python takes longer.
        for name, command in (("theirs", theirs), ("ours", ours)):
            with open(logs[name], "ab") as log:
                running.append(subprocess.Popen(command, cwd=app.folder, env=environment, stdout=log, stderr=log))
        yield logs
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
            process.wait()
