"""More connections than the daemon has descriptors for: those it has are served, the others hear at once that they are
not, and once they have left it serves as before. (gRPC's core alone gives a listener up for good at the first EMFILE.)
"""

import resource
import selectors
import socket
import tempfile
import time
import unittest
from pathlib import Path

from support import KIB, MIB, SLOWDOWN, DaemonTest, eventually, make_store, reader_pb2, tell

LIMIT = 96
HEADROOM = LIMIT // 8
CROWD = 400  # connections at once
ROUNDS = 8
GROWTH_MAX = 8 * MIB * SLOWDOWN
GOOD = reader_pb2.ReadRequest(key=b"key")

folder = tempfile.TemporaryDirectory(prefix="rdrive-e2e-")
store = Path(folder.name) / "store.srd"


def setUpModule():
    make_store(store, {b"key": b"value"})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))


def tearDownModule():
    folder.cleanup()


class Crowd:
    """Many connections to one address, held until it leaves."""

    def __init__(self, address, count):
        self.peers = [self._connect(address) for _ in range(count)]
        self.waiting = set(self.peers)
        self.served = set()  # it was sent something: the server's settings
        self.refused = set()  # it was closed without a word

    @staticmethod
    def _connect(address):
        if address.startswith("unix:"):
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(address.removeprefix("unix:"))
            return peer
        host, port = address.rsplit(":", 1)
        return socket.create_connection((host, int(port)))

    def settle(self):
        """Wait until each has been served or refused."""
        selector = selectors.DefaultSelector()
        for peer in self.waiting:
            selector.register(peer, selectors.EVENT_READ)
        deadline = time.monotonic() + 30
        while self.waiting:
            if time.monotonic() > deadline:
                raise AssertionError(f"{len(self.waiting)} of {len(self.peers)} connections hear nothing")
            for key, _ in selector.select(1):
                selector.unregister(key.fileobj)
                self.waiting.discard(key.fileobj)
                try:
                    some = key.fileobj.recv(1)
                except ConnectionResetError:
                    some = b""
                (self.served if some else self.refused).add(key.fileobj)
        selector.close()
        return self

    def leave(self):
        for peer in self.peers:
            peer.close()


class Descriptors(DaemonTest):
    def start(self, *options, limit=LIMIT):
        self.daemon = self.serve(store, *options)
        self.address = self.daemon.address()
        self.early = self.daemon.reader_stub()  # connected before the crowd comes
        self.early.Read(GOOD)
        self.own = self.daemon.descriptors()
        resource.prlimit(self.daemon.pid, resource.RLIMIT_NOFILE, (limit, limit))

    def crowd(self, address=None, count=CROWD):
        crowd = Crowd(address or self.address, count)
        self.addCleanup(crowd.leave)
        return crowd

    def assert_as_before(self):
        self.assertEqual(self.early.Read(GOOD).entry.payload, b"value")
        eventually(lambda: self.daemon.descriptors() <= self.own, "the crowd's descriptors are closed")
        late = self.daemon.channel()
        self.assertEqual(self.daemon.reader_stub(late).Read(GOOD, timeout=20).entry.payload, b"value")
        late.close()

    def refusals(self):
        return sum(int(line["count"]) for line in self.daemon.events("connections refused"))

    def test_a_crowd_beyond_the_limit_is_refused_and_a_good_client_is_served_meanwhile_and_after(self):
        self.start()
        before, refused, begun = self.daemon.memory(), 0, time.monotonic()
        for _ in range(ROUNDS):
            crowd = self.crowd()
            self.assertEqual(self.early.Read(GOOD).entry.payload, b"value")
            crowd.settle()
            self.assertEqual(self.early.Read(GOOD).entry.payload, b"value")
            self.assertGreater(len(crowd.served), LIMIT // 4)
            self.assertLessEqual(self.daemon.descriptors(), LIMIT - HEADROOM)
            refused += len(crowd.refused)
            crowd.leave()
            eventually(lambda: self.daemon.descriptors() <= self.own, "the crowd's descriptors are closed")
        took = time.monotonic() - begun
        self.assertGreater(refused, ROUNDS * (CROWD - LIMIT) - 1)
        self.assert_as_before()
        growth = self.daemon.memory() - before
        tell(f"{ROUNDS} times {CROWD} connections at {LIMIT} descriptors in {took:.1f} s: {refused} refused; "
             f"memory {before / MIB:.1f} MiB before, {growth / KIB:+.0f} KiB after")
        self.assertLess(growth, GROWTH_MAX)

    def test_the_log_counts_each_refusal_in_a_line_a_second_and_names_the_limit(self):
        self.start()
        begun = time.monotonic()
        refused = 0
        for _ in range(3):
            crowd = self.crowd().settle()
            refused += len(crowd.refused)
            crowd.leave()
        eventually(lambda: self.refusals() >= refused, "all refusals are told")
        lines = self.daemon.events("connections refused")
        self.assertEqual(self.refusals(), refused)
        self.assertLessEqual(len(lines), 2 + time.monotonic() - begun)
        for line in lines:
            self.assertEqual((line["level"], line["descriptor_limit"]), ("warn", str(LIMIT)))
            self.assertIn("open files", line["why"])

    def test_each_listener_survives(self):
        path = self.folder / "socket"
        self.start("--listen", "127.0.0.1:0", "--listen", f"unix:{path}", "--threads", 2)
        both = [self.address, f"unix:{path}"]
        for _ in range(3):
            crowds = [self.crowd(address, CROWD // 2) for address in both]
            for crowd in crowds:
                crowd.settle()
                crowd.leave()
        for address in both:
            channel = self.daemon.channel(address)
            self.assertEqual(self.daemon.reader_stub(channel).Read(GOOD, timeout=20).entry.payload, b"value")
        self.assertEqual(self.early.Read(GOOD).entry.payload, b"value")

    def test_without_a_descriptor_left_for_itself_it_refuses_by_its_reserve(self):
        self.start()
        # below what is open already: every accept is EMFILE
        resource.prlimit(self.daemon.pid, resource.RLIMIT_NOFILE, (self.own // 2, LIMIT))
        crowd = self.crowd().settle()
        self.assertEqual((len(crowd.served), len(crowd.refused)), (0, CROWD))
        self.assertEqual(self.early.Read(GOOD).entry.payload, b"value")
        crowd.leave()
        resource.prlimit(self.daemon.pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
        self.assert_as_before()


if __name__ == "__main__":
    unittest.main()
