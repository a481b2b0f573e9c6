"""What the tests of the daemon share: a daemon that is started, watched and stopped; stores; calls.

The environment says where things are: RDRIVE_BIN (the build's programs), RDRIVE_STUBS (what protoc made of proto/),
RDRIVE_SANITIZE (empty, address or thread). Nothing here sleeps to synchronise: a daemon is waited for by its log's
events, and what has no event (memory that comes back, a connection that ends) by `eventually`.
"""

import base64
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

import grpc

BIN = Path(os.environ["RDRIVE_BIN"])
STUBS = os.environ["RDRIVE_STUBS"]
SANITIZE = os.environ.get("RDRIVE_SANITIZE", "")
FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"

sys.path.insert(0, STUBS)
grpc.__path__.append(STUBS + "/grpc")  # the installed package `grpc` hides the stubs' own `grpc.health`
from grpc.health.v1 import health_pb2, health_pb2_grpc  # noqa: E402
from grpc.reflection.v1 import reflection_pb2, reflection_pb2_grpc  # noqa: E402,F401
from grpc.reflection.v1alpha import reflection_pb2 as v1alpha_pb2  # noqa: E402,F401
from grpc.reflection.v1alpha import reflection_pb2_grpc as v1alpha_pb2_grpc  # noqa: E402,F401
from rdrive.v1 import entry_pb2, reader_pb2, reader_pb2_grpc, writer_pb2, writer_pb2_grpc  # noqa: E402,F401

READER = "rdrive.v1.DataStoreReaderService"
WRITER = "rdrive.v1.DataStoreWriterService"
HEALTH = "grpc.health.v1.Health"
Code = grpc.StatusCode
Health = health_pb2.HealthCheckResponse

KIB, MIB = 1 << 10, 1 << 20
DEADLINE_S = 60  # what takes this long hangs
SLOWDOWN = {"": 1, "address": 4, "thread": 10}[SANITIZE]  # what a bound on time or memory allows the sanitizers
# glibc told not to keep what is freed: what stays is what the daemon has not freed.
KEEP_NOTHING = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "65536"}
REPORTS = ("AddressSanitizer", "LeakSanitizer", "ThreadSanitizer", "runtime error:")


def tell(text):
    """A figure for whoever reads the test's output."""
    print(f"    measured: {text}", file=sys.stderr, flush=True)


def eventually(condition, what, timeout=DEADLINE_S):
    """Wait for what no event announces."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.005)


def daemon_environment(extra=None):
    """Ours without RDRIVED_ variables; the sanitizers' options are added to what is given."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RDRIVED_")}
    # memory that is freed is given back at once, so that a test of memory sees what the daemon keeps
    env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + (":quarantine_size_mb=0:thread_local_quarantine_size_kb=0"
                                                          ":verify_asan_link_order=0")  # disk.py preloads
    suppressions = Path(__file__).resolve().parent / "tsan.supp"
    env["TSAN_OPTIONS"] = (env.get("TSAN_OPTIONS", "") + ":ignore_noninstrumented_modules=1:print_suppressions=0"
                           f":suppressions='{suppressions}'")
    env.update(extra or {})
    return env


def logfmt(line):
    """A log line's fields."""
    fields = re.findall(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|\S*)', line)
    return {name: json.loads(value) if value.startswith('"') else value for name, value in fields}


