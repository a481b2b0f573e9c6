"""What the tests of the writer service share: a daemon that takes writes, and messages to send it."""

import threading

from support import DaemonTest, make_store, reader_pb2, writer_pb2, xxh3

KEY, OTHER, GONE = b"key-of-the-test", b"another-key-1", b"absent-key-12"  # lengths that xxh3 knows
HASHES = {key: xxh3(key) for key in (KEY, OTHER, GONE)}
VALUES = {KEY: b"value", OTHER: b"other value"}


def item(key, payload):
    return writer_pb2.WriteItem(key=key, payload=payload)


def hashed(key_hash, payload):
    return writer_pb2.HashedWriteItem(key_hash=key_hash, payload=payload)


def upload(key, *pieces):
    """A WriteStream's messages."""
    yield writer_pb2.WriteStreamRequest(key=key)
    for piece in pieces:
        yield writer_pb2.WriteStreamRequest(data=piece)


class Messages:
    """A WriteStream's messages that come when the test says so: `put` sends one, `end` ends them."""

    def __init__(self):
        self.changed = threading.Condition()
        self.messages, self.ended = [], False

    def put(self, **fields):
        with self.changed:
            self.messages.append(writer_pb2.WriteStreamRequest(**fields))
            self.changed.notify()

    def end(self):
        with self.changed:
            self.ended = True
            self.changed.notify()

    def __iter__(self):
        return self

    def __next__(self):
        with self.changed:
            while not self.messages:
                if self.ended:
                    raise StopIteration
                self.changed.wait()
            return self.messages.pop(0)


class WriterTest(DaemonTest):
    options = ()
    disk = None

    def setUp(self):
        super().setUp()
        self.store = make_store(self.folder / "store.srd", VALUES)
        self.start(*self.options)

    def start(self, *options, env=None):
        self.daemon = self.serve(self.store, "--writable", *options,
                                 env={**(self.disk.env if self.disk else {}), **(env or {})})
        channel = self.daemon.channel()
        self.reader, self.writer = self.daemon.reader_stub(channel), self.daemon.writer_stub(channel)

    def restart(self, *options):
        self.daemon.stop()
        self.start(*options)

    def read(self, key):
        """The payload, or None."""
        answer = self.reader.Read(reader_pb2.ReadRequest(key=key))
        return answer.entry.payload if answer.HasField("entry") else None

    def read_large(self, key):
        stream = self.reader.ReadStream(reader_pb2.ReadStreamRequest(key=key))
        return b"".join(message.fragment.data for message in stream)

    def info(self):
        return self.reader.GetStoreInfo(reader_pb2.GetStoreInfoRequest())

    def put(self, key, payload):
        return self.writer.Write(writer_pb2.WriteRequest(key=key, payload=payload)).commit

    def compact(self):
        return list(self.writer.Compact(writer_pb2.CompactRequest()))

    def assert_commit(self, answer, durable=True):
        self.assertEqual((answer.commit.tail_offset, answer.commit.durable), (self.info().tail_offset, durable))

    def assert_unchanged(self, before):
        now = self.info()
        self.assertEqual((now.tail_offset, now.entries, now.generation),
                         (before.tail_offset, before.entries, before.generation))
