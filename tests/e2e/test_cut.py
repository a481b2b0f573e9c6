"""A file that changes while it is served: cut, grown, replaced. The daemon says so, and lives."""

import os
import threading
import unittest

import grpc

from support import (KIB, MIB, READER, Code, DaemonTest, Health, health_pb2, make_store, noise, reader_pb2)

PAGE = os.sysconf("SC_PAGESIZE")
SMALL, MEDIUM, LARGE = 200, 40 * KIB, 6 * MIB  # copied; sent from where it lies; checked by a worker


def values_of(which):
    """Small, medium and large values; "low" ones are written first."""
    sizes = [SMALL] * 50 + [MEDIUM] * 10 + [LARGE]
    return {b"%s %d" % (which, i): noise(f"{which} {i}", size) for i, size in enumerate(sizes)}


class Served(DaemonTest):
    def setUp(self):
        super().setUp()
        self.path = self.folder / "store.srd"
        self.low, self.high = values_of(b"low"), values_of(b"high")
        make_store(self.path, self.low)
        self.middle = self.path.stat().st_size // PAGE * PAGE + PAGE  # a page's start among the high ones' first
        make_store(self.path, self.high)
        self.data = self.path.read_bytes()
        self.lost = {key: value for key, value in self.high.items()
                     if self.data.index(value[:100]) + len(value) + 20 > self.middle}

    def start(self, *args):
        self.daemon = self.serve(self.path, *args)
        self.stub = self.daemon.reader_stub()

    def read(self, key, stub=None):
        return (stub or self.stub).Read(reader_pb2.ReadRequest(key=key)).entry.payload

    def stream(self, key, stub=None):
        answer = (stub or self.stub).ReadStream(reader_pb2.ReadStreamRequest(key=key))
        return b"".join(message.fragment.data for message in answer)

    def assert_served(self, values, stub=None):
        for key, value in values.items():
            self.assertEqual(self.stream(key, stub), value)

    def cut(self, size):
        os.truncate(self.path, size)

    def health(self):
        return self.daemon.health_stub().Check(health_pb2.HealthCheckRequest(service=READER)).status


