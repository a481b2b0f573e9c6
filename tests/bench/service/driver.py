"""The service beside bare gRPC servers, Redis and memcached: see --help, and ../README.md."""

import argparse
import os
import sys
import tempfile

import callgrind
from servers import Programs

READ_PATH = "/rdrive.v1.DataStoreReaderService/Read"


def posts(in_flight):
    """Requests that the echo keeps posted: what is cheapest for it."""
    return "8" if in_flight <= 8 else "64"


def answer_bytes(programs, store, **load):
    """What the service's answers to this work take: the echo sends as much."""
    with programs.rdrived(store) as server:
        return round(programs.load(server, calls=200, warmup=1, **load)["answer_bytes"])


def show_callgrind(programs, folder, top):
    store, keys = os.path.join(folder, "small"), 100000
    programs.make_store(store, keys, 100)
    read = {"work": "read", "keys": keys}
    size = answer_bytes(programs, store, **read)
    for in_flight in (1, 64):
        load = {**read, "warmup": 200, "in_flight": in_flight}
        ours = callgrind.measure(programs, lambda before: programs.rdrived(store, before=before), 1, (2000, 12000),
                                 **load)
        echo = callgrind.measure(programs, lambda before: programs.echo(size, "--posts", posts(in_flight),
                                                                        before=before),
                                 1, (2000, 12000), **load, expect_bytes=size)
        print(f"Read, {in_flight} in flight: {ours.total:,.0f} instructions a call, echo {echo.total:,.0f}: "
              f"{ours.total / echo.total:.3f}\n")
        if in_flight == 1:
            ours.show(sys.stdout, "rdrived, Read", "call", top)
            echo.show(sys.stdout, "bare echo", "call", top)
    for work, batch, calls in (("batch-hashed", 10000, (20, 60)), ("batch-read", 100, (500, 2500))):
        for omit in (True, False):
            ours = callgrind.measure(programs, lambda before: programs.rdrived(store, before=before), batch, calls,
                                     work=work, keys=keys, batch=batch, warmup=5, omit_metadata=omit)
            ours.show(sys.stdout, f"{work} of {batch}, {'without' if omit else 'with'} metadata", "key", top)


def main():
    parser = argparse.ArgumentParser(prog="tests/bench/service.sh", description=__doc__)
    parser.add_argument("--tree", default="build/bench", help=argparse.SUPPRESS)
    parser.add_argument("--callgrind", action="store_true", help="instructions a call and a key, by function")
    parser.add_argument("--top", type=int, default=25, help="functions that are listed")
    parser.add_argument("--folder", help="where the stores are made; $TMPDIR or /tmp")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-service.") as folder:
        programs = Programs(os.path.join(options.tree, "bin"))
        if options.callgrind:
            show_callgrind(programs, folder, options.top)


if __name__ == "__main__":
    main()
