"""Who is dropped where memory is short: those whose calls take it, and not those who only bring much."""

import contextlib
import resource
import threading
import time
import unittest

import grpc
import http2
from support import (DEADLINE_S, KEEP_NOTHING, KIB, MIB, READER, SANITIZE, Code, DaemonTest, eventually, make_store, noise,
                     reader_pb2, reflection_pb2, tell, writer_pb2)

WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
ASK = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
UNARY = f"/{READER}/Read"
GOOD = reader_pb2.ReadRequest(key=b"key")
OPTIONS = ("--max-memory", "16M", "--max-request-bytes", "4M", "--max-queued-bytes", "1M", "--threads", 2)
LIMIT = (2 * (16 + 4) + 1 + 4 + 64) * MIB
PIECE, PIECES = 64 * KIB, 128  # of an upload


class Attacker:
    """A connection that reads what it is sent, acknowledges no settings, and so is told of no limit."""

    def __init__(self, address):
        self.peer = http2.Peer(address)
        self.name = "{}:{}".format(*self.peer.socket.getsockname())
        self.stream = 1
        self.dropped = False

    def open(self, count, path, request):
        pieces = []
        for _ in range(count):
            pieces.append(http2.call(self.stream, path, request))
            self.stream += 2
        self.dropped = self.dropped or not self.peer.send(*pieces, http2.window(0, 1 << 16))

    def wait_for_answers(self, count):
        """Each call was begun."""
        try:
            for _ in range(0 if self.dropped else count):
                self.peer.until(http2.HEADERS)
        except http2.Ended:
            self.dropped = True


@unittest.skipIf(SANITIZE, "what the sanitizers hold is no measure")
class Pressure(DaemonTest):
    def setUp(self):
        super().setUp()
        path = make_store(self.folder / "own.srd", {b"key": b"value"})
        self.daemon = self.serve(path, "--writable", "--sync", "none", *OPTIONS, env=KEEP_NOTHING)
        self.good = self.daemon.reader_stub()
        self.good.Read(GOOD)
        self.before = self.daemon.memory()

    def attackers(self, count):
        attackers = [Attacker(self.daemon.address()) for _ in range(count)]
        for attacker in attackers:
            self.addCleanup(attacker.peer.close)
        return attackers

    @contextlib.contextmanager
    def upload(self):
        """A good client that brings far more than anybody, all the while; yields how its uploads ended."""
        ends, stop = {}, threading.Event()
        piece = noise("upload", PIECE)
        stub = self.daemon.writer_stub(self.daemon.channel())

        def requests():
            yield writer_pb2.WriteStreamRequest(key=b"upload")
            for _ in range(PIECES):
                yield writer_pb2.WriteStreamRequest(data=piece)

        def work():
            while not stop.is_set():
                end = "OK"
                try:
                    stub.WriteStream(requests(), timeout=60)
                except grpc.RpcError as error:
                    end = "shed" if "--max-inflight" in error.details() else error.details()
                ends[end] = ends.get(end, 0) + 1

        thread = threading.Thread(target=work)
        thread.start()
        try:
            eventually(lambda: ends.get("OK", 0) > 1, "it uploads")
            yield ends
        finally:
            stop.set()
            thread.join()

    def overwhelm(self, attackers, path, request=None):
        """Each opens calls until it is dropped, and with a request waits for what is answered."""
        begun = time.monotonic()
        while not all(attacker.dropped for attacker in attackers):
            for attacker in attackers:
                attacker.open(100, path, request)
            for attacker in attackers if request is not None else ():
                attacker.wait_for_answers(100)
            self.assertLess(time.monotonic() - begun, DEADLINE_S, "the attackers are dropped")
        eventually(lambda: self.daemon.memory() - self.before < LIMIT / 2, "memory comes back")
        return f"{sum(attacker.stream // 2 for attacker in attackers)} calls, {time.monotonic() - begun:.1f} s"

    def test_who_leaves_calls_open_is_dropped_and_a_good_client_that_brings_more_is_not(self):
        for path, request in ((WATCH, b""), (REFLECTION, ASK)):
            earlier = len(self.daemon.events("memory is short"))
            with self.subTest(path=path), self.upload() as ends:
                attackers = self.attackers(4)
                what = self.overwhelm(attackers, path, request)
                self.good.Read(GOOD)
                tell(f"beside {path}, {what}, uploads ended {ends}")
            self.assertEqual(set(ends), {"OK"})
            lines = self.daemon.events("memory is short")[earlier:]
            names = [attacker.name for attacker in attackers]
            self.assertTrue(any(line["dropped_connections"] != "0" for line in lines))
            for line in lines:
                self.assertGreater(int(line["held_bytes"]), int(line["limit_bytes"]))
                self.assertIn(line.get("peer", names[0]), names)

    def test_who_makes_calls_whose_request_does_not_come_is_dropped(self):
        with self.upload() as ends:
            what = self.overwhelm(self.attackers(4), UNARY)
        tell(f"beside requests that do not come, {what}, uploads ended {ends}")
        # an upload may be hit too: amid the flood it is refused for --max-inflight, and what it brings then is not read
        eventually(lambda: self.code_of(lambda: self.good.Read(GOOD)) == Code.OK, "good calls are served")

    def test_memory_is_watched_also_where_no_descriptor_is_left(self):
        attackers = self.attackers(2)
        for attacker in attackers:
            attacker.peer.until(http2.SETTINGS)  # it is accepted
        resource.prlimit(self.daemon.pid, resource.RLIMIT_NOFILE, (3, 3))
        tell(self.overwhelm(attackers, WATCH, b""))
        self.assertIn(self.daemon.event("memory is short")["peer"], [attacker.name for attacker in attackers])

    def test_what_may_be_held_is_in_the_log(self):
        self.assertGreaterEqual(int(self.daemon.event("memory limit")["bytes"]), LIMIT)


if __name__ == "__main__":
    unittest.main()
