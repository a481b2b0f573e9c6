"""What the core is told and what it does by itself: times, windows, addresses, compression, descriptors, memory."""

import os
import resource
import socket
import struct
import threading
import time
import unittest

import http2
from http2 import ACK, DATA, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, PING, SETTINGS, WINDOW_UPDATE, Ended, Peer
from support import (KIB, MIB, READER, SANITIZE, SLOWDOWN, DaemonTest, eventually, make_store, noise, reader_pb2, tell)

HASTE = 60  # times as fast as without
KEEPALIVE_S, KEEPALIVE_TIMEOUT_S, PINGS_S, HANDSHAKE_S = (each / HASTE for each in (60, 20, 10, 10))
LATE_S = SLOWDOWN  # on a busy machine
WINDOW = 64 * KIB
VALUE = b"v" * 100 * KIB
SENT = 4 * MIB
BURST = 48 // SLOWDOWN  # answers of 4 MiB at once
LEFT_MAX = 32 * MIB  # of 192 MiB: what the core and each thread's arena keep for the next burst
UNARY, STREAM = f"/{READER}/Read", f"/{READER}/ReadStream"
ENHANCE_YOUR_CALM = 11
DESCRIPTORS_MAX = 1_000_000


class Facts(DaemonTest):
    def setUp(self):
        super().setUp()
        self.store = make_store(self.folder / "store.srd", {b"key": VALUE})

    def hasty(self, *args):
        """A daemon for which all of the core's times pass faster; see hasty_core.c."""
        return self.serve(self.store, *args, env={"LD_PRELOAD": os.environ["RDRIVE_HASTY_CORE_LIBRARY"],
                                                  "RDRIVE_HASTE": str(HASTE)})

    def peer(self, daemon, **options):
        peer = Peer(daemon.address(), **options)
        self.addCleanup(peer.close)
        return peer


class Times(Facts):
    """A connection without a call, as are those of proxies, pools and phones."""

    def assert_passed(self, begun, seconds):
        passed = time.monotonic() - begun
        self.assertGreater(passed, 0.95 * seconds)
        self.assertLess(passed, seconds + LATE_S)

    def test_a_silent_connection_is_pinged_each_minute_and_dropped_20_s_after_a_ping_without_answer(self):
        daemon, begun = self.hasty(), time.monotonic()
        peer = self.peer(daemon)
        for _ in range(3):  # by itself the core stops after two without data
            mark = peer.until(PING)
            self.assert_passed(begun, KEEPALIVE_S)
            begun = time.monotonic()
            peer.send(http2.frame(PING, ACK, 0, mark))
        peer.until(PING)
        peer.closed()
        self.assert_passed(begun, KEEPALIVE_S + KEEPALIVE_TIMEOUT_S)

    def test_a_client_may_ping_every_10_s_without_a_call_and_not_much_more_often(self):
        peer = self.peer(self.hasty())
        for k in range(6):
            peer.settle(b"%08d" % k)
            threading.Event().wait(PINGS_S)  # since the answer: the server took the ping before
        for k in range(6):
            peer.send(http2.ping())
        end = peer.until(GOAWAY)
        self.assertEqual(int.from_bytes(end[4:8], "big"), ENHANCE_YOUR_CALM)

    def test_a_connection_that_never_says_a_word_is_dropped_after_10_s(self):
        daemon, begun = self.hasty(), time.monotonic()
        self.peer(daemon, hello=False).closed()
        self.assert_passed(begun, HANDSHAKE_S)


class Recorder(Peer):
    """What came, as (kind, flags, stream, payload)."""

    def __init__(self, *args, **options):
        self.came = []
        super().__init__(*args, **options)

    def next(self):
        self.came.append(super().next())
        return self.came[-1]


