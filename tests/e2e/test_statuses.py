"""What the contract says that each call can end with, each call made to end so: code, reason, and what ErrorInfo's
metadata tells machines."""

import base64
import os
import re
import signal
import unittest
from pathlib import Path

import http2
from support import (KIB, MIB, READER, WRITER, Code, DaemonTest, Health, entry_pb2, eventually, health_pb2,
                     make_store, noise, reader_pb2, tool, writer_pb2, xxh3)

PROTO = Path(os.environ["RDRIVE_PROTO"]) / "rdrive/v1"
GOOD, BAD, LARGE = b"the-good-one-1", b"the-bad-one-12", b"the-large-one1"
VALUES = {GOOD: noise("good", 300), LARGE: noise("large", 100 * KIB), BAD: noise("bad", 200)}
LIMITS = ("--max-response-bytes", "64K", "--max-batch-keys", 3)

# A good request of each method.
REQUESTS = {
    "Exists": reader_pb2.ExistsRequest(key=GOOD),
    "ExistsWithKeyHash": reader_pb2.ExistsWithKeyHashRequest(key_hash=1),
    "Read": reader_pb2.ReadRequest(key=GOOD),
    "ReadWithKeyHash": reader_pb2.ReadWithKeyHashRequest(key_hash=1),
    "ReadLastEntry": reader_pb2.ReadLastEntryRequest(),
    "BatchRead": reader_pb2.BatchReadRequest(keys=[GOOD]),
    "BatchReadHashedKeys": reader_pb2.BatchReadHashedKeysRequest(key_hashes=[1]),
    "BatchReadStream": reader_pb2.BatchReadStreamRequest(keys=[GOOD]),
    "ReadMetadata": reader_pb2.ReadMetadataRequest(key=GOOD),
    "Len": reader_pb2.LenRequest(),
    "IsEmpty": reader_pb2.IsEmptyRequest(),
    "FileSize": reader_pb2.FileSizeRequest(),
    "ReadStream": reader_pb2.ReadStreamRequest(key=GOOD),
    "GetStoreInfo": reader_pb2.GetStoreInfoRequest(),
    "Write": writer_pb2.WriteRequest(key=GOOD, payload=b"v"),
    "WriteWithKeyHash": writer_pb2.WriteWithKeyHashRequest(key_hash=1, payload=b"v"),
    "BatchWrite": writer_pb2.BatchWriteRequest(items=[writer_pb2.WriteItem(key=GOOD, payload=b"v")]),
    "BatchWriteWithKeyHashes": writer_pb2.BatchWriteWithKeyHashesRequest(
        items=[writer_pb2.HashedWriteItem(key_hash=1, payload=b"v")]),
    "WriteStream": writer_pb2.WriteStreamRequest(key=GOOD, data=b"v"),
    "Rename": writer_pb2.RenameRequest(old_key=GOOD, new_key=b"new"),
    "Delete": writer_pb2.DeleteRequest(key=GOOD),
    "BatchDelete": writer_pb2.BatchDeleteRequest(keys=[GOOD]),
    "BatchDeleteKeyHashes": writer_pb2.BatchDeleteKeyHashesRequest(key_hashes=[1]),
    "Compact": writer_pb2.CompactRequest(),
}

INVALID, LOSS, EXHAUSTED = Code.INVALID_ARGUMENT, Code.DATA_LOSS, Code.RESOURCE_EXHAUSTED
BY_HASH = {"key_hash": xxh3(BAD)}


