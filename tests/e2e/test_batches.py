"""Large batches and large values: every byte, in bounded memory, at the pace of the client."""

import tempfile
import threading
import time
import unittest
from pathlib import Path

from support import (KEEP_NOTHING, KIB, MIB, SANITIZE, Code, DaemonTest, entry_pb2, eventually, make_store, noise,
                     peak_memory, reader_pb2, tell, tool, xxh3)

ENTRIES = 60_000
BATCH = 200_000
CHUNK = MIB  # the default of --chunk-bytes
BIG = 64 * MIB
STALL_S = 10
# What a batch may take besides its request, 16 bytes a key and one chunk: a window of results, the core's buffers for
# one connection, and what the allocator rounds up and keeps. The sanitizers add shadow and redzones of their own.
SLACK = {"": 2 * MIB, "address": 8 * MIB, "thread": 32 * MIB}[SANITIZE]
FLAT = {"": 512 * KIB, "address": 8 * MIB, "thread": 16 * MIB}[SANITIZE]  # 30 leaks of a batch would be 100 MiB

TOO_LARGE = "RESPONSE_TOO_LARGE"
folder = tempfile.TemporaryDirectory(prefix="rdrive-e2e-")
store = Path(folder.name) / "demo.srd"
filler = noise("stanzas", 64 * KIB).hex().encode()


def key_at(i):
    return b"package-%06d" % i


def value_at(i):
    """1 to 2 KB that look like a package's stanza, and begin with their key."""
    start = i * 37 % (64 * KIB)
    return b"Package: " + key_at(i) + b" Description: " + filler[start:start + 1000 + i % 1000]


def setUpModule():
    lines = b"".join(b"%s\t%s\n" % (key_at(i), value_at(i)) for i in range(ENTRIES))
    tool("import", store, stdin=lines)
    tool("put", store, "big", "-", stdin=noise("big", BIG))


def tearDownModule():
    folder.cleanup()


def picks(count):
    """Which entry each index of the batch asks for: all of them, some again and again, some absent (-1)."""
    return [-1 if i % 1000 == 999 else i * 7919 % ENTRIES for i in range(count)]


def request_of(wanted):
    hashes = [xxh3(key_at(i)) for i in range(ENTRIES)] + [0x1122334455667788]
    return reader_pb2.BatchReadHashedKeysRequest(key_hashes=[hashes[i] for i in wanted])


