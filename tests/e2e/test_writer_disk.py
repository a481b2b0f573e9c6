"""Writes and the disk: when they are durable, how they share syncs, what a broken disk does, and compactions."""

import errno
import resource
import signal
import time
import unittest

from disk import Disk
from http2 import DATA, INITIAL_WINDOW_SIZE, WINDOW_MAX, Peer, call, window
from support import MIB, READER, Code, eventually, noise, reader_pb2, tell, writer_pb2
from writing import GONE, HASHES, KEY, OTHER, VALUES, WriterTest, hashed, item, upload

WRITERS = 64


class DiskTest(WriterTest):
    def setUp(self):
        self.disk = None
        super().setUp()

    def start(self, *options, **others):
        self.disk = Disk(self.folder)
        super().start(*options, **others)

    def every_write(self, key=KEY):
        """A call of each method that writes."""
        return {
            "Write": lambda: self.put(key, b"v"),
            "WriteWithKeyHash": lambda: self.writer.WriteWithKeyHash(
                writer_pb2.WriteWithKeyHashRequest(key_hash=1, payload=b"v")),
            "BatchWrite": lambda: self.writer.BatchWrite(writer_pb2.BatchWriteRequest(items=[item(key, b"v")] * 3)),
            "BatchWriteWithKeyHashes": lambda: self.writer.BatchWriteWithKeyHashes(
                writer_pb2.BatchWriteWithKeyHashesRequest(items=[hashed(1, b"v")])),
            "WriteStream": lambda: self.writer.WriteStream(upload(key, b"some", b"data")),
            "Rename": lambda: self.writer.Rename(writer_pb2.RenameRequest(old_key=key, new_key=GONE)),
            "Delete": lambda: self.writer.Delete(writer_pb2.DeleteRequest(key=key)),
            "BatchDelete": lambda: self.writer.BatchDelete(writer_pb2.BatchDeleteRequest(keys=[key, OTHER])),
            "BatchDeleteKeyHashes": lambda: self.writer.BatchDeleteKeyHashes(
                writer_pb2.BatchDeleteKeyHashesRequest(key_hashes=[HASHES[key]])),
            "Compact": self.compact,
        }