class Cut(Served):
    def assert_lost(self, keys):
        for key in keys:
            self.fails(Code.DATA_LOSS, lambda: self.stub.ReadStream(reader_pb2.ReadStreamRequest(key=key)),
                       reason="TRUNCATED")

    def test_what_was_cut_off_is_data_loss_and_all_else_is_served(self):
        self.start("--scrub-rate", "0")
        self.cut(self.middle)
        self.daemon.event("file cut")
        self.assertGreater(len(self.lost), 40)
        self.assert_lost(self.lost)
        self.assert_served(self.low)
        self.assertEqual(len(self.daemon.events("file cut")), 1)
        self.assertEqual(len(self.daemon.events("damage")), 0)

    def test_so_is_what_had_been_read_before(self):
        self.start()
        self.assert_served({**self.low, **self.high})
        self.cut(self.middle)
        self.daemon.event("file cut")  # from here on no earlier check counts
        self.assert_lost(self.lost)
        self.assert_served(self.low)

    def test_before_anybody_notices_nothing_false_is_served(self):
        self.start()
        self.assert_served({**self.low, **self.high})
        self.cut(self.middle)
        for key, value in self.lost.items():
            stub = self.daemon.reader_stub()  # a payload that went by reference takes its connection along
            try:
                self.assertEqual(self.stream(key, stub), value)
                self.fail("it can't be whole")
            except grpc.RpcError as error:
                self.assertIn(error.code(), (Code.DATA_LOSS, Code.UNAVAILABLE))
        self.assert_served(self.low, self.daemon.reader_stub())

    def test_in_a_batch_only_the_lost_items_are_errors(self):
        self.start()
        self.assert_served({**self.low, **self.high})
        self.cut(self.middle)
        values = {**self.low, **self.high}
        keys = [key for key in values if len(values[key]) == SMALL]
        items = self.stub.BatchRead(reader_pb2.BatchReadRequest(keys=keys)).items
        for key, item in zip(keys, items, strict=True):
            if key in self.lost:
                self.assertEqual((item.error.code, item.error.reason), (Code.DATA_LOSS.value[0], "TRUNCATED"))
            else:
                self.assertEqual(item.entry.payload, values[key])

    def test_inside_a_page_nothing_faults_and_nothing_false_is_served(self):
        self.start()
        self.assert_served({**self.low, **self.high})
        first = min(self.lost, key=lambda key: self.data.index(self.high[key][:100]))
        self.cut(self.data.index(self.high[first]) + 100)
        self.daemon.event("file cut")
        self.assert_lost(self.lost)
        self.assert_served(self.low)

    def test_health_is_not_serving_until_the_bytes_are_back(self):
        self.start()
        watch = self.daemon.health_stub().Watch(health_pb2.HealthCheckRequest(service=""))
        self.assertEqual(next(watch).status, Health.SERVING)
        self.cut(self.middle)
        self.assertEqual(next(watch).status, Health.NOT_SERVING)
        self.assertEqual(self.health(), Health.NOT_SERVING)
        with open(self.path, "r+b") as file:
            file.write(self.data)
        self.assertEqual(next(watch).status, Health.SERVING)
        self.daemon.event("file as before")
        self.assert_served({**self.low, **self.high})
        self.assertEqual(len(self.daemon.events("file cut")), 1)

    def test_bytes_that_come_back_changed_are_found_out(self):
        self.start("--scrub-rate", "0")
        self.assert_served(self.high)
        self.cut(self.middle)
        self.daemon.event("file cut")
        key = list(self.lost)[-1]
        changed = bytearray(self.data)
        changed[self.data.index(self.lost[key][:100]) + 50] ^= 1
        with open(self.path, "r+b") as file:
            file.write(changed)
        self.daemon.event("file as before")
        self.fails(Code.DATA_LOSS, lambda: self.stub.ReadStream(reader_pb2.ReadStreamRequest(key=key)),
                   reason="DAMAGED")
        self.assert_served(self.low)

    def test_the_whole_file_may_go(self):
        self.start()
        self.assert_served(self.low)
        self.cut(0)
        self.daemon.event("file cut")
        self.assert_lost({**self.low, **self.high})
        info = self.stub.GetStoreInfo(reader_pb2.GetStoreInfoRequest())
        self.assertEqual(info.file_size, 0)
        self.assertEqual(self.stub.FileSize(reader_pb2.FileSizeRequest()).file_size, 0)

    def test_a_cut_under_readers_ends_nothing_but_their_calls(self):
        self.start()
        self.assert_served({**self.low, **self.high})
        stop, wrong = threading.Event(), []
        values = {**self.low, **self.high}

        def run():
            while not stop.is_set():
                channel = self.daemon.channel()
                stub = self.daemon.reader_stub(channel)
                for key, value in values.items():
                    try:
                        if self.stream(key, stub) != value:
                            wrong.append(key)
                    except grpc.RpcError as error:
                        if error.code() not in (Code.DATA_LOSS, Code.UNAVAILABLE):
                            wrong.append(error.code())
                        if error.code() == Code.UNAVAILABLE:
                            break
                channel.close()

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for size in (self.middle, self.middle // 2 // PAGE * PAGE):
                self.cut(size)
                self.daemon.event("file cut")
                with open(self.path, "r+b") as file:
                    file.write(self.data)
                self.daemon.event("file as before", count=len(self.daemon.events("file cut")))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.assertEqual(wrong, [])
        self.assert_served(values, self.daemon.reader_stub())


class LongStream(DaemonTest):
    def test_a_cut_during_a_stream_ends_it_and_no_other(self):
        value = noise("long", 64 * MIB)
        path = make_store(self.folder / "store.srd", {b"first": b"the first", b"long": value, b"last": b"the last"})
        daemon = self.serve(path)
        stub = daemon.reader_stub()
        answer = stub.ReadStream(reader_pb2.ReadStreamRequest(key=b"long"))
        got = [next(answer).fragment.data]  # then nobody reads: the rest waits for room
        os.truncate(path, 32 * MIB)
        with self.assertRaises(grpc.RpcError) as caught:
            for message in answer:
                got.append(message.fragment.data)
        self.assertIn(caught.exception.code(), (Code.DATA_LOSS, Code.UNAVAILABLE))
        got = b"".join(got)
        self.assertLess(len(got), len(value))
        self.assertEqual(got, value[:len(got)])
        daemon.event("file cut")
        others = daemon.reader_stub()
        self.assertEqual(others.Read(reader_pb2.ReadRequest(key=b"first")).entry.payload, b"the first")
        self.fails(Code.DATA_LOSS, lambda: others.ReadStream(reader_pb2.ReadStreamRequest(key=b"long")),
                   reason="TRUNCATED")


class OtherChanges(Served):
    def test_growth_is_told_once_and_what_was_there_is_served(self):
        self.start()
        with open(self.path, "ab") as file:
            file.write(b"more")
        told = self.daemon.event("file grew")
        self.assertEqual((told["file_bytes"], told["tail_offset"]), (str(len(self.data) + 4), str(len(self.data))))
        self.assert_served({**self.low, **self.high})
        self.assertEqual(self.health(), Health.SERVING)
        self.cut(len(self.data))  # nothing that is served
        self.daemon.event("file as before")
        self.assertEqual(self.health(), Health.SERVING)
        self.assertEqual(len(self.daemon.events("file grew")), 1)

    def test_a_replaced_file_is_told_once_and_the_old_one_is_served_on(self):
        self.start()
        other = make_store(self.folder / "other.srd", {b"low 0": b"another value"})
        os.rename(other, self.path)
        self.daemon.event("file replaced")
        self.assert_served({**self.low, **self.high})
        self.assertEqual(self.health(), Health.SERVING)
        self.assertEqual(len(self.daemon.events("file replaced")), 1)

    def test_so_is_one_that_is_removed(self):
        self.start()
        self.path.unlink()
        self.daemon.event("file replaced")
        self.assert_served({**self.low, **self.high})
        self.path.write_bytes(self.data)  # another file with the same bytes is another file
        self.assertEqual(self.health(), Health.SERVING)


if __name__ == "__main__":
    unittest.main()