class Batches(DaemonTest):
    def setUp(self):
        super().setUp()
        self.daemon = self.serve(store)
        self.stub = self.daemon.reader_stub()

    def warm_up(self):
        """What a first batch of one key allocates for good is no growth."""
        self.check(self.stub.BatchReadHashedKeys(request_of([0])), [0])
        return self.daemon.memory()

    def check(self, stream, wanted, index=0):
        """Each of `wanted` comes, ascending from `index`, with its bytes; returns how many messages there were."""
        messages = 0
        for message in stream:
            messages += 1
            self.assertLessEqual(message.ByteSize(), CHUNK)
            self.assertTrue(message.items)
            index = self.check_items(message, wanted, index)
        self.assertEqual(index, len(wanted))
        return messages

    def check_items(self, message, wanted, index):
        for item in message.items:
            if item.index != index:
                self.fail(f"index {item.index} came where {index} was due")
            i = wanted[index]
            if item.WhichOneof("outcome") != ("absent" if i < 0 else "entry") or \
                    i >= 0 and item.entry.payload != value_at(i):
                self.fail(f"index {index} brought {item}")
            index += 1
        return index

    def bound(self, request, keys):
        return request.ByteSize() + 16 * keys + CHUNK + SLACK

    def test_a_batch_of_200000_hashes_brings_every_index_with_its_bytes_in_bounded_memory(self):
        wanted = picks(BATCH)
        request = request_of(wanted)
        before = self.warm_up()
        begun = time.monotonic()
        peak, messages = peak_memory(self.daemon, lambda: self.check(self.stub.BatchReadHashedKeys(request), wanted))
        tell(f"a batch of {BATCH:,} took {time.monotonic() - begun:.1f} s and {messages} messages; the daemon grew by "
             f"{(peak - before) / MIB:.1f} MiB, {self.bound(request, BATCH) / MIB:.1f} allowed")
        self.assertLessEqual(peak - before, self.bound(request, BATCH))
        self.assertGreater(messages, 200)

    def test_a_client_that_stops_reading_makes_the_daemon_wait_not_grow(self):
        wanted = picks(BATCH)
        request = request_of(wanted)
        before = self.warm_up()
        stream = self.stub.BatchReadHashedKeys(request)
        index = self.check_items(next(stream), wanted, 0)
        peak, _ = peak_memory(self.daemon, lambda: time.sleep(STALL_S))  # the very thing that is tested: nobody reads
        tell(f"a client that read nothing for {STALL_S} s made the daemon grow by {(peak - before) / MIB:.1f} MiB")
        self.assertLessEqual(peak - before, self.bound(request, BATCH))
        self.assertEqual(len(self.stub.BatchRead(reader_pb2.BatchReadRequest(keys=[key_at(1)])).items), 1)
        self.check(stream, wanted, index)

    def test_clients_that_cancel_give_back_all_they_took(self):
        wanted = picks(BATCH)
        request = request_of(wanted)
        daemon = self.serve(store, "--max-inflight", 1, env=KEEP_NOTHING)
        stub = daemon.reader_stub()
        ask = reader_pb2.ReadRequest(key=key_at(5))
        self.cancel_one(stub, request, wanted)
        eventually(lambda: self.code_of(lambda: stub.Read(ask)) == Code.OK, "the first cancelled call is gone")
        before, descriptors = daemon.memory(), daemon.descriptors()
        for _ in range(30):
            self.cancel_one(stub, request, wanted)
            # with --max-inflight 1 a call that is left over would have every other one refused
            eventually(lambda: self.code_of(lambda: stub.Read(ask)) == Code.OK, "the cancelled call is gone")
        after = daemon.memory()
        tell(f"30 cancelled batches left {(after - before) / KIB:.0f} KiB")
        self.assertLessEqual(after - before, FLAT)
        self.assertEqual(daemon.descriptors(), descriptors)

    def cancel_one(self, stub, request, wanted):
        stream = stub.BatchReadHashedKeys(request)
        self.check_items(next(stream), wanted, 0)
        stream.cancel()

    def test_a_connection_that_breaks_off_gives_back_all_it_took(self):
        wanted = picks(BATCH)
        request = request_of(wanted)
        self.warm_up()
        descriptors = self.daemon.descriptors()
        for _ in range(5):
            channel = self.daemon.channel()
            stub = type(self.stub)(channel)
            streams = [stub.BatchReadHashedKeys(request) for _ in range(4)]
            for stream in streams:
                self.check_items(next(stream), wanted, 0)
            channel.close()
        eventually(lambda: self.daemon.descriptors() == descriptors, "the connections are closed")
        self.check(self.stub.BatchReadHashedKeys(request_of(wanted[:500])), wanted[:500])

    def test_sixteen_batches_at_once_each_bring_their_own(self):
        failures = []

        def work(k):
            try:
                wanted = picks(5000 + k)[k:]
                self.check(self.stub.BatchReadHashedKeys(request_of(wanted)), wanted)
            except BaseException as error:  # of another thread: the test's own has to raise it
                failures.append(error)

        threads = [threading.Thread(target=work, args=(k,)) for k in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])

    def test_an_empty_batch_is_an_empty_answer(self):
        self.assertEqual(len(self.stub.BatchRead(reader_pb2.BatchReadRequest()).items), 0)
        self.assertEqual(list(self.stub.BatchReadStream(reader_pb2.BatchReadStreamRequest())), [])
        self.assertEqual(list(self.stub.BatchReadHashedKeys(reader_pb2.BatchReadHashedKeysRequest())), [])


