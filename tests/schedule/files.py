"""Entries of Celery's `beat_schedule` made of Celery's own objects, beside their YAML.

The last line of output is a JSON list of [name, YAML, what Celery makes of it]: the task, args,
kwargs, options, and the schedule as a crontab of sets, an interval in microseconds, or an event
of the sun.
"""

import json
from datetime import timedelta

from celery import Celery
from celery.beat import ScheduleEntry
from celery.schedules import crontab, schedule, solar

app = Celery(set_as_current=True)

CASES = {
    "number": ({"schedule": 30}, "schedule: 30"),
    "float": ({"schedule": 30.5}, "schedule: 30.5"),
    "third": ({"schedule": 1 / 3}, "schedule: 0.3333333333333333"),
    "delta": ({"schedule": timedelta(minutes=5)}, "schedule: {minutes: 5}"),
    "delta-mixed": (
        {"schedule": timedelta(weeks=1, days=2, hours=3, minutes=4, seconds=5.5, milliseconds=6, microseconds=7)},
        "schedule: {timedelta: {weeks: 1, days: 2, hours: 3, minutes: 4, seconds: 5.5, milliseconds: 6, microseconds: 7}}",
    ),
    "delta-less": ({"schedule": timedelta(hours=1, minutes=-1)}, "schedule: {hours: 1, minutes: -1}"),
    "object": ({"schedule": schedule(timedelta(hours=1))}, "schedule: 1h"),
    "relative": ({"schedule": timedelta(hours=1), "relative": True}, "schedule: {hours: 1}\nrelative: true"),
    "relative-object": (
        {"schedule": schedule(timedelta(days=1), relative=True)},
        "schedule: {days: 1, relative: true}",
    ),
    "crontab": ({"schedule": crontab()}, "schedule: {crontab: {}}"),
    "string": (
        {"schedule": crontab.from_string("*/7 8-18 * * mon-fri")},
        "schedule: {crontab: '*/7 8-18 * * mon-fri'}",
    ),
    "fields": (
        {"schedule": crontab(minute=0, hour="7-19/2", day_of_week="mon-fri")},
        "schedule: {crontab: {minute: 0, hour: 7-19/2, day_of_week: mon-fri}}",
    ),
    "lists": (
        {"schedule": crontab(minute=[0, 15, 45], hour={8, 17}, day_of_month=[1, 31])},
        "schedule: {crontab: {minute: [0, 15, 45], hour: [8, 17], day_of_month: [1, 31]}}",
    ),
    "steps": (
        {"schedule": crontab(minute="*/7", day_of_month="*/10", month_of_year="*/3")},
        "schedule: {crontab: {minute: '*/7', day_of_month: '*/10', month_of_year: '*/3'}}",
    ),
    "names": (
        {"schedule": crontab(minute="50-5", hour="22-2", day_of_week="sat-monday", month_of_year="jan,June")},
        "schedule: {crontab: {minute: 50-5, hour: 22-2, day_of_week: sat-monday, month_of_year: 'jan,June'}}",
    ),
    "arguments": (
        {
            "schedule": 5,
            "args": (16, 2.5, "x", None, True, [1, {"a": "b"}], 12345678901234567890123),
            "kwargs": {"k": {"l": [1]}, "m": "5"},
        },
        "schedule: 5\nargs: [16, 2.5, x, null, true, [1, {a: b}], 12345678901234567890123]\n"
        "kwargs: {k: {l: [1]}, m: '5'}",
    ),
    "options": (
        {
            "schedule": 5,
            "options": {
                "queue": "q", "priority": 3, "expires": 600, "countdown": 1.5, "ignore_result": True,
                "shadow": "s", "time_limit": 20, "soft_time_limit": 10.5, "headers": {"h": [1]},
            },
        },
        "schedule: 5\noptions: {queue: q, priority: 3, expires: 600, countdown: 1.5, ignore_result: true,\n"
        "  shadow: s, time_limit: 20, soft_time_limit: 10.5, headers: {h: [1]}}",
    ),
}

for event in sorted(solar._all_events):
    CASES[f"solar-{event}"] = (
        {"schedule": solar(event, -37.81753, 144.96715)},
        f"schedule: {{solar: {event}, lat: -37.81753, lon: 144.96715}}",
    )


def of_schedule(plan):
    if isinstance(plan, crontab):
        fields = [plan.minute, plan.hour, plan.day_of_month, plan.month_of_year, plan.day_of_week]
        return {"crontab": " ".join(",".join(map(str, sorted(field))) for field in fields)}
    if isinstance(plan, solar):
        return {"solar": [plan.event, plan.lat, plan.lon]}
    return {"micros": plan.run_every // timedelta(microseconds=1), "relative": plan.relative}


found = []
for name, case in CASES.items():
    entry = ScheduleEntry(**dict(case[0], name=name, task="t", app=app))
    fields = {
        "task": entry.task, "args": list(entry.args or ()), "kwargs": entry.kwargs,
        "options": entry.options, "schedule": of_schedule(entry.schedule),
    }
    found.append([name, case[1], json.dumps(fields)])
print(json.dumps(found))
