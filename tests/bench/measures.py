"""What all rows of the benchmark share: programs run, processes looked at, figures of rounds."""

import pathlib
import statistics
import subprocess
import sys

ATTEMPTS = 3  # of a run that turns out void


def run(*words, **more):
    done = subprocess.run([str(word) for word in words], check=True, stdout=subprocess.PIPE, text=True, **more)
    return done.stdout


def tree(pid):
    """The process and all its descendants."""
    text = "".join(file.read_text() for file in pathlib.Path(f"/proc/{pid}/task").glob("*/children"))
    return [pid] + [one for child in text.split() for one in tree(int(child))]


def pss(pids):
    """Proportional set size in bytes: what is shared is shared out."""
    files = (pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids)
    lines = (line.split() for file in files for line in file.splitlines() if line.startswith("Pss:"))
    return 1024 * sum(int(words[1]) for words in lines)


def cpu(pids):
    """Seconds on a processor so far, of all threads."""
    files = (file for pid in pids for file in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


def percentiles(delays):
    """Median and 99th percentile."""
    delays = sorted(delays)
    return delays[len(delays) // 2], delays[len(delays) * 99 // 100]


class Void(Exception):
    """A run whose figure does not count: what went in did not come out."""


def same(went_in, came_out):
    """Every id once, and no other."""
    if sorted(went_in) != sorted(came_out):
        lost, odd = set(went_in) - set(came_out), set(came_out) - set(went_in)
        twice = len(came_out) - len(set(came_out))
        raise Void(f"{len(went_in)} went in, {len(came_out)} came out: "
                   f"{len(lost)} lost, {len(odd)} strange, {twice} twice")


def sound(measure):
    """The figure of a run that is not void; a void one is told and done again."""
    for _ in range(ATTEMPTS - 1):
        try:
            return measure()
        except Void as why:
            print(f"\nvoid, again: {why}", file=sys.stderr, flush=True)
    return measure()


class Rounds:
    """Figures by name, measured in turn, round by round: how fast the machine is changes between the rounds more
    than within one, so what is compared is what one round has."""

    def __init__(self, count, measures):
        self.rows = []
        for _ in range(count):
            self.rows.append({name: sound(measure) for name, measure in measures.items() if measure})
            print(".", end="", file=sys.stderr, flush=True)

    def __contains__(self, name):
        return name in self.rows[0]

    def median(self, name):
        """The median; of figures that are tuples, a tuple of medians."""
        figures = [row[name] for row in self.rows]
        if isinstance(figures[0], tuple):
            return tuple(statistics.median(column) for column in zip(*figures))
        return statistics.median(figures)

    def ratio(self, name, to, at=None):
        """The median of the ratios within the rounds; of figures that are tuples, of those at this place."""
        figure = lambda row, name: row[name] if at is None else row[name][at]
        return statistics.median(figure(row, name) / figure(row, to) for row in self.rows)
