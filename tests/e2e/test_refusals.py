"""What the daemon refuses: by a clear status, at once, on a connection that lives on, and without keeping anything."""

import os
import random
import tempfile
import threading
import time
import unittest
from pathlib import Path

import grpc

from support import (DEADLINE_S, HEALTH, KEEP_NOTHING, KIB, MIB, READER, SANITIZE, WRITER, Code, DaemonTest, Health,
                     eventually, health_pb2, make_store, reader_pb2, tell, tool, writer_pb2)

GOOD = reader_pb2.ReadRequest(key=b"key")
LARGE = 32 * MIB  # more than the windows and buffers between a daemon and a client that doesn't read
UNKNOWN_CALLS, WARM_UP = 20_000, 5_000
FLAT = {"": 2 * MIB, "address": 2 * MIB, "thread": 16 * MIB}[SANITIZE]  # 20,000 leaks of 12 KB would be 234 MiB

folder = tempfile.TemporaryDirectory(prefix="rdrive-e2e-")
store = Path(folder.name) / "store.srd"


def setUpModule():
    tool("put", store, "large", "-", "--create", stdin=bytes(LARGE))
    tool("put", store, "key", "value")


def tearDownModule():
    folder.cleanup()


def methods():
    """Every method served: its path and its request's class."""
    for name, file in ((READER, reader_pb2), (HEALTH, health_pb2)):
        service = file.DESCRIPTOR.services_by_name[name.rsplit(".", 1)[1]]
        for method in service.methods:
            yield f"/{name}/{method.name}", getattr(file, method.input_type.name)


class RefusalTest(DaemonTest):
    options = ()
    env = None

    def setUp(self):
        super().setUp()
        self.daemon = self.serve(store, *self.options, env=self.env)
        self.channel = self.daemon.channel()
        self.stub = self.daemon.reader_stub(self.channel)
        # a watch on the same connection: it ends if that does
        self.watch = self.daemon.health_stub(self.channel).Watch(health_pb2.HealthCheckRequest())
        self.assertEqual(next(self.watch).status, Health.SERVING)

    def assert_lives(self):
        """The connection is the same as at the start, and good."""
        self.assertEqual(self.stub.Read(GOOD).entry.payload, b"value")
        self.assertTrue(self.watch.is_active())

    def raw(self, path, payload, **options):
        """Call any path with any bytes."""
        call = self.channel.unary_stream(path, request_serializer=lambda data: data)
        return list(call(payload, timeout=DEADLINE_S, **options))