class BigValue(DaemonTest):
    def setUp(self):
        super().setUp()
        self.value = noise("big", BIG)
        self.daemon = self.serve(store)
        self.stub = self.daemon.reader_stub()

    def put_together(self, fragments):
        """The payload of fragments that follow one another; metadata on the first and nowhere else."""
        parts, at = [], 0
        for fragment in fragments:
            self.assertEqual((fragment.payload_offset, fragment.payload_size), (at, BIG))
            self.assertEqual(fragment.HasField("metadata"), at == 0)
            parts.append(fragment.data)
            at += len(fragment.data)
        return b"".join(parts)

    def messages(self, stream):
        for message in stream:
            self.assertLessEqual(message.ByteSize(), CHUNK)
            yield message

    def test_read_stream_brings_64_mib(self):
        request = reader_pb2.ReadStreamRequest(key=b"big")
        list(self.stub.ReadStream(reader_pb2.ReadStreamRequest(key=b"big", limit=1)))
        before = self.daemon.memory()
        begun = time.monotonic()
        peak, fragments = peak_memory(self.daemon, lambda: [message.fragment for message in
                                                            self.messages(self.stub.ReadStream(request))])
        tell(f"64 MiB by ReadStream: {time.monotonic() - begun:.2f} s, the daemon grew by "
             f"{(peak - before) / MIB:.1f} MiB")
        self.assertEqual(self.put_together(fragments), self.value)
        self.assertLessEqual(peak - before, CHUNK + SLACK)

    def test_batch_streams_bring_64_mib_in_fragments_between_small_values(self):
        keys = [key_at(1), b"big", key_at(2), b"absent", b"big"]
        hashes = [int(tool("hash", key.decode()), 16) for key in keys]
        for stream in (self.stub.BatchReadStream(reader_pb2.BatchReadStreamRequest(keys=keys)),
                       self.stub.BatchReadHashedKeys(reader_pb2.BatchReadHashedKeysRequest(key_hashes=hashes)),
                       self.stub.BatchReadHashedKeys(reader_pb2.BatchReadHashedKeysRequest(key_hashes=hashes,
                                                                                           keys=keys))):
            items = [item for message in self.messages(stream) for item in message.items]
            self.assertEqual([item.index for item in items], sorted(item.index for item in items))
            self.assertEqual([(item.index, item.entry.payload) for item in items if item.HasField("entry")],
                             [(0, value_at(1)), (2, value_at(2))])
            self.assertEqual([item.index for item in items if item.HasField("absent")], [3])
            for index in (1, 4):
                fragments = [item.fragment for item in items if item.index == index]
                self.assertEqual(self.put_together(fragments), self.value)

    def test_unary_answers_refuse_it_and_name_the_streaming_call(self):
        read = reader_pb2.ReadRequest(key=b"big")
        by_hash = reader_pb2.ReadWithKeyHashRequest(key_hash=int(tool("hash", "big"), 16))
        batch = reader_pb2.BatchReadRequest(keys=[key_at(1), b"big"])
        self.fails(Code.RESOURCE_EXHAUSTED, lambda: self.stub.Read(read), "ReadStream", str(4 * MIB), reason=TOO_LARGE)
        self.fails(Code.RESOURCE_EXHAUSTED, lambda: self.stub.ReadWithKeyHash(by_hash), "ReadStream", reason=TOO_LARGE)
        self.fails(Code.RESOURCE_EXHAUSTED, lambda: self.stub.BatchRead(batch), "BatchReadStream", str(4 * MIB),
                   reason=TOO_LARGE)
        last = reader_pb2.ReadLastEntryRequest()
        self.fails(Code.RESOURCE_EXHAUSTED, lambda: self.stub.ReadLastEntry(last), str(4 * MIB), reason=TOO_LARGE)

    def test_a_client_that_reads_nothing_of_it_makes_the_daemon_wait_and_then_gets_it_all(self):
        stream = self.stub.ReadStream(reader_pb2.ReadStreamRequest(key=b"big"))
        first = next(stream)
        before = self.daemon.memory()
        peak, _ = peak_memory(self.daemon, lambda: time.sleep(1))
        self.assertLessEqual(peak - before, CHUNK + SLACK)
        self.assertEqual(self.put_together([first.fragment, *(message.fragment for message in stream)]), self.value)


