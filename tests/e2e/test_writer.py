"""The writer service: what each call does, what it answers, and what it refuses without writing anything."""

import random
import time
import unittest
import zlib

from support import KIB, MIB, READER, WRITER, Code, Health, health_pb2, noise, reader_pb2, tell, writer_pb2
from writing import GONE, HASHES, KEY, OTHER, VALUES, WriterTest, hashed, item, upload

EMPTY, ZERO = b"", b"\x00"
LIMITS = ("--max-value-bytes", "64K", "--max-batch-keys", 10)


class Success(WriterTest):
    def test_a_write_is_seen_by_the_next_read(self):
        before = self.info().tail_offset
        answer = self.writer.Write(writer_pb2.WriteRequest(key=KEY, payload=b"newer"))
        self.assert_commit(answer)
        self.assertGreater(answer.commit.tail_offset, before)
        self.assertEqual(self.read(KEY), b"newer")
        answer = self.writer.Write(writer_pb2.WriteRequest(key=b"", payload=bytes(2)))  # the empty key, and two zeros
        self.assertEqual(self.read(b""), bytes(2))

    def test_a_write_by_hash_is_seen_under_its_key(self):
        answer = self.writer.WriteWithKeyHash(writer_pb2.WriteWithKeyHashRequest(key_hash=HASHES[GONE], payload=b"n"))
        self.assert_commit(answer)
        self.assertEqual(self.read(GONE), b"n")
        for key_hash in (0, 2**64 - 1):
            self.writer.WriteWithKeyHash(writer_pb2.WriteWithKeyHashRequest(key_hash=key_hash, payload=b"any hash"))
            read = self.reader.ReadWithKeyHash(reader_pb2.ReadWithKeyHashRequest(key_hash=key_hash))
            self.assertEqual((read.entry.payload, read.entry.metadata.key_hash), (b"any hash", key_hash))

    def test_of_a_batch_the_later_item_of_a_key_wins_and_a_commit_counts_all(self):
        entries = self.info().entries
        items = [item(KEY, b"first"), item(GONE, noise(1, 5000)), item(b"", b"e"), item(KEY, b"second")]
        answer = self.writer.BatchWrite(writer_pb2.BatchWriteRequest(items=items))
        self.assert_commit(answer)
        self.assertEqual([self.read(key) for key in (KEY, GONE, b"", OTHER)],
                         [b"second", noise(1, 5000), b"e", VALUES[OTHER]])
        self.assertEqual(self.info().entries, entries + 4)

    def test_a_batch_by_hashes_is_seen_under_the_keys(self):
        items = [hashed(HASHES[KEY], b"first"), hashed(HASHES[GONE], b"g"), hashed(HASHES[KEY], b"second")]
        answer = self.writer.BatchWriteWithKeyHashes(writer_pb2.BatchWriteWithKeyHashesRequest(items=items))
        self.assert_commit(answer)
        self.assertEqual([self.read(key) for key in (KEY, GONE)], [b"second", b"g"])

    def test_a_batch_of_200000_is_whole(self):
        most = 200_000
        items = [item(b"batch-key-%06d" % i, b"v%d" % i) for i in range(most)]
        before = self.info().live_keys
        begun = time.monotonic()
        self.assert_commit(self.writer.BatchWrite(writer_pb2.BatchWriteRequest(items=items)))
        tell(f"a batch of {most:,} was written in {time.monotonic() - begun:.2f} s")
        self.assertEqual(self.info().live_keys, before + most)
        for i in (0, 19_999, 20_000, most - 1):
            self.assertEqual(self.read(b"batch-key-%06d" % i), b"v%d" % i)

    def test_a_stream_is_written_when_its_client_has_ended(self):
        for size in (1, 2, MIB - 1, MIB, MIB + 1, 5 * MIB + 7):
            payload = noise(size, size)
            pieces = [payload[at:at + 300_000] for at in range(0, size, 300_000)]
            answer = self.writer.WriteStream(upload(GONE, *pieces))
            self.assert_commit(answer)
            self.assertEqual((answer.payload_size, answer.checksum), (size, zlib.crc32(payload)))
            self.assertEqual(self.read_large(GONE), payload)

    def test_a_stream_may_bring_all_in_its_first_message_and_go_by_hash_or_the_empty_key(self):
        for selector in ({"key": GONE}, {"key_hash": HASHES[GONE]}, {"key": b""}, {"key_hash": 0}):
            message = writer_pb2.WriteStreamRequest(data=noise(str(selector), 3000), **selector)
            answer = self.writer.WriteStream(iter([message]))
            self.assertEqual(answer.payload_size, 3000)
            read = self.reader.ReadStream(reader_pb2.ReadStreamRequest(**selector))
            self.assertEqual([each.fragment.data for each in read], [message.data])

    def test_a_stream_of_empty_messages_between_is_what_its_data_is(self):
        answer = self.writer.WriteStream(upload(GONE, b"", b"a", b"", b"", b"\x00", b""))
        self.assertEqual(answer.payload_size, 2)
        self.assertEqual(self.read(GONE), b"a\x00")

    def test_a_rename_moves_the_value(self):
        answer = self.writer.Rename(writer_pb2.RenameRequest(old_key=KEY, new_key=OTHER))
        self.assert_commit(answer)
        self.assertEqual([self.read(KEY), self.read(OTHER)], [None, VALUES[KEY]])

    def test_deletions_are_counted_and_what_is_absent_is_passed_over(self):
        delete = lambda key: self.writer.Delete(writer_pb2.DeleteRequest(key=key))
        before = self.info()
        answer = delete(GONE)
        self.assert_commit(answer)
        self.assertEqual(answer.deleted_count, 0)
        self.assert_unchanged(before)
        answer = delete(KEY)
        self.assert_commit(answer)
        self.assertEqual((answer.deleted_count, self.read(KEY), self.info().live_keys), (1, None, 1))
        last = self.reader.ReadLastEntry(reader_pb2.ReadLastEntryRequest()).entry
        self.assertTrue(last.metadata.tombstone)
        self.assertEqual(last.metadata.key_hash, HASHES[KEY])

    def test_batches_of_deletions_are_counted(self):
        answer = self.writer.BatchDelete(writer_pb2.BatchDeleteRequest(keys=[GONE, KEY, KEY]))
        self.assert_commit(answer)
        self.assertEqual((answer.deleted_count, self.read(KEY), self.read(OTHER)), (2, None, VALUES[OTHER]))
        answer = self.writer.BatchDeleteKeyHashes(
            writer_pb2.BatchDeleteKeyHashesRequest(key_hashes=[HASHES[OTHER], HASHES[KEY], 1]))
        self.assert_commit(answer)
        self.assertEqual((answer.deleted_count, self.info().live_keys), (1, 0))

    def test_empty_batches_say_where_the_store_stands_and_write_nothing(self):
        before = self.info()
        for call, request in ((self.writer.BatchWrite, writer_pb2.BatchWriteRequest()),
                              (self.writer.BatchWriteWithKeyHashes, writer_pb2.BatchWriteWithKeyHashesRequest()),
                              (self.writer.BatchDelete, writer_pb2.BatchDeleteRequest()),
                              (self.writer.BatchDeleteKeyHashes, writer_pb2.BatchDeleteKeyHashesRequest())):
            answer = call(request)
            self.assertTrue(answer.HasField("commit"))
            self.assert_commit(answer)
        self.assert_unchanged(before)

    def test_a_restart_shows_all_that_was_written(self):
        self.put(GONE, b"a")
        self.writer.WriteStream(upload(b"large", noise("large", 2 * MIB)))
        self.writer.Delete(writer_pb2.DeleteRequest(key=OTHER))
        self.writer.Rename(writer_pb2.RenameRequest(old_key=KEY, new_key=b"renamed"))
        self.restart()
        self.assertEqual([self.read(key) for key in (GONE, b"large", OTHER, KEY, b"renamed")],
                         [b"a", noise("large", 2 * MIB), None, None, VALUES[KEY]])

    def test_info_and_health_say_that_it_takes_writes(self):
        health = self.daemon.health_stub()
        for service in ("", READER, WRITER):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service))
            self.assertEqual(answer.status, Health.SERVING)
        self.assertTrue(self.info().writable)
        self.daemon.stop()
        daemon = self.serve(self.store)
        health = daemon.health_stub()
        self.assertEqual(health.Check(health_pb2.HealthCheckRequest(service=WRITER)).status, Health.NOT_SERVING)
        self.assertEqual(health.Check(health_pb2.HealthCheckRequest(service=READER)).status, Health.SERVING)
        self.assertFalse(daemon.reader_stub().GetStoreInfo(reader_pb2.GetStoreInfoRequest()).writable)

    def test_a_second_writer_is_refused_by_the_name_of_the_first(self):
        self.put(KEY, b"from now on it has a name")
        lines = [line for line in self.refused(self.store, "--writable") if "level=error" in line]
        self.assertEqual(len(lines), 1, lines)
        self.assertRegex(lines[0], rf"\b{self.daemon.pid}\b")
        self.put(KEY, b"the first goes on")
        self.serve(self.store)  # readers are welcome
        self.assertEqual(self.read(KEY), b"the first goes on")


