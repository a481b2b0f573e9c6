"""The service over an engine that answers late, early, wrongly, elsewhere or never: what must be true all the same."""

import os
import signal
import subprocess
import sys
import threading
import time
import unittest

import grpc
import harness
from harness import KEYS, LARGE, ChaosTest, check_entry, eventually, support, values
from storm import Storm
from support import KIB, MIB, SLOWDOWN, Code, Health, health_pb2, reader_pb2, tell, writer_pb2
from writing import Messages

SEED = int(os.environ.get("CHAOS_SEED_BASE", "0"))  # another one, another run
STORMS = {  # options of the daemon, configuration of the engine
    "late and early": (
        [], dict(seed=SEED + 1, delay_us_max=1000)),
    "everything fails now and then": (
        ["--verify", "always"], dict(seed=SEED + 2, delay_us_max=2000, fail_per_mille=30, damage_per_mille=20,
                                     deny_per_mille=300, window_max=7, heed_per_mille=500)),
    "one value a window, at once": (
        [], dict(seed=SEED + 3, mode="inline", window_max=1, deny_per_mille=500, ranges=100)),
    "always late, cancels heeded": (
        ["--verify", "always"], dict(seed=SEED + 4, mode="late", delay_us_max=20000, heed_per_mille=1000,
                                     fail_per_mille=5)),
    "always late, cancels ignored": (
        ["--threads", 1], dict(seed=SEED + 5, mode="late", delay_us_max=20000, heed_per_mille=0, threads=1)),
}


def setUpModule():
    harness.setup()


def tearDownModule():
    harness.teardown()


class StormTest(ChaosTest):
    def end_well(self, daemon):
        """Everything was given back: the engine aborts otherwise, and says so here."""
        counts = daemon.end_counts()
        self.assertEqual([counts[name] for name in ("live", "pending", "holds", "buffers")], [0, 0, 0, 0], counts)
        self.assertEqual(counts["completions"], counts["submits"] + counts["nexts"])
        return counts

    def test_every_answer_is_true_and_every_failure_has_a_reason(self):
        for name, (options, chaos) in STORMS.items():
            with self.subTest(storm=name):
                daemon = self.chaos(*options, chaos=chaos)
                ended = Storm(daemon, chaos, seconds=1.5).join()
                daemon.stop()
                counts = self.end_well(daemon)
                tell(f"{name}: {dict(ended)}; {counts['submits']} submits, {counts['nexts']} nexts, "
                     f"{counts['elsewhere']} elsewhere, {counts['cancels']} cancels, {counts['cancelled']} heeded")
                self.assertGreater(ended["OK"], 50)
                self.assertGreater(counts["elsewhere"] if chaos.get("mode") != "inline" else 1, 0)

    def test_sigterm_under_load_cancels_nobody(self):
        for name in ("late and early", "always late, cancels ignored"):
            with self.subTest(storm=name):
                options, chaos = STORMS[name]
                daemon = self.chaos("--drain-grace", 10 * SLOWDOWN, *options, chaos=chaos)
                storm = Storm(daemon, chaos)
                self.assertTrue(storm.enough.wait(support.DEADLINE_S))
                storm.draining.set()
                began = time.monotonic()
                daemon.send(signal.SIGTERM)
                self.assertEqual(daemon.wait(), 0, daemon.log())  # meanwhile they go on calling
                self.assertLess(time.monotonic() - began, 5 * SLOWDOWN)  # no call is waited for that has ended
                storm.stopping.set()
                ended = storm.join()
                tell(f"{name}, SIGTERM: {dict(ended)}")
                self.end_well(daemon)


def status_of(call, streams=True):
    """That of a stream comes behind its messages."""
    try:
        for _ in call if streams else ():
            pass
    except grpc.RpcError:
        pass
    return call.code()


