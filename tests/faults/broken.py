"""Broken messages, made out of whole ones."""

import base64
import copy
import json
import random
import uuid

STRANGE = [None, True, False, -1, 0, 7, 2.5, 1e308, 10**40, -10**40, "", " ", "\0", "x" * 5000, [], {}, [[]], {"": {}},
           [None] * 50, "9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00", "\ud800", "é" * 300]
CONTENT = ["application/x-python-serialize", "application/x-yaml", "application/x-msgpack", "application/data", "",
           "application/json; charset=latin-1", "text/plain", "x" * 2000, 5, None, {}]
COMPRESSION = ["application/x-gzip", "application/x-bz2", "application/zstd", "zlib", "", 5, [], "application/x-brotli"]
BODIES = ["", " ", "null", "5", '"text"', "[]", "[1]", "[[], {}]", "[[]]", "[[], {}, null, null]", "[{}, [], {}]",
          "[[], [], {}]", "[5, {}, {}]", "[[], 5, {}]", "[[], {}, 5]", '[[], {}, "x"]', "[[], {}, []]", "{}",
          "[[], {}, {}", "[[], {}, {}]]", '[["\\ud800"], {}, {}]', "[[NaN, -Infinity], {}, {}]", '[[], {"": 1}, {}]',
          "[[1e999], {}, {}]", '[["\\u0000"], {}, {}]', '[[{"__type__": "nonsense", "__value__": 1}], {}, {}]',
          '[[], {"a": 1, "a": 2}, {}]', '[[{"__type__": "base64", "__value__": "?"}], {}, {}]', "\ufeff[[], {}, {}]"]
EMBEDS = [{"callbacks": [{"task": "note", "args": [], "kwargs": {}, "options": {"task_id": "followed"}}]}, {"chain": [5]}, {"chord": "x"},
          {"errbacks": {}}, {"callbacks": 5, "chain": None}]


def encoded(text):
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return base64.b64encode(raw).decode()


