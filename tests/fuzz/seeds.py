"""Writes seeds.json: what the fuzz targets of targets.rs begin with, in base64, as the real Celery writes it.

    target/venv/bin/python tests/fuzz/seeds.py
"""

import base64
import bz2
import collections
import datetime as dt
import decimal
import json
import lzma
import pathlib
import pickle
import uuid
import zlib

import brotli
import msgpack
import yaml
from celery import Celery, chain, chord, chunks, group, xmap
from kombu.utils import json as typed

try:
    from compression import zstd
except ImportError:
    from backports import zstd

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = json.loads((HERE.parent / "golden/messages.json").read_text())["cases"]
UTC = dt.timezone.utc
EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
SHARED = [1, 2]
ARGS = [None, True, -1, 2**31, 2**70, 1.5, float("inf"), "Grüße \U0001f600\n\"", [], {}, [[1], {"a": {"b": [None]}}]]
RICH = [
    b"text", b"\x00\xff", dt.datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC), dt.date(2030, 1, 2), dt.time(3, 4, 5),
    dt.datetime(2030, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=-5, minutes=-30))), decimal.Decimal("1.10"),
    uuid.UUID(int=2**100), (1, 2, 3, 4), {7}, frozenset([8]), collections.OrderedDict([("z", 1)]), bytearray(b"more"),
    SHARED, SHARED, {True: 1, None: 2, 2.5: 3},
]
YAML = [
    "- [1, 0x1f, 0b1, 017, 1_000, 1:30, .inf, -.NaN, 1e3, ~, yes, Off, 2001-12-14t21:59:43.10-05:00, 2030-01-02]\n- {}\n- {}\n",
    "- - &a [1, 2]\n  - *a\n  - &b {x: 1}\n  - {<<: *b, y: 2}\n  - {<<: [*b, {z: 3}], ? k : v}\n- {? a, b: c}\n- null\n",
    "%YAML 1.1\n---\n- - !!binary aGVsbG8=\n  - !!set {a, b}\n  - !!str 1\n  - !!float 1\n  - 'it''s'\n  - \"\\x41\\u00e9\\n\"\n"
    "  - |\n    block\n     more\n  - >-\n    folded\n    text\n- !!map {a: !!int \"1\"}\n- {}\n...\n",
]


def signatures():
    app = Celery("seeds", backend="cache+memory://", set_as_current=True)
    add = app.signature
    one = add("add", (1,), {"k": "v"})
    many = [
        one, add("add", immutable=True, link=add("log"), link_error=[add("err"), add("err2")]),
        one.set(queue="q", countdown=1.5, expires=60, priority=3, stamped_headers=["s"], s="x", headers={"h": 1}),
        chain(add("a"), add("b"), add("c")), group(add("a", (n,)) for n in range(3)),
        chord([add("a"), add("b")], add("c")), chain(add("a"), group(add("b"), add("c")), add("d"), group(add("e"), add("f"))),
        chord(group(chain(add("a"), add("b")), chord([add("c")], add("d"))), group(add("e"), chain(add("f"), add("g")))),
        group(group(add("a")), chain(group(add("b"), add("c")), add("d"))), xmap(add("add"), [1, 2]), chunks(add("add"), [(1, 2)], 1),
    ]
    frozen = chain(add("a"), chord([add("b"), add("c")], add("d")), add("e"))
    frozen.freeze()
    return [typed.dumps(one).encode() for one in [*many, frozen]]


def embeds(signatures):
    one, linked, options, *rest = [one.decode() for one in signatures]
    yield f'{{"callbacks": [{one}, {rest[1]}], "errbacks": [{linked}], "chain": null, "chord": null}}'
    yield f'{{"callbacks": null, "errbacks": null, "chain": [{rest[0]}, {one}, {options}], "chord": {rest[1]}}}'
    yield f'{{"callbacks": [{rest[2]}], "errbacks": [{one}, {rest[0]}], "chain": [{rest[3]}], "chord": {one}}}'


def builtins(signatures):
    one, *rest = [json.loads(one) for one in signatures]
    for args, kwargs in [
        ([one, [[1, 2], [3]]], {}), ([], {"task": one, "it": "abc"}), ([], {"task": one, "it": [1, 2, 3], "n": 2}),
        ([1, "b"], {"index": -1}), ([[one, one], rest[1]], {"partial_args": [1], "interval": 0.5}),
        ([], {"tasks": [one], "result": [["G", None], [[["A", None], None]]], "group_id": "G", "partial_args": [1]}),
        (["G", one], {"interval": 2, "max_retries": 3, "result": [[["A", None], None], [["I", None], [[["B", None], None]]]]}),
    ]:
        yield json.dumps([args, kwargs, EMBED])


