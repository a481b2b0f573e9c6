"""How the daemon stops: nobody loses a call that was answered, nobody holds it up."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

import grpc

from support import (MIB, READER, SANITIZE, SLOWDOWN, Code, DaemonTest, Health, eventually, health_pb2,
                     make_store, reader_pb2, tell, tool)

LARGE = 32 * MIB
QUICK_S = 3 * min(SLOWDOWN, 3)  # "at once", on a busy machine
THREADS, WARM, ROUNDS = 16, 100, {"": 10, "address": 3, "thread": 3}[SANITIZE]

folder = tempfile.TemporaryDirectory(prefix="rdrive-e2e-")
store = Path(folder.name) / "store.srd"
GOOD = reader_pb2.ReadRequest(key=b"key")
EVERYTHING = health_pb2.HealthCheckRequest()


def setUpModule():
    make_store(store, {b"key": b"value", b"middle": bytes(100_000), **{b"k%d" % i: b"v%d" % i for i in range(1000)}})
    tool("put", store, "large", "-", stdin=bytes(LARGE))


def tearDownModule():
    folder.cleanup()


IDLE_CLIENT = """
import sys
from support import grpc, reader_pb2, reader_pb2_grpc
channel = grpc.insecure_channel(sys.argv[1])
reader_pb2_grpc.DataStoreReaderServiceStub(channel).Read(reader_pb2.ReadRequest(key=b"key"))
print("ready", flush=True)
sys.stdin.read()  # idle from now on: nothing of grpc runs in this process
"""


def frame(kind, flags, stream, payload, length=None):
    return (length or len(payload)).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def raw_headers(path):
    """A request's headers, each written out."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "te": "trailers",
              "content-type": "application/grpc"}
    block = b"".join(b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
                     for name, value in fields.items())
    return frame(1, 4, 1, block)


class Drain(DaemonTest):
    def start(self, *options):
        self.daemon = self.serve(store, *options)
        self.channel = self.daemon.channel()
        self.stub = self.daemon.reader_stub(self.channel)
        self.health = self.daemon.health_stub(self.channel)

    def stopped(self, number=signal.SIGTERM, most=QUICK_S, least=0.0, send=True):
        """Seconds from the signal to the end, which comes with status 0."""
        begun = time.monotonic()
        if send:
            self.daemon.send(number)
        self.assertEqual(self.daemon.wait(), 0, self.daemon.log())
        took = time.monotonic() - begun
        tell(f"{self._testMethodName} took {took:.2f} s")
        self.assertGreaterEqual(took, least)
        self.assertLess(took, most)
        return took

    def open_stream(self):
        """A stream of which one message is read, and which stays open while no more are."""
        stream = self.stub.ReadStream(reader_pb2.ReadStreamRequest(key=b"large"))
        return stream, len(next(stream).fragment.data)

    def await_not_serving(self):
        eventually(lambda: self.health.Check(EVERYTHING).status == Health.NOT_SERVING, "Check says NOT_SERVING", 5)

    def connect(self):
        """A bare connection that the daemon has accepted: it has said something."""
        host, port = self.daemon.address().rsplit(":", 1)
        peer = socket.create_connection((host, int(port)), timeout=30)
        self.addCleanup(peer.close)
        self.assertTrue(peer.recv(1))
        return peer


class Load(Drain):
    def work(self, k, codes):
        """Call until the daemon is gone."""
        stub = self.daemon.reader_stub()
        requests = [lambda: stub.Read(GOOD), lambda: stub.Exists(reader_pb2.ExistsRequest(key=b"k1")),
                    lambda: list(stub.ReadStream(reader_pb2.ReadStreamRequest(key=b"middle"))),
                    lambda: stub.BatchRead(reader_pb2.BatchReadRequest(keys=[b"k%d" % i for i in range(50)])),
                    lambda: list(stub.BatchReadStream(reader_pb2.BatchReadStreamRequest(keys=[b"middle"] * 3))),
                    lambda: stub.GetStoreInfo(reader_pb2.GetStoreInfoRequest())]
        for i in range(k, 1 << 30):
            if self.daemon.process.poll() is not None:
                return
            code = self.code_of(requests[i % len(requests)])
            codes[code] = codes.get(code, 0) + 1

    def test_sigterm_under_load_from_16_threads_ends_no_call_but_ok_or_unavailable(self):
        for number in [signal.SIGTERM, signal.SIGINT, *[signal.SIGTERM] * (ROUNDS - 2)]:
            self.start()
            codes = [{} for _ in range(THREADS)]
            threads = [threading.Thread(target=self.work, args=(k, codes[k])) for k in range(THREADS)]
            for thread in threads:
                thread.start()
            eventually(lambda: all(each.get(Code.OK, 0) >= WARM for each in codes), "every thread is at work")
            begun = time.monotonic()
            self.daemon.send(number)
            self.assertEqual(self.daemon.wait(), 0)
            took = time.monotonic() - begun
            for thread in threads:
                thread.join()
            totals = {code: sum(each.get(code, 0) for each in codes) for each in codes for code in each}
            tell(f"under load: {took:.2f} s, " + ", ".join(f"{n} {code.name}" for code, n in totals.items()))
            self.assertLessEqual(set(totals), {Code.OK, Code.UNAVAILABLE}, totals)
            self.assertGreaterEqual(totals[Code.OK], THREADS * WARM)
            self.assertLess(took, QUICK_S)


