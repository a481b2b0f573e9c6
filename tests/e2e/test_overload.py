"""More than the daemon can take: who is refused, who waits, who is ended, and who goes on as if nothing were."""

import os
import signal
import socket
import tempfile
import threading
import time
import unittest
from pathlib import Path

import grpc
import http2
from support import (DEADLINE_S, KEEP_NOTHING, KIB, MIB, READER, SANITIZE, SLOWDOWN, WRITER, Code, DaemonTest, Health,
                     eventually, health_pb2, make_store, noise, reader_pb2, tell, tool, writer_pb2, xxh3)
from writing import Messages

SMALL = 3_000  # values that are copied, 1000 bytes each
LARGE = 8 * MIB  # one that goes by reference
STALL_S = 1 if SANITIZE != "thread" else 2
BATCH = 1_000_000
KEY_MEMORY = 16  # what a call keeps of each key
GOOD = reader_pb2.ReadRequest(key=b"key")

folder = tempfile.TemporaryDirectory(prefix="rdrive-e2e-")
store = Path(folder.name) / "store.srd"
values = {b"small-key-%04d" % i: noise(i, 1000) for i in range(SMALL)}


def setUpModule():
    make_store(store, {b"key": b"value", **values})
    tool("put", store, "large", "-", stdin=noise("large", LARGE))


def tearDownModule():
    folder.cleanup()


def raw_request(method, request):
    return f"/{READER}/{method}", request.SerializeToString()


SMALL_STREAM = raw_request("BatchReadStream", reader_pb2.BatchReadStreamRequest(keys=list(values)))
LARGE_STREAM = raw_request("ReadStream", reader_pb2.ReadStreamRequest(key=b"large"))


class OverloadTest(DaemonTest):
    def start(self, *options, **others):
        self.daemon = self.serve(store, *options, **others)
        self.stub = self.daemon.reader_stub()
        return self.daemon

    def peer(self, call=None, **options):
        """A connection whose windows stay as they are at its start, with a call on it."""
        peer = http2.Peer(self.daemon.address(), **options)
        self.addCleanup(peer.socket.close)
        if call is not None:
            peer.send(http2.call(1, *call))
        return peer

    def code_of_read(self):
        return self.code_of(lambda: self.stub.Read(GOOD))

    def await_shed(self, what):
        eventually(lambda: self.code_of_read() == Code.UNAVAILABLE, what)

    def await_served(self, what):
        eventually(lambda: self.code_of_read() == Code.OK, what)

    def has_begun(self, peer):
        """Whether an answer has begun by the time the daemon answers a ping."""
        peer.send(http2.ping(b"is there"))
        begun = False
        while True:
            kind, flags, _, payload = peer.next()
            begun = begun or kind == http2.HEADERS
            if kind == http2.PING and flags & http2.ACK and payload == b"is there":
                return begun