class Limits(DaemonTest):
    def setUp(self):
        super().setUp()
        self.values = {b"k%d" % i: noise(i, 20) for i in range(20)}

    def start(self, *options):
        daemon = self.serve(make_store(self.folder / "store.srd", self.values), *options)
        return daemon.reader_stub()

    def test_store_info_tells_the_limits_in_force(self):
        stub = self.start("--max-batch-keys", 10, "--max-request-bytes", "128K", "--max-response-bytes", "64K",
                          "--chunk-bytes", "4K")
        limits = stub.GetStoreInfo(reader_pb2.GetStoreInfoRequest()).limits
        self.assertEqual((limits.max_batch_keys, limits.max_request_bytes, limits.max_response_bytes,
                          limits.chunk_bytes), (10, 128 * KIB, 64 * KIB, 4 * KIB))

    def test_max_batch_keys_is_the_most_keys_a_batch_may_name(self):
        stub = self.start("--max-batch-keys", 10)
        for most, ok in ((10, True), (11, False)):
            keys = list(self.values)[:most]
            calls = [lambda: stub.BatchRead(reader_pb2.BatchReadRequest(keys=keys)),
                     lambda: list(stub.BatchReadStream(reader_pb2.BatchReadStreamRequest(keys=keys))),
                     lambda: list(stub.BatchReadHashedKeys(
                         reader_pb2.BatchReadHashedKeysRequest(key_hashes=range(most)))),
                     lambda: list(stub.BatchReadHashedKeys(
                         reader_pb2.BatchReadHashedKeysRequest(key_hashes=range(most), keys=keys)))]
            for call in calls:
                if ok:
                    call()
                else:
                    self.fails(Code.INVALID_ARGUMENT, call, "11", "10", "--max-batch-keys", reason="BATCH_TOO_LARGE")

    def test_max_request_bytes_is_the_largest_request(self):
        stub = self.start("--max-request-bytes", "64K")
        overhead = reader_pb2.ReadRequest(key=bytes(60_000)).ByteSize() - 60_000
        fits = reader_pb2.ReadRequest(key=bytes(64 * KIB - overhead))
        self.assertEqual(fits.ByteSize(), 64 * KIB)
        self.assertFalse(stub.Read(fits).HasField("entry"))
        self.fails(Code.RESOURCE_EXHAUSTED, lambda: stub.Read(reader_pb2.ReadRequest(key=fits.key + b"x")))
        self.assertTrue(stub.Read(reader_pb2.ReadRequest(key=b"k1")).HasField("entry"))

    def probes(self, around):
        """Values of every size near `around`, so that their answers have every size at its both sides."""
        self.values = {b"%d" % size: noise(size, size) for size in range(around - 80, around + 1)}

    def metadata(self, stub, key):
        return stub.ReadMetadata(reader_pb2.ReadMetadataRequest(key=key)).metadata

    def test_max_response_bytes_is_the_largest_unary_answer(self):
        self.probes(64 * KIB)
        stub = self.start("--max-response-bytes", "64K")
        sizes = set()
        for key, value in self.values.items():
            entry = entry_pb2.Entry(payload=value, metadata=self.metadata(stub, key))
            item = entry_pb2.BatchReadItem(entry=entry)
            for answer, call, way in (
                    (reader_pb2.ReadResponse(entry=entry), lambda: stub.Read(reader_pb2.ReadRequest(key=key)),
                     "ReadStream"),
                    (reader_pb2.BatchReadResponse(items=[item]),
                     lambda: stub.BatchRead(reader_pb2.BatchReadRequest(keys=[key])), "BatchReadStream")):
                size = answer.ByteSize()
                sizes.add(size)
                if size <= 64 * KIB:
                    self.assertEqual(call(), answer)
                else:
                    self.fails(Code.RESOURCE_EXHAUSTED, call, str(size), str(64 * KIB), way, reason=TOO_LARGE)
        self.assertLessEqual({64 * KIB - 1, 64 * KIB, 64 * KIB + 1}, sizes)

    def test_chunk_bytes_is_the_largest_message_of_a_stream(self):
        self.probes(4 * KIB)
        stub = self.start("--chunk-bytes", "4K")
        sizes = set()
        for key, value in self.values.items():
            entry = entry_pb2.Entry(payload=value, metadata=self.metadata(stub, key))
            size = reader_pb2.BatchReadStreamResponse(items=[entry_pb2.BatchReadItem(entry=entry)]).ByteSize()
            sizes.add(size)
            messages = list(stub.BatchReadStream(reader_pb2.BatchReadStreamRequest(keys=[key])))
            self.assertTrue(all(message.ByteSize() <= 4 * KIB for message in messages))
            kinds = {item.WhichOneof("outcome") for message in messages for item in message.items}
            self.assertEqual((kinds, len(messages)), ({"entry"}, 1) if size <= 4 * KIB else ({"fragment"}, 2))
            messages = list(stub.ReadStream(reader_pb2.ReadStreamRequest(key=key)))
            self.assertTrue(all(message.ByteSize() <= 4 * KIB for message in messages))
            self.assertEqual(b"".join(message.fragment.data for message in messages), value)
        self.assertLessEqual({4 * KIB - 1, 4 * KIB, 4 * KIB + 1}, sizes)

    def test_small_items_share_a_message_up_to_the_chunk_size(self):
        self.values = {b"k%d" % i: noise(i, 1 + i * 37 % 900) for i in range(500)}
        stub = self.start("--chunk-bytes", "4K")
        for omit in (False, True):
            request = reader_pb2.BatchReadStreamRequest(keys=[*self.values, b"absent"] * 2, omit_metadata=omit)
            messages = list(stub.BatchReadStream(request))
            items = [item for message in messages for item in message.items]
            self.assertEqual([item.index for item in items], list(range(1002)))
            self.assertEqual([item.entry.payload for item in items], [*self.values.values(), b""] * 2)
            largest = max(reader_pb2.BatchReadStreamResponse(items=[item]).ByteSize() for item in items)
            for message in messages[:-1]:
                self.assertLessEqual(message.ByteSize(), 4 * KIB)
                self.assertGreater(message.ByteSize(), 4 * KIB - largest)


if __name__ == "__main__":
    unittest.main()