class Unknown(RefusalTest):
    env = KEEP_NOTHING

    def test_an_unknown_method_is_unimplemented_at_once(self):
        for path in (f"/{READER}/Frobnicate", "/no.such.Service/Read", f"/{READER}", "/", f"/{READER.lower()}/Read",
                     "/rdrive.v2.DataStoreReaderService/Read", "/" + "x" * 5000):
            begun = time.monotonic()
            self.fails(Code.UNIMPLEMENTED, lambda: self.raw(path, b""), path[:100], reason="UNKNOWN_METHOD")
            self.assertLess(time.monotonic() - begun, 5)
            self.assert_lives()

    def test_the_writers_methods_are_refused_by_a_server_that_only_reads(self):
        for method in writer_pb2.DESCRIPTOR.services_by_name["DataStoreWriterService"].methods:
            self.fails(Code.PERMISSION_DENIED, lambda: self.raw(f"/{WRITER}/{method.name}", b""), "--writable",
                       reason="READ_ONLY_SERVER")
        self.assert_lives()

    def test_an_unknown_stream_ends_though_its_client_does_not_end_it(self):
        over = threading.Event()

        def endless():
            yield b"more"
            over.wait(DEADLINE_S)

        call = self.channel.stream_stream("/no.such.Service/Chat", request_serializer=lambda data: data)
        self.fails(Code.UNIMPLEMENTED, lambda: call(endless(), timeout=DEADLINE_S / 2), reason="UNKNOWN_METHOD")
        over.set()
        self.assert_lives()

    def flood(self, count):
        call = self.channel.unary_unary("/no.such.Service/Read", request_serializer=lambda data: data)
        for _ in range(count // 100):
            for future in [call.future(b"unasked", timeout=DEADLINE_S) for _ in range(100)]:
                self.assertEqual(future.code(), Code.UNIMPLEMENTED)

    def test_20000_unknown_methods_leave_memory_flat(self):
        self.flood(WARM_UP)
        before = self.daemon.memory()
        begun = time.monotonic()
        self.flood(UNKNOWN_CALLS)
        growth = self.daemon.memory() - before
        tell(f"{UNKNOWN_CALLS:,} unknown methods in {time.monotonic() - begun:.1f} s grew the daemon by "
             f"{growth / KIB:.0f} KiB")
        self.assertLess(growth, FLAT)
        self.assert_lives()


class Malformed(RefusalTest):
    def test_lengths_that_differ_are_named_both(self):
        for hashes, keys in ((3, 2), (2, 3), (0, 1), (1, 1000)):
            request = reader_pb2.BatchReadHashedKeysRequest(key_hashes=range(hashes), keys=[b"k"] * keys)
            self.fails(Code.INVALID_ARGUMENT, lambda: self.stub.BatchReadHashedKeys(request),
                       f"key_hashes has {hashes}", f"keys has {keys}", reason="LENGTH_MISMATCH")
            self.assert_lives()

    def test_a_stream_without_a_selector_is_refused(self):
        for request in (reader_pb2.ReadStreamRequest(), reader_pb2.ReadStreamRequest(offset=1, limit=2)):
            self.fails(Code.INVALID_ARGUMENT, lambda: self.stub.ReadStream(request), "key", "key_hash",
                       reason="NO_SELECTOR")
        empty_key = reader_pb2.ReadStreamRequest(key=b"")  # set, and empty: a key like any other
        self.assertEqual(list(self.stub.ReadStream(empty_key)), [])
        self.assert_lives()

    def test_what_is_no_protobuf_is_malformed_on_every_method(self):
        wrong = {"a cut tag": b"\xff", "a tag of eleven bytes": b"\xff" * 11, "a cut number": b"\x08\xff",
                 "a length beyond the end": b"\x0a\x05ab", "a huge length": b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
                 "a fixed64 of 3 bytes": b"\x09abc", "a fixed32 of 3 bytes": b"\x0dabc", "wire type 7": b"\x0f",
                 "a group that nobody ends": b"\x0b"}
        for path, _ in methods():
            for what, payload in wrong.items():
                with self.subTest(path=path, what=what):
                    self.fails(Code.INVALID_ARGUMENT, lambda: self.raw(path, payload), reason="MALFORMED")
        self.assert_lives()

    def test_a_key_in_a_million_empty_fields_is_malformed(self):
        for method in ("Exists", "Read", "ReadMetadata"):
            path = f"/{READER}/{method}"
            self.fails(Code.INVALID_ARGUMENT, lambda: self.raw(path, b"\x0a\x00" * 10**6), "too many fields",
                       reason="MALFORMED")
        self.assert_lives()

    def test_a_half_close_without_a_message_is_malformed_on_every_method(self):
        for path, _ in methods():
            with self.subTest(path=path):
                call = self.channel.stream_stream(path, request_serializer=lambda data: data)
                self.fails(Code.INVALID_ARGUMENT, lambda: call(iter(()), timeout=DEADLINE_S), "no message",
                           reason="MALFORMED")
        self.assert_lives()

    def test_mutated_requests_end_ok_or_invalid_and_never_otherwise(self):
        chance = random.Random(2)
        seeds = {"BatchReadHashedKeys": dict(key_hashes=range(5), keys=[b"key", b"", b"x" * 300, b"1", b"2"]),
                 "BatchRead": dict(keys=[b"key", b""], omit_metadata=True), "BatchReadStream": dict(keys=[b"key"] * 9),
                 "ReadStream": dict(key=b"key", offset=1, limit=3), "Check": dict(service="grpc.health.v1.Health")}
        seen = set()
        for path, request in methods():
            name = path.rsplit("/", 1)[1]
            if name == "Watch":  # ends at its deadline when it is good
                continue
            fields = seeds.get(name, {})
            if not fields and request.DESCRIPTOR.fields:
                fields = {"key": b"key"} if "key" in request.DESCRIPTOR.fields_by_name else {"key_hash": 77}
            good = request(**fields).SerializeToString()
            for _ in range(60):
                payload = bytearray(good)
                for _ in range(chance.randint(1, 3)):
                    at = chance.randrange(len(payload) + 1)
                    payload[at:at + chance.randint(0, 2)] = chance.randbytes(chance.randint(0, 3))
                code = self.code_of(lambda: self.raw(path, bytes(payload)))
                seen.add(code)
                expected = {Code.OK, Code.INVALID_ARGUMENT, Code.OUT_OF_RANGE if name == "ReadStream" else Code.OK,
                            Code.NOT_FOUND if name == "Check" else Code.OK}
                self.assertIn(code, expected, (path, bytes(payload)))
        self.assertLessEqual({Code.OK, Code.INVALID_ARGUMENT}, seen)
        self.assert_lives()


class TooLarge(RefusalTest):
    options = ("--max-request-bytes", "1M")

    def test_a_compressed_request_is_unimplemented_and_not_inflated(self):
        before = self.daemon.memory()
        for size in (1000, 900 * KIB, 64 * MIB):  # the last would be far over the limit once inflated
            self.fails(Code.UNIMPLEMENTED, lambda: self.raw(f"/{READER}/Read", bytes(size),
                                                            compression=grpc.Compression.Gzip))
            self.assert_lives()
        self.assertLess(self.daemon.memory() - before, 16 * MIB)

    def test_answers_are_not_compressed(self):
        call = self.channel.unary_unary(f"/{READER}/Read", request_serializer=lambda data: data)
        _, call = call.with_call(GOOD.SerializeToString())
        self.assertNotIn("grpc-encoding", {name for name, value in call.initial_metadata() if value != "identity"})

    def test_a_request_over_the_limit_is_refused_on_every_method(self):
        for path, _ in methods():
            with self.subTest(path=path):
                self.fails(Code.RESOURCE_EXHAUSTED, lambda: self.raw(path, bytes(MIB + 1)))
        self.assert_lives()


class Shedding(RefusalTest):
    options = ("--max-inflight", "1")

    def test_calls_over_max_inflight_are_unavailable_while_health_and_info_are_served(self):
        stream = self.stub.ReadStream(reader_pb2.ReadStreamRequest(key=b"large"))
        size = len(next(stream).fragment.data)  # and no further: it stays open
        health = self.daemon.health_stub(self.channel)
        for _ in range(20):
            self.fails(Code.UNAVAILABLE, lambda: self.stub.Read(GOOD), "--max-inflight", reason="OVERLOADED")
            self.assertEqual(self.stub.GetStoreInfo(reader_pb2.GetStoreInfoRequest()).live_keys, 2)
            self.assertEqual(health.Check(health_pb2.HealthCheckRequest()).status, Health.SERVING)
        self.assertEqual(size + sum(len(message.fragment.data) for message in stream), LARGE)
        eventually(lambda: self.code_of(lambda: self.stub.Read(GOOD)) == Code.OK, "the stream's place is free")
        self.assertTrue(self.watch.is_active())

    def test_watches_take_no_place(self):
        health = self.daemon.health_stub(self.channel)
        for watch in [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(20)]:
            self.assertEqual(next(watch).status, Health.SERVING)
        self.assert_lives()


class NotReady(DaemonTest):
    """A store whose opening takes longer than the test: 256 GiB of a hole behind one entry, to be searched through."""

    def setUp(self):
        super().setUp()
        path = make_store(self.folder / "slow.srd", {b"key": b"value"})
        os.truncate(path, 256 << 30)
        self.daemon = self.serve(path, ready=False)
        self.stub = self.daemon.reader_stub()

    def test_before_the_store_is_open_every_reader_method_is_unavailable(self):
        for method in reader_pb2.DESCRIPTOR.services_by_name["DataStoreReaderService"].methods:
            request = getattr(reader_pb2, method.input_type.name)()
            call = getattr(self.stub, method.name)
            self.fails(Code.UNAVAILABLE, lambda: call(request), "being opened", reason="NOT_READY")
        self.assertFalse(self.daemon.events("serving"))

    def test_an_opening_that_takes_long_is_logged_with_how_far_it_has_come(self):
        line = self.daemon.event("opening the store")
        self.assertLess(int(line["percent"]), 100)
        self.assertLess(int(line["bytes"]), int(line["file_bytes"]))
        self.assertEqual(int(line["file_bytes"]), 256 << 30)
        self.assertFalse(self.daemon.events("serving"))

    def test_health_says_not_serving_before_the_store_is_open(self):
        health = self.daemon.health_stub()
        for service in ("", READER, WRITER):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service))
            self.assertEqual(answer.status, Health.NOT_SERVING)
        self.assertEqual(next(health.Watch(health_pb2.HealthCheckRequest())).status, Health.NOT_SERVING)
        self.assertFalse(self.daemon.events("serving"))


if __name__ == "__main__":
    unittest.main()