# What a reader's call can end with on top of what every call can, as reader.proto lists it: method, reason → code,
# request, metadata. Of a store whose newest entry, BAD, is damaged.
READS = {
    ("Exists", "DAMAGED"): (LOSS, reader_pb2.ExistsRequest(key=BAD), {}),
    ("ExistsWithKeyHash", "DAMAGED"): (LOSS, reader_pb2.ExistsWithKeyHashRequest(**BY_HASH), {}),
    ("Read", "DAMAGED"): (LOSS, reader_pb2.ReadRequest(key=BAD), {}),
    ("Read", "RESPONSE_TOO_LARGE"): (EXHAUSTED, reader_pb2.ReadRequest(key=LARGE), {"use": "ReadStream"}),
    ("ReadWithKeyHash", "DAMAGED"): (LOSS, reader_pb2.ReadWithKeyHashRequest(**BY_HASH), {}),
    ("ReadWithKeyHash", "RESPONSE_TOO_LARGE"): (
        EXHAUSTED, reader_pb2.ReadWithKeyHashRequest(key_hash=xxh3(LARGE)), {"use": "ReadStream"}),
    ("ReadLastEntry", "DAMAGED"): (LOSS, reader_pb2.ReadLastEntryRequest(), {}),
    ("BatchRead", "BATCH_TOO_LARGE"): (INVALID, reader_pb2.BatchReadRequest(keys=[GOOD] * 4),
                                       {"count": 4, "limit": 3}),
    ("BatchRead", "RESPONSE_TOO_LARGE"): (EXHAUSTED, reader_pb2.BatchReadRequest(keys=[GOOD, LARGE]),
                                          {"use": "BatchReadStream"}),
    ("BatchReadHashedKeys", "BATCH_TOO_LARGE"): (
        INVALID, reader_pb2.BatchReadHashedKeysRequest(key_hashes=[1] * 5), {"count": 5, "limit": 3}),
    ("BatchReadHashedKeys", "LENGTH_MISMATCH"): (
        INVALID, reader_pb2.BatchReadHashedKeysRequest(key_hashes=[1, 2, 3], keys=[GOOD, BAD]),
        {"key_hashes": 3, "keys": 2}),
    ("ReadMetadata", "DAMAGED"): (LOSS, reader_pb2.ReadMetadataRequest(key=BAD), {}),
    ("BatchReadStream", "BATCH_TOO_LARGE"): (INVALID, reader_pb2.BatchReadStreamRequest(keys=[GOOD] * 4),
                                             {"count": 4, "limit": 3}),
    ("ReadStream", "NO_SELECTOR"): (INVALID, reader_pb2.ReadStreamRequest(offset=1), {}),
    ("ReadStream", "OFFSET"): (Code.OUT_OF_RANGE, reader_pb2.ReadStreamRequest(key=GOOD, offset=301),
                               {"offset": 301, "size": 300}),
    ("ReadStream", "DAMAGED"): (LOSS, reader_pb2.ReadStreamRequest(key=BAD, offset=10, limit=1), {}),
}

# Where the other reasons of the contract are shown; of those that the writer's calls list, for each of those calls.
SHOWN_IN = {
    "PAYLOAD_REFUSED": "test_writer.py", "NO_SUCH_KEY": "test_writer.py", "MALFORMED": "test_refusals.py",
    "STALLED": "test_overload.py", "NO_SPACE": "test_writer_disk.py", "TRUNCATED": "test_cut.py",
    "IO": "test_writer_disk.py", "READ_ONLY": "test_writer_disk.py", "BUSY": "test_writer_disk.py",
    "NO_IDENTITY": "../unit_service/test_access.c", "NOT_ALLOWED": "test_access.py",
    "READ_ONLY_SERVER": "test_access.py", "UNKNOWN_METHOD": "test_refusals.py",
}
WRITES = {("Write", "PAYLOAD_REFUSED"), ("WriteWithKeyHash", "PAYLOAD_REFUSED"), ("BatchWrite", "PAYLOAD_REFUSED"),
          ("BatchWrite", "BATCH_TOO_LARGE"), ("BatchWriteWithKeyHashes", "PAYLOAD_REFUSED"),
          ("BatchWriteWithKeyHashes", "BATCH_TOO_LARGE"), ("WriteStream", "NO_SELECTOR"),
          ("WriteStream", "PAYLOAD_REFUSED"), ("Rename", "NO_SUCH_KEY"), ("Rename", "MALFORMED"),
          ("BatchDelete", "BATCH_TOO_LARGE"), ("BatchDeleteKeyHashes", "BATCH_TOO_LARGE"), ("Compact", "BUSY")}
