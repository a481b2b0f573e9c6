"""The service beside bare gRPC servers, Redis and memcached: see --help, and ../README.md."""

import argparse
import contextlib
import os
import signal
import sys
import tempfile

import callgrind
import sweep
from report import Table, compare, show_side
from servers import Programs

KEYS, VALUE = 1_000_000, 100
LARGE_KEYS, LARGE = 64, 1 << 20
IN_FLIGHT = (1, 8, 64, 512)


class Bench:
    """What the rows share: the programs, their stores, how often and how long."""

    def __init__(self, options, folder):
        processors = sorted(os.sched_getaffinity(0))
        pin = len(processors) > 1 and not (options.callgrind or options.smoke)
        self.programs = Programs(os.path.join(options.tree, "bin"), processors[0] if pin else None,
                                 processors[1] if pin else None, options.fifo)
        self.tree = options.tree
        self.folder, self.rounds, self.quick, self.top = folder, options.rounds, options.quick, options.top
        self.smoke = options.smoke
        self.connections = options.connections

    def keys(self, keys):
        return keys // 1000 if self.smoke else keys

    def calls(self, calls):
        return max(calls // (200 if self.smoke else 4 if self.quick else 1), 4)

    def store(self, keys, value_bytes):
        path = os.path.join(self.folder, f"{keys}x{value_bytes}")
        if not os.path.exists(path):
            self.programs.make_store(path, keys, value_bytes)
        return path

    def load(self, server, calls, in_flight, **options):
        calls = self.calls(calls)
        programs = options.pop("programs", self.programs)
        options.setdefault("warmup", calls // 10 + in_flight)
        options.setdefault("connections", self.connections)
        return lambda: programs.load(server, calls=calls, in_flight=in_flight, **options)

    def answer_bytes(self, server, **options):
        """What the service's answers to this work take: the echo sends as much."""
        return round(self.load(server, 400, 1, **options)()["answer_bytes"])


def posts(in_flight):
    """Requests that the echo keeps posted: what is cheapest for it."""
    return "8" if in_flight <= 8 else "64"


def row_read(bench):
    """Read of one 100-byte value: beside the echo at each concurrency, and what Redis and memcached take for a GET."""
    keys = bench.keys(KEYS)
    work = {"work": "read", "keys": keys}
    table = Table("Read, 100-byte value: server CPU a call")
    speeds = Table("Read: throughput and latency")
    with contextlib.ExitStack() as servers:
        def start(server):
            return server and servers.enter_context(server)
        ours = start(bench.programs.rdrived(bench.store(keys, VALUE)))
        size = bench.answer_bytes(ours, **work)
        echoes = {count: start(bench.programs.echo(size, "--posts", count)) for count in ("8", "64")}
        callback = start(bench.programs.echo_callback(VALUE))
        peers = [] if bench.smoke else [("Redis GET", "redis", start(bench.programs.redis(keys, VALUE))),
                                        ("memcached get", "memcached", start(bench.programs.memcached(keys, VALUE)))]
        for in_flight in IN_FLIGHT:
            calls = 6000 if in_flight == 1 else 20000
            sides = {"rdrived": bench.load(ours, calls, in_flight, **work),
                     "bare echo": bench.load(echoes[posts(in_flight)], calls, in_flight, **work, expect_bytes=size)}
            if callback:
                sides["C++ callback echo"] = bench.load(callback, calls, in_flight, **work,
                                                        expect_bytes=callback.logged("answer_bytes"))
            for name, target, server in peers:
                sides[name] = bench.load(server, calls, in_flight, **work, target=target)
            found = compare(sides, bench.rounds)
            where = f"{in_flight} in flight"
            table.ratio(where, found, "cpu_ns_per_call", "rdrived", "bare echo", at_most=1.10)
            if callback:
                table.ratio(where, found, "cpu_ns_per_call", "rdrived", "C++ callback echo", at_most=0.75)
            for name, _, _ in peers:
                table.ratio(where, found, "cpu_ns_per_call", "rdrived", name)
            show_side(speeds, where, found)
    return [table, speeds]


def batches(bench, title, work, least_calls, sides_in_flight, judged_in_flight, targets):
    """A row of batches: with and without metadata, beside Redis and memcached."""
    keys, batch = bench.keys(KEYS), work["batch"]
    table = Table(f"{title}: server CPU a key")
    speeds = Table(f"{title}: throughput and latency")
    with contextlib.ExitStack() as servers:
        ours = servers.enter_context(bench.programs.rdrived(bench.store(keys, VALUE)))
        peers = [] if bench.smoke else [
            (f"Redis MGET of {batch}", "redis", servers.enter_context(bench.programs.redis(keys, VALUE))),
            (f"memcached get of {batch}", "memcached", servers.enter_context(bench.programs.memcached(keys, VALUE)))]
        for in_flight in sides_in_flight:
            calls = max(least_calls, 2 * in_flight)
            sides = {"rdrived": bench.load(ours, calls, in_flight, keys=keys, **work),
                     "rdrived, no metadata": bench.load(ours, calls, in_flight, keys=keys, omit_metadata=True, **work)}
            for name, target, server in peers:
                sides[name] = bench.load(server, calls, in_flight, keys=keys, batch=batch, target=target)
            found = compare(sides, bench.rounds)
            where = f"{in_flight} in flight"
            judged = in_flight == judged_in_flight
            for side in list(sides)[:2]:
                if "ns" in targets:
                    table.figure(where, found, "cpu_ns_per_key", side, at_most=targets["ns"] if judged else None)
                for name, _, _ in peers:
                    times = targets["redis"] if judged and name.startswith("Redis") else None
                    table.times(where, found, "cpu_ns_per_key", side, name, at_least=times)
            show_side(speeds, where, found)
    return [table, speeds]


def row_batch_hashed(bench):
    """BatchReadHashedKeys of 10,000 keys, 100 bytes each, of 1 M."""
    return batches(bench, "BatchReadHashedKeys, 10,000 keys × 100 bytes of 1 M",
                   {"work": "batch-hashed", "batch": 10000}, 40, IN_FLIGHT, 1, {"ns": 150, "redis": 8})


def row_batch_read(bench):
    """BatchRead of 100 keys, 100 bytes each, 16 in flight."""
    return batches(bench, "BatchRead, 100 keys × 100 bytes", {"work": "batch-read", "batch": 100}, 3000,
                   (1, 8, 16, 64, 512), 16, {"redis": 4})


def row_large(bench):
    """Read and ReadStream of 1 MiB, beside an echo that copies as much."""
    keys = bench.keys(LARGE_KEYS) or 2
    table = Table("1 MiB values: server CPU a call")
    speeds = Table("1 MiB values: throughput and latency")
    work = {"keys": keys, "value_bytes": LARGE}
    with contextlib.ExitStack() as servers:
        ours = servers.enter_context(bench.programs.rdrived(bench.store(keys, LARGE)))
        size = bench.answer_bytes(ours, work="read", **work)
        echo = servers.enter_context(bench.programs.echo(size, "--sources", str(keys)))
        for in_flight in IN_FLIGHT:
            calls = max(400, 2 * in_flight)
            warm = {"in_order": keys, "warmup": max(keys, in_flight)}  # each value's checksum is due at its first read
            sides = {"Read": bench.load(ours, calls, in_flight, work="read", **work, **warm),
                     "ReadStream": bench.load(ours, calls, in_flight, work="read-stream", **work, **warm),
                     "bare echo": bench.load(echo, calls, in_flight, work="read", **work, expect_bytes=size)}
            found = compare(sides, bench.rounds)
            where = f"{in_flight} in flight"
            for side in ("Read", "ReadStream"):
                table.ratio(where, found, "cpu_ns_per_call", side, "bare echo", at_most=0.55)
            show_side(speeds, where, found)
    return [table, speeds]


ROWS = {"read": row_read, "batch-hashed": row_batch_hashed, "batch-read": row_batch_read, "large": row_large}


def show_callgrind(bench):
    programs, keys = bench.programs, 100000
    store = bench.store(keys, VALUE)
    read = {"work": "read", "keys": keys}
    with programs.rdrived(store) as server:
        size = bench.answer_bytes(server, **read)
    for in_flight in (1, 64):
        load = {**read, "warmup": 200, "in_flight": in_flight}
        ours = callgrind.measure(programs, lambda before: programs.rdrived(store, before=before), 1, (2000, 12000),
                                 **load)
        echo = callgrind.measure(programs, lambda before: programs.echo(size, "--posts", posts(in_flight),
                                                                        before=before),
                                 1, (2000, 12000), **load, expect_bytes=size)
        print(f"Read, {in_flight} in flight: {ours.total:,.0f} instructions a call, echo {echo.total:,.0f}: "
              f"{ours.total / echo.total:.3f}\n", flush=True)
        if in_flight == 1:
            ours.show(sys.stdout, "rdrived, Read", "call", bench.top)
            echo.show(sys.stdout, "bare echo", "call", bench.top)
    for work, batch, calls in (("batch-hashed", 10000, (20, 60)), ("batch-read", 100, (500, 2500))):
        for omit in (True, False):
            ours = callgrind.measure(programs, lambda before: programs.rdrived(store, before=before), batch, calls,
                                     work=work, keys=keys, batch=batch, warmup=5, omit_metadata=omit)
            ours.show(sys.stdout, f"{work} of {batch}, {'without' if omit else 'with'} metadata", "key", bench.top)


def parse():
    parser = argparse.ArgumentParser(prog="tests/bench/service.sh", description=__doc__)
    parser.add_argument("--tree", default="build/bench", help=argparse.SUPPRESS)
    parser.add_argument("--row", action="append", choices=ROWS, help="only this row; repeatable")
    parser.add_argument("--rounds", type=int, default=9, help="runs of each side, by turns; 9")
    parser.add_argument("--connections", type=int, default=4, help="at most, for calls in flight; 4")
    parser.add_argument("--quick", action="store_true", help="3 rounds of a quarter of the calls")
    parser.add_argument("--smoke", action="store_true", help="nearly nothing: only whether answers are right")
    parser.add_argument("--fifo", action="store_true", help="servers and client go before all else (chrt -f 10; root): "
                        "for a machine that does other things too")
    parser.add_argument("--callgrind", action="store_true", help="instructions a call and a key, by function")
    parser.add_argument("--top", type=int, default=25, help="functions that --callgrind lists; 25")
    parser.add_argument("--sweep", nargs="*", choices=sweep.PARTS, metavar="PART",
                        help=f"what the daemon's settings were chosen by: {', '.join(sweep.PARTS)}; all of them")
    parser.add_argument("--folder", help="where the stores are made; $TMPDIR or /tmp")
    options = parser.parse_args()
    if options.quick or options.smoke:
        options.rounds = 1 if options.smoke else 3
    return options


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stops the servers and removes the stores, too
    options = parse()
    missed = 0
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-service.") as folder:
        bench = Bench(options, folder)
        if options.callgrind:
            show_callgrind(bench)
        elif options.sweep is not None:
            sweep.run(bench, options.sweep)
        else:
            for name in options.row or ROWS:
                for table in ROWS[name](bench):
                    table.show()
                    missed += table.missed
    return 1 if missed and not options.smoke else 0


if __name__ == "__main__":
    sys.exit(main())