class Withheld(ChaosTest):
    """The engine withholds its answers until it is told to give them."""

    UNARY, STREAMS = 40, 20

    def withhold(self, daemon, stub, timeout=None):
        """Calls that wait in the engine, all of them."""
        before = daemon.control.counts()["held"]
        calls = [stub.Read.future(reader_pb2.ReadRequest(key=KEYS[i]), timeout=timeout) for i in range(self.UNARY)]
        calls += [stub.BatchReadStream(reader_pb2.BatchReadStreamRequest(keys=KEYS), timeout=timeout)
                  for _ in range(self.STREAMS)]
        if timeout is None:
            daemon.control.wait("held", before + len(calls))
        return calls

    def stall(self, daemon, count=10):
        """Streams that nobody reads: each waits with a message that the client has no room for."""
        stub = daemon.reader_stub(daemon.channel(grpc__http2__bdp_probe=0))  # else a client may find room for it all
        request = reader_pb2.BatchReadStreamRequest(keys=[LARGE] * 4)
        calls = [stub.BatchReadStream(request) for _ in range(count)]
        eventually(lambda: self.is_stalled(daemon, count), "all streams wait for their readers")
        return calls

    def is_stalled(self, daemon, count):
        counts = daemon.control.counts()
        return (counts["submits"], counts["nexts"], counts["pending"]) == (count, 0, 0) and counts["holds"] >= count

    def expect_free(self, daemon):
        for name in ("live", "pending", "holds", "buffers"):  # the core gives slices back when it comes to it
            daemon.control.wait(name, 0)


class GateTest(Withheld):
    def test_withheld_calls_are_answered_when_the_engine_does(self):
        daemon = self.chaos(chaos=dict(seed=6, hold=1))
        calls = self.withhold(daemon, daemon.reader_stub())
        daemon.control.tell("go")
        for i, call in enumerate(calls[:self.UNARY]):
            check_entry(KEYS[i], call.result().entry)
        for call in calls[self.UNARY:]:
            batch = harness.Batch(KEYS, False, False)
            for message in call:
                batch.take(message.items)
            batch.end()
        self.expect_free(daemon)

    def rounds(self, daemon, end, count=5):
        """Calls are withheld and then ended by `end`, again and again: nothing of them may be left."""
        memory = []
        for _ in range(count):
            daemon.control.tell("hold")
            end()
            self.expect_free(daemon)
            daemon.control.tell("go")
            stub = daemon.reader_stub()
            self.assertEqual(stub.GetStoreInfo(reader_pb2.GetStoreInfoRequest()).live_keys, len(values))
            check_entry(KEYS[3], stub.Read(reader_pb2.ReadRequest(key=KEYS[3])).entry)
            memory.append(daemon.memory())
        tell(f"memory after each round: {[each // KIB for each in memory]} KiB")
        self.assertLess(memory[-1] - memory[1], 2 * MIB * SLOWDOWN)

    def test_cancelled_by_the_client_they_free_everything(self):
        # as many calls as are withheld are allowed: one that stayed counted would get the next ones refused
        daemon = self.chaos("--max-inflight", self.UNARY + self.STREAMS, chaos=dict(seed=7, heed_per_mille=1000))
        stub = daemon.reader_stub()

        def end():
            calls = self.withhold(daemon, stub)
            for call in calls:
                call.cancel()
            self.assertEqual({call.code() for call in calls}, {Code.CANCELLED})

        self.rounds(daemon, end)

    def test_out_of_time_they_free_everything(self):
        daemon = self.chaos("--max-inflight", self.UNARY + self.STREAMS, chaos=dict(seed=8, heed_per_mille=1000))
        stub = daemon.reader_stub()

        def end():
            calls = self.withhold(daemon, stub, timeout=0.2 * SLOWDOWN)
            self.assertEqual({call.code() for call in calls}, {Code.DEADLINE_EXCEEDED})

        self.rounds(daemon, end)

    def test_with_the_connection_cut_they_free_everything(self):
        daemon = self.chaos("--max-inflight", self.UNARY + self.STREAMS, chaos=dict(seed=9, heed_per_mille=1000))

        def end():
            child = subprocess.Popen([sys.executable, "-B", __file__, "hang", daemon.address(), str(self.UNARY)],
                                     stdout=subprocess.DEVNULL)
            daemon.control.wait("held", self.UNARY)
            child.kill()
            child.wait()

        self.rounds(daemon, end, count=4)

    def test_an_engine_deaf_to_cancel_keeps_them_until_it_answers_and_no_longer(self):
        daemon = self.chaos(chaos=dict(seed=10, hold=1, heed_per_mille=0))
        calls = self.withhold(daemon, daemon.reader_stub())
        for call in calls:
            call.cancel()
        daemon.control.wait("cancels", len(calls))
        self.assertEqual(daemon.control.counts()["live"], len(calls))
        daemon.control.tell("go")
        self.expect_free(daemon)
        check_entry(KEYS[5], daemon.reader_stub().Read(reader_pb2.ReadRequest(key=KEYS[5])).entry)

    def test_a_stream_cancelled_between_two_windows_frees_everything(self):
        daemon = self.chaos(chaos=dict(seed=11, heed_per_mille=1000, window_max=1, delay_us_max=100))
        stub = daemon.reader_stub()
        for _ in range(5):
            call = stub.BatchReadStream(reader_pb2.BatchReadStreamRequest(keys=KEYS * 10))
            ended = threading.Event()

            def read_all(stream=call, ended=ended):
                try:
                    for _ in stream:
                        pass
                except grpc.RpcError:
                    pass
                ended.set()

            next(call)
            threading.Thread(target=read_all).start()
            daemon.control.tell("hold")
            daemon.control.wait("held", 1)
            call.cancel()
            self.assertTrue(ended.wait(support.DEADLINE_S))
            self.assertEqual(call.code(), Code.CANCELLED)
            self.expect_free(daemon)
            daemon.control.tell("go")

    def test_streams_that_nobody_reads_hold_their_payloads_until_they_are_cancelled(self):
        daemon = self.chaos(chaos=dict(seed=18, delay_us_max=100, window_max=1))
        for call in self.stall(daemon):
            call.cancel()
        self.expect_free(daemon)