class Daemon:
    """One rdrived. `args` follow the store; it listens on a port of the kernel's choice unless they say where."""

    def __init__(self, store, *args, env=None, ready=True):
        listens = any(str(arg).startswith("--listen") for arg in args) or "RDRIVED_LISTEN" in (env or {})
        where = [] if listens else ["--listen", "127.0.0.1:0"]
        self.command = [str(BIN / "rdrived"), str(store), *where, *map(str, args)]
        self.lines = []
        self.ended = False
        self.changed = threading.Condition()
        self.process = subprocess.Popen(self.command, env=daemon_environment(env), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
        self.pid = self.process.pid
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.channels = []
        if ready:
            self.event("serving")

    def _read(self):
        for line in self.process.stderr:
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    # -- its log

    def events(self, name=None):
        with self.changed:
            fields = [logfmt(line) if line.startswith("ts=") else {} for line in self.lines]
        return [each for each in fields if "event" in each and name in (None, each["event"])]

    def event(self, name, count=1, timeout=DEADLINE_S):
        """Wait for an event; returns its fields."""
        deadline = time.monotonic() + timeout
        with self.changed:
            while len(self.events(name)) < count:
                if self.ended or not self.changed.wait(max(0, deadline - time.monotonic())):
                    raise AssertionError(f"no event {name!r} in the log:\n" + self.log())
        return self.events(name)[count - 1]

    def log(self):
        with self.changed:
            return "\n".join(self.lines)

    # -- its process

    def memory(self):
        """Bytes of memory of its own: file mappings don't count."""
        return int(re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())[1]) * KIB

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def send(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=DEADLINE_S):
        """Its exit status."""
        status = self.process.wait(timeout)
        self.reader.join(DEADLINE_S)
        return status

    def stop(self, number=signal.SIGTERM, status=0):
        """Stop it if it runs; it must have ended with `status` and have had nothing to complain about."""
        for channel in self.channels:
            channel.close()
        try:
            if self.process.poll() is None:
                self.send(number)
            ended = self.wait()
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
        self.process.stderr.close()
        log = self.log()
        if ended != status or self.events("bug") or any(report in log for report in REPORTS):
            raise AssertionError(f"{self.command} ended with {ended}, not {status}, or complained:\n{log}")

    # -- calls

    def address(self):
        return self.event("listening")["address"]

    def channel(self, address=None, **options):
        """A connection of its own. Options are gRPC's channel arguments, '.' written '__'."""
        options = {"grpc.use_local_subchannel_pool": 1, "grpc.max_receive_message_length": -1,
                   "grpc.enable_retries": 0, **{name.replace("__", "."): value for name, value in options.items()}}
        channel = grpc.insecure_channel(address or self.address(), list(options.items()))
        self.channels.append(channel)
        return channel

    def reader_stub(self, channel=None):
        return reader_pb2_grpc.DataStoreReaderServiceStub(channel or self.channel())

    def writer_stub(self, channel=None):
        return writer_pb2_grpc.DataStoreWriterServiceStub(channel or self.channel())

    def health_stub(self, channel=None):
        return health_pb2_grpc.HealthStub(channel or self.channel())


def peak_memory(daemon, work):
    """The most memory the daemon had while `work` ran, and what that returned."""
    peak, done = [daemon.memory()], threading.Event()

    def look():
        while not done.wait(0.002):
            peak[0] = max(peak[0], daemon.memory())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        result = work()
    finally:
        done.set()
        watcher.join()
    return max(peak[0], daemon.memory()), result


# ---- stores

def tool(*args, stdin=b""):
    done = subprocess.run([str(BIN / "rdrive"), *map(str, args)], input=stdin, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=daemon_environment(), timeout=DEADLINE_S)
    if done.returncode != 0:
        raise AssertionError(f"rdrive {args[0]}: {done.stderr.decode()}")
    return done.stdout


def make_store(path, values):
    """A store of `values`, bytes by bytes."""
    lines = (json.dumps({"key_hex": key.hex(), "value_base64": base64.b64encode(value).decode()})
             for key, value in values.items())
    tool("import", path, "--format", "jsonl", stdin="\n".join(lines).encode())
    return path


