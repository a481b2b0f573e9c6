"""That options do what they say, on the command line and in the environment: writing, limits, slow calls, --probe."""

import json
import os
import signal
import socket
import stat
import unittest

import http2
from support import (DEADLINE_S, READER, Code, Daemon, eventually, make_store, reader_pb2, tool, writer_pb2)
from test_options import Options, run
from writing import Messages


class Writing(Options):
    """--writable, --create, --sync and --max-value-bytes, each on the line and in the environment."""

    def write(self, daemon, key=b"key", payload=b"newer"):
        return daemon.writer_stub().Write(writer_pb2.WriteRequest(key=key, payload=payload)).commit

    def started(self, store=None, args=(), env=None):
        daemon = self.serve(store or self.store, *args, env=env)
        return daemon, daemon.reader_stub().GetStoreInfo(reader_pb2.GetStoreInfoRequest())

    def test_writable_is_what_the_line_says_else_the_environment_else_off(self):
        cases = [((), {}, False), (("--writable",), {}, True),
                 (("--writable=false",), {"RDRIVED_WRITABLE": "true"}, False),
                 (("--writable",), {"RDRIVED_WRITABLE": "false"}, True)]
        cases += [((), {"RDRIVED_WRITABLE": word}, on) for word, on in
                  (("true", True), ("1", True), ("YES", True), ("on", True), ("false", False), ("0", False))]
        for args, env, writable in cases:
            with self.subTest(args=args, env=env):
                daemon, info = self.started(args=args, env=env)
                self.assertEqual(info.writable, writable)
                code = self.code_of(lambda: self.write(daemon))
                self.assertEqual(code, Code.OK if writable else Code.PERMISSION_DENIED)
                daemon.stop()

    def test_create_makes_the_store_that_is_not_there_and_leaves_one_that_is(self):
        for args, env in ((("--writable", "--create"), {}), ((), {"RDRIVED_WRITABLE": "1", "RDRIVED_CREATE": "true"})):
            path = self.folder / f"new-{len(args)}.srd"
            self.assertTrue([line for line in self.refused(path, "--writable") if "No such file" in line])
            self.assertFalse(path.exists())
            daemon, info = self.started(path, args, env)
            self.assertEqual((info.live_keys, info.file_size), (0, 0))
            self.write(daemon)
            daemon.stop()
            daemon, info = self.started(path, args, env)
            self.assertEqual(info.live_keys, 1)
            daemon.stop()
        self.usage_error(self.store, "--create", says=("--create", "--writable"))
        self.usage_error(self.store, env={"RDRIVED_CREATE": "yes"}, says=("--create", "--writable"))

    def test_sync_decides_whether_a_write_is_durable(self):
        for mode, durable in (("always", True), ("none", False), ("interval:1000", False)):
            for args, env in ((("--sync", mode), {}), ((), {"RDRIVED_SYNC": mode})):
                daemon, _ = self.started(args=("--writable", *args), env=env)
                self.assertEqual(self.write(daemon).durable, durable, (mode, env))
                daemon.stop()

    def test_max_value_bytes_is_the_largest_value(self):
        for args, env in ((("--max-value-bytes", "64K"), {}), ((), {"RDRIVED_MAX_VALUE_BYTES": "65536"})):
            daemon, _ = self.started(args=("--writable", *args), env=env)
            self.write(daemon, payload=bytes(64 << 10))
            self.fails(Code.INVALID_ARGUMENT, lambda: self.write(daemon, payload=bytes((64 << 10) + 1)),
                       "--max-value-bytes", reason="PAYLOAD_REFUSED")
            daemon.stop()