class Peers(Drain):
    """Clients that do nothing hold nothing up."""

    def setUp(self):
        super().setUp()
        self.start()

    def test_without_a_client_it_stops_at_once(self):
        self.stopped()

    def test_an_idle_python_client_does_not_hold_it_up(self):
        client = subprocess.Popen([sys.executable, "-B", "-c", IDLE_CLIENT, self.daemon.address()], text=True,
                                  cwd=Path(__file__).parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            self.assertEqual(client.stdout.readline(), "ready\n")
            self.stopped()
            self.assertIsNone(client.poll())
        finally:
            client.stdin.close()
            client.wait(60)
            client.stdout.close()

    def test_a_silent_connection_does_not_hold_it_up(self):
        peers = [self.connect() for _ in range(5)]
        self.stopped()
        for peer in peers:
            while peer.recv(4096):  # what it had sent, and then the end
                pass

    def test_a_connection_silent_after_its_preface_does_not_hold_it_up(self):
        peer = self.connect()
        peer.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
        self.assertTrue(peer.recv(1))
        self.stopped()

    def test_half_a_request_does_not_hold_it_up(self):
        peer = self.connect()
        peer.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + raw_headers(f"/{READER}/Read") +
                     frame(0, 0, 1, b"\0\0\0\1\0half of it", length=261) + b"")
        self.assertEqual(self.stub.Read(GOOD).entry.payload, b"value")
        self.stopped()

    def test_a_watch_does_not_hold_it_up(self):
        watch = self.health.Watch(EVERYTHING)
        self.assertEqual(next(watch).status, Health.SERVING)
        self.stopped()
        self.assertEqual([answer.status for answer in self.until_unavailable(watch)], [Health.NOT_SERVING])

    def until_unavailable(self, stream):
        answers = []
        with self.assertRaises(grpc.RpcError) as caught:
            for answer in stream:
                answers.append(answer)
        self.assertEqual(caught.exception.code(), Code.UNAVAILABLE)
        return answers


class OpenCalls(Drain):
    def test_a_stream_that_is_read_in_the_grace_period_comes_whole(self):
        for _ in range(10):  # once its last bytes were lost with the connection, in one of twenty
            self.start()
            stream, size = self.open_stream()
            self.daemon.send(signal.SIGTERM)
            self.assertEqual(self.daemon.event("draining")["open_calls"], "1")
            # it is waited for, and meanwhile all is served, though health says that nobody should come
            self.await_not_serving()
            self.assertEqual(self.stub.Read(GOOD).entry.payload, b"value")
            self.assertEqual(size + sum(len(message.fragment.data) for message in stream), LARGE)
            self.stopped(send=False)

    def test_a_stream_that_nobody_reads_is_dropped_after_the_grace_period(self):
        self.start("--drain-grace", 2)
        stream, _ = self.open_stream()
        self.stopped(least=0.9, most=2 + QUICK_S)
        self.fails(Code.UNAVAILABLE, lambda: stream)

    def test_a_second_signal_ends_at_once_what_the_first_would_wait_for(self):
        for first, second in ((signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT),
                              (signal.SIGINT, signal.SIGINT)):
            self.start("--drain-grace", 3600)
            stream, _ = self.open_stream()
            self.daemon.send(first)
            self.daemon.event("draining")
            self.stopped(second)
            self.fails(Code.UNAVAILABLE, lambda: stream)


class Delay(Drain):
    def test_during_the_delay_all_is_served_while_check_says_not_serving(self):
        self.start("--drain-delay", 3600)
        self.daemon.send(signal.SIGTERM)
        self.await_not_serving()
        later = self.daemon.reader_stub()  # a new connection too
        for _ in range(50):
            self.assertEqual(self.health.Check(EVERYTHING).status, Health.NOT_SERVING)
            self.assertEqual(self.stub.Read(GOOD).entry.payload, b"value")
            self.assertEqual(later.Read(GOOD).entry.payload, b"value")
        stream, size = self.open_stream()
        self.assertEqual(size + sum(len(message.fragment.data) for message in stream), LARGE)
        self.stopped(signal.SIGTERM)  # the second one

    def test_the_delay_ends_by_itself(self):
        self.start("--drain-delay", 1)
        self.stopped(least=1, most=1 + QUICK_S)

    def test_a_call_that_began_in_the_delay_is_waited_for(self):
        self.start("--drain-delay", 1)
        self.daemon.send(signal.SIGTERM)
        self.daemon.event("draining")
        stream, size = self.open_stream()
        time.sleep(1.5)  # the delay passes: it is what is tested
        self.assertIsNone(self.daemon.process.poll())
        self.assertEqual(size + sum(len(message.fragment.data) for message in stream), LARGE)
        self.stopped(send=False)

    def test_sigint_skips_the_delay(self):
        self.start("--drain-delay", 3600)
        self.stopped(signal.SIGINT)


class Opening(Drain):
    def test_sigterm_ends_the_opening_of_a_store_that_takes_long(self):
        path = make_store(self.folder / "slow.srd", {b"key": b"value"})
        os.truncate(path, 256 << 30)  # a hole to be searched through, for longer than this test lasts
        for number in (signal.SIGTERM, signal.SIGINT):
            self.daemon = self.serve(path, ready=False)
            self.daemon.address()
            self.stopped(number, most=1 + QUICK_S)
            self.assertFalse(self.daemon.events("serving"))

    def test_sigterm_at_any_moment_of_starting_ends_with_0(self):
        for delay in range(10):
            self.daemon = self.serve(store, ready=False)
            self.daemon.address()
            threading.Event().wait(delay * 0.002)  # not to be in step: whatever the moment, the end is the same
            self.daemon.send(signal.SIGTERM)
            self.assertEqual(self.daemon.wait(), 0, self.daemon.log())


if __name__ == "__main__":
    unittest.main()