DAMAGED_WRITES = {("Rename", "DAMAGED"), ("Compact", "DAMAGED")}  # below


def contract(name):
    """The (method, reason) pairs that a service's comments list, and all methods."""
    text = (PROTO / name).read_text()
    body = text[text.index("\nservice "):]
    pairs, methods = set(), []
    for comment, method in re.findall(r"((?:  //[^\n]*\n)+)  rpc (\w+)\(", body):
        methods.append(method)
        words = re.sub(r"\s*//\s*", " ", comment)
        same = re.search(r"Statuses as (\w+)\.", words)
        if same:
            pairs |= {(method, reason) for other, reason in pairs if other == same[1]}
        for statuses in re.findall(r"[A-Z_]{5,} \(([^)]*)\)", words):
            pairs |= {(method, reason) for reason in re.findall(r"\b[A-Z_]{4,}\b", statuses)}
        pairs |= {(method, reason) for reason in re.findall(r"[A-Z_]{5,} \(([A-Z_]{4,})\)", words)}
    return pairs, methods


def path_of(name):
    reads = reader_pb2.DESCRIPTOR.services_by_name["DataStoreReaderService"].methods_by_name
    return f"/{READER if name in reads else WRITER}/{name}"


class StatusTest(DaemonTest):
    def start(self, *options, values=None, **others):
        self.path = make_store(self.folder / "store.srd", values or VALUES)
        self.daemon = self.serve(self.path, *options, **others)
        self.channel = self.daemon.channel()
        self.stub = self.daemon.reader_stub(self.channel)

    def call(self, name, request):
        """Any method by its name, as a stream of messages."""
        call = self.channel.stream_stream(path_of(name), request_serializer=type(request).SerializeToString)
        return call(iter([request]))

    def every_call(self, code, reason, but=(), facts=None, says=""):
        for name, request in REQUESTS.items():
            if name not in but:
                with self.subTest(method=name):
                    self.fails(code, lambda: list(self.call(name, request)), says, reason=reason, facts=facts)


class Contract(unittest.TestCase):
    def test_every_method_is_called_here(self):
        self.assertEqual(sorted(contract("reader.proto")[1] + contract("writer.proto")[1]), sorted(REQUESTS))

    def test_every_status_that_a_method_lists_is_made_to_come(self):
        self.assertEqual(contract("reader.proto")[0] - READS.keys() - {("ReadLastEntry", "RESPONSE_TOO_LARGE")}, set())
        self.assertEqual(contract("writer.proto")[0] - WRITES - DAMAGED_WRITES, set())

    def test_every_reason_of_the_contract_is_shown_somewhere(self):
        listed = set(re.findall(r"^//   (?:[A-Z_]{5,} +| {10,})([A-Z_]{2,})  ", (PROTO / "entry.proto").read_text(),
                                re.MULTILINE))
        self.assertGreater(len(listed), 20)
        here = Path(__file__).resolve().parent
        shown = {reason for _, reason in READS} | {"DAMAGED", "NOT_READY", "DRAINING", "OVERLOADED"}
        for reason, name in SHOWN_IN.items():
            self.assertTrue(f'"{reason}"' in (here / name).read_text(), (reason, name))
            shown.add(reason)
        self.assertEqual(listed - shown, set())


