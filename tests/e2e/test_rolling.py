"""Two daemons behind a client that goes round them and retries: restarted in turn, they lose no call."""

import itertools
import json
import os
import signal
import threading
import unittest

import grpc

from support import (SANITIZE, SLOWDOWN, Code, DaemonTest, eventually, make_store, noise, reader_pb2, reader_pb2_grpc,
                     tell, tool, writer_pb2, writer_pb2_grpc)

THREADS = 12
RESTARTS = {"": 8, "address": 4, "thread": 4}[SANITIZE]
CALLS = {"": 10_000, "address": 2_000, "thread": 1_000}[SANITIZE]  # of each kind of client, at least
CONNECTIONS = 4
VALUES = {b"k%d" % i: b"v%d" % i for i in range(1000)} | {b"middle": noise(1, 300_000)}
addresses = itertools.count()


def address():
    """An IPv4 loopback address that no other test has, so that a port of it is free again after a restart."""
    number = os.getpid() * 8 + next(addresses)
    return f"127.{1 + number % 250}.{number // 250 % 250}.{1 + number // 62500 % 250}"


class Instance:
    """One of the two: whatever it is, it is at the same address after its restart."""

    def __init__(self, test, name, *options):
        self.test, self.name, self.options = test, name, options
        self.path = make_store(test.folder / f"{name}.srd", {**VALUES, b"who": name.encode()})
        self.daemon = test.serve(self.path, "--listen", address() + ":0", *options)  # a port of the kernel's choice
        self.address = self.daemon.address()

    def restart(self, number):
        self.daemon.send(number)
        self.test.assertEqual(self.daemon.wait(), 0, self.daemon.log())
        self.daemon = self.test.serve(self.path, "--listen", self.address, *self.options)


RETRY = {"maxAttempts": 5, "initialBackoff": "0.05s", "maxBackoff": "1s", "backoffMultiplier": 2,
         "retryableStatusCodes": ["UNAVAILABLE"]}


def round_robin(instances, watches):
    """A channel to both addresses in turn. It tries again what ended UNAVAILABLE, unless it `watches` their health."""
    config = {"loadBalancingConfig": [{"round_robin": {}}]}
    if watches:
        config["healthCheckConfig"] = {"serviceName": ""}
    else:
        config["methodConfig"] = [{"name": [{}], "retryPolicy": RETRY}]
    return grpc.insecure_channel("ipv4:" + ",".join(each.address for each in instances), [
        ("grpc.service_config", json.dumps(config)), ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500)])


class Callers:
    """Threads that call one thing after the other, and note how it ended and who answered."""

    def __init__(self, channel, writes):
        self.reader = reader_pb2_grpc.DataStoreReaderServiceStub(channel)
        self.writer = writer_pb2_grpc.DataStoreWriterServiceStub(channel)
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.codes, self.answered, self.failures = {}, {}, []
        self.written = [0] * THREADS if writes else None
        self.threads = [threading.Thread(target=self.run, args=(k,)) for k in range(THREADS)]
        for thread in self.threads:
            thread.start()

    def run(self, k):
        calls = [self.who, self.read, self.batch, self.stream, self.batch_stream]
        if self.written is not None:
            calls.append(lambda _: self.write(k))
        for i in itertools.count(k):
            if self.stopping.is_set():
                return
            code = Code.OK
            try:
                calls[i % len(calls)](i)
            except grpc.RpcError as error:
                code = error.code()
                self.failures.append(f"{code.name}: {error.details()} {error.debug_error_string()}")
            except AssertionError as error:
                self.failures.append(f"wrong: {error!r}")
            with self.lock:
                self.codes[code] = self.codes.get(code, 0) + 1

    def who(self, _):
        name = self.reader.Read(reader_pb2.ReadRequest(key=b"who")).entry.payload
        with self.lock:
            self.answered[name] = self.answered.get(name, 0) + 1

    def read(self, i):
        key = b"k%d" % (i % 1000)
        assert self.reader.Read(reader_pb2.ReadRequest(key=key)).entry.payload == VALUES[key]

    def batch(self, i):
        keys = [b"k%d" % (k % 1000) for k in range(i, i + 20)]
        items = self.reader.BatchRead(reader_pb2.BatchReadRequest(keys=keys)).items
        assert [item.entry.payload for item in items] == [VALUES[key] for key in keys]

    def stream(self, _):
        answers = self.reader.ReadStream(reader_pb2.ReadStreamRequest(key=b"middle"))
        assert b"".join(each.fragment.data for each in answers) == VALUES[b"middle"]

    def batch_stream(self, i):
        keys = [b"k%d" % (k % 1000) for k in range(i, i + 100)]
        answers = self.reader.BatchReadStream(reader_pb2.BatchReadStreamRequest(keys=keys))
        assert [item.entry.payload for each in answers for item in each.items] == [VALUES[key] for key in keys]

    def write(self, k):
        """A key each time, in either of the two stores."""
        number = self.written[k] + 1
        self.writer.Write(writer_pb2.WriteRequest(key=b"written-%d-%d" % (k, number), payload=b"%d" % number))
        self.written[k] = number

    def total(self):
        with self.lock:
            return sum(self.codes.values())

    def await_answer(self, name):
        """Wait until the instance of that name has answered from now on."""
        with self.lock:
            before = self.answered.get(name, 0)
        eventually(lambda: self.answered.get(name, 0) > before or self.failures, f"{name} answers")

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()


