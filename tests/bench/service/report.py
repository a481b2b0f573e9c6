"""Runs by turns, and tables of their medians."""

from statistics import median


def compare(sides, rounds):
    """Run each side once a round, another one first each time. Returns the figures of each, by round."""
    names = list(sides)
    found = {name: [] for name in names}
    for turn in range(rounds):
        for place in range(len(names)):
            name = names[(turn + place) % len(names)]
            found[name].append(sides[name]())
    return found


def spread(values, scale=1.0, digits=2):
    values = [value / scale for value in values]
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


class Table:
    """Lines of cells under a title, aligned; it counts the targets that are missed."""

    def __init__(self, title):
        self.title, self.lines, self.missed = title, [], 0

    def add(self, *cells):
        self.lines.append(cells)

    def verdict(self, text, kept):
        if kept is None:
            return ""
        self.missed += not kept
        return f"must be {text}: {'kept' if kept else 'MISSED'}"

    def _of(self, found, figure, side):
        values = [run[figure] for run in found[side]]
        scale, unit = (1e3, "µs") if median(values) >= 5000 else (1, "ns")
        return f"{side} {spread(values, scale, 1)} {unit}"

    def figure(self, where, found, figure, side, at_most=None):
        values = [run[figure] for run in found[side]]
        kept = None if at_most is None else median(values) <= at_most
        self.add(where, self._of(found, figure, side), "", "", self.verdict(f"at most {at_most} ns", kept))

    def ratio(self, where, found, figure, side, other, at_most=None):
        """`side`'s figure by the other's, round by round."""
        ratios = [a[figure] / b[figure] for a, b in zip(found[side], found[other])]
        kept = None if at_most is None else median(ratios) <= at_most
        self.add(where, self._of(found, figure, side), self._of(found, figure, other), f"× {spread(ratios)}",
                 self.verdict(f"at most {at_most}", kept))

    def times(self, where, found, figure, side, other, at_least=None):
        """How many times as much the other takes."""
        ratios = [b[figure] / a[figure] for a, b in zip(found[side], found[other])]
        kept = None if at_least is None else median(ratios) >= at_least
        self.add(where, self._of(found, figure, side), self._of(found, figure, other), f"1/{spread(ratios)}",
                 self.verdict(f"at least {at_least} times cheaper", kept))

    def show(self):
        widths = [max(map(len, column)) for column in zip(*self.lines)]
        print(f"{self.title}\n")
        for line in self.lines:
            print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
        print(flush=True)


def show_side(table, where, found):
    """A line for each side's throughput and latency."""
    if not table.lines:
        table.add("", "", "calls/s", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs a call", "client's")
    for side, runs in found.items():
        of = lambda figure: median(run[figure] for run in runs)  # noqa: E731
        table.add(where, side, f"{of('calls_per_second'):,.0f}", f"{of('p50_us'):,.0f}", f"{of('p99_us'):,.0f}",
                  f"{of('p999_us'):,.0f}", f"{of('cpu_ns_per_call') / 1e3:,.1f}",
                  f"{of('client_ns_per_call') / 1e3:,.1f}")