class Reads(StatusTest):
    def damage(self):
        """Flip a bit of the newest entry's payload, on a store that was closed well."""
        data = bytearray(self.path.read_bytes())
        data[data.index(VALUES[BAD]) + 50] ^= 1
        self.path.write_bytes(data)

    def start_damaged(self, *options):
        self.path = make_store(self.folder / "store.srd", VALUES)
        self.damage()
        self.daemon = self.serve(self.path, *options)
        self.channel = self.daemon.channel()
        self.stub = self.daemon.reader_stub(self.channel)

    def test_each_status_of_the_contract(self):
        self.start_damaged(*LIMITS)
        for (name, reason), (code, request, facts) in READS.items():
            with self.subTest(method=name, reason=reason):
                if "use" in facts:
                    facts = {"size": self.size_of(name), "limit": 64 * KIB, **facts}
                self.fails(code, lambda: list(self.call(name, request)), reason=reason, facts=facts)
        self.assertEqual(self.stub.Read(reader_pb2.ReadRequest(key=GOOD)).entry.payload, VALUES[GOOD])

    def size_of(self, name):
        """The answer's, serialized, had it been allowed; of a batch's item that is not even loaded, its payload's."""
        entries = [entry_pb2.Entry(payload=VALUES[key], metadata=self.metadata(key)) for key in (GOOD, LARGE)]
        if name != "BatchRead":
            return reader_pb2.ReadResponse(entry=entries[1]).ByteSize()
        first = reader_pb2.BatchReadResponse(items=[entry_pb2.BatchReadItem(entry=entries[0])])
        return first.ByteSize() + len(VALUES[LARGE])

    def metadata(self, key):
        return self.stub.ReadMetadata(reader_pb2.ReadMetadataRequest(key=key)).metadata

    def test_the_newest_entry_too_large_for_an_answer_is_refused(self):
        self.start(*LIMITS, values={GOOD: VALUES[GOOD], LARGE: VALUES[LARGE]})
        self.fails(EXHAUSTED, lambda: self.stub.ReadLastEntry(reader_pb2.ReadLastEntryRequest()), str(64 * KIB),
                   reason="RESPONSE_TOO_LARGE")

    def test_in_batches_a_damaged_key_costs_its_own_item(self):
        self.start_damaged()
        keys = [GOOD, BAD, LARGE]
        hashes = [xxh3(key) for key in keys]
        streams = (self.stub.BatchReadStream(reader_pb2.BatchReadStreamRequest(keys=keys)),
                   self.stub.BatchReadHashedKeys(reader_pb2.BatchReadHashedKeysRequest(key_hashes=hashes)),
                   [self.stub.BatchRead(reader_pb2.BatchReadRequest(keys=keys))])
        for messages in streams:
            items = [item for message in messages for item in message.items]
            self.assertEqual([item.entry.payload for item in items], [VALUES[GOOD], b"", VALUES[LARGE]])
            self.assertEqual((items[1].error.code, items[1].error.reason), (15, "DAMAGED"))

    def test_what_writes_do_to_a_damaged_key(self):
        self.start_damaged("--writable")
        writer = self.daemon.writer_stub(self.channel)
        before = self.stub.GetStoreInfo(reader_pb2.GetStoreInfoRequest()).tail_offset
        rename = writer_pb2.RenameRequest(old_key=BAD, new_key=b"new")
        self.fails(LOSS, lambda: writer.Rename(rename), reason="DAMAGED", facts={})
        self.fails(LOSS, lambda: list(writer.Compact(writer_pb2.CompactRequest())), reason="DAMAGED", facts={})
        self.assertEqual(self.stub.GetStoreInfo(reader_pb2.GetStoreInfoRequest()).tail_offset, before)
        writer.Write(writer_pb2.WriteRequest(key=BAD, payload=b"healed"))
        self.assertEqual(self.stub.Read(reader_pb2.ReadRequest(key=BAD)).entry.payload, b"healed")
        self.assertTrue(list(writer.Compact(writer_pb2.CompactRequest()))[-1].done)

    def test_deleting_a_damaged_key_heals_it(self):
        self.start_damaged("--writable")
        deleted = self.daemon.writer_stub(self.channel).Delete(writer_pb2.DeleteRequest(key=BAD))
        self.assertEqual(deleted.deleted_count, 1)
        self.assertFalse(self.stub.Read(reader_pb2.ReadRequest(key=BAD)).HasField("entry"))

    def test_health_has_a_reason_for_what_it_does_not_know(self):
        self.start()
        request = health_pb2.HealthCheckRequest(service="no.such.Service")
        self.fails(Code.NOT_FOUND, lambda: self.daemon.health_stub().Check(request), reason="UNKNOWN_SERVICE")