class Refused(WriterTest):
    """Nothing of a refused call is written."""

    options = LIMITS

    def setUp(self):
        super().setUp()
        self.before = self.info()
        self.addCleanup(self.assert_all_as_before)

    def assert_all_as_before(self):
        self.assert_unchanged(self.before)
        self.assertEqual({key: self.read(key) for key in VALUES}, VALUES)

    def refuse(self, call, reason, *says, **facts):
        self.fails(Code.INVALID_ARGUMENT, call, *says, reason=reason, facts=facts)

    def test_a_payload_that_the_file_cannot_hold_is_refused(self):
        large = bytes(64 * KIB + 1)
        for payload, says, facts in ((EMPTY, "empty", {"size": 0}), (ZERO, "0x00", {"size": 1}),
                                     (large, "--max-value-bytes", {"size": 65537, "limit": 65536})):
            self.refuse(lambda: self.put(KEY, payload), "PAYLOAD_REFUSED", says, index=0, **facts)
            request = writer_pb2.WriteWithKeyHashRequest(key_hash=1, payload=payload)
            self.refuse(lambda: self.writer.WriteWithKeyHash(request), "PAYLOAD_REFUSED", says, index=0, **facts)
            for at in (0, 3, 9):
                items = [item(KEY, b"fine")] * 10
                items[at] = item(OTHER, payload)
                request = writer_pb2.BatchWriteRequest(items=items)
                self.refuse(lambda: self.writer.BatchWrite(request), "PAYLOAD_REFUSED", says, index=at, **facts)
                items = [hashed(HASHES[KEY], b"fine")] * 10
                items[at] = hashed(7, payload)
                request = writer_pb2.BatchWriteWithKeyHashesRequest(items=items)
                self.refuse(lambda: self.writer.BatchWriteWithKeyHashes(request), "PAYLOAD_REFUSED", says, index=at,
                            **facts)

    def test_a_stream_whose_payload_the_file_cannot_hold_is_refused(self):
        for pieces in ((), (EMPTY,), (ZERO,), (EMPTY, ZERO, EMPTY), (bytes(65537),), [bytes(8 * KIB)] * 9):
            self.fails(Code.INVALID_ARGUMENT, lambda: self.writer.WriteStream(upload(KEY, *pieces)),
                       reason="PAYLOAD_REFUSED")

    def test_a_batch_over_the_limit_is_refused(self):
        calls = {self.writer.BatchWrite: writer_pb2.BatchWriteRequest(items=[item(KEY, b"v")] * 11),
                 self.writer.BatchWriteWithKeyHashes:
                     writer_pb2.BatchWriteWithKeyHashesRequest(items=[hashed(1, b"v")] * 11),
                 self.writer.BatchDelete: writer_pb2.BatchDeleteRequest(keys=[KEY] * 11),
                 self.writer.BatchDeleteKeyHashes: writer_pb2.BatchDeleteKeyHashesRequest(key_hashes=[1] * 11)}
        for call, request in calls.items():
            self.refuse(lambda: call(request), "BATCH_TOO_LARGE", "--max-batch-keys", count=11, limit=10)

    def test_a_stream_names_its_key_in_its_first_message_and_there_only(self):
        first, later = writer_pb2.WriteStreamRequest(key=KEY), writer_pb2.WriteStreamRequest(data=b"data")
        for messages, says in (([later], "first message"), ([later, first], "first message"), ([], "no message came"),
                               ([first, writer_pb2.WriteStreamRequest(key=KEY, data=b"d")], "after the first"),
                               ([first, later, writer_pb2.WriteStreamRequest(key_hash=0)], "after the first"),
                               ([first, writer_pb2.WriteStreamRequest(key=b"")], "after the first")):
            self.refuse(lambda: self.writer.WriteStream(iter(messages)), "NO_SELECTOR", says)

    def test_a_rename_of_an_absent_key_or_to_itself_is_refused(self):
        rename = lambda old, new: self.writer.Rename(writer_pb2.RenameRequest(old_key=old, new_key=new))
        self.fails(Code.NOT_FOUND, lambda: rename(GONE, KEY), "old_key", reason="NO_SUCH_KEY", facts={})
        self.fails(Code.NOT_FOUND, lambda: rename(b"", KEY), reason="NO_SUCH_KEY")
        for key in (KEY, GONE, b""):
            self.refuse(lambda: rename(key, key), "MALFORMED", "one key")

    def test_what_is_no_message_is_malformed_on_every_method(self):
        channel = self.daemon.channel()
        service = writer_pb2.DESCRIPTOR.services_by_name["DataStoreWriterService"]
        for method in service.methods:
            for payload in (b"\xff", b"\x0a\x05ab", b"\x09abc", b"\x0f", b"\x0b"):
                call = channel.stream_stream(f"/{WRITER}/{method.name}", request_serializer=lambda data: data)
                with self.subTest(method=method.name, payload=payload):
                    self.fails(Code.INVALID_ARGUMENT, lambda: list(call(iter([payload]))), reason="MALFORMED")
            if method.name != "WriteStream":
                call = channel.stream_stream(f"/{WRITER}/{method.name}", request_serializer=lambda data: data)
                self.fails(Code.INVALID_ARGUMENT, lambda: list(call(iter([]))), "no message", reason="MALFORMED")
        call = channel.stream_stream(f"/{WRITER}/WriteStream", request_serializer=lambda data: data)
        first = writer_pb2.WriteStreamRequest(key=KEY, data=b"data").SerializeToString()
        self.fails(Code.INVALID_ARGUMENT, lambda: list(call(iter([first, b"\xff"]))), reason="MALFORMED")


