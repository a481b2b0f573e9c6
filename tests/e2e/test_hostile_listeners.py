"""The daemon knocks at its own listeners, and says when one has stopped to answer."""

import tempfile
import time
import unittest
from pathlib import Path

from support import DaemonTest, make_store, reader_pb2, tell

GOOD = reader_pb2.ReadRequest(key=b"key")
FOUND_S = 20  # a knock each 10 s, two misses 2 s apart

folder = tempfile.TemporaryDirectory(prefix="rdrive-e2e-")
store = Path(folder.name) / "store.srd"


def setUpModule():
    make_store(store, {b"key": b"value"})


def tearDownModule():
    folder.cleanup()


class Listeners(DaemonTest):
    def test_a_unix_socket_that_was_moved_away_is_told_of_and_so_is_its_return(self):
        path, aside = self.folder / "socket", self.folder / "aside"
        daemon = self.serve(store, "--listen", "127.0.0.1:0", "--listen", "[::]:0", "--listen", f"unix:{path}")
        stub = daemon.reader_stub()
        stub.Read(GOOD)
        descriptors = daemon.descriptors()
        begun = time.monotonic()
        path.rename(aside)
        dead = daemon.event("listener dead", timeout=FOUND_S)
        tell(f"a listener that can't be reached was found after {time.monotonic() - begun:.1f} s")
        self.assertEqual((dead["level"], dead["address"]), ("error", f"unix:{path}"))
        aside.rename(path)
        self.assertEqual(daemon.event("listener up again", timeout=FOUND_S)["address"], f"unix:{path}")
        # each of the others has answered all the while
        self.assertEqual(len(daemon.events("listener dead")), 1)
        self.assertEqual(stub.Read(GOOD).entry.payload, b"value")
        self.assertLessEqual(daemon.descriptors(), descriptors + 1)  # a knock's last connection may be ending
        self.assertFalse(daemon.events("grpc"), daemon.log())


if __name__ == "__main__":
    unittest.main()