class DrainTest(Withheld):
    def drained(self, daemon, calls, at_most, unary=Withheld.UNARY):
        """Wait for its end; returns what became of `calls`, the first of them `unary`."""
        began = time.monotonic()
        self.assertEqual(daemon.wait(), 0, daemon.log())
        took = time.monotonic() - began
        codes = {status_of(call, streams=i >= unary).name for i, call in enumerate(calls)}
        tell(f"ended after {took:.1f} s; the withheld calls: {codes}")
        self.assertLess(took, at_most * SLOWDOWN)
        return codes

    def test_calls_that_the_engine_never_answers_end_unavailable_after_the_grace(self):
        daemon = self.chaos("--drain-grace", 2, chaos=dict(seed=12, hold=1, heed_per_mille=1000))
        calls = self.withhold(daemon, daemon.reader_stub())
        daemon.send(signal.SIGTERM)
        self.assertEqual(self.drained(daemon, calls, 6), {"UNAVAILABLE"})
        self.assertEqual(daemon.end_counts()["live"], 0)

    def test_calls_answered_within_the_grace_end_ok(self):
        daemon = self.chaos("--drain-grace", 30, chaos=dict(seed=13, hold=1))
        calls = self.withhold(daemon, daemon.reader_stub())
        daemon.send(signal.SIGTERM)
        self.assertEqual(daemon.event("draining")["open_calls"], str(len(calls)))
        with self.assertRaises(subprocess.TimeoutExpired):  # it waits for them
            daemon.process.wait(0.7)
        daemon.control.tell("go")
        for call in calls[self.UNARY:]:
            status_of(call)
        self.assertEqual(self.drained(daemon, calls, 6), {"OK"})

    def test_streams_that_nobody_reads_end_unavailable_after_the_grace(self):
        daemon = self.chaos("--drain-grace", 2, chaos=dict(seed=19, delay_us_max=100, window_max=1))
        calls = self.stall(daemon)
        daemon.send(signal.SIGTERM)
        self.assertEqual(self.drained(daemon, calls, 6, unary=0), {"UNAVAILABLE"})
        self.assertEqual(daemon.end_counts()["holds"], 0)

    def test_an_engine_that_neither_answers_nor_heeds_a_cancel_is_left_behind(self):
        daemon = self.chaos("--drain-grace", 2, chaos=dict(seed=17, hold=1, heed_per_mille=0))
        calls = self.withhold(daemon, daemon.reader_stub())
        daemon.send(signal.SIGTERM)
        self.assertEqual(self.drained(daemon, calls, 12), {"UNAVAILABLE"})
        daemon.event("stopped without the engine's last answers")

    def test_a_second_signal_does_not_wait_for_the_grace(self):
        daemon = self.chaos("--drain-grace", 600, chaos=dict(seed=14, hold=1, heed_per_mille=1000))
        calls = self.withhold(daemon, daemon.reader_stub())
        daemon.send(signal.SIGTERM)
        daemon.event("draining")
        daemon.send(signal.SIGTERM)
        self.assertEqual(self.drained(daemon, calls, 4), {"UNAVAILABLE"})