class Rolling(DaemonTest):
    def roll(self, *options, watches=False, writes=False, restarts=RESTARTS):
        options += ("--writable",) if writes else ()
        instances = [Instance(self, name, *options) for name in ("first", "second")]
        channel = round_robin(instances, watches)
        callers = Callers(channel, writes)
        try:
            for i in range(restarts):
                for each in instances:  # nobody restarts the one before the other is back at work
                    callers.await_answer(each.name.encode())
                instances[i % 2].restart(signal.SIGTERM if watches or i % 4 < 2 else signal.SIGINT)
            callers.await_answer(b"first")
            callers.await_answer(b"second")
            eventually(lambda: callers.total() >= CALLS or callers.failures, "enough calls", 60 + 10 * SLOWDOWN)
        finally:
            callers.stop()
            channel.close()
        tell(f"{restarts} restarts, {callers.total()} calls, {len(callers.failures)} failed")
        self.assertFalse(callers.failures, "\n".join(callers.failures[:5]))
        self.assertEqual(set(callers.codes), {Code.OK})
        return instances, callers

    def test_a_rolling_restart_loses_no_call(self):
        self.roll()

    def test_a_client_that_watches_health_moves_in_the_delay_and_needs_no_retry_policy(self):
        self.roll("--drain-delay", max(2, min(SLOWDOWN, 4)), watches=True, restarts=2 if SANITIZE else 4)

    def test_a_rolling_restart_loses_no_write(self):
        instances, callers = self.roll(writes=True)
        self.assertTrue(all(callers.written))
        for each in instances:
            each.daemon.send(signal.SIGTERM)
            self.assertEqual(each.daemon.wait(), 0)
            tool("verify", each.path)
        daemons = [self.serve(each.path) for each in instances]
        keys = [b"written-%d-%d" % (k, number) for k in range(THREADS) for number in range(1, callers.written[k] + 1)]
        found = set()
        for daemon in daemons:
            items = daemon.reader_stub().BatchRead(reader_pb2.BatchReadRequest(keys=keys, omit_metadata=True)).items
            found |= {key for key, item in zip(keys, items) if item.HasField("entry")}
        tell(f"{len(keys)} writes acknowledged, {len(found)} found")
        self.assertEqual(found, set(keys))

    def test_a_rolling_restart_of_daemons_that_let_connections_age_loses_no_call(self):
        self.roll("--max-connection-age", 1, restarts=4)


class Age(DaemonTest):
    def test_a_client_without_a_retry_policy_loses_no_call_to_the_age_of_connections(self):
        path = make_store(self.folder / "store.srd", {**VALUES, b"who": b"it"})
        # the client's core sends by itself on another connection what it hadn't sent yet, unless that is switched off
        channel = self.serve(path, "--max-connection-age", 1).channel(grpc__enable_retries=1)
        connected = []
        channel.subscribe(lambda state: connected.append(state) if state == grpc.ChannelConnectivity.READY else None)
        callers = Callers(channel, writes=False)
        try:
            eventually(lambda: len(connected) > CONNECTIONS or callers.failures, "connections end, others begin")
        finally:
            callers.stop()
        tell(f"{len(connected)} connections, {callers.total()} calls, {len(callers.failures)} failed")
        self.assertFalse(callers.failures, "\n".join(callers.failures[:5]))


if __name__ == "__main__":
    unittest.main()