def places(value, path=()):
    """Every place in a document, the deepest last."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


class Mutants:
    """`make` gives one of a kind; its id is in it wherever an id can be."""

    def __init__(self, mint, seed):
        self.mint, self.chance = mint, random.Random(seed)
        self.kinds = [getattr(self, name) for name in sorted(dir(self)) if name.startswith("of_")]

    def make(self, number):
        """`(kind, id, bytes)`: all kinds in turn."""
        id, kind = str(uuid.uuid4()), self.kinds[number % len(self.kinds)]
        made = kind(id)
        if not isinstance(made, (str, bytes)):
            made = json.dumps(made)
        return kind.__name__[3:], id, made if isinstance(made, bytes) else made.encode("utf-8", "surrogatepass")

    def whole(self, id):
        return json.loads(self.mint.message(id))

    def raw(self, id):
        return bytearray(self.mint.message(id).encode())

    def with_body(self, id, text):
        return {**self.whole(id), "body": encoded(text)}

    def of_bits(self, id):
        raw = self.raw(id)
        for _ in range(self.chance.choice([1, 1, 2, 5, 50])):
            raw[self.chance.randrange(len(raw))] ^= 1 << self.chance.randrange(8)
        return bytes(raw)

    def of_cuts(self, id):
        raw = self.raw(id)
        return bytes(raw[:self.chance.randrange(len(raw))])

    def of_holes(self, id):
        raw = self.raw(id)
        begin = self.chance.randrange(len(raw))
        del raw[begin:begin + self.chance.randrange(1, 80)]
        return bytes(raw)

    def of_insertions(self, id):
        raw = self.raw(id)
        at = self.chance.randrange(len(raw))
        raw[at:at] = self.chance.randbytes(self.chance.choice([1, 4, 200]))
        return bytes(raw)

    def of_missing_fields(self, id):
        whole = self.whole(id)
        for _ in range(self.chance.choice([1, 1, 3])):
            *above, last = self.chance.choice(places(whole))
            self.inner(whole, above).pop(last)
        return whole

    def of_wrong_types(self, id):
        whole = self.whole(id)
        *above, last = self.chance.choice(places(whole))
        strange = copy.deepcopy(self.chance.choice(STRANGE))
        # Two with the same id could not be told apart.
        unique = last == "id" and isinstance(strange, str)
        self.inner(whole, above)[last] = f"{strange}{id[:8]}" if unique else strange
        return whole

    def inner(self, value, path):
        for key in path:
            value = value[key]
        return value

    def of_base64(self, id):
        whole = self.whole(id)
        text = whole["body"]
        at = self.chance.randrange(len(text))
        whole["body"] = self.chance.choice([
            text[:at] + "?" + text[at + 1:], text[:at], text + "=", text.rstrip("=") + "====",
            text[:at] + "\n" + text[at:], "====", text[:at] + "\0", "é" + text, text.replace("=", "-")])
        return whole

    def of_bodies(self, id):
        return self.with_body(id, self.chance.choice(BODIES))

    def of_two_elements(self, id):
        return self.with_body(id, json.dumps([[self.chance.random()], {}]))

    def of_plain_bodies(self, id):
        whole = self.whole(id)
        whole["body"] = self.chance.choice(BODIES)
        if self.chance.random() < 0.5:
            del whole["properties"]["body_encoding"]
        else:
            whole["properties"]["body_encoding"] = self.chance.choice(["", "utf-8", "base32", 5, None, "BASE64"])
        return whole

    def of_numbers(self, id):
        whole = self.whole(id)
        header = self.chance.choice(["retries", "timelimit", "expires", "eta", "group_index", "replaced_task_nesting"])
        huge = self.chance.choice(["1" + "0" * 400, "-1e999", "1e999", "1e308", "-5", "0.1", "18446744073709551616",
                                   "[1e308, 1e308]", "[-1, -1]", "[null, 1" + "0" * 30 + "]", "[0, 0, 0]", "1e-400"])
        whole["headers"][header] = "HUGE"
        if self.chance.random() < 0.3:
            whole["properties"]["priority"] = "HUGE"
        return json.dumps(whole).replace('"HUGE"', huge)

    def of_nul(self, id):
        raw = self.raw(id)
        if self.chance.random() < 0.3:
            raw[self.chance.randrange(len(raw))] = 0
            return bytes(raw)
        whole = self.whole(id)
        field = self.chance.choice(["task", "root_id", "origin", "argsrepr", "shadow", "lang", "parent_id"])
        whole["headers"][field] = self.chance.choice(["\0", "note\0", "no\0te", "\0" * 100])
        return whole

    def of_nesting(self, id):
        deep = self.chance.choice([100, 200, 5000, 100_000])
        opened, closed = self.chance.choice([("[", "]"), ('{"a":', "}"), ("[", "")])
        nest = opened * deep + ("1" if closed == "}" else "") + closed * deep
        place = self.chance.randrange(4)
        if place == 0:
            return nest
        if place == 1:
            return self.with_body(id, f"[[{nest}], {{}}, {{}}]")
        if place == 2:
            return self.with_body(id, f"[[], {{}}, {nest}]")
        whole = self.whole(id)
        whole["headers"][self.chance.choice(["stamps", "eta", "unheard", "task"])] = "NEST"
        return json.dumps(whole).replace('"NEST"', nest)

    def of_invalid_utf8(self, id):
        bad = self.chance.choice([b"\xff", b"\xc3(", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\x80",
                                  b"\xf4\x90\x80\x80"])
        if self.chance.random() < 0.5:
            return self.with_body(id, b'[["' + bad + b'"], {}, {}]')
        raw = self.raw(id)
        at = self.chance.randrange(len(raw))
        raw[at:at] = bad
        return bytes(raw)

    def of_content_types(self, id):
        whole = self.whole(id)
        what = self.chance.randrange(3)
        if what == 0:
            whole["content-type"] = self.chance.choice(CONTENT)
        elif what == 1:
            whole["content-encoding"] = self.chance.choice(["latin-1", "utf-16", "binary", "", 5, None])
        else:
            whole["headers"]["compression"] = self.chance.choice(COMPRESSION)
        return whole

    def of_protocol_1(self, id):
        body = {"task": "note", "id": id, "args": [], "kwargs": {}, "retries": 0, "eta": None, "expires": None,
                "utc": True, "callbacks": None, "errbacks": None, "timelimit": [None, None], "taskset": None,
                "chord": None}
        key = self.chance.choice(list(body))
        if self.chance.random() < 0.4:
            del body[key]
        else:
            body[key] = copy.deepcopy(self.chance.choice(STRANGE))
        return {**self.with_body(id, json.dumps(body)), "headers": self.chance.choice([{}, {}, None, [], 5])}

    def of_scraps(self, id):
        return self.chance.choice(["", " ", "\0", "null", "[]", "{}", "0", '"text"', "nonsense", "\n", "[[], {}, {}]",
                                   "\ufeff{}", '{"body": null}', '{"headers": {}}', "-", "tru", '{"a":' * 3])

    def of_promises(self, id):
        embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None, **self.chance.choice(EMBEDS)}
        return self.with_body(id, json.dumps([[], {}, embed]))

    def of_unknown_names(self, id):
        whole = self.whole(id)
        names = ["no.such.task", "../note", "note ", "NOTE", "celery.chain", "-A"]
        whole["headers"]["task"] = self.chance.choice(names)
        return whole