class EveryCall(StatusTest):
    def hold(self):
        """A stream that stays open: its client reads nothing of it."""
        peer = http2.Peer(self.daemon.address())
        self.addCleanup(peer.socket.close)
        peer.send(http2.call(1, f"/{READER}/ReadStream", reader_pb2.ReadStreamRequest(key=b"huge").SerializeToString()))
        peer.until(http2.HEADERS)

    def start_huge(self, *options):
        path = self.folder / "huge.srd"
        tool("put", path, "huge", "-", "--create", stdin=bytes(8 * MIB) + b"1")
        self.daemon = self.serve(path, "--writable", *options)
        self.channel = self.daemon.channel()
        self.stub = self.daemon.reader_stub(self.channel)

    def test_before_the_store_is_open_each_is_not_ready(self):
        path = make_store(self.folder / "slow.srd", VALUES)
        os.truncate(path, 256 << 30)
        self.daemon = self.serve(path, "--writable", ready=False)
        self.channel = self.daemon.channel()
        self.every_call(Code.UNAVAILABLE, "NOT_READY", facts={}, says="being opened")
        self.assertFalse(self.daemon.events("serving"))

    def test_when_too_many_are_open_each_but_the_info_is_overloaded(self):
        self.start_huge("--max-inflight", 1)
        self.hold()
        self.every_call(Code.UNAVAILABLE, "OVERLOADED", but=["GetStoreInfo"], facts={"limit": 1}, says="--max-inflight")
        for _ in range(3):
            self.assertEqual(self.stub.GetStoreInfo(REQUESTS["GetStoreInfo"]).live_keys, 1)
        health = self.daemon.health_stub(self.channel).Check(health_pb2.HealthCheckRequest(service=WRITER))
        self.assertEqual(health.status, Health.SERVING)

    def test_at_the_drains_end_each_is_refused_as_draining(self):
        self.start_huge("--drain-grace", 2)
        self.hold()
        peer = http2.Peer(self.daemon.address())
        self.addCleanup(peer.socket.close)
        self.daemon.send(signal.SIGTERM)
        eventually(lambda: self.code_of(lambda: self.stub.Len(REQUESTS["Len"])) == Code.UNAVAILABLE, "it refuses")
        streams = {1 + 2 * k: name for k, name in enumerate(REQUESTS)}
        peer.send(*(http2.call(k, path_of(name), REQUESTS[name].SerializeToString()) for k, name in streams.items()))
        for k, reason in self.reason(peer, streams).items():
            self.assertIn("DRAINING", reason, streams[k])
        self.assertEqual(self.daemon.wait(), 0)

    @staticmethod
    def reason(peer, streams):
        """How these calls ended: the status and its details, as text."""
        ends = {}
        while not ends.keys() >= set(streams):
            kind, _, of, payload = peer.next()
            headers = dict(peer.decoder.decode(payload)) if kind == http2.HEADERS else {}
            if "grpc-status" in headers:
                packed = headers.get("grpc-status-details-bin", "")
                details = base64.b64decode(packed + "=" * (-len(packed) % 4)).decode(errors="replace")
                ends[of] = headers["grpc-status"] + details
        return ends

    def test_without_writable_each_write_is_refused(self):
        self.start()
        reads = [name for name in REQUESTS if name in contract("reader.proto")[1]]
        self.every_call(Code.PERMISSION_DENIED, "READ_ONLY_SERVER", but=reads, facts={}, says="--writable")


if __name__ == "__main__":
    unittest.main()
