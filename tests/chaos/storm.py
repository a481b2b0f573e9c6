"""Client threads that ask for everything at once, break off at random, and believe nothing."""

import collections
import threading
import time

import grpc
from harness import (ABSENT, CHUNK, HASHES, KEYS, LARGE, Batch, Lie, check_entry, check_metadata, dice_of, must,
                     some_keys, values)
from support import Code, Health, health_pb2, reader_pb2

THREADS = 16
LARGE_BATCH = [ABSENT[0]] * 60000 + [LARGE, KEYS[0]]


class Storm:
    """`chaos` is the engine's configuration, which says what may go wrong."""

    def __init__(self, daemon, chaos, seconds=None):
        self.daemon, self.chaos = daemon, chaos
        self.damages = chaos.get("damage_per_mille", 0) > 0
        self.fails = chaos.get("fail_per_mille", 0) > 0
        self.until = time.monotonic() + seconds if seconds else None
        self.draining = threading.Event()  # UNAVAILABLE is no surprise
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.ended = collections.Counter()
        self.wrong = []
        self.enough = threading.Event()  # calls have ended, so that others are surely under way
        stubs = [daemon.reader_stub() for _ in range(4)]
        health = daemon.health_stub()
        self.threads = [threading.Thread(target=Client(self, i, stubs[i % 4], health).run) for i in range(THREADS)]
        for thread in self.threads:
            thread.start()

    def goes_on(self):
        return not self.stopping.is_set() and (self.until is None or time.monotonic() < self.until)

    def note(self, code):
        with self.lock:
            self.ended[code.name] += 1
            if self.ended["OK"] >= 200:
                self.enough.set()

    def complain(self, text):
        with self.lock:
            self.wrong.append(text)
        self.stopping.set()
        self.enough.set()

    def join(self):
        for thread in self.threads:
            thread.join()
        if self.wrong:
            raise AssertionError(f"{len(self.wrong)} wrong answers, first of them:\n" + "\n".join(self.wrong[:5]))
        return self.ended


