"""`rdrive` and servers that fail it: gone, silent, slow, broken off, or telling lies. One line says what; status 2."""

import signal
import socket
import subprocess
import threading
import unittest
import zlib
from concurrent import futures

import grpc

from support import DEADLINE_S, KIB, MIB, Code, Daemon, daemon_environment, entry_pb2, noise, reader_pb2, writer_pb2
from test_remote import RDRIVE, RemoteTest, run

READER = "rdrive.v1.DataStoreReaderService"
WRITER = "rdrive.v1.DataStoreWriterService"
INFO = reader_pb2.GetStoreInfoResponse(
    live_keys=1, writable=True, engine="liar", server_version="9",
    limits=reader_pb2.Limits(max_batch_keys=1000, max_request_bytes=1 << 20, max_response_bytes=1 << 22,
                             chunk_bytes=1 << 20))
VALUE = noise("value", 100_000)


def metadata(value, **fields):
    return entry_pb2.EntryMetadata(**{"key_hash": 7, "prev_offset": 0, "checksum": zlib.crc32(value), **fields})


def fragment(value, begin, end, first=None, **fields):
    """A message of ReadStream."""
    fields = {"data": value[begin:end], "payload_offset": begin, "payload_size": len(value), **fields}
    if first or (first is None and begin == 0):
        fields["metadata"] = metadata(value)
    return reader_pb2.ReadStreamResponse(fragment=entry_pb2.PayloadFragment(**fields))


class Liar:
    """A server that answers each method as it is told: `answers[name](request, context)` gives a message, raw bytes, or
    an iterator of such. A request is its raw bytes, or an iterator of them where its method takes a stream."""

    STREAMS = {"ReadStream", "BatchReadHashedKeys", "Compact"}
    TAKES = {"WriteStream"}

    def __init__(self, **answers):
        self.answers = {"GetStoreInfo": lambda request, context: INFO, "IsEmpty": lambda request, context: b"",
                        **answers}
        self.calls = []
        self.server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        self.server.add_generic_rpc_handlers((self,))
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        self.url = f"grpc://127.0.0.1:{port}"

    def service(self, details):
        name = details.method.rsplit("/", 1)[1]
        answer = self.answers.get(name)
        if answer is None:
            return None

        def pack(message):
            return message if isinstance(message, bytes) else message.SerializeToString()

        def called(request, context):
            self.calls.append(name)
            return answer(request, context)

        kind = {(False, False): grpc.unary_unary_rpc_method_handler, (False, True): grpc.unary_stream_rpc_method_handler,
                (True, False): grpc.stream_unary_rpc_method_handler}[name in self.TAKES, name in self.STREAMS]
        return kind(called, response_serializer=pack)

    def stop(self):
        self.server.stop(None).wait(DEADLINE_S)


class FailureTest(RemoteTest):
    def lie(self, **answers):
        liar = Liar(**answers)
        self.addCleanup(liar.stop)
        return liar

    def fails_after(self, *args, says=(), **options):
        """As `refuses`, where something may have been written to stdout; returns that."""
        done = run(*args, **options)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertRegex(done.stderr.decode(), r"\Ardrive: [^\n]+\n\Z")
        self.assertIn(says, done.stderr.decode())
        return done.stdout


