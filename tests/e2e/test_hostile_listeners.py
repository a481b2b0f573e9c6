"""The daemon knocks at its own listeners, and says when one has stopped to answer."""

import tempfile
import time
import unittest
from pathlib import Path

from certificates import Authority, tls_channel
from support import DaemonTest, eventually, make_store, reader_pb2, tell

GOOD = reader_pb2.ReadRequest(key=b"key")
FOUND_S = 20  # a knock each 10 s, two misses 2 s apart

folder = tempfile.TemporaryDirectory(prefix="rdrive-e2e-")
store = Path(folder.name) / "store.srd"


def setUpModule():
    make_store(store, {b"key": b"value"})


def tearDownModule():
    folder.cleanup()


class Listeners(DaemonTest):
    def start(self, name, *options):
        """A daemon and the path of its unix socket."""
        path = self.folder / name
        return self.serve(store, "--listen", "127.0.0.1:0", "--listen", f"unix:{path}", *options), path

    def test_a_unix_socket_that_was_moved_away_is_told_of_and_so_is_its_return(self):
        authority = Authority(self.folder)
        pair = authority.issue()
        plain, plain_path = self.start("plain", "--listen", "[::]:0")
        tls, tls_path = self.start("tls", "--tls-cert", pair.cert, "--tls-key", pair.key, "--tls-client-ca",
                                   authority.pair.cert)  # the knock has no certificate, and is answered even so
        both = ((plain, plain_path, plain.reader_stub()),
                (tls, tls_path, tls.reader_stub(tls_channel(tls, authority, pair))))
        for daemon, path, stub in both:
            stub.Read(GOOD)
        descriptors = [daemon.descriptors() for daemon, _, _ in both]
        begun = time.monotonic()
        for _, path, _ in both:
            path.rename(path.with_suffix(".aside"))
        for daemon, path, _ in both:
            dead = daemon.event("listener dead", timeout=FOUND_S)
            tell(f"a listener that can't be reached was found after {time.monotonic() - begun:.1f} s")
            self.assertEqual((dead["level"], dead["address"]), ("error", f"unix:{path}"))
            path.with_suffix(".aside").rename(path)
        for daemon, path, _ in both:
            self.assertEqual(daemon.event("listener up again", timeout=FOUND_S)["address"], f"unix:{path}")
        for (daemon, _, stub), before in zip(both, descriptors):
            # each of the other listeners has answered all the while
            self.assertEqual(len(daemon.events("listener dead")), 1)
            self.assertEqual(stub.Read(GOOD).entry.payload, b"value")
            eventually(lambda: daemon.descriptors() <= before, "a knock leaves nothing")
            self.assertFalse(daemon.events("grpc") + daemon.events("tls handshake failed"), daemon.log())


if __name__ == "__main__":
    unittest.main()