class Durable(DiskTest):
    def test_nothing_is_visible_or_answered_before_it_is_durable(self):
        self.put(b"first", b"value")  # what comes before any first write is behind us
        self.disk.hold("syncs")
        write = self.writer.Write.future(writer_pb2.WriteRequest(key=KEY, payload=b"newer"))
        self.disk.await_held("syncs")
        self.assertFalse(write.done())
        self.assertEqual(self.read(KEY), VALUES[KEY])
        self.disk.release("syncs")
        self.assertTrue(write.result().commit.durable)
        self.assertEqual(self.read(KEY), b"newer")

    def test_writers_at_once_share_syncs(self):
        self.restart("--max-inflight", WRITERS)
        self.put(b"first", b"value")
        before = self.disk.get("syncs")
        self.disk.hold("syncs")
        request = lambda i: writer_pb2.WriteRequest(key=b"k%d" % i, payload=b"v%d" % i)
        writes = [self.writer.Write.future(request(i)) for i in range(WRITERS)]
        self.disk.await_held("syncs")
        eventually(lambda: self.code_of(lambda: self.read(KEY)) == Code.UNAVAILABLE, "all writers have come")
        self.disk.release("syncs")
        for write in writes:
            self.assertTrue(write.result().commit.durable)
        syncs = self.disk.get("syncs") - before
        tell(f"{WRITERS} writers at once took {syncs} syncs")
        self.assertLessEqual(syncs, WRITERS // 8)
        eventually(lambda: self.code_of(lambda: self.read(KEY)) == Code.OK, "their places are free")
        for i in range(WRITERS):
            self.assertEqual(self.read(b"k%d" % i), b"v%d" % i)

    def test_without_syncs_a_write_is_visible_and_not_durable(self):
        for mode in ("none", "interval:3600000"):
            self.restart("--sync", mode)
            self.put(b"first", b"value")  # the writer's own line is synced before it
            self.disk.hold("syncs")
            for name, call in {"Write": lambda: self.put(KEY, b"newer"),
                               "BatchWrite": lambda: self.writer.BatchWrite(
                                   writer_pb2.BatchWriteRequest(items=[item(OTHER, b"newer")])).commit,
                               "WriteStream": lambda: self.writer.WriteStream(upload(GONE, b"newer")).commit,
                               "Delete": lambda: self.writer.Delete(writer_pb2.DeleteRequest(key=GONE)).commit}.items():
                self.assertFalse(call().durable, name)
            self.assertEqual([self.read(key) for key in (KEY, OTHER, GONE)], [b"newer", b"newer", None])
            self.disk.release("syncs")

    def test_an_interval_syncs_what_was_written(self):
        self.restart("--sync", "interval:20")
        before = self.disk.get("syncs")
        self.assertFalse(self.put(KEY, b"newer").durable)
        eventually(lambda: self.disk.get("syncs") > before, "a sync by the clock")

    def test_a_slow_sync_holds_up_writers_and_no_reader(self):
        self.restart("--threads", 1)
        self.put(b"first", b"value")
        self.disk.hold("syncs")
        writes = [self.writer.Write.future(writer_pb2.WriteRequest(key=KEY, payload=b"%d" % i)) for i in range(8)]
        self.disk.await_held("syncs")
        begun = time.monotonic()
        for _ in range(100):
            self.assertEqual(self.read(KEY), VALUES[KEY])
        tell(f"100 reads beside a sync that hangs took {time.monotonic() - begun:.3f} s")
        self.assertFalse(any(write.done() for write in writes))
        self.disk.release("syncs")
        for write in writes:
            write.result()


class BrokenDisk(DiskTest):
    def test_after_a_failed_sync_nothing_is_written_until_the_store_is_opened_again(self):
        self.put(b"first", b"value")
        self.disk.set("sync_error", errno.EIO)
        self.fails(Code.INTERNAL, lambda: self.put(KEY, b"who knows"), "sync", reason="IO", facts={})
        before = self.info()
        for name, call in self.every_write().items():
            with self.subTest(method=name):
                self.fails(Code.FAILED_PRECONDITION, call, reason="READ_ONLY", facts={})
        self.assert_unchanged(before)
        self.assertFalse(self.info().writable)
        self.assertEqual(self.read(OTHER), VALUES[OTHER])
        self.restart()
        self.assertTrue(self.info().writable)
        self.assert_commit(self.writer.Write(writer_pb2.WriteRequest(key=KEY, payload=b"again")))

    def test_all_that_shared_a_failed_sync_fail(self):
        self.put(b"first", b"value")
        self.disk.hold("syncs")
        writes = [self.writer.Write.future(writer_pb2.WriteRequest(key=b"k%d" % i, payload=b"v")) for i in range(16)]
        self.disk.await_held("syncs")
        self.disk.set("sync_error", errno.EIO)
        self.disk.release("syncs")
        codes = {write.code() for write in writes}
        self.assertLessEqual(codes, {Code.INTERNAL, Code.FAILED_PRECONDITION})
        self.assertIn(Code.INTERNAL, codes)

    def test_a_full_disk_refuses_and_the_store_goes_on_once_there_is_room(self):
        self.put(b"first", b"value")
        before = self.info()
        self.disk.set("append_error", errno.ENOSPC)
        for name, call in self.every_write().items():
            with self.subTest(method=name):
                self.fails(Code.RESOURCE_EXHAUSTED, call, reason="NO_SPACE", facts={})
        self.assert_unchanged(before)
        self.assertEqual(self.read(KEY), VALUES[KEY])
        self.disk.set("append_error", 0)
        for name, call in self.every_write(OTHER if name == "Rename" else KEY).items():
            if name not in ("Delete", "BatchDelete"):
                self.put(KEY, b"there to be renamed")
            call()

    def test_a_limit_on_the_files_size_is_no_space_and_kills_nobody(self):
        self.put(b"first", b"value")
        size = self.reader.FileSize(reader_pb2.FileSizeRequest()).file_size
        limit, most = size + MIB, 2 * MIB
        resource.prlimit(self.daemon.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        large = noise("large", most)
        self.fails(Code.RESOURCE_EXHAUSTED, lambda: self.put(KEY, large), reason="NO_SPACE")
        self.fails(Code.RESOURCE_EXHAUSTED,
                   lambda: self.writer.WriteStream(upload(KEY, *[large[:MIB]] * 4)), reason="NO_SPACE")
        self.assertEqual(self.read(KEY), VALUES[KEY])
        self.put(KEY, b"small")
        resource.prlimit(self.daemon.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        self.put(KEY, large)
        self.assertEqual(self.read(KEY), large)

    def test_an_error_of_the_disk_is_io_and_nothing_of_the_call_is_served(self):
        self.put(b"first", b"value")
        before = self.info()
        self.disk.set("append_error", errno.EIO)
        for name, call in self.every_write().items():
            with self.subTest(method=name):
                self.fails(Code.INTERNAL, call, reason="IO", facts={})
        self.disk.set("append_error", 0)
        self.assert_unchanged(before)
        self.assertEqual({key: self.read(key) for key in VALUES}, VALUES)


class Compaction(DiskTest):
    def setUp(self):
        super().setUp()
        for i in range(3):  # two thirds of this is superseded
            self.writer.BatchWrite(writer_pb2.BatchWriteRequest(
                items=[item(b"k%d" % k, noise((i, k), 3000)) for k in range(1000)]))
        self.writer.BatchDelete(writer_pb2.BatchDeleteRequest(keys=[b"k%d" % k for k in range(500)]))

    def size(self):
        return self.reader.FileSize(reader_pb2.FileSizeRequest()).file_size

    def begin(self):
        """A compaction that has begun and doesn't get on."""
        self.disk.hold("copies")
        call = self.writer.Compact(writer_pb2.CompactRequest())
        self.disk.await_held("copies")
        return call

    def assert_values(self):
        for k in (0, 499, 500, 999):
            self.assertEqual(self.read(b"k%d" % k), noise((2, k), 3000) if k >= 500 else None)

    def test_its_messages_tell_how_far_it_is_and_the_last_one_that_it_is_done(self):
        before, info = self.size(), self.info()
        messages = self.compact()
        self.assertEqual([message.done for message in messages], [False] * (len(messages) - 1) + [True])
        progress = [(message.entries_done, message.bytes_written) for message in messages]
        self.assertEqual(progress, sorted(progress))
        self.assertEqual({message.bytes_reclaimed for message in messages[:-1]}, {0} if messages[:-1] else set())
        last, now = messages[-1], self.info()
        self.assertEqual((last.entries_done, last.entries_total), (502, 502))
        self.assertEqual((last.bytes_written, last.bytes_reclaimed), (self.size(), before - self.size()))
        self.assertGreater(last.bytes_reclaimed, before // 2)
        self.assertGreater(now.generation, info.generation)
        self.assertEqual((now.entries, now.live_keys), (502, 502))
        self.assert_values()
        self.assert_commit(self.writer.Write(writer_pb2.WriteRequest(key=KEY, payload=b"and on it goes")))

    def test_reads_and_writes_go_on_meanwhile_and_all_of_it_is_kept(self):
        compact = self.begin()
        generation = self.info().generation
        self.assert_values()
        self.put(b"new", b"written meanwhile")
        self.put(b"k700", b"superseded meanwhile")
        self.writer.WriteStream(upload(b"streamed", noise("streamed", 2 * MIB)))
        self.writer.Delete(writer_pb2.DeleteRequest(key=b"k701"))
        self.assertEqual(self.read(b"new"), b"written meanwhile")
        self.assertEqual(self.info().generation, generation)
        self.disk.release("copies")
        self.assertTrue(list(compact)[-1].done)
        self.assertEqual([self.read(key) for key in (b"new", b"k700", b"streamed", b"k701", KEY)],
                         [b"written meanwhile", b"superseded meanwhile", noise("streamed", 2 * MIB), None, VALUES[KEY]])
        self.assert_values()
        self.restart()
        self.assertEqual(self.read(b"k700"), b"superseded meanwhile")
        self.assert_values()

    def test_a_second_one_is_refused_while_the_first_runs(self):
        compact = self.begin()
        self.fails(Code.FAILED_PRECONDITION, self.compact, "already", reason="BUSY", facts={})
        self.disk.release("copies")
        self.assertTrue(list(compact)[-1].done)
        self.assertTrue(self.compact()[-1].done)

    def test_a_client_that_leaves_ends_it_and_the_store_is_as_before(self):
        for timeout in (None, 1):
            self.restart("--threads", 1)  # so that a read that was answered says that the end before it was noticed
            before = self.info()
            self.disk.hold("copies")
            call = self.writer.Compact(writer_pb2.CompactRequest(), timeout=timeout)
            self.disk.await_held("copies")
            if timeout is None:
                call.cancel()
            else:
                self.assertEqual(call.code(), Code.DEADLINE_EXCEEDED)
            self.assert_values()
            self.disk.release("copies")
            eventually(lambda: not self.leftover().exists(), "its file is gone")
            self.assert_unchanged(before)
            self.assert_values()

    def leftover(self):
        return self.store.with_name(self.store.name + ".compact")

    def test_a_slow_reader_gets_the_value_it_began_with_though_the_file_was_replaced(self):
        large = noise("large", 24 * MIB)
        self.writer.WriteStream(upload(b"large", *[large[at:at + MIB] for at in range(0, len(large), MIB)]))
        streams = [self.daemon.reader_stub(self.daemon.channel(grpc__http2__bdp_probe=0)).ReadStream(
            reader_pb2.ReadStreamRequest(key=b"large")) for _ in range(2)]
        parts = [[next(stream).fragment.data] for stream in streams]
        self.writer.Write(writer_pb2.WriteRequest(key=b"large", payload=b"newer"))
        self.assertTrue(self.compact()[-1].done)
        self.assertLess(self.size(), 20 * MIB)
        self.assertEqual(self.read(b"large"), b"newer")
        parts[0] += [message.fragment.data for message in streams[0]]
        self.assertEqual(b"".join(parts[0]), large)
        # and now the store is closed under the other
        self.daemon.send(signal.SIGTERM)
        self.daemon.event("draining")
        parts[1] += [message.fragment.data for message in streams[1]]
        self.assertEqual(b"".join(parts[1]), large)
        self.assertEqual(self.daemon.wait(), 0)

    def test_what_a_slow_reader_has_got_is_exact_though_the_store_was_replaced_and_closed_under_it(self):
        self.restart("--drain-grace", 1)
        large = noise("large", 24 * MIB)
        self.writer.WriteStream(upload(b"large", *[large[at:at + MIB] for at in range(0, len(large), MIB)]))
        request = reader_pb2.ReadStreamRequest(key=b"large").SerializeToString()
        peers = [Peer(self.daemon.address(), options={INITIAL_WINDOW_SIZE: size}, receive_buffer=64 << 10)
                 for size in (WINDOW_MAX, 100_000)]  # one leaves it in the socket, the other in the daemon
        for peer in peers:
            self.addCleanup(peer.close)
            peer.send(window(0, WINDOW_MAX - 65535), call(1, f"/{READER}/ReadStream", request))
        came = [peer.until(DATA) for peer in peers]
        self.writer.Write(writer_pb2.WriteRequest(key=b"large", payload=b"newer"))
        self.assertTrue(self.compact()[-1].done)
        self.daemon.send(signal.SIGTERM)
        self.assertEqual(self.daemon.wait(), 0)
        for peer, data in zip(peers, came):
            data += b"".join(payload for kind, _, _, payload in peer.frames() if kind == DATA)
            got, at = b"", 0
            while at + 5 <= len(data) and at + 5 + int.from_bytes(data[at + 1:at + 5], "big") <= len(data):
                end = at + 5 + int.from_bytes(data[at + 1:at + 5], "big")
                got += reader_pb2.ReadStreamResponse.FromString(data[at + 5:end]).fragment.data
                at = end
            tell(f"of 24 MiB {len(data) / MIB:.2f} had come")
            self.assertEqual(got, large[:len(got)])
            self.assertGreater(len(data), 0)
            self.assertLess(len(data), len(large))
        self.restart()
        self.assertEqual(self.read(b"large"), b"newer")

    def test_sigterm_during_one_ends_it_and_loses_nothing(self):
        call = self.begin()
        self.put(b"new", b"written meanwhile")
        self.daemon.send(signal.SIGINT)
        self.daemon.event("draining")
        self.disk.release("copies")
        self.assertEqual(self.daemon.wait(), 0)
        self.assertIn(self.code_of(lambda: list(call)), (Code.OK, Code.UNAVAILABLE))
        self.restart()
        self.assertEqual(self.read(b"new"), b"written meanwhile")
        self.assert_values()
        self.assertFalse(self.leftover().exists())


if __name__ == "__main__":
    unittest.main()