class Unreached(FailureTest):
    def test_a_server_that_is_not_there_is_told_by_every_verb(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"grpc://127.0.0.1:{unused.getsockname()[1]}"
            run("put", "--create", self.path, "k", "v")
            calls = [[verb, url, *args] for verb, *args in
                     [["info"], ["get", "k"], ["exists", "k"], ["metadata", "k"], ["last"], ["put", "k", "v"],
                      ["put", "k"], ["delete", "k"], ["rename", "k", "l"], ["import"], ["compact"],
                      ["copy", "k", self.path], ["bench", "--key-list", "/dev/null"]]]
            calls += [["copy", self.path, "k", url]]
            with futures.ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda args: self.refuses(2, *args, stdin=b"a\tb", says=(f"cannot reach {url}: ",
                                                                                       "Connection refused")), calls))
            self.refuses(2, "move", self.path, "k", url, says=(f"cannot reach {url}: ", "Connection refused"))
            self.assertEqual(self.done("get", self.path, "k"), b"v")
        self.refuses(2, "info", f"unix:{self.folder}/none", says=("cannot reach unix:", "No such file"))
        self.refuses(2, "info", "grpc://no-such-host.invalid:1", says=("cannot reach grpc://no-such-host.invalid:1: "))

    def test_a_peer_that_never_answers_is_given_up_at_the_timeout(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"grpc://127.0.0.1:{silent.getsockname()[1]}"
            self.refuses(2, "get", url, "k", "--timeout", "0.2", says=(f"cannot reach {url}: ", "no answer came in time"))

    def test_a_peer_that_speaks_another_protocol_is_told(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            def greet():
                for _ in range(50):
                    try:
                        connection, _ = server.accept()
                    except OSError:
                        return
                    with connection:
                        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" + bytes(100))
                        connection.recv(100)
            threading.Thread(target=greet, daemon=True).start()
            url = f"grpc://127.0.0.1:{server.getsockname()[1]}"
            self.refuses(2, "get", url, "k", says=f"cannot reach {url}: ")
            server.shutdown(socket.SHUT_RDWR)

    def test_a_server_of_other_services_is_told(self):
        liar = self.lie()
        del liar.answers["GetStoreInfo"]
        self.refuses(2, "get", liar.url, "k", says=(liar.url, "no rdrived answers there"))

    def test_a_server_that_is_not_ready_is_asked_again(self):
        tries = []

        def info(request, context):
            tries.append(1)
            if len(tries) < 3:
                context.abort(Code.UNAVAILABLE, "not yet")
            return INFO

        liar = self.lie(GetStoreInfo=info, Exists=lambda request, context: reader_pb2.ExistsResponse(exists=True))
        self.assertEqual(self.done("exists", liar.url, "k"), b"true\n")
        self.assertEqual(len(tries), 3)

    def test_a_server_that_is_never_ready_is_told_within_seconds(self):
        liar = self.lie(GetStoreInfo=lambda request, context: context.abort(Code.UNAVAILABLE, "not yet"))
        self.refuses(2, "get", liar.url, "k", says=(f"cannot reach {liar.url}: ", "not yet"))
        self.assertEqual(len(liar.calls), 4)


class Timeouts(FailureTest):
    def hang(self, request, context):
        """Answers once the caller has gone."""
        gone = threading.Event()
        if context.add_callback(gone.set):
            gone.wait(DEADLINE_S)
        return b""

    def test_each_call_ends_at_its_timeout(self):
        def stream(request, context):
            yield fragment(VALUE, 0, 1000)
            self.hang(request, context)

        liar = self.lie(Exists=self.hang, ReadStream=stream, WriteWithKeyHash=self.hang, WriteStream=self.hang)
        timeout = ["--timeout", "3"]  # which the first answer, in time on any machine, is within
        with futures.ThreadPoolExecutor(4) as pool:
            ends = [pool.submit(self.refuses, 2, verb, liar.url, *args, *timeout, stdin=b"value",
                                says=(liar.url, "DEADLINE_EXCEEDED"))
                    for verb, *args in [["exists", "k"], ["put", "k", "v"], ["put", "k"]]]
            out = self.fails_after("get", liar.url, "k", *timeout, says="DEADLINE_EXCEEDED")
            self.assertTrue(VALUE.startswith(out))
            for end in ends:
                end.result()


class Reads(FailureTest):
    def get(self, *messages, **options):
        """What `get` does where the server sends these messages."""
        return self.fails_after("get", self.lie(ReadStream=lambda request, context: iter(messages)).url, "k", **options)

    def test_a_value_in_right_fragments_is_taken(self):
        messages = [fragment(VALUE, 0, 1), fragment(VALUE, 1, 70_000), fragment(VALUE, 70_000, len(VALUE))]
        liar = self.lie(ReadStream=lambda request, context: iter(messages))
        self.assertEqual(self.done("get", liar.url, "k"), VALUE)

    def test_what_cannot_be_is_told_and_nothing_wrong_is_written(self):
        first = fragment(VALUE, 0, 1000)
        for messages, says in [
            ([b"\xff\xff\xff"], "no ReadStreamResponse"),
            ([b""], "without a fragment"),
            ([fragment(VALUE, 0, 0)], "without a byte"),
            ([fragment(VALUE, 1, 1000, first=True)], "not the one that follows"),
            ([fragment(VALUE, 0, 1000, first=False)], "no metadata"),
            ([fragment(VALUE, 0, 1000, payload_size=999)], "beyond"),
            ([fragment(VALUE, 0, 1000, payload_size=0)], "beyond"),
            ([first, first], "not the one that follows"),
            ([first, fragment(VALUE, 1001, 2000)], "not the one that follows"),
            ([first, fragment(VALUE, 1000, 2000, payload_size=1 << 40)], "differ"),
            ([first, fragment(VALUE, 1000, 2000, payload_offset=(1 << 64) - 1)], "not the one that follows"),
            ([first], "ends before its end"),
            ([fragment(VALUE, 0, 1000), fragment(VALUE, 1000, len(VALUE), data=bytes(len(VALUE) - 1000))], "checksum"),
        ]:
            with self.subTest(says=says):
                out = self.get(*messages, says=says)
                if says != "checksum":  # which only the whole can tell
                    self.assertTrue(VALUE.startswith(out))

    def test_a_stream_that_breaks_off_is_gone_on_with(self):
        def stream(request, context):
            request = reader_pb2.ReadStreamRequest.FromString(request)
            at = request.offset
            yield fragment(VALUE, at, min(at + 10_000, len(VALUE)), first=True)
            if at + 10_000 < len(VALUE):
                context.abort(Code.UNAVAILABLE, "the connection broke")

        liar = self.lie(ReadStream=stream)
        self.assertEqual(self.done("get", liar.url, "k"), VALUE)
        self.assertEqual(liar.calls.count("ReadStream"), len(VALUE) // 10_000)

    def test_a_stream_that_breaks_off_again_and_again_is_given_up(self):
        def stream(request, context):
            if not reader_pb2.ReadStreamRequest.FromString(request).offset:
                yield fragment(VALUE, 0, 10_000)
            context.abort(Code.UNAVAILABLE, "the connection broke")

        liar = self.lie(ReadStream=stream)
        self.assertTrue(VALUE.startswith(self.fails_after("get", liar.url, "k", says="the connection broke")))
        self.assertEqual(liar.calls.count("ReadStream"), 4)  # one that brought something, and three in vain

    def test_a_value_that_is_replaced_between_two_calls_is_not_mixed(self):
        other = noise("other", len(VALUE))

        def stream(request, context):
            at = reader_pb2.ReadStreamRequest.FromString(request).offset
            if at == 0:
                yield fragment(VALUE, 0, 10_000)
                context.abort(Code.UNAVAILABLE, "the connection broke")
            yield fragment(other, at, len(other), first=True)

        out = self.fails_after("get", self.lie(ReadStream=stream).url, "k", says="was replaced")
        self.assertTrue(VALUE.startswith(out))

    def test_a_status_is_told_with_its_name(self):
        def abort(request, context):
            context.abort(Code.INTERNAL, "oh\nno\x1b[31m")

        liar = self.lie(Exists=abort, ReadMetadata=lambda request, context: b"\x0a\xff", ReadStream=abort,
                        ReadLastEntry=lambda request, context: reader_pb2.ReadLastEntryResponse(
                            entry=entry_pb2.Entry(payload=b"v")))
        line = self.refuses(2, "exists", liar.url, "k", says="INTERNAL: oh")
        self.assertNotIn("\x1b", line)
        self.refuses(2, "get", liar.url, "k", says="INTERNAL: oh")
        self.refuses(2, "metadata", liar.url, "k", says="no rdrive.v1.ReadMetadataResponse")
        self.refuses(2, "last", liar.url, says="no metadata")

    def test_a_message_beyond_all_bounds_is_not_taken(self):
        def compressed(request, context):
            context.set_compression(grpc.Compression.Gzip)
            yield fragment(bytes(64 * MIB), 0, 64 * MIB)

        out = self.fails_after("get", self.lie(ReadStream=compressed).url, "k", says="UNIMPLEMENTED")
        self.assertEqual(out, b"")


class Writes(FailureTest):
    def test_an_answer_without_a_commit_is_no_success(self):
        empty = {name: lambda request, context: b"" for name in
                 ["WriteWithKeyHash", "BatchDeleteKeyHashes", "Rename", "BatchWriteWithKeyHashes"]}
        liar = self.lie(**empty, WriteStream=lambda requests, context: [b"" for _ in requests] and b"")
        for verb, *args in [["put", "k", "v"], ["put", "k"], ["delete", "k"], ["rename", "k", "l"], ["import"]]:
            self.refuses(2, verb, liar.url, *args, stdin=b"a\tb\nc\td\n", says="no commit")

    def test_a_write_that_took_other_bytes_is_no_success(self):
        def write(requests, context):
            data = b"".join(writer_pb2.WriteStreamRequest.FromString(each).data for each in requests)
            return writer_pb2.WriteStreamResponse(commit=writer_pb2.Commit(durable=True), payload_size=len(data),
                                                  checksum=zlib.crc32(data) ^ 1)

        self.refuses(2, "put", self.lie(WriteStream=write).url, "k", stdin=VALUE, says="other bytes")

    def test_a_write_that_a_server_ends_early_is_told_in_its_words(self):
        def write(requests, context):
            next(requests)
            context.abort(Code.RESOURCE_EXHAUSTED, "enough of it")

        self.refuses(2, "put", self.lie(WriteStream=write).url, "k", stdin=noise("k", 8 * MIB), says="enough of it")

    def test_a_write_whose_input_fails_is_broken_off(self):
        ended, whole = threading.Event(), threading.Event()

        def write(requests, context):
            try:
                for _ in requests:
                    pass
            except Exception:  # the call was cancelled
                ended.set()
                raise
            whole.set()
            return writer_pb2.WriteStreamResponse(commit=writer_pb2.Commit(durable=True))

        ours, theirs = socket.socketpair()  # closing it with bytes unread makes the reader's next read fail
        with ours, theirs:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            liar = self.lie(WriteStream=write)
            with subprocess.Popen([RDRIVE, "put", liar.url, "k"], stdin=theirs.fileno(), stderr=subprocess.PIPE,
                                  env=daemon_environment()) as tool:
                ours.sendall(VALUE)
                theirs.send(b"unread")
                ours.close()
                told = tool.stderr.read().decode()
                self.assertEqual(tool.wait(DEADLINE_S), 2, told)
        self.assertIn("nothing was written", told)
        if "WriteStream" in liar.calls:  # it may end before the server takes it up
            self.assertTrue(ended.wait(DEADLINE_S))
        self.assertFalse(whole.is_set())

    def test_a_write_is_asked_again_only_where_nothing_was_written(self):
        liar = self.lie(WriteWithKeyHash=lambda request, context: context.abort(Code.UNAVAILABLE, "who knows"))
        self.refuses(2, "put", liar.url, "k", "v", says="who knows")
        self.assertEqual(liar.calls.count("WriteWithKeyHash"), 1)

    def test_a_compaction_without_an_end_is_no_success(self):
        liar = self.lie(Compact=lambda request, context: iter([writer_pb2.CompactResponse(entries_done=1)]))
        self.refuses(2, "compact", liar.url, says="no end")


class Killed(FailureTest):
    def test_a_server_that_dies_under_a_read_is_told(self):
        run("put", "--create", self.served, "big", stdin=noise("big", 16 * MIB))
        daemon = Daemon(self.served)
        self.addCleanup(daemon.stop, status=-signal.SIGKILL)
        with subprocess.Popen([RDRIVE, "get", f"grpc://{daemon.address()}", "big"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=daemon_environment()) as tool:
            tool.stdout.read(KIB)
            daemon.send(signal.SIGKILL)
            daemon.wait()
            tool.stdout.read()
            told = tool.stderr.read().decode()
            self.assertEqual(tool.wait(DEADLINE_S), 2, told)
        self.assertRegex(told, r"\Ardrive: [^\n]+\n\Z")

    def test_a_server_that_goes_away_under_a_bench_ends_it(self):
        run("put", "--create", self.path, "k", "v")
        meta = entry_pb2.EntryMetadata(key_hash=int(self.done("hash", "k"), 16), checksum=zlib.crc32(b"v"))

        def read(request, context):
            if liar.calls.count("ReadWithKeyHash") > 50:
                context.abort(Code.UNAVAILABLE, "gone")
            return reader_pb2.ReadWithKeyHashResponse(entry=entry_pb2.Entry(payload=b"v", metadata=meta))

        liar = self.lie(ReadWithKeyHash=read)
        keys = self.folder / "keys"
        keys.write_text("k\n")
        self.refuses(2, "bench", liar.url, "--key-list", keys, "--duration", "3600", "--inflight", "4", "--threads", "2",
                     says=(liar.url, "bench: UNAVAILABLE: gone"))


if __name__ == "__main__":
    unittest.main()
