"""WriteStream: a value that arrives in messages is written once its client has ended well, and else not at all."""

import os
import subprocess
import sys
import time
import unittest
import zlib
from pathlib import Path

import http2
from support import (DEADLINE_S, KEEP_NOTHING, KIB, MIB, SANITIZE, SLOWDOWN, WRITER, Code, eventually, noise,
                     peak_memory, tell, writer_pb2)
from writing import GONE, KEY, VALUES, Messages, WriterTest, upload

PATH = f"/{WRITER}/WriteStream"
LARGE = 64 * MIB
# What an upload may take: a MiB of the value, two messages, and what the core keeps for one connection.
SLACK = {"": 8 * MIB, "address": 24 * MIB, "thread": 64 * MIB}[SANITIZE]
STREAMS = {"": 64, "address": 32, "thread": 16}[SANITIZE]

HALF_CLIENT = """
import sys, threading
from support import grpc, writer_pb2, writer_pb2_grpc
def messages():
    yield writer_pb2.WriteStreamRequest(key=b"absent-key-12", data=bytes(100_000))
    yield writer_pb2.WriteStreamRequest(data=bytes(2_000_000))
    print("sent", flush=True)
    threading.Event().wait()
writer_pb2_grpc.DataStoreWriterServiceStub(grpc.insecure_channel(sys.argv[1])).WriteStream(messages())
"""


class Uploads(WriterTest):
    def begin(self, key, *pieces, **options):
        """A stream that has sent so much and goes on."""
        messages = Messages()
        call = self.writer.WriteStream.future(messages, **options)
        messages.put(key=key)
        for piece in pieces:
            messages.put(data=piece)
        self.addCleanup(messages.end)
        return call, messages


