"""What Celery's own schedules say: cases from a seed, each with Celery's next run.

Arguments: what to compare, how many cases, a JSON list of zones, and a folder with their files.
The last line of
output is a JSON list of cases; instants are microseconds since 1970.
"""

import json
import random
import sys
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo, available_timezones, reset_tzpath

from celery import Celery
from celery.schedules import crontab, schedule, solar

UTC = timezone.utc
START = datetime(2020, 1, 1, tzinfo=UTC)
DAYS = 20 * 365
app = Celery(set_as_current=True)
randomly = random.Random(20261121)


def micros(instant):
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def offset(zone, instant):
    return int(instant.astimezone(zone).utcoffset().total_seconds())


def next_run(plan, zone, last):
    """As beat computes it right after a run at `last`."""
    plan.app = app
    plan.tz = zone
    plan.nowfun = lambda: last.astimezone(zone)
    return last + plan.remaining_estimate(last.astimezone(zone))


def value(low, high, names):
    number = randomly.randint(low, high)
    if names and randomly.random() < 0.4:
        name = names[number - low]
        return randomly.choice([name, name[:3], name[:3].upper()])
    return str(number)


def part(low, high, names):
    kind = randomly.random()
    if kind < 0.15:
        return f"*/{randomly.randint(1, high)}"
    if kind < 0.2:
        return f"*/{randomly.randint(1, high)}/{randomly.randint(1, 3)}"
    if kind < 0.55:
        return value(low, high, names)
    both = f"{value(low, high, names)}-{value(low, high, names)}"
    return both if kind < 0.8 else f"{both}/{randomly.randint(1, 9)}"


def field(low, high, star, names=None):
    if randomly.random() < star:
        return "*"
    return ",".join(part(low, high, names) for _ in range(randomly.choice([1, 1, 1, 2, 3])))


MONTHS = "January February March April May June July August September October November December".split()
WEEKDAYS = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split()


def expression():
    return " ".join([
        field(0, 59, 0.2),
        field(0, 23, 0.35),
        field(1, 31, 0.6),
        field(1, 12, 0.7, MONTHS),
        field(0, 6, 0.6, WEEKDAYS),
    ])


def some_instant():
    return START + timedelta(days=randomly.randrange(DAYS), microseconds=randomly.randrange(86400 * 10**6))


def is_quiet(zone, instant):
    """Are clocks left alone for two days before and after?"""
    return len({offset(zone, instant + timedelta(hours=12 * n)) for n in range(-4, 5)}) == 1


def transitions(zone):
    found, at, last = [], START, offset(zone, START)
    while at < START + timedelta(days=DAYS):
        after = at + timedelta(days=3)
        if offset(zone, after) != last:
            low, high = at, after
            while high - low > timedelta(seconds=1):
                middle = low + (high - low) // 2
                middle = middle.replace(microsecond=0)
                low, high = (middle, high) if offset(zone, middle) == last else (low, middle)
            found.append(high)
            last = offset(zone, after)
        at = after
    return found


def crontabs(zones, count):
    cases = []
    while len(cases) < count:
        name, text, last = randomly.choice(zones), expression(), some_instant()
        zone = ZoneInfo(name)
        try:
            due = next_run(crontab.from_string(text), zone, last)
        except (ValueError, RuntimeError, OverflowError):
            continue
        if due.year < 2100 and is_quiet(zone, last) and is_quiet(zone, due):
            cases.append([text, name, micros(last), micros(due)])
    return cases


def near_change(zones):
    """A zone and an instant within hours of a change of its clocks."""
    while True:
        name = randomly.choice(zones)
        zone = ZoneInfo(name)
        if name not in near_change.known:
            near_change.known[name] = transitions(zone)
        if near_change.known[name]:
            change = randomly.choice(near_change.known[name])
            return name, zone, change + timedelta(seconds=randomly.randint(-7200, 5400))


near_change.known = {}


def changes(zones, count):
    """Chains of runs across changes of clocks."""
    cases = []
    while len(cases) < count:
        name, zone, last = near_change(zones)
        minute = randomly.choice(["*", "*/30", "*/7", "0", "30", "10,40", f"{randomly.randrange(60)}"])
        hour = randomly.choice(["*", "0-4", "22-3", "2", "1,2", "2,3", "*/2", "0", "23,0"])
        plan = crontab.from_string(f"{minute} {hour} * * *")
        for _ in range(6):
            due = next_run(plan, zone, last)
            # In the second pass of an hour Celery names instants of the first.
            if due <= last:
                break
            text = f"{minute} {hour} * * *"
            cases.append([text, name, micros(last), micros(due)])
            last = due
    return cases


def relatives(zones, count):
    cases = []
    while len(cases) < count:
        if randomly.random() < 0.5:
            name, zone, last = near_change(zones)
        else:
            name, last = randomly.choice(zones), some_instant()
            zone = ZoneInfo(name)
        unit = randomly.choice([1, 60, 3600, 86400])
        period = unit * randomly.randint(1, 5) + randomly.choice([0, 0, unit // 2])
        for _ in range(4):
            due = next_run(schedule(timedelta(seconds=period), relative=True), zone, last)
            cases.append([period, name, micros(last), micros(due)])
            if due <= last:
                break
            last = due
    return cases


def suns(_zones, count):
    cases = []
    events = sorted(solar._all_events)
    while len(cases) < count:
        lat, lon = round(randomly.uniform(-90, 90), 3), round(randomly.uniform(-180, 180), 3)
        event, last = events[len(cases) % len(events)], some_instant()
        due = next_run(solar(event, lat, lon), UTC, last)
        cases.append([event, lat, lon, micros(last), micros(due)])
    return cases


what, count, zones = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
reset_tzpath([sys.argv[4]])
assert set(zones) <= available_timezones(), zones
makers = {"crontabs": crontabs, "changes": changes, "relatives": relatives, "suns": suns}
print(json.dumps(makers[what](zones, count)))