class InForce(Options):
    """What the environment says is in force as if the line said it; that it is what it should be, others show."""

    def test_the_limits_of_the_environment_are_told(self):
        env = {"RDRIVED_MAX_BATCH_KEYS": "5", "RDRIVED_MAX_REQUEST_BYTES": "64K", "RDRIVED_MAX_RESPONSE_BYTES": "128K",
               "RDRIVED_CHUNK_BYTES": "8K"}
        limits = self.limits(self.serve(self.store, env=env))
        self.assertEqual((limits.max_batch_keys, limits.max_request_bytes, limits.max_response_bytes,
                          limits.chunk_bytes), (5, 65536, 131072, 8192))

    def test_max_inflight(self):
        daemon = self.serve(self.store, env={"RDRIVED_MAX_INFLIGHT": "1", "RDRIVED_WRITABLE": "yes"})
        messages = Messages()
        upload = daemon.writer_stub().WriteStream.future(messages)
        stub = daemon.reader_stub()
        eventually(lambda: self.code_of(lambda: stub.Len(reader_pb2.LenRequest())) == Code.UNAVAILABLE, "it is full")
        messages.put(key=b"key", data=b"newer")
        messages.end()
        upload.result()
        eventually(lambda: self.code_of(lambda: stub.Len(reader_pb2.LenRequest())) == Code.OK, "there is room")

    def test_max_memory(self):
        daemon = self.serve(self.store, env={"RDRIVED_MAX_MEMORY": "16M", "RDRIVED_MAX_BATCH_KEYS": "2000000"})
        request = reader_pb2.BatchReadHashedKeysRequest(key_hashes=range(1_200_000))
        self.fails(Code.UNAVAILABLE, lambda: daemon.reader_stub().BatchReadHashedKeys(request), "16777216",
                   reason="OVERLOADED")

    def test_stall_timeout(self):
        daemon = self.serve(self.store, env={"RDRIVED_STALL_TIMEOUT": "1", "RDRIVED_WRITABLE": "yes"})
        messages = Messages()
        self.addCleanup(messages.end)
        self.fails(Code.RESOURCE_EXHAUSTED, daemon.writer_stub().WriteStream.future(messages).result,
                   reason="STALLED", facts={"limit": 1})

    def test_max_connection_age(self):
        daemon = self.serve(self.store, env={"RDRIVED_MAX_CONNECTION_AGE": "1"})
        peer = http2.Peer(daemon.address())
        self.addCleanup(peer.close)
        peer.until(http2.GOAWAY)

    def test_max_queued_bytes(self):
        values = {b"k%04d" % i: bytes([i % 255 + 1]) * 1000 for i in range(3000)}
        daemon = self.serve(make_store(self.folder / "many.srd", values), env={"RDRIVED_MAX_QUEUED_BYTES": "1M"})
        request = reader_pb2.BatchReadStreamRequest(keys=list(values)).SerializeToString()
        first, second = http2.Peer(daemon.address()), http2.Peer(daemon.address())
        for peer in (first, second):
            self.addCleanup(peer.close)
        first.send(http2.call(1, f"/{READER}/BatchReadStream", request))
        first.until(http2.HEADERS)
        second.send(http2.call(1, f"/{READER}/BatchReadStream", request))
        second.settle()  # it has come, and waits
        first.send(http2.reset(1))
        second.until(http2.HEADERS)

    def test_drain_delay_and_grace(self):
        daemon = self.serve(self.store, env={"RDRIVED_DRAIN_DELAY": "3600", "RDRIVED_DRAIN_GRACE": "3600"})
        daemon.send(signal.SIGTERM)
        daemon.event("draining")
        stub = daemon.reader_stub()
        self.assertEqual(stub.Len(reader_pb2.LenRequest()).len, 1)
        daemon.send(signal.SIGTERM)  # the second one waits for nothing
        self.assertEqual(daemon.wait(), 0)

    def test_threads(self):
        for threads in ("1", "7"):
            daemon = self.serve(self.store, env={"RDRIVED_THREADS": threads})
            alone = len(os.listdir(f"/proc/{daemon.pid}/task"))
            daemon.stop()
            if threads == "1":
                fewest = alone
        self.assertGreaterEqual(alone - fewest, 6)

    def test_verify_index_and_scrub_rate(self):
        tool("index", self.store, "--output", self.folder / "index")
        daemon = self.serve(self.store, env={"RDRIVED_INDEX": str(self.folder / "index"), "RDRIVED_VERIFY": "always",
                                             "RDRIVED_SCRUB_RATE": "0"})
        self.assertEqual(daemon.event("serving")["index"], "snapshot index")
        self.assertEqual(daemon.reader_stub().Read(reader_pb2.ReadRequest(key=b"key")).entry.payload, b"value")

    def test_unix_mode_log_format_and_log_level(self):
        path = self.folder / "socket"
        daemon = Daemon(self.store, env={"RDRIVED_LISTEN": f"unix:{path}", "RDRIVED_UNIX_MODE": "0600",
                                         "RDRIVED_LOG_FORMAT": "json", "RDRIVED_LOG_LEVEL": "info"}, ready=False)
        self.addCleanup(daemon.stop)
        stub = daemon.reader_stub(daemon.channel(f"unix:{path}"))
        self.assertEqual(stub.Len(reader_pb2.LenRequest(), wait_for_ready=True, timeout=DEADLINE_S).len, 1)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual(json.loads(daemon.lines[0])["event"], "listening")


