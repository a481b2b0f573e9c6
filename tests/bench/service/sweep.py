"""What the daemon's settings were chosen by: each is varied alone, everything else as the daemon has it."""

import contextlib
import os
import shutil

import callgrind
from report import Table, compare, spread
from servers import Programs

KIB, MIB = 1 << 10, 1 << 20
KEYS, VALUE = 1_000_000, 100
SPREAD_OVER = 64 * MIB  # bytes of values: more than a processor's caches hold


def threads(bench):
    """Threads a queue and queues: of the daemon, one thread a queue, and of the echo, which can do both."""
    free = Programs(bench.programs.folder, fifo=bench.programs.fifo)  # server and client share the processors
    table = Table("Read of 100 bytes by queues and threads a queue; server and client on all processors")
    store = bench.store(KEYS, VALUE)
    work = {"work": "read", "keys": KEYS}
    with contextlib.ExitStack() as servers:
        ours = {n: servers.enter_context(free.rdrived(store, threads=n)) for n in (1, 2, 4)}
        size = bench.answer_bytes(ours[1], **work)
        shapes = ((1, 1), (1, 2), (2, 1), (2, 2))
        echoes = {shape: servers.enter_context(free.echo(size, "--sharing", str(shape[1]), threads=shape[0]))
                  for shape in shapes}
        for in_flight in (1, 8, 64):
            calls = 6000 if in_flight == 1 else 20000
            sides = {f"rdrived, {n} queue(s)": bench.load(server, calls, in_flight, programs=free, **work)
                     for n, server in ours.items()}
            for (queues, sharing), server in echoes.items():
                sides[f"echo, {queues} queue(s) of {sharing} thread(s)"] = bench.load(
                    server, calls, in_flight, programs=free, **work, expect_bytes=size)
            lines(table, f"{in_flight} in flight", compare(sides, bench.rounds))
    table.show()


def lines(table, where, found, figure="cpu_ns_per_call", scale=1e3, unit="µs CPU a call"):
    for side, runs in found.items():
        table.add(where, side, f"{spread([run[figure] for run in runs], scale)} {unit}",
                  f"{spread([run['calls_per_second'] for run in runs], 1, 0)} calls/s",
                  f"p99 {spread([run['p99_us'] for run in runs], 1, 0)} µs")


def chunks(bench):
    """--chunk-bytes, for a batch and for a large value."""
    sizes = {"64K": 64 * KIB, "256K": 256 * KIB, "1M": MIB}
    for title, keys, value, work, figure, scale, unit, calls in (
            ("BatchReadHashedKeys, 10,000 keys × 100 bytes", KEYS, VALUE,
             {"work": "batch-hashed", "batch": 10000}, "cpu_ns_per_key", 1, "ns CPU a key", 40),
            ("ReadStream, 1 MiB", 64, MIB, {"work": "read-stream", "in_order": 64, "warmup": 64},
             "cpu_ns_per_call", 1e3, "µs CPU a call", 400)):
        table = Table(f"{title} by --chunk-bytes")
        store = bench.store(keys, value)
        with contextlib.ExitStack() as servers:
            ours = {name: servers.enter_context(bench.programs.rdrived(store, "--chunk-bytes", str(size)))
                    for name, size in sizes.items()}
            for in_flight in (1, 8):
                sides = {name: bench.load(server, calls, in_flight, keys=keys, value_bytes=value, **work)
                         for name, server in ours.items()}
                lines(table, f"{in_flight} in flight", compare(sides, bench.rounds), figure, scale, unit)
        table.show()


def copying(bench):
    """From which size on a payload is cheaper by reference: daemons built to copy all and to refer to all."""
    table = Table("Read by payload: copied, or by reference")
    trees = {"copied": bench.tree + "-copied", "by reference": bench.tree + "-referred"}
    for size in (KIB, 4 * KIB, 8 * KIB, 16 * KIB, 32 * KIB, 64 * KIB, 256 * KIB, MIB):
        keys = min(SPREAD_OVER // size, 16384)
        store = bench.store(keys, size)
        with contextlib.ExitStack() as servers:
            place = bench.programs.place
            ours = {name: servers.enter_context(Programs(os.path.join(tree, "bin"), place["processor"],
                                                         fifo=place["fifo"]).rdrived(store))
                    for name, tree in trees.items()}
            calls = max(400, min(20000, 2 * SPREAD_OVER // size))
            sides = {name: bench.load(server, calls, 8, work="read", keys=keys, value_bytes=size, in_order=keys,
                                      warmup=keys) for name, server in ours.items()}
            found = compare(sides, bench.rounds)
            ratios = [b["cpu_ns_per_call"] / a["cpu_ns_per_call"]
                      for a, b in zip(found["copied"], found["by reference"])]
            table.add(f"{size // KIB} KiB", *(f"{name} {spread([run['cpu_ns_per_call'] for run in runs], 1e3)} µs"
                                              for name, runs in found.items()), f"× {spread(ratios)}")
        os.remove(store)
    table.show()


ARGUMENTS = (
    "grpc.http2.bdp_probe=1", "grpc.enable_channelz=0", "grpc.per_message_compression=0",
    "grpc.per_message_decompression=0", "grpc.enable_deadline_checking=0", "grpc.max_receive_message_length=-1",
    "grpc.minimal_stack=1", "grpc.http2.write_buffer_size=0", "grpc.http2.hpack_table_size.encoder=0",
    "grpc.http2.max_frame_size=1048576", "grpc.experimental.tcp_read_chunk_size=65536",
    "grpc.max_channel_trace_event_memory_per_node=0")


def instructions(bench, *options, in_flight=1):
    return callgrind.measure(bench.plain, lambda before: bench.plain.echo(125, *options, before=before), 1,
                             (1000, 5000), work="read", keys=1000, warmup=200, expect_bytes=125,
                             in_flight=in_flight).total


def arguments(bench):
    """Channel arguments, by what they change in the echo; and how many requests are posted."""
    table = Table("Instructions a call of the echo, by one channel argument")
    base = instructions(bench)
    table.add("as it is", f"{base:,.0f}", "")
    for argument in ARGUMENTS:
        found = instructions(bench, "--arg", argument)
        table.add(argument, f"{found:,.0f}", f"{100 * (found / base - 1):+.1f} %")
    table.show()
    table = Table("Instructions a call of the echo, by requests posted on its queue")
    table.add("posted", "1 in flight", "64 in flight")
    for posted in ("1", "2", "4", "8", "16", "64", "256"):
        table.add(posted, *(f"{instructions(bench, '--posts', posted, in_flight=n):,.0f}" for n in (1, 64)))
    table.show()


def connections(bench):
    """How a call's cost depends on how many connections bring it."""
    table = Table("Read of 100 bytes, 64 in flight, by connections")
    with bench.programs.rdrived(bench.store(KEYS, VALUE)) as server:
        work = {"work": "read", "keys": KEYS}
        sides = {f"{n}": bench.load(server, 20000, 64, connections=n, **work) for n in (1, 4, 16, 64)}
        lines(table, "connections", compare(sides, bench.rounds))
    table.show()


PARTS = {"threads": threads, "connections": connections, "chunks": chunks, "copying": copying, "arguments": arguments}


def run(bench, names):
    bench.plain = Programs(bench.programs.folder)
    for name in names or PARTS:
        if name == "arguments" and not shutil.which("valgrind"):
            print("channel arguments: valgrind isn't there\n")
            continue
        PARTS[name](bench)
