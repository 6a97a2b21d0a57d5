"""Takes messages from a queue in bulk, for some seconds.

    consume.py PORT SECONDS

Prints an object: how many there were, how many of them for an occurrence that had been there before, and how many
milliseconds after it was due they came: the median and the 99th percentile, if their headers name what they are for.
"""

import datetime
import json
import re
import sys
import time

import redis

OCCURRENCE = re.compile(rb'"qworker_occurrence": ?"([^"]*)@([^"@]*)"')
BULK = 2000


def taken(port, seconds):
    with redis.Redis(port=port) as server:
        server.delete("celery")
        end = time.time() + seconds
        while (now := time.time()) < end:
            some = server.rpop("celery", BULK)
            now = time.time()
            if some:
                yield now, some
            else:
                time.sleep(0.0005)


def main(port, seconds):
    # Only taken down: whoever reads them meanwhile is late itself.
    bulks = list(taken(int(port), float(seconds)))
    count = sum(len(some) for _, some in bulks)
    late, seen = [], set()
    for at, some in bulks:
        for found in filter(None, map(OCCURRENCE.search, some)):
            due = datetime.datetime.fromisoformat(found[2].decode()).timestamp()
            late.append((at - due) * 1e3)
            seen.add(found[0])
    late.sort()
    quantiles = [late[len(late) // 2], late[len(late) * 99 // 100]] if late else None
    print(json.dumps({"count": count, "twice": len(late) - len(seen), "late_ms": quantiles}))


main(*sys.argv[1:])