class Memory(OverloadTest):
    def batch(self, keys):
        return reader_pb2.BatchReadHashedKeysRequest(key_hashes=range(keys))

    def test_a_call_that_would_take_more_than_max_memory_is_overloaded(self):
        self.start("--max-memory", "16M", "--max-batch-keys", 2_000_000)
        for _ in range(3):
            self.fails(Code.UNAVAILABLE, lambda: self.stub.BatchReadHashedKeys(self.batch(1_200_000)), "--max-memory",
                       reason="OVERLOADED", facts={"limit": 16 * MIB})
            self.assertEqual(len(list(self.stub.BatchReadHashedKeys(self.batch(100_000)))), 1)

    def test_what_other_calls_keep_counts_too_and_is_given_back(self):
        self.start("--max-memory", "16M")
        channel = self.daemon.channel(grpc__http2__bdp_probe=0)
        holder = self.daemon.reader_stub(channel).BatchReadHashedKeys(self.batch(700_000))
        next(holder)  # and no further
        self.fails(Code.UNAVAILABLE, lambda: self.stub.BatchReadHashedKeys(self.batch(700_000)), reason="OVERLOADED")
        self.assertEqual(self.code_of_read(), Code.OK)
        holder.cancel()
        eventually(lambda: self.code_of(lambda: list(self.stub.BatchReadHashedKeys(self.batch(700_000)))) == Code.OK,
                   "its memory is free")

    def test_get_store_info_is_answered_where_nothing_is_left(self):
        path = Path(self.folder) / "damaged.srd"
        payloads = [noise(i, 300) for i in range(100)]
        make_store(path, {b"key-%d" % i: payload for i, payload in enumerate(payloads)})
        data = bytearray(path.read_bytes())
        for payload in payloads[::2]:
            data[data.index(payload) + 50] ^= 1
        path.write_bytes(data)
        self.daemon = self.serve(path, "--max-memory", "16M", "--max-batch-keys", 2_000_000)
        self.stub = self.daemon.reader_stub()
        channel = self.daemon.channel(grpc__http2__bdp_probe=0)
        holder = self.daemon.reader_stub(channel).BatchReadHashedKeys(self.batch(16 * MIB // KEY_MEMORY - 512))
        next(holder)  # and no further
        self.fails(Code.UNAVAILABLE, lambda: self.stub.BatchReadHashedKeys(self.batch(1000)), reason="OVERLOADED")
        info = self.stub.GetStoreInfo(reader_pb2.GetStoreInfoRequest())
        self.assertEqual(len(info.damaged_ranges), 50)
        holder.cancel()


class Queued(OverloadTest):
    """Room for four messages: what more there is waits for its turn."""

    options = ("--max-queued-bytes", "1M", "--chunk-bytes", "256K", "--stall-timeout", "0")

    def fill(self, count=4):
        peers = [self.peer(SMALL_STREAM) for _ in range(count)]
        for peer in peers:
            peer.until(http2.HEADERS)
        return peers

    def test_streams_wait_in_order_of_arrival(self):
        self.start("--threads", 1, *self.options)
        holders = self.fill()
        waiting = [self.peer(SMALL_STREAM) for _ in range(4)]
        for k, peer in enumerate(waiting):  # each has come before the next one is looked at
            self.assertFalse(self.has_begun(peer), k)
        for k, holder in enumerate(holders):
            holder.send(http2.reset(1))
            waiting[k].until(http2.HEADERS)
            for later in waiting[k + 1:]:
                self.assertFalse(self.has_begun(later))

    def test_small_unary_answers_pass(self):
        self.start(*self.options)
        self.fill()
        waiting = self.peer(SMALL_STREAM)
        self.assertFalse(self.has_begun(waiting))
        for _ in range(100):
            self.assertEqual(self.stub.Read(GOOD).entry.payload, b"value")
        batch = self.stub.BatchRead(reader_pb2.BatchReadRequest(keys=list(values)[:50]))
        self.assertEqual(len(batch.items), 50)
        self.assertFalse(self.has_begun(waiting))

    def test_a_watch_waits_for_no_room(self):
        self.start("--drain-delay", 60, *self.options)
        self.fill()
        self.assertFalse(self.has_begun(self.peer(SMALL_STREAM)))
        watch = self.daemon.health_stub().Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)
        self.assertEqual(next(watch).status, Health.SERVING)
        self.daemon.send(signal.SIGTERM)
        self.assertEqual(next(watch).status, Health.NOT_SERVING)
        self.daemon.send(signal.SIGTERM)  # the delay is not waited for
        self.assertEqual(self.daemon.wait(), 0)

    def test_many_that_do_not_read_keep_no_more_than_the_limit_and_all_of_them_end_well(self):
        self.start(*self.options, env=KEEP_NOTHING)
        count = 40
        before = self.daemon.memory()
        streams = [self.daemon.reader_stub(self.daemon.channel(grpc__http2__bdp_probe=0)).BatchReadStream(
            reader_pb2.BatchReadStreamRequest(keys=list(values))) for _ in range(count)]
        connections = self.daemon.descriptors
        eventually(lambda: connections() > count, "all have come")
        self.assertEqual(self.stub.Read(GOOD).entry.payload, b"value")
        growth = self.daemon.memory() - before
        tell(f"{count} streams that nobody reads grew the daemon by {growth / MIB:.1f} MiB")
        self.assertLess(growth, 6 * MIB * SLOWDOWN)  # their messages alone would take 10 MiB

        def read(stream, results):
            results.append([item.entry.payload for message in stream for item in message.items])

        results = []
        threads = [threading.Thread(target=read, args=(stream, results)) for stream in streams]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
        self.assertEqual(len(results), count)
        self.assertTrue(all(result == list(values.values()) for result in results))

    def test_one_that_waits_may_leave(self):
        self.start("--threads", 1, "--max-inflight", 6, *self.options)
        holders = self.fill()
        first, second = self.peer(SMALL_STREAM), self.peer(SMALL_STREAM)
        self.assertFalse(self.has_begun(first) or self.has_begun(second))
        self.await_shed("six calls are open")
        first.send(http2.reset(1))
        self.await_served("the first has left")
        self.assertFalse(self.has_begun(second))
        holders[0].send(http2.reset(1))
        second.until(http2.HEADERS)

    def test_those_that_wait_hold_up_no_drain(self):
        self.start("--drain-grace", 1, *self.options)
        holders = self.fill()
        waiting = [self.peer(SMALL_STREAM) for _ in range(20)]
        self.assertFalse(self.has_begun(waiting[-1]))
        begun = time.monotonic()
        self.daemon.send(signal.SIGTERM)
        self.assertEqual([peer.status(1) for peer in holders + waiting], [14] * 24)
        self.assertEqual(self.daemon.wait(), 0)
        self.assertLess(time.monotonic() - begun, 4 * SLOWDOWN)

    def test_one_that_waits_may_run_out_of_time(self):
        self.start("--threads", 1, "--max-inflight", 5, *self.options)
        self.fill()
        request = reader_pb2.BatchReadStreamRequest(keys=list(values))
        self.fails(Code.DEADLINE_EXCEEDED, lambda: self.stub.BatchReadStream(request, timeout=0.2 * SLOWDOWN))
        self.await_served("its place is free")

    def test_a_message_larger_than_all_the_room_is_sent_alone(self):
        self.start("--max-queued-bytes", "1M", "--chunk-bytes", "4M")
        request = reader_pb2.BatchReadStreamRequest(keys=list(values))
        for _ in range(3):
            messages = list(self.stub.BatchReadStream(request))
            self.assertEqual(len(messages), 1)
            self.assertGreater(messages[0].ByteSize(), 2 * MIB)


class Stalled(OverloadTest):
    """One call at a time: while one is kept, no other is served."""

    def start(self, *options, stall=STALL_S, **others):
        return super().start("--stall-timeout", stall, "--max-inflight", 1, *options, **others)

    def opened(self, call):
        """A peer whose call is being answered; it may be refused itself, for a read that was just answered."""
        while True:
            peer = self.peer(call)
            headers = dict(peer.decoder.decode(peer.until(http2.HEADERS)))
            if "grpc-status" not in headers:
                return peer
            self.assertEqual(headers["grpc-status"], "14")

    def test_a_reader_that_stops_is_ended_and_all_it_held_is_free(self):
        self.start()
        calls = {"by reference": LARGE_STREAM, "copied": SMALL_STREAM,
                 "one answer": raw_request("BatchRead", reader_pb2.BatchReadRequest(keys=list(values)[:200]))}
        for what, call in calls.items():
            with self.subTest(what):
                peer = self.opened(call)
                self.await_shed("the call is open")
                begun = time.monotonic()
                self.await_served("it is ended")
                tell(f"{what}: ended {time.monotonic() - begun:.2f} s after it stalled")
                self.assertEqual(peer.status(1), 8)

    def test_its_client_is_told_that_it_stalled(self):
        self.start()
        stub = self.daemon.reader_stub(self.daemon.channel(grpc__http2__bdp_probe=0))
        stream = stub.ReadStream(reader_pb2.ReadStreamRequest(key=b"large"))
        next(stream)
        self.await_shed("it is open")
        self.await_served("it is ended")
        with self.assertRaises(grpc.RpcError) as caught:
            list(stream)
        self.assertEqual(caught.exception.code(), Code.RESOURCE_EXHAUSTED)
        self.assertIn("--stall-timeout", caught.exception.details())

    def test_its_room_goes_to_those_who_wait(self):
        self.start("--max-queued-bytes", "1M", "--max-inflight", "2", "--chunk-bytes", "1M")
        holder = self.opened(SMALL_STREAM)
        stream = self.stub.BatchReadStream(reader_pb2.BatchReadStreamRequest(keys=list(values)))
        self.assertEqual(sum(len(message.items) for message in stream), SMALL)
        self.assertEqual(holder.status(1), 8)

    def test_a_slow_but_steady_reader_is_served_to_the_end(self):
        """Each message takes twice as long as a stall may."""
        self.start()
        for call in (LARGE_STREAM, SMALL_STREAM):
            peer = self.opened(call)
            begun = time.monotonic()
            while time.monotonic() - begun < 2.5 * STALL_S:
                peer.send(http2.window(0, 128 * KIB), http2.window(1, 128 * KIB))
                self.drink(peer)
                time.sleep(STALL_S / 4)  # the very thing that is tested: it takes something, now and then
            peer.send(http2.window(0, 2 * LARGE), http2.window(1, 2 * LARGE))
            self.assertEqual(peer.status(1), 0)
            self.await_served("it has ended")

    @staticmethod
    def drink(peer):
        """Take what has arrived."""
        try:
            peer.received += peer.socket.recv(1 << 20, socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass

    def test_an_upload_that_stops_is_ended_and_a_steady_one_is_not(self):
        path = make_store(self.folder / "own.srd", {b"key": b"value"})
        daemon = self.serve(path, "--writable", "--stall-timeout", STALL_S)
        writer, stub = daemon.writer_stub(), daemon.reader_stub()
        for sent in (False, True):
            messages = Messages()
            self.addCleanup(messages.end)
            if sent:
                messages.put(key=b"upload", data=b"data")
            call = writer.WriteStream.future(messages)
            self.fails(Code.RESOURCE_EXHAUSTED, call.result, "--stall-timeout", reason="STALLED",
                       facts={"limit": STALL_S})
        self.assertFalse(stub.Read(reader_pb2.ReadRequest(key=b"upload")).HasField("entry"))
        messages = Messages()
        call = writer.WriteStream.future(messages)
        messages.put(key=b"upload")
        for _ in range(6):
            time.sleep(STALL_S / 2.5)  # as above
            messages.put(data=b"data")
        messages.end()
        self.assertEqual(call.result().payload_size, 24)

    def test_a_message_that_arrives_slowly_but_steadily_is_no_stall(self):
        path = make_store(self.folder / "own.srd", {b"key": b"value"})
        daemon = self.serve(path, "--writable", "--stall-timeout", STALL_S)
        whole = writer_pb2.WriteStreamRequest(key=b"upload", data=bytes(range(256)) * 160).SerializeToString()
        framed = http2.message(whole)
        with http2.Peer(daemon.address()) as peer:
            peer.send(http2.call(1, f"/{WRITER}/WriteStream"))
            pieces = [framed[k : k + 4096] for k in range(0, len(framed), 4096)]
            for piece in pieces:
                peer.send(http2.data(1, piece, end=piece is pieces[-1]))
                time.sleep(STALL_S / 4)  # as above
            self.assertEqual(peer.status(1), 0)
        answer = daemon.reader_stub().Read(reader_pb2.ReadRequest(key=b"upload"))
        self.assertEqual(answer.entry.payload, bytes(range(256)) * 160)

    def test_zero_is_never(self):
        self.start(stall=0)
        peer = self.opened(LARGE_STREAM)
        time.sleep(1.5)  # nothing happens, which no event tells
        self.assertEqual(self.code_of_read(), Code.UNAVAILABLE)
        peer.send(http2.window(0, 2 * LARGE), http2.window(1, 2 * LARGE))
        self.assertEqual(peer.status(1), 0)

    def test_what_waits_for_no_client_does_not_stall(self):
        self.start()
        watch = self.daemon.health_stub().Watch(health_pb2.HealthCheckRequest())
        self.assertEqual(next(watch).status, Health.SERVING)
        peer = self.opened(LARGE_STREAM)
        self.assertEqual(peer.status(1), 8)  # the time it takes has passed
        self.assertTrue(watch.is_active())


class Turns(OverloadTest):
    """Batches of a million keys, on one queue."""

    def request(self, **fields):
        hashes = [xxh3(key) for key in list(values)[:1000]]
        return reader_pb2.BatchReadHashedKeysRequest(key_hashes=hashes * (BATCH // 1000), **fields).SerializeToString()

    def million(self, payload, **options):
        call = self.daemon.channel().unary_stream(f"/{READER}/BatchReadHashedKeys")
        return call(payload, **options)

    def cpu(self):
        fields = Path(f"/proc/{self.daemon.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def test_a_read_does_not_wait_for_a_batch_of_a_million_keys(self):
        self.start("--threads", 1)
        payload, ended, sizes = self.request(), threading.Event(), []

        def work():
            sizes.append(sum(len(message) for message in self.million(payload)))
            ended.set()

        alone = self.time_of_reads(100)
        thread = threading.Thread(target=work)
        thread.start()
        beside = []
        while not ended.is_set():
            beside += self.time_of_reads(1)
        thread.join()
        self.assertGreater(sizes[0], 1000 * BATCH)
        tell(f"Read beside a batch of {BATCH:,} keys on one queue: median {self.median(beside) * 1e3:.2f} ms, longest "
             f"{max(beside) * 1e3:.1f} ms of {len(beside)}; alone: median {self.median(alone) * 1e3:.2f} ms")
        self.assertLess(max(beside), 1.5 * SLOWDOWN)

    def time_of_reads(self, count):
        times = []
        for _ in range(count):
            begun = time.monotonic()
            self.stub.Read(GOOD)
            times.append(time.monotonic() - begun)
        return times

    @staticmethod
    def median(times):
        return sorted(times)[len(times) // 2]

    def test_a_batch_that_is_cancelled_or_out_of_time_works_no_more(self):
        self.start("--threads", 1, "--max-inflight", 1)
        payload = self.request()
        begun = self.cpu()
        for _ in self.million(payload):
            pass
        whole = self.cpu() - begun
        for way in ("cancel at once", "cancel at the first message", "deadline"):
            begun = self.cpu()
            call = self.million(payload, timeout=0.02 * SLOWDOWN if way == "deadline" else None)
            if way == "cancel at the first message":
                next(call)
            if way == "deadline":
                self.assertEqual(self.code_of(lambda call=call: list(call)), Code.DEADLINE_EXCEEDED)
            call.cancel()
            self.await_served("it is gone")
            spent = self.cpu() - begun
            idle = self.idle()
            tell(f"{way}: {spent:.2f} s of CPU, a whole batch takes {whole:.2f}; afterwards {idle:.2f}")
            self.assertLess(spent, max(whole, 0.1))
            self.assertLess(idle, 0.1)

    def idle(self):
        """CPU in a while in which nobody asks."""
        before = self.cpu()
        time.sleep(0.2)
        return self.cpu() - before


if __name__ == "__main__":
    unittest.main()