class Client:
    def __init__(self, storm, number, stub, health):
        self.storm, self.stub, self.health = storm, stub, health
        self.dice = dice_of(storm.chaos["seed"], number)
        self.number = number

    def run(self):
        actions = 8 * [self.pack, self.batch_stream, self.read_stream, self.check_health]
        actions += [self.large_batch, self.read_large]
        while self.storm.goes_on():
            action = self.dice.choice(actions)
            try:
                action()
            except Lie as lie:
                self.storm.complain(f"{action.__name__}: {lie}")
            except Exception as error:  # a test's bug must not look like silence
                self.storm.complain(f"{action.__name__}: {error!r}")
                raise

    # -- how calls may end

    def timeout(self):
        return self.dice.choice([None, None, None, 0.001, 0.003, 0.01, 0.03])

    def judge(self, call, cancelled, timeout, also=()):
        """Whether the call was answered; complains of a status that nothing explains."""
        code, details = call.code(), call.details() or ""
        self.storm.note(code)
        expected = {Code.OK: True, Code.CANCELLED: cancelled, Code.DEADLINE_EXCEEDED: timeout is not None,
                    Code.INTERNAL: self.storm.fails and "read or write error" in details,
                    Code.DATA_LOSS: self.storm.damages and "checksum" in details,
                    Code.UNAVAILABLE: (self.storm.draining.is_set() or
                                       self.storm.fails and "can't answer now" in details)}
        if not (expected.get(code, False) or code in also):
            self.storm.complain(f"status {code.name} '{details}' (cancelled: {cancelled}, timeout: {timeout})")
        return code == Code.OK

    # -- unary calls, several at once

    def unary(self):
        """A method, its request, and the check of its answer."""
        dice, stub = self.dice, self.stub
        key = dice.choice(KEYS + ABSENT)
        live = key in values
        keys, omit = some_keys(dice, 30), dice.random() < 0.3

        def entry(answer):
            must(answer.HasField("entry") == live, key, "there or not")
            if live:
                check_entry(key, answer.entry)

        def metadata(answer):
            must(answer.HasField("metadata") == live, key, "there or not")
            if live:
                check_metadata(key, answer.metadata)

        def batch(answer):
            items = Batch(keys, omit, self.storm.damages)
            items.take(answer.items)
            items.end()

        def info(answer):
            must(answer.live_keys == len(values) and answer.limits.chunk_bytes == CHUNK and answer.engine == "chaos",
                 "info", answer)
            must(len(answer.damaged_ranges) == self.storm.chaos.get("ranges", 0), "ranges", answer)
            must(all(each.what == "invented" and each.size == i + 1 and each.offset == 1000 * i
                     for i, each in enumerate(answer.damaged_ranges)), "ranges", answer)

        return dice.choice([
            (stub.Read, reader_pb2.ReadRequest(key=key), entry),
            (stub.Read, reader_pb2.ReadRequest(key=key), entry),
            (stub.ReadWithKeyHash, reader_pb2.ReadWithKeyHashRequest(key_hash=HASHES[key]), entry),
            (stub.ReadMetadata, reader_pb2.ReadMetadataRequest(key=key), metadata),
            (stub.Exists, reader_pb2.ExistsRequest(key=key), lambda answer: must(answer.exists == live, key, "exists")),
            (stub.BatchRead, reader_pb2.BatchReadRequest(keys=keys, omit_metadata=omit), batch),
            (stub.BatchRead, reader_pb2.BatchReadRequest(keys=keys, omit_metadata=omit), batch),
            (stub.Len, reader_pb2.LenRequest(), lambda answer: must(answer.len == len(values), "len", answer.len)),
            (stub.IsEmpty, reader_pb2.IsEmptyRequest(), lambda answer: must(not answer.is_empty, "empty")),
            (stub.GetStoreInfo, reader_pb2.GetStoreInfoRequest(), info),
            (stub.ReadLastEntry, reader_pb2.ReadLastEntryRequest(),
             lambda answer: check_entry(KEYS[-1], answer.entry)),
        ])

    def pack(self):
        """Several calls at once; some are cancelled at once, some when another one has ended."""
        calls = []
        for _ in range(self.dice.randint(1, 6)):
            method, request, check = self.unary()
            timeout, when = self.timeout(), self.dice.choice([None, None, None, None, None, None, "at once", "later"])
            call = method.future(request, timeout=timeout)
            if when == "at once":
                call.cancel()
            calls.append((call, check, timeout, when))
        for call, check, timeout, when in calls:
            cancelled = when is not None
            if when == "later":
                call.cancel()
            if self.judge(call, cancelled, timeout):
                check(call.result())

    def check_health(self):
        timeout = self.timeout()
        call = self.health.Check.future(health_pb2.HealthCheckRequest(service=""), timeout=timeout)
        if self.judge(call, False, timeout):
            must(call.result().status == Health.SERVING or self.storm.draining.is_set(), "not serving")

    # -- streams

    def consume(self, call, timeout, take, also=()):
        """Read a stream to its end, or cancel it somewhere; whether it ended OK."""
        quit_after = self.dice.randint(0, 4) if self.dice.random() < 0.3 else None
        count = 0
        if quit_after == 0:
            call.cancel()
        try:
            for message in call:
                take(message)
                count += 1
                if count == quit_after:
                    call.cancel()
        except grpc.RpcError:
            pass
        except Lie:
            call.cancel()
            raise
        return self.judge(call, quit_after is not None and count >= quit_after, timeout, also)

    def batch_stream(self):
        self.stream_of(some_keys(self.dice, 60), self.timeout())

    def large_batch(self):
        """More keys than the inner engine resolves at once."""
        if self.number == 0 and "window_max" not in self.storm.chaos:  # else it would take all the time there is
            late = self.storm.chaos.get("mode") == "late"
            self.stream_of(LARGE_BATCH, self.dice.choice([0.01, 0.1, 0.3]) if late else None)

    def stream_of(self, keys, timeout):
        omit = self.dice.random() < 0.3
        if self.dice.random() < 0.5:
            call = self.stub.BatchReadStream(reader_pb2.BatchReadStreamRequest(keys=keys, omit_metadata=omit),
                                             timeout=timeout)
        else:
            names = keys if self.dice.random() < 0.5 else []
            call = self.stub.BatchReadHashedKeys(reader_pb2.BatchReadHashedKeysRequest(
                key_hashes=[HASHES[key] for key in keys], keys=names, omit_metadata=omit), timeout=timeout)
        batch = Batch(keys, omit, self.storm.damages)
        if self.consume(call, timeout, lambda message: batch.take(message.items)):
            batch.end()

    def read_stream(self):
        self.read_range(self.dice.choice(KEYS))

    def read_large(self):
        self.read_range(LARGE)

    def read_range(self, key):
        timeout = self.timeout()
        size = len(values[key])
        offset = self.dice.choice([0, 0, size // 2, size, size + 1])
        limit = self.dice.choice([0, 0, 1, size // 2])
        wanted = values[key][offset:offset + limit if limit else None]
        call = self.stub.ReadStream(reader_pb2.ReadStreamRequest(key=key, offset=offset, limit=limit), timeout=timeout)
        got = bytearray()

        def take(message):
            fragment = message.fragment
            must(fragment.payload_offset == offset + len(got) and fragment.payload_size == size and fragment.data,
                 key, "fragment")
            must(fragment.HasField("metadata") == (not got), key, "metadata of a fragment")
            got.extend(fragment.data)
            must(wanted.startswith(got), key, "bytes of a fragment")

        if self.consume(call, timeout, take, also={Code.OUT_OF_RANGE} if offset > size else ()):
            must(offset <= size and got == wanted, key, "ended OK after", len(got), "of", len(wanted))