def results():
    done = "2026-11-20T17:34:55.019470+00:00"
    error = {"exc_type": "ValueError", "exc_message": ["bad", 1], "exc_module": "builtins"}
    plain = {"status": "SUCCESS", "result": {"a": [1]}, "traceback": None, "children": [], "date_done": done, "task_id": "i"}
    yield json.dumps(plain)
    yield json.dumps(plain | {"status": "FAILURE", "result": error, "traceback": "Traceback\n  File", "parent_id": "p", "group_id": "g"})
    yield json.dumps(plain | {"name": "add", "args": [1], "kwargs": {}, "worker": "w@h", "retries": 0, "queue": "celery",
                              "children": [[["A", [["P", None], None]], [[["B", None], None]]]], "result": float("nan")})


def frames(signatures):
    one = json.loads(signatures[0])
    for method, params in [
        ("hello", {"version": 1, "token": "x"}), ("request", {}), ("update-state", {"state": "WORKING", "meta": {"a": [1]}}),
        ("progress", {"done": 3, "total": 10}), ("retry", {"countdown": 1.5, "max_retries": 3}), ("reject", {"requeue": True}),
        ("ignore", None), ("fail", {"type": "E", "message": "m", "module": "a.b"}), ("replace", {"signature": one}),
        ("call", {"signature": json.loads(signatures[5]), "unregistered": True, "priority": 3}),
    ]:
        text = json.dumps({"id": 1, "method": method, "params": params}).encode()
        yield text
        yield len(text).to_bytes(4, "big") + text


def main():
    many = signatures()
    golden = [base64.b64decode(json.loads(case["payload"])["body"]) for case in GOLDEN]
    plain = [body for body in golden if body.startswith(b"[")]
    first = [json.dumps({"task": "t", "id": "i", "args": ARGS[:4], "kwargs": {"a": 1}, "retries": 1, "eta": "2030-01-01T00:00:00",
                         "expires": None, "utc": True, "callbacks": [json.loads(many[0])], "errbacks": None, "timelimit": [1, 2],
                         "taskset": None, "chord": None}), json.dumps({"task": "t", "id": "i", "args": [], "kwargs": {}})]
    bodies2 = [[ARGS, {"k": 1}, EMBED], [[RICH, (RICH, {})], {}, None]]
    pickles = [pickle.dumps(body, protocol) for body in bodies2 for protocol in range(6)]
    pickles += [pickle.dumps([1, {"a": "b"}], protocol) for protocol in range(6)]
    packed = [msgpack.packb(body, datetime=True) for body in
              [[[one for one in ARGS if one != 2**70], {"k": b"x"}, EMBED], [[dt.datetime(2030, 1, 2, tzinfo=UTC), list(range(300))], {}, None],
               [["x" * 300, 2**63, -(2**63)], {str(n): n for n in range(20)}, {}]]]
    text = json.dumps([ARGS[:6] + ["hello " * 60], {"k": 1}, EMBED]).encode()
    short = b'[[1], {}, {}]'
    alone = dict(format=lzma.FORMAT_ALONE)
    seeds = {
        "envelope": [case["payload"].encode() for case in GOLDEN[::4]] + [json.dumps({"body": first[0], "headers": {}, "properties": {}}).encode()],
        "body1": [one.encode() for one in first] + [body for body in golden if body.startswith(b"{")][::3],
        "body2": plain[::5] + [typed.dumps([ARGS, {"a": RICH[:8]}, EMBED]).encode()],
        "pickle": pickles,
        "msgpack": packed,
        "yaml": [yaml.safe_dump(json.loads(text)).encode(), *(one.encode() for one in YAML)],
        "zlib": [zlib.compress(text), zlib.compress(short, 0), zlib.compress(short, wbits=31)],
        "bzip2": [bz2.compress(text), bz2.compress(short, 1) * 2],
        "xz": [lzma.compress(text), lzma.compress(short, check=lzma.CHECK_SHA256), lzma.compress(text, **alone), lzma.compress(short) * 2],
        "brotli": [brotli.compress(text), brotli.compress(short, quality=1), brotli.compress(text, lgwin=10)],
        "zstd": [zstd.compress(text), zstd.compress(short), zstd.compress(text, 19) * 2],
        "signature": many,
        "embed": [one.encode() for one in embeds(many)] + [json.dumps(json.loads(body)[2]).encode() for body in plain[::7]],
        "builtin": [one.encode() for one in builtins(many)],
        "result": [one.encode() for one in results()],
        "frame": list(frames(many)),
    }
    texts = {name: [base64.b64encode(one).decode() for one in all] for name, all in seeds.items()}
    (HERE / "seeds.json").write_text(json.dumps(texts, indent=0) + "\n")


main()