class Windows(Facts):
    def test_an_upload_begins_with_64_kib_and_no_ping_asks_whether_more_would_do(self):
        peer = Recorder(self.serve(self.store).address())
        self.addCleanup(peer.close)
        peer.send(http2.call(1, UNARY))
        peer.upload(1, http2.message(reader_pb2.ReadRequest(key=noise("key", SENT)).SerializeToString()))
        status = peer.status(1)
        self.assertFalse([each for each in peer.came if each[0] == PING])
        self.assertEqual(status, 0)
        windows = [value for kind, flags, _, payload in peer.came if kind == SETTINGS
                   for name, value in struct.iter_unpack(">HI", payload) if name == INITIAL_WINDOW_SIZE]
        grants = [int.from_bytes(payload, "big") for kind, _, of, payload in peer.came if kind == WINDOW_UPDATE and of]
        tell(f"initial windows {windows}; {len(grants)} grants, the largest {max(grants)}")
        self.assertLessEqual(max(windows), WINDOW)


class Answers(Facts):
    def test_none_is_compressed_though_the_client_would_take_it(self):
        peer = Recorder(self.serve(self.store).address())
        self.addCleanup(peer.close)
        request = reader_pb2.ReadRequest(key=b"key").SerializeToString()
        peer.send(http2.window(0, MIB))
        for stream, path in ((1, UNARY), (3, STREAM)):
            peer.send(http2.call(stream, path, request, extra=[(b"grpc-accept-encoding", b"gzip,deflate,identity")]),
                      http2.window(stream, MIB))
        self.assertEqual(peer.statuses((1, 3)), [0, 0])
        first = {of: payload[0] for kind, _, of, payload in reversed(peer.came) if kind == DATA and payload}
        self.assertEqual(first, {1: 0, 3: 0})  # the flag of a compressed message
        self.assertGreaterEqual(sum(len(each[3]) for each in peer.came if each[0] == DATA), 2 * len(VALUE))


class Addresses(Facts):
    def test_0_0_0_0_is_every_address_of_ipv6_too(self):
        daemon = self.hasty("--listen", "0.0.0.0:0")
        self.assertIn("bound to [::]", daemon.log())
        port = daemon.address().rsplit(":", 1)[1]
        with socket.create_connection(("::1", int(port)), 60) as connection:
            self.assertTrue(connection.recv(9))  # its settings


class Memory(Facts):
    """As glibc manages it by itself, with an arena for each thread, which keeps what is freed."""

    def test_what_a_burst_took_is_given_back(self):
        values = {b"k%04d" % i: noise(i, 1000) for i in range(4000)}
        daemon = self.serve(make_store(self.folder / "burst.srd", values), "--threads", 4, "--max-response-bytes", "8M")
        request = reader_pb2.BatchReadRequest(keys=list(values)).SerializeToString()
        before = daemon.memory()
        for turn in ("first", "second"):
            peers = [self.peer(daemon, options={INITIAL_WINDOW_SIZE: 0}) for _ in range(BURST)]
            for peer in peers:
                peer.send(http2.call(1, f"/{READER}/BatchRead", request))
            eventually(lambda: daemon.memory() - before > BURST * 3 * MIB, "the answers are there")
            most, begun = daemon.memory(), time.monotonic()
            for peer in peers:
                peer.close()
            if not SANITIZE:  # what the sanitizers keep, they keep
                eventually(lambda: daemon.memory() - before < LEFT_MAX, f"the {turn} burst's memory comes back")
            tell(f"a {turn} burst: {before / MIB:.1f} MiB at first, {most / MIB:.1f} at most, "
                 f"{daemon.memory() / MIB:.1f} {time.monotonic() - begun:.1f} s after")


class Descriptors(Facts):
    def test_their_limit_is_raised_to_the_hard_one(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
        daemon = self.serve(self.store)
        raised = min(hard, DESCRIPTORS_MAX) if hard != resource.RLIM_INFINITY else DESCRIPTORS_MAX
        self.assertEqual(resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE), (raised, hard))


if __name__ == "__main__":
    unittest.main()