class WriteTest(Withheld):
    """Writes to an engine that takes its time: whoever waits is answered, and whoever leaves leaves nothing."""

    COUNT = 60  # of the calls below

    def start(self, *args, **chaos):
        path = support.make_store(self.folder / "own.srd", {b"old-%d" % i: b"v%d" % i for i in range(10)})
        return self.chaos("--writable", *args, chaos=chaos, store=path)

    def withhold(self, daemon, writer, timeout=None):
        """Calls of each kind, and of uploads some that have ended and some that have not."""
        before = daemon.control.counts()["held"]
        self.uploads = [Messages() for _ in range(10)]
        for messages in self.uploads:
            self.addCleanup(messages.end)
            messages.put(key=b"upload", data=bytes(10_000))
        item = writer_pb2.WriteItem(key=b"batch", payload=b"v")
        calls = []
        for i in range(10):
            write = writer_pb2.WriteRequest(key=b"new-%d" % i, payload=b"v%d" % i)
            calls += [writer.Write.future(write, timeout=timeout),
                      writer.BatchWrite.future(writer_pb2.BatchWriteRequest(items=[item] * 100), timeout=timeout),
                      writer.Delete.future(writer_pb2.DeleteRequest(key=b"old-%d" % i), timeout=timeout),
                      writer.Rename.future(writer_pb2.RenameRequest(old_key=b"absent", new_key=b"x"), timeout=timeout),
                      writer.BatchDelete.future(writer_pb2.BatchDeleteRequest(keys=[b"absent"] * 9), timeout=timeout),
                      writer.WriteStream.future(self.uploads[i], timeout=timeout)]
        if timeout is None:
            daemon.control.wait("held", before + self.COUNT)
        return calls

    def end_uploads(self):
        for messages in self.uploads:
            messages.put(data=b"the end")
            messages.end()

    def assert_done(self, daemon, calls):
        codes = [call.code() for call in calls]
        self.assertEqual(codes, [Code.NOT_FOUND if k % 6 == 3 else Code.OK for k in range(self.COUNT)])
        if daemon is None:
            return
        stub = daemon.reader_stub()
        for i in range(10):
            self.assertEqual(stub.Read(reader_pb2.ReadRequest(key=b"new-%d" % i)).entry.payload, b"v%d" % i)
            self.assertFalse(stub.Exists(reader_pb2.ExistsRequest(key=b"old-%d" % i)).exists)
        self.assertEqual(stub.Read(reader_pb2.ReadRequest(key=b"upload")).entry.payload, bytes(10_000) + b"the end")

    def test_withheld_writes_are_done_when_the_engine_gets_to_them(self):
        for chaos in (dict(seed=31, hold=1), dict(seed=32, hold=1, mode="late", delay_us_max=2000)):
            daemon = self.start(**chaos)
            calls = self.withhold(daemon, daemon.writer_stub())
            self.assertFalse(any(call.done() for call in calls))
            daemon.control.tell("go")
            self.end_uploads()
            self.assert_done(daemon, calls)
            self.expect_free(daemon)
            daemon.stop()

    def test_cancelled_or_out_of_time_they_free_everything(self):
        for timeout, heed in ((None, 1000), (None, 0), (0.2 * SLOWDOWN, 1000)):
            with self.subTest(timeout=timeout, heed=heed):
                daemon = self.start("--max-inflight", self.COUNT, seed=33, hold=1, heed_per_mille=heed)
                calls = self.withhold(daemon, daemon.writer_stub(), timeout=timeout)
                if timeout is None:
                    for call in calls:
                        call.cancel()
                self.assertEqual({call.code() for call in calls},
                                 {Code.CANCELLED if timeout is None else Code.DEADLINE_EXCEEDED})
                if heed == 0:
                    daemon.control.wait("cancels", self.COUNT)
                    daemon.control.tell("go")
                self.expect_free(daemon)
                daemon.control.tell("go")
                daemon.writer_stub().Write(writer_pb2.WriteRequest(key=b"and", payload=b"on"))
                stub = daemon.reader_stub()
                self.assertFalse(stub.Exists(reader_pb2.ExistsRequest(key=b"upload")).exists)
                daemon.stop()

    def test_a_drain_waits_for_them_for_its_grace(self):
        daemon = self.start("--drain-grace", 30, seed=34, hold=1)
        calls = self.withhold(daemon, daemon.writer_stub())
        daemon.send(signal.SIGTERM)
        self.assertEqual(daemon.event("draining")["open_calls"], str(self.COUNT))
        daemon.control.tell("go")
        self.end_uploads()
        self.assert_done(None, calls)
        self.assertEqual(daemon.wait(), 0, daemon.log())

    def test_those_that_the_engine_never_does_end_unavailable_after_the_grace(self):
        daemon = self.start("--drain-grace", 2, seed=35, hold=1, heed_per_mille=1000)
        calls = self.withhold(daemon, daemon.writer_stub())
        daemon.send(signal.SIGTERM)
        self.assertEqual(daemon.wait(), 0, daemon.log())
        self.assertEqual({call.code() for call in calls}, {Code.UNAVAILABLE})
        self.assertEqual(daemon.end_counts()["live"], 0)


