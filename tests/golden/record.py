"""Records what Celery 5.7 puts on the wire, in messages.json beside this file.

Run by hand when Celery changes: target/venv/bin/python tests/golden/record.py
Each case: the payload as kombu's SQLAlchemy transport stored it, and what is to be read
of it, computed here by Python and not from the payload.
"""
import datetime as dt
import decimal
import json
import pathlib
import sqlite3
import tempfile
import uuid

import celery
import kombu
from celery import Celery, chain, chord, group, signature

UTC = dt.timezone.utc
PLUS2 = dt.timezone(dt.timedelta(hours=2))
ID = "11111111-2222-4333-8444-555555555555"
FOLDER = pathlib.Path(__file__).parent


def app_on(path, **settings):
    app = Celery("golden", broker=f"sqla+sqlite:///{path}")
    app.conf.update(broker_connection_retry_on_startup=True, **settings)
    return app


def payloads(path):
    rows = sqlite3.connect(path).execute("SELECT payload FROM kombu_message ORDER BY id")
    return [row[0] for row in rows]


def seen(value):
    """The bytes that a program gets for an argument, in hex."""
    if isinstance(value, bytes):
        raw = value
    elif isinstance(value, str):
        raw = value.encode()
    elif isinstance(value, (dt.datetime, dt.date, dt.time)):
        raw = value.isoformat().encode()
    elif isinstance(value, (decimal.Decimal, uuid.UUID)):
        raw = str(value).encode()
    elif isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
        raw = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)].encode()
    else:
        raw = json.dumps(value).encode()
    return raw.hex()


def instant(value):
    """Microseconds since the epoch; naive is UTC."""
    if value is None:
        return None
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return round(value.timestamp() * 1e6)


CASES = []


def case(name, args=(), kwargs=None, *, settings=None, count=1, expect=None, send=None, **options):
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/k.sqlite"
        app = app_on(path, **(settings or {}))
        before = dt.datetime.now(UTC)
        if send:
            send(app)
        else:
            app.send_task("add", args, kwargs, task_id=ID, **options)
        after = dt.datetime.now(UTC)
        found = payloads(path)
        assert len(found) == count, (name, found)
        wanted = {
            "task": "add",
            "id": ID,
            "retries": 0,
            "args": [seen(arg) for arg in args],
            "kwargs": {key: seen(value) for key, value in (kwargs or {}).items()},
            "eta": None,
            "expires": None,
            "timelimit": [None, None],
            "root_id": ID,
            "parent_id": "",
            "follow_ups": [],
            "ignore_result": None,
            "display": "add",
            "priority": 0,
        }
        wanted.update(expect or {})
        window = [instant(before), instant(after)]
        for number, payload in enumerate(found):
            label = name if count == 1 else f"{name} {number + 1}"
            CASES.append({"name": label, "window": window, "expect": wanted, "payload": payload})


naive = dt.datetime(2030, 1, 2, 3, 4, 5)
micro = dt.datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
offset = dt.datetime(2030, 1, 2, 5, 4, 5, tzinfo=PLUS2)

case("nothing")
case("numbers", (2, 3, -1, 0, 1.5, 1e300, -0.0))
case("kwargs in order", (), {"zebra": 1, "apple": "b", "mango": None})
case("unicode", ("Grüße, 世界 \U0001f600", "", "\u0000\n\t\"'\\"), {"schlüssel": "ß"})
case("bytes", (b"text", b"\x00\xff\xfe", b""), {"b": b"\x80"})
case("times", (naive, micro, offset, dt.date(2030, 1, 2), dt.time(3, 4, 5)))
case("decimal and uuid", (decimal.Decimal("1.10"), uuid.UUID(ID)))
case("big integers", (2**64, -(2**100), 12345678901234567890123456789012345))
case("not numbers", (float("nan"), float("inf"), -float("inf"), "NaN Infinity \" NaN"))
case("nested", ([1, [2, {"a": [None, True, False]}]],), {"deep": {"x": {"y": {"z": []}}}})
case("long text", ("x" * 3000,))
case("list for args", [1, 2])
case("countdown", (1,), countdown=60, expect={"eta": "window+60"})
case("eta naive", (1,), eta=naive, expect={"eta": instant(naive)})
case("eta aware", (1,), eta=offset, expect={"eta": instant(offset)})
case("eta microseconds", (1,), eta=micro, expect={"eta": instant(micro)})
case("expires in seconds", (1,), expires=90, expect={"expires": "window+90"})
case("expires at", (1,), expires=micro, expect={"expires": instant(micro)})
case("limits", (1,), time_limit=30, soft_time_limit=2.5, expect={"timelimit": [30, 2.5]})
case("priority", (1,), priority=7, expect={"priority": 7})
case("shadow", (1,), shadow="plus", expect={"display": "plus"})
case("shadow empty", (1,), shadow="")
case("ignore result", (1,), ignore_result=True, expect={"ignore_result": True})
case("other headers", (1,), headers={"tenant": {"id": 7}, "celery_beat_task": True})
case("unknown option", (1,), whatever=1)
case("retries", (1,), retries=4, expect={"retries": 4})
case("root and parent", (1,), root_id="r", parent_id="p", expect={"root_id": "r", "parent_id": "p"})
case("callback", (1,), link=signature("log", (2,)), expect={"follow_ups": ["callbacks"]})
case("errback", (1,), link_error=signature("log"), expect={"follow_ups": ["errbacks"]})
case(
    "chain",
    (1,),
    send=lambda app: chain(
        signature("add", (1,), app=app, task_id=ID), signature("add", (3,), app=app)
    ).apply_async(root_id=ID),
    expect={"follow_ups": ["chain"]},
)
case(
    "group",
    (1,),
    count=2,
    send=lambda app: [
        signature("add", (1,), app=app, task_id=ID, group_id="g").apply_async(group_index=n)
        for n in range(2)
    ],
)
stamped = signature("add", (1,), task_id=ID)


def send_stamped(app):
    sig = signature("add", (1,), app=app, task_id=ID)
    sig.stamp(tenant="t", stamped_headers=["tenant"])
    sig.apply_async()


case("stamped", (1,), send=send_stamped)
case("compressed", ("x" * 500,), compression="zlib")
V1 = {"task_protocol": 1}
case("v1", (1, "ü"), {"k": 2}, settings=V1, expect={"ignore_result": None})
case("v1 big integers", (2**100,), {"k": -(2**70)}, settings=V1)
case("v1 not numbers", (float("nan"), "NaN"), settings=V1)
case("v1 countdown", (1,), settings=V1, countdown=60, expect={"eta": "window+60"})
case("v1 expires", (1,), settings=V1, expires=90, expect={"expires": "window+90"})
case("v1 limits", (1,), settings=V1, time_limit=9, soft_time_limit=8, expect={"timelimit": [9, 8]})
case("v1 retries", (1,), settings=V1, retries=2, expect={"retries": 2})
case("v1 callback", (1,), settings=V1, link=signature("log"), expect={"follow_ups": ["callbacks"]})
case(
    "pickled",
    (1,),
    settings={"accept_content": ["json", "pickle"]},
    serializer="pickle",
)

document = {"celery": celery.__version__, "kombu": kombu.__version__, "cases": CASES}
(FOLDER / "messages.json").write_text(json.dumps(document, indent=1, ensure_ascii=True) + "\n")
print(len(CASES), "cases")