class Taken(WriterTest):
    options = LIMITS

    def test_the_largest_value_is_taken(self):
        payload = noise("largest", 64 * KIB)
        self.assert_commit(self.writer.Write(writer_pb2.WriteRequest(key=KEY, payload=payload)))
        self.assertEqual(self.read_large(KEY), payload)
        self.assert_commit(self.writer.WriteStream(upload(OTHER, payload)))
        self.assertEqual(self.read_large(OTHER), payload)

    def test_a_request_over_the_limit_is_refused_on_every_method(self):
        service = writer_pb2.DESCRIPTOR.services_by_name["DataStoreWriterService"]
        channel = self.daemon.channel()
        before = self.info()
        for method in service.methods:
            with self.subTest(method=method.name):
                call = channel.stream_stream(f"/{WRITER}/{method.name}", request_serializer=lambda data: data)
                self.fails(Code.RESOURCE_EXHAUSTED, lambda: list(call(iter([bytes(16 * MIB + 1)]))))
        self.assert_unchanged(before)

    def test_mutated_requests_end_ok_or_invalid_and_never_otherwise(self):
        chance = random.Random(3)
        channel = self.daemon.channel()
        seeds = {"Write": dict(key=KEY, payload=b"v"), "WriteWithKeyHash": dict(key_hash=5, payload=b"v"),
                 "BatchWrite": dict(items=[item(KEY, b"v"), item(b"", b"w")]),
                 "BatchWriteWithKeyHashes": dict(items=[hashed(1, b"v"), hashed(2, b"w")]),
                 "WriteStream": dict(key=KEY, data=b"data"), "Rename": dict(old_key=KEY, new_key=OTHER),
                 "Delete": dict(key=KEY), "BatchDelete": dict(keys=[KEY, b""]),
                 "BatchDeleteKeyHashes": dict(key_hashes=range(4))}
        service = writer_pb2.DESCRIPTOR.services_by_name["DataStoreWriterService"]
        seen = set()
        for name, fields in seeds.items():
            call = channel.stream_stream(f"/{WRITER}/{name}", request_serializer=lambda data: data)
            good = getattr(writer_pb2, service.methods_by_name[name].input_type.name)(**fields).SerializeToString()
            for _ in range(60):
                payload = bytearray(good)
                for _ in range(chance.randint(1, 3)):
                    at = chance.randrange(len(payload) + 1)
                    payload[at:at + chance.randint(0, 2)] = chance.randbytes(chance.randint(0, 3))
                code = self.code_of(lambda: list(call(iter([bytes(payload)]))))
                seen.add(code)
                self.assertIn(code, {Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND}, (name, bytes(payload)))
        self.assertLessEqual({Code.OK, Code.INVALID_ARGUMENT}, seen)


if __name__ == "__main__":
    unittest.main()