class StartTest(ChaosTest):
    """The store takes its time to be there."""

    def test_before_the_store_is_there_calls_are_refused_and_health_says_so(self):
        daemon = self.chaos(chaos=dict(seed=15, shut=1), ready=False)
        daemon.event("listening")
        daemon.control.wait("shut", 1)
        stub, health = daemon.reader_stub(), daemon.health_stub()
        watch = health.Watch(health_pb2.HealthCheckRequest(service="rdrive.v1.DataStoreReaderService"))
        self.assertEqual(next(watch).status, Health.NOT_SERVING)
        self.assertEqual(health.Check(health_pb2.HealthCheckRequest()).status, Health.NOT_SERVING)
        requests = {stub.Read: reader_pb2.ReadRequest(key=KEYS[0]), stub.Len: reader_pb2.LenRequest(),
                    stub.GetStoreInfo: reader_pb2.GetStoreInfoRequest(),
                    stub.BatchReadStream: reader_pb2.BatchReadStreamRequest(keys=KEYS)}
        for method, request in requests.items():
            self.fails(Code.UNAVAILABLE, lambda: method(request), "still being opened", reason="NOT_READY")
        daemon.control.tell("open")
        self.assertEqual(next(watch).status, Health.SERVING)
        watch.cancel()
        check_entry(KEYS[0], stub.Read(reader_pb2.ReadRequest(key=KEYS[0])).entry)

    def test_sigterm_while_the_store_is_opened_ends_at_once(self):
        daemon = self.chaos(chaos=dict(seed=16, shut=1), ready=False)
        daemon.event("listening")
        daemon.control.wait("shut", 1)
        watch = daemon.health_stub().Watch(health_pb2.HealthCheckRequest())
        self.assertEqual(next(watch).status, Health.NOT_SERVING)
        began = time.monotonic()
        daemon.send(signal.SIGTERM)
        self.assertEqual(daemon.wait(), 0, daemon.log())
        self.assertLess(time.monotonic() - began, 1 * SLOWDOWN)


def hang(address, count):
    """A client to be killed: calls that it will never see the end of."""
    channel = grpc.insecure_channel(address)
    stub = support.reader_pb2_grpc.DataStoreReaderServiceStub(channel)
    calls = [stub.Read.future(reader_pb2.ReadRequest(key=KEYS[i])) for i in range(int(count))]
    for call in calls:
        call.result()


if __name__ == "__main__":
    if sys.argv[1:2] == ["hang"]:
        hang(*sys.argv[2:])
    else:
        unittest.main()
