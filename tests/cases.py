"""Celery's canvas, tasks and results, case by case: what comes of each in one fleet, as JSON.

    tests/cases.py BROKER BACKEND FLEET [--only NAME]... [--jobs N] [--seed N]

FLEET says who runs the tasks, whose workers are there already: `python` (cases/worker.py), `ours`
(cases/tasks.yaml), or `mixed`: both, and a signature says at random which queue it goes to. The last
line is an object: case to what came of it. Without a fleet it tells what the cases are, and what is
to differ (cases/differences.py). The cases are those of Celery's own integration tests, and more.
"""

import argparse
import json
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from cases import chains, chords, failures, groups, maps, replaces, requests, results, stamps  # noqa: E402,F401
from cases.app import configure, Fleet  # noqa: E402
from cases.case import CASES, make_folders, run, settled  # noqa: E402
from cases.differences import DIFFERENCES, MIXED  # noqa: E402


def listed():
    """The cases by their groups, and the differences, as data."""
    groups = {}
    for case in CASES.values():
        groups.setdefault(case.group, []).append(case.name)
    alone = [case.name for case in CASES.values() if case.hangs]
    redis = [case.name for case in CASES.values() if case.redis]
    return {"groups": groups, "differences": DIFFERENCES, "mixed": MIXED, "hang": alone, "redis": redis}


def wanted(options):
    def is_wanted(case):
        if options.only and case.name not in options.only:
            return False
        ends = not case.hangs or options.fleet == "ours" or options.fleet == "mixed" and case.mixed
        if not ends or options.fleet == "mixed" and case.name in MIXED:
            return False
        if options.backend.startswith("redis"):
            return True
        # Without Redis, chords are what differs most.
        return not case.redis and case.group in ("chords", "failures", "groups")

    return [case for case in CASES.values() if is_wanted(case)]


def share(options, cases, out):
    """Runs cases one after the other, as a process of its own."""
    configure(options.broker, options.backend, options.fleet)
    for case in cases:
        Fleet.chance.seed(f"{options.seed} {case.name}")
        begin = time.monotonic()
        found = run(case)
        seconds = round(time.monotonic() - begin, 2)
        os.write(out, (json.dumps([case.name, found]) + "\n").encode())
        if options.times:
            print(f"{seconds:6.2f} {case.name} {found.get('broken', '')}", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("broker", nargs="?")
    parser.add_argument("backend", nargs="?")
    parser.add_argument("fleet", nargs="?")
    parser.add_argument("--only", action="append")
    parser.add_argument("--jobs", type=int, default=6)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--times", action="store_true", help="say how long each case took")
    options = parser.parse_args()
    if not options.fleet:
        print(json.dumps(listed()))
        return
    make_folders()
    cases = wanted(options)
    pipes = []
    for number in range(options.jobs):
        inner, outer = os.pipe()
        if os.fork() == 0:
            os.close(inner)
            try:
                share(options, cases[number :: options.jobs], outer)
            finally:
                os._exit(0)
        os.close(outer)
        pipes.append(inner)
    lines = [json.loads(line) for pipe in pipes for line in open(pipe)]
    for _ in pipes:
        os.wait()
    outcomes, noted = {}, {}
    for name, found in lines:
        outcomes[name] = found
        noted.update(found.pop("notes"))
    for name in {case.name for case in cases} - set(outcomes):
        outcomes[name] = {"broken": "its process has ended"}
    # Whoever notes something too often has done so before the last case ended, or does it soon.
    for key, counts in settled(noted).items():
        outcomes[key.split("-")[0]] = {"broken": f"notes under {key}: {counts[0]} at first, {counts[1]} in the end"}
    for case in cases:
        found = outcomes[case.name].get("outcome")
        if case.expected is not None and found is not None and found != case.expected:
            outcomes[case.name]["unexpected"] = case.expected
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
