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
                     make_store, noise, reader_pb2, reflection_pb2, reflection_pb2_grpc, tell, tool, writer_pb2,
                     writer_pb2_grpc)

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


class Writer(threading.Thread):
    """Writes one number after the other under a key of its own, in every way there is, until the daemon is gone."""

    def __init__(self, test, k, compact=False):
        super().__init__()
        self.code_of, self.process = test.code_of, test.daemon.process
        self.key, self.compact = b"writer-%d" % k, compact
        self.stub = writer_pb2_grpc.DataStoreWriterServiceStub(test.daemon.channel())
        self.acknowledged = self.begun = 0
        self.codes = {}

    def write(self, value):
        data = b"%d" % value
        return [lambda: self.stub.Write(writer_pb2.WriteRequest(key=self.key, payload=data)),
                lambda: self.stub.BatchWrite(writer_pb2.BatchWriteRequest(
                    items=[writer_pb2.WriteItem(key=self.key, payload=data)] * 3)),
                lambda: self.stub.WriteStream(iter([writer_pb2.WriteStreamRequest(key=self.key, data=data[:1]),
                                                    writer_pb2.WriteStreamRequest(data=data[1:])]))][value % 3]

    def run(self):
        while self.process.poll() is None:
            call = lambda: list(self.stub.Compact(writer_pb2.CompactRequest()))  # noqa: E731
            if not self.compact:
                self.begun += 1
                call = self.write(self.begun)
            code = self.code_of(call)
            self.codes[code] = self.codes.get(code, 0) + 1
            if code == Code.OK:
                self.acknowledged = self.begun


class Answers(threading.Thread):
    """Takes what a stream brings, and how it ends."""

    def __init__(self, stream):
        super().__init__()
        self.stream, self.answers = stream, []
        self.start()

    def run(self):
        try:
            for answer in self.stream:
                self.answers.append(answer)
        except grpc.RpcError:
            pass  # its code is the stream's

    def code(self):
        self.join()
        return self.stream.code()


class Upload:
    """A WriteStream that goes on as it is told to."""

    def __init__(self, stub, key, data):
        self.key, self.data = key, data
        self.go_on = threading.Event()
        self.half_sent = threading.Event()
        self.result = stub.WriteStream.future(self.messages())

    def messages(self):
        half = len(self.data) // 2
        yield writer_pb2.WriteStreamRequest(key=self.key, data=self.data[:half])
        self.half_sent.set()  # the first message is with the core
        self.go_on.wait()
        if self.result.done():
            return
        yield writer_pb2.WriteStreamRequest(data=self.data[half:])

    def code(self):
        try:
            self.result.result()
        except grpc.RpcError:
            pass
        self.go_on.set()
        return self.result.code()