class BrokenOff(Uploads):
    """The daemon takes one call at a time, so a read is refused as long as the upload is there."""

    options = ("--max-inflight", 1)

    def setUp(self):
        super().setUp()
        self.before = self.info()

    def opened(self, begin, give_up):
        """What `begin` returns, once it is open; it may be refused itself, for a read that was just answered."""
        for _ in range(100):
            upload = begin()
            for _ in range(100):
                if self.code_of(lambda: self.read(KEY)) == Code.UNAVAILABLE:
                    return upload
            give_up(upload)
        self.fail("the upload doesn't begin")

    def assert_nothing_kept(self):
        eventually(lambda: self.code_of(lambda: self.read(KEY)) == Code.OK, "the upload is gone")
        self.assert_unchanged(self.before)
        self.assertIsNone(self.read(GONE))
        self.assertEqual(self.read(KEY), VALUES[KEY])

    def test_cancelled_it_leaves_nothing(self):
        for pieces in ((), (b"small",), (bytes(3 * MIB),)):
            call = self.opened(lambda: self.begin(GONE, *pieces)[0], lambda call: call.cancel())
            call.cancel()
            self.assert_nothing_kept()

    def test_out_of_time_it_leaves_nothing(self):
        for pieces in ((b"small",), (bytes(3 * MIB),)):
            call = self.opened(lambda: self.begin(GONE, *pieces, timeout=0.3 * SLOWDOWN)[0], lambda call: call.cancel())
            self.assertEqual(call.code(), Code.DEADLINE_EXCEEDED)
            self.assert_nothing_kept()

    def test_with_its_client_killed_it_leaves_nothing(self):
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent)}

        def begin():
            client = subprocess.Popen([sys.executable, "-B", "-c", HALF_CLIENT, self.daemon.address()], env=environment,
                                      stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            client.stdout.readline()  # it has sent all it will
            return client

        def kill(client):
            client.kill()
            client.wait()
            client.stdout.close()

        kill(self.opened(begin, kill))
        self.assert_nothing_kept()

    def test_with_its_connection_closed_or_its_stream_reset_it_leaves_nothing(self):
        request = http2.message(writer_pb2.WriteStreamRequest(key=GONE, data=b"data").SerializeToString())
        for whole in (True, False):
            def begin(sent=request if whole else request[:-2]):
                peer = http2.Peer(self.daemon.address())
                peer.send(http2.call(1, PATH), http2.data(1, sent, end=False))
                peer.settle()
                return peer

            for end in ("close", "reset"):
                peer = self.opened(begin, lambda peer: peer.close())
                if end == "reset":
                    peer.send(http2.reset(1))
                    self.assert_nothing_kept()
                peer.socket.close()
                self.assert_nothing_kept()

    def test_of_one_ended_in_the_middle_of_a_message_at_most_the_whole_messages_are_written(self):
        """The core hides the torn message; the answer's size and checksum tell the client."""
        self.restart()
        first = http2.message(writer_pb2.WriteStreamRequest(key=GONE, data=b"data").SerializeToString())
        second = http2.message(writer_pb2.WriteStreamRequest(data=b"more of it").SerializeToString())
        for cut in (1, 4, 5, 6, len(second) - 1):
            with http2.Peer(self.daemon.address()) as peer:
                peer.send(http2.call(1, PATH), http2.data(1, first + second[:cut]))
                status = peer.status(1)
            self.assertEqual(self.read(GONE), b"data" if status == 0 else None)
            self.writer.Delete(writer_pb2.DeleteRequest(key=GONE))

    def test_until_its_client_ends_nothing_of_it_is_seen(self):
        self.restart()
        call, messages = self.begin(GONE, bytes(3 * MIB), b"and more")
        for _ in range(20):
            self.assertIsNone(self.read(GONE))
            self.assert_unchanged(self.before)
        messages.end()
        self.assertEqual(call.result().payload_size, 3 * MIB + 8)
        self.assertEqual(self.read(GONE), bytes(3 * MIB) + b"and more")


class Large(Uploads):
    def test_64_mib_pass_through_in_flat_memory(self):
        self.daemon.stop()
        self.start(env=KEEP_NOTHING)
        self.writer.WriteStream(upload(KEY, noise("warm", 3 * MIB)))
        before, begun = self.daemon.memory(), time.monotonic()
        payload = noise("large", LARGE)
        pieces = [payload[at:at + 256 * KIB] for at in range(0, LARGE, 256 * KIB)]
        peak, answer = peak_memory(self.daemon, lambda: self.writer.WriteStream(upload(GONE, *pieces)))
        tell(f"64 MiB by WriteStream: {time.monotonic() - begun:.2f} s, the daemon grew by "
             f"{(peak - before) / MIB:.1f} MiB")
        self.assertEqual((answer.payload_size, answer.checksum), (LARGE, zlib.crc32(payload)))
        self.assertLessEqual(peak - before, SLACK)
        self.assertEqual(self.read_large(GONE), payload)

    def test_a_message_may_be_as_large_as_a_request(self):
        payload = noise("message", 15 * MIB)
        answer = self.writer.WriteStream(upload(GONE, payload, b"end"))
        self.assertEqual(answer.payload_size, len(payload) + 3)
        self.assertEqual(self.read_large(GONE), payload + b"end")
        too_large = bytes(16 * MIB)
        self.fails(Code.RESOURCE_EXHAUSTED, lambda: self.writer.WriteStream(upload(KEY, too_large)))
        self.assertEqual(self.read(KEY), VALUES[KEY])


class Many(Uploads):
    def test_slow_streams_stop_nobody(self):
        uploads = []
        for k in range(STREAMS):
            payload = noise(k, 700 * KIB + k * 11_000)  # some stay in memory, some don't
            call, messages = self.begin(b"stream-%d" % k, payload[:len(payload) // 2])
            uploads.append((payload, call, messages))
        times = []
        for i in range(100):
            begun = time.monotonic()
            self.put(b"single-%d" % i, b"v%d" % i)
            self.assertEqual(self.read(b"single-%d" % i), b"v%d" % i)
            times.append(time.monotonic() - begun)
        tell(f"100 writes and reads beside {STREAMS} open streams: median {sorted(times)[50] * 1e3:.2f} ms, longest "
             f"{max(times) * 1e3:.1f} ms")
        self.assertFalse(any(call.done() for _, call, _ in uploads))
        for payload, _, messages in reversed(uploads):
            messages.put(data=payload[len(payload) // 2:])
            messages.end()
        for k, (payload, call, _) in enumerate(uploads):
            answer = call.result(timeout=DEADLINE_S)
            self.assertEqual((answer.payload_size, answer.checksum), (len(payload), zlib.crc32(payload)))
            self.assertEqual(self.read(b"stream-%d" % k), payload)

    def test_what_they_gather_in_memory_counts_against_max_memory(self):
        self.restart("--max-memory", "16M")
        calls = [self.begin(b"stream-%d" % k, bytes(900 * KIB))[0] for k in range(20)]  # 17.6 MiB
        eventually(lambda: any(call.done() for call in calls), "one is too many")
        call = next(call for call in calls if call.done())
        self.fails(Code.UNAVAILABLE, call.result, "--max-memory", reason="OVERLOADED", facts={"limit": 16 * MIB})
        huge_key = upload(bytes(MIB), b"payload")  # gathered from its frames
        self.fails(Code.UNAVAILABLE, lambda: self.writer.WriteStream(huge_key), "--max-memory", reason="OVERLOADED")
        self.put(KEY, b"single writes go on")
        for call in calls:
            call.cancel()
        eventually(lambda: self.code_of(lambda: self.writer.WriteStream(upload(GONE, bytes(15 * MIB)))) == Code.OK,
                   "their memory is free")

    def test_of_two_streams_for_a_key_the_one_that_ends_later_wins(self):
        first, first_messages = self.begin(KEY, b"began first")
        second, second_messages = self.begin(KEY, b"began later")
        second_messages.end()
        second.result()
        self.assertEqual(self.read(KEY), b"began later")
        first_messages.end()
        first.result()
        self.assertEqual(self.read(KEY), b"began first")

    def test_streams_written_and_cancelled_in_turn_leave_memory_and_descriptors_flat(self):
        self.daemon.stop()
        self.start(env=KEEP_NOTHING)

        def rounds(count):
            for k in range(count):
                call, _ = self.begin(GONE, bytes(1500 * KIB))
                self.writer.WriteStream(upload(KEY, bytes([k % 255 + 1]) * (1500 * KIB)))
                call.cancel()

        rounds(3)
        memory, descriptors = self.daemon.memory(), self.daemon.descriptors()
        rounds(20)
        eventually(lambda: self.daemon.descriptors() <= descriptors, "descriptors are given back")
        growth = self.daemon.memory() - memory
        tell(f"20 streams written and 20 cancelled grew the daemon by {growth / KIB:.0f} KiB")
        self.assertLess(growth, 8 * MIB * SLOWDOWN)  # kept, they would take 30 to 60 MiB


if __name__ == "__main__":
    unittest.main()