def noise(seed, size):
    """Bytes that look random and are always the same; they repeat after a prime number, so never in step with chunks."""
    tile = hashlib.shake_128(str(seed).encode()).digest(min(size, 65521))
    return (tile * (size // 65521 + 1))[:size]


def manifests():
    for path in sorted((FIXTURES / "valid").glob("*.srd.json")):
        yield str(path)[: -len(".json")], json.loads(path.read_text())


U64 = (1 << 64) - 1


def xxh3(key):
    """XXH3-64 of a key of 9 to 16 bytes, seed 0; made anew here, so that hashes are checked and not copied."""
    secret = bytes.fromhex("1f67b3b7a4a4407278e5c0cc4ee679cb2172ffcc7dd05a828e2443f7744608b8")
    words = [int.from_bytes(secret[at:at + 8], "big") for at in range(0, 32, 8)]
    low = int.from_bytes(key[:8], "little") ^ words[0] ^ words[1]
    high = int.from_bytes(key[-8:], "little") ^ words[2] ^ words[3]
    product = low * high
    swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
    acc = (len(key) + swapped + high + (product & U64 ^ product >> 64)) & U64
    acc = (acc ^ acc >> 37) * 0x165667919E3779F9 & U64
    return acc ^ acc >> 32


# ---- google.rpc.Status, whose Python classes Debian doesn't package

def fields_of(message):
    """The length-delimited and varint fields of a serialized message, as (number, value)."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte, at = message[at], at + 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        tag = varint()
        value = varint()
        if tag & 7 == 2:
            at, value = at + value, message[at:at + value]
        yield tag >> 3, value


def error_info(error, test):
    """The reason in a failed call's ErrorInfo, None without one, and its metadata; the details must repeat code and
    message."""
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    if details is None:
        return None, {}
    status = list(fields_of(details))
    test.assertEqual(dict(status)[1], error.code().value[0])
    test.assertEqual(dict(status)[2].decode(), error.details())
    packed = [dict(fields_of(value)) for number, value in status if number == 3]
    packed = {any_[1].decode(): any_[2] for any_ in packed}
    test.assertEqual("type.googleapis.com/google.rpc.RetryInfo" in packed, error.code() == Code.UNAVAILABLE)
    info = list(fields_of(packed["type.googleapis.com/google.rpc.ErrorInfo"]))
    test.assertEqual(dict(info)[2], b"rdrive")
    facts = [dict(fields_of(value)) for number, value in info if number == 3]
    return dict(info)[1].decode(), {fact[1].decode(): fact[2].decode() for fact in facts}


# ---- tests

class DaemonTest(unittest.TestCase):
    """Every daemon a test starts is stopped at its end, and must then have ended well."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="rdrive-e2e-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def serve(self, store, *args, **options):
        daemon = Daemon(store, *args, **options)
        self.addCleanup(daemon.stop)
        return daemon

    def refused(self, store, *args, env=None, status=2):
        """A start that fails with `status`; returns its lines on stderr, those of gRPC apart."""
        daemon = Daemon(store, *args, env=env, ready=False)
        self.addCleanup(daemon.stop, status=status)
        self.assertEqual(daemon.wait(), status, daemon.log())
        return [line for line in daemon.log().splitlines() if " event=grpc " not in line]

    def fails(self, code, call, *says, reason=None, facts=None):
        """The call ends with `code`, a message that holds each of `says`, and `reason` (None: none was given); where
        `facts` are given, these and no others are in ErrorInfo's metadata."""
        with self.assertRaises(grpc.RpcError) as caught:
            result = call()
            if hasattr(result, "__next__"):
                for _ in result:
                    pass
        error = caught.exception
        self.assertEqual(error.code(), code, error.details())
        for text in says:
            self.assertIn(text, error.details())
        came, metadata = error_info(error, self)
        self.assertEqual(came, reason, error.details())
        if facts is not None:
            self.assertEqual(metadata, {name: str(value) for name, value in facts.items()})
        if code == Code.UNAVAILABLE and reason:
            self.assertGreater(int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]), 0)

    def code_of(self, call):
        """The status a unary call ends with."""
        try:
            call()
        except grpc.RpcError as error:
            return error.code()
        return Code.OK