class Everything(Drain):
    """64 streams that are read on, 4 that are not, and beside them all that writes, compacts, watches or waits."""

    def begin(self, *options):
        self.path = self.folder / "store.srd"
        medium = {b"medium-%d" % k: noise(k, 2 * MIB) for k in range(4)}
        make_store(self.path, {b"key": b"value", **medium})
        tool("put", self.path, "large", "-", stdin=bytes(LARGE))
        self.daemon = self.serve(self.path, "--writable", *options)
        narrow = {"grpc__http2__bdp_probe": 0, "grpc__http2__lookahead_bytes": 65536}  # what isn't read isn't sent
        self.channel = self.daemon.channel(**narrow)
        self.stub = self.daemon.reader_stub(self.channel)
        self.health = self.daemon.health_stub(self.channel)

    def medium(self, k):
        key = b"medium-%d" % (k % 4)
        stream = self.stub.ReadStream(reader_pb2.ReadStreamRequest(key=key))
        return stream, next(stream).fragment.data

    def open_all(self):
        self.read_on = [self.medium(k) for k in range(64)]
        self.stalled = [self.open_stream()[0] for _ in range(4)]
        uploads = writer_pb2_grpc.DataStoreWriterServiceStub(self.daemon.channel())
        self.uploads = [Upload(uploads, b"upload-%d" % k, noise(k, MIB + k)) for k in range(8)]
        for upload in self.uploads:
            self.assertTrue(upload.half_sent.wait(60))
        self.watches = [Answers(self.health.Watch(EVERYTHING)) for _ in range(2)]
        self.reflection = Answers(reflection_pb2_grpc.ServerReflectionStub(self.channel).ServerReflectionInfo(
            self.ask_and_wait()))
        eventually(lambda: all(each.answers for each in [*self.watches, self.reflection]), "all are open")
        self.writers = [Writer(self, k, compact=k == 0) for k in range(THREADS)]
        for writer in self.writers:
            writer.start()
        eventually(lambda: all(each.codes.get(Code.OK, 0) >= (10, 1)[each.compact] for each in self.writers),
                   "every writer is at work")

    def ask_and_wait(self):
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        self.daemon.process.wait()

    def check_read_on(self):
        for k, (stream, data) in enumerate(self.read_on):
            data += b"".join(message.fragment.data for message in stream)
            self.assertEqual(stream.code(), Code.OK)
            self.assertTrue(data == noise(k % 4, 2 * MIB))

    def check_ends(self):
        for stream in self.stalled:
            self.fails(Code.UNAVAILABLE, lambda: stream)
        self.assertEqual([each.code() for each in self.uploads], [Code.OK] * 4 + [Code.UNAVAILABLE] * 4)
        for watch in self.watches:
            self.assertEqual(watch.code(), Code.UNAVAILABLE)
            self.assertEqual([each.status for each in watch.answers], [Health.SERVING, Health.NOT_SERVING])
        self.assertEqual(self.reflection.code(), Code.UNAVAILABLE)
        for writer in self.writers:
            writer.join()
        totals = {code: sum(each.codes.get(code, 0) for each in self.writers)
                  for each in self.writers for code in each.codes}
        tell("writers: " + ", ".join(f"{n} {code.name}" for code, n in totals.items()) +
             f", of them {self.writers[0].codes.get(Code.OK, 0)} compactions")
        self.assertLessEqual(set(totals), {Code.OK, Code.UNAVAILABLE}, totals)

    def check_store(self):
        """What was acknowledged is there; what was broken off is not."""
        self.assertFalse(self.daemon.events("stopped without the engine's last answers"))
        tool("verify", self.path)
        self.daemon = self.serve(self.path)
        stub = self.daemon.reader_stub()
        for writer in self.writers[1:]:
            value = int(stub.Read(reader_pb2.ReadRequest(key=writer.key)).entry.payload)
            self.assertIn(value, (writer.acknowledged, writer.begun))
        for k, upload in enumerate(self.uploads):
            payload = b"".join(message.fragment.data for message in stub.ReadStream(
                reader_pb2.ReadStreamRequest(key=upload.key)))
            self.assertTrue(payload == (upload.data if k < 4 else b""), upload.key)

    def drained(self, grace, *options, delay=0):
        self.begin("--drain-grace", grace, *options)
        self.open_all()
        begun = time.monotonic()
        self.daemon.send(signal.SIGTERM)
        # 68 streams, 8 uploads, and what the writers do just then
        self.assertGreaterEqual(int(self.daemon.event("draining")["open_calls"]), 64 + 4 + 8)
        for upload in self.uploads[:4]:
            upload.go_on.set()
        self.check_read_on()
        self.assertIsNone(self.daemon.process.poll())
        self.assertEqual(self.daemon.wait(), 0, self.daemon.log())
        took = time.monotonic() - begun
        tell(f"64 streams read on, 4 not: {took:.2f} s")
        self.assertGreaterEqual(took, delay + grace - 1)
        self.assertLess(took, delay + grace + QUICK_S)
        self.check_ends()
        self.check_store()

    def test_what_can_finish_in_the_grace_period_does_and_the_rest_is_unavailable(self):
        self.drained(3 * min(SLOWDOWN, 2))

    def test_the_same_holds_after_a_delay(self):
        self.drained(3 * min(SLOWDOWN, 2), "--drain-delay", 1, delay=1)


class Uploads(Drain):
    """
    What is asked of a call after it was dropped fails, perhaps before its end is told: once that was taken for the end
    of an upload, and what had come by then was written. It needs luck to be seen.
    """

    def test_an_upload_that_is_dropped_between_two_messages_leaves_nothing(self):
        path = make_store(self.folder / "store.srd", {b"key": b"value"})
        for _ in range(3):
            self.daemon = self.serve(path, "--writable", "--drain-grace", 1)
            stubs = [writer_pb2_grpc.DataStoreWriterServiceStub(self.daemon.channel()) for _ in range(4)]
            under_way = [threading.Event() for _ in range(24)]
            calls = [stubs[k % 4].WriteStream.future(self.endless(b"endless-%d" % k, under_way[k])) for k in range(24)]
            for event in under_way:
                self.assertTrue(event.wait(60))
            self.stopped()
            self.assertEqual({call.code() for call in calls}, {Code.UNAVAILABLE})
        self.assertEqual(self.serve(path).event("serving")["keys"], "1")

    def endless(self, key, under_way):
        yield writer_pb2.WriteStreamRequest(key=key, data=b"first")
        for _ in range(1 << 20):
            yield writer_pb2.WriteStreamRequest(data=b"more")
            under_way.set()


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

    def test_a_peer_that_takes_nothing_from_its_socket_holds_it_up_for_the_grace_period_only(self):
        self.start("--drain-grace", 2)
        peer = self.connect()
        widest = frame(4, 0, 0, (4).to_bytes(2, "big") + ((1 << 31) - 1).to_bytes(4, "big"))  # INITIAL_WINDOW_SIZE
        wider = frame(8, 0, 0, (1 << 30).to_bytes(4, "big"))
        message = b"\x0a\x05large"
        peer.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + widest + wider + raw_headers(f"/{READER}/ReadStream") +
                     frame(0, 1, 1, b"\0" + len(message).to_bytes(4, "big") + message))
        received = 0
        while received < MIB:  # the stream has begun
            self.assertTrue(data := peer.recv(MIB))
            received += len(data)
        self.stopped(least=0.9, most=2 + QUICK_S)
        try:
            while data := peer.recv(MIB):
                received += len(data)
        except ConnectionError:
            pass  # reset behind what the kernel still held
        self.assertLess(received, LARGE)

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