class Slow(Options):
    def test_a_slow_call_is_a_line_that_tells_all_but_its_keys(self):
        for args, env in ((("--slow-ms", "1"), {}), ((), {"RDRIVED_SLOW_MS": "1"})):
            daemon = self.serve(self.store, *args, env=env)
            keys = [b"secret-key-%06d" % i for i in range(100_000)]
            stub = daemon.reader_stub()
            answer = stub.BatchRead(reader_pb2.BatchReadRequest(keys=keys))
            line = daemon.event("slow call")
            self.assertEqual((line["method"], line["keys"], line["code"], line["bytes"]),
                             (f"/{READER}/BatchRead", "100000", "0", str(answer.ByteSize())))
            self.assertGreaterEqual(int(line["ms"]), 1)
            self.assertRegex(line["peer"], r"^ipv4:127\.0\.0\.1:\d+$")
            self.assertNotIn("secret", daemon.log())
            daemon.stop()

    def test_by_default_and_with_zero_no_call_is_a_line(self):
        for args in ((), ("--slow-ms", "0")):
            daemon = self.serve(self.store, *args)
            keys = [b"secret-key-%06d" % i for i in range(100_000)]
            daemon.reader_stub().BatchRead(reader_pb2.BatchReadRequest(keys=keys))
            daemon.stop()
            self.assertEqual(daemon.events("slow call"), [])


class Probe(Options):
    """--probe: a client's question, answered by the exit status."""

    def probe(self, *args, env=None, status, says=""):
        ended, out, err = run(*args, env=env)
        self.assertEqual((ended, out), (status, ""), err)
        self.assertIn(says, err)
        self.assertEqual(len(err.splitlines()), status, err)

    def test_of_one_that_serves_it_is_0(self):
        path = self.folder / "socket"
        daemon = self.serve(self.store, "--listen", "127.0.0.1:0", "--listen", f"unix:{path}")
        address = daemon.address()
        self.probe("--probe", address, status=0)
        self.probe(f"--probe={address}", status=0)
        self.probe("--probe", f"unix:{path}", status=0)
        self.probe("--probe", "--listen", address, status=0)
        self.probe("--probe", env={"RDRIVED_LISTEN": f"unix:{path},127.0.0.1:1"}, status=0)  # the first in force
        self.probe(self.store, "--listen", address, "--writable", "--probe", status=0)  # beside all it was started with

    def test_of_one_that_is_opening_its_store_or_draining_it_is_1(self):
        slow = make_store(self.folder / "slow.srd", {b"key": b"value"})
        os.truncate(slow, 256 << 30)
        daemon = self.serve(slow, ready=False)
        self.probe("--probe", daemon.address(), status=1, says="NOT_SERVING")
        self.assertFalse(daemon.events("serving"))
        daemon = self.serve(self.store, "--drain-delay", "3600")
        self.probe("--probe", daemon.address(), status=0)
        daemon.send(signal.SIGTERM)
        daemon.event("draining")
        self.probe("--probe", daemon.address(), status=1, says="NOT_SERVING")

    def test_where_nobody_is_it_is_1(self):
        nobody = socket.socket()
        self.addCleanup(nobody.close)
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        self.probe("--probe", f"127.0.0.1:{nobody.getsockname()[1]}", status=1, says=str(nobody.getsockname()[1]))
        self.probe("--probe", f"unix:{self.folder}/none", status=1, says="none")

    def test_an_address_that_is_none_is_a_usage_error(self):
        for address in ("", "localhost", "127.0.0.1:x", "unix:"):
            self.usage_error(f"--probe={address}", says=("--probe", "host:port or unix:/path"))


if __name__ == "__main__":
    unittest.main()
