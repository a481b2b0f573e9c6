"""Actors that own nothing: they read what others write, come and go, hold things up, compact."""

import itertools
import socket
import threading

import grpc

from oracle import must, payload
from owners import Wholes, collect, group_keys, pair_keys
from session import HANGS_S, Actor, Code
from support import Health, health_pb2, health_pb2_grpc, reflection_pb2, reflection_pb2_grpc
from support import reader_pb2 as r
from support import writer_pb2 as w
from support import xxh3

GROUPS, PAIRS = 8, 8
FROZEN = {b"frozen-%04d" % i: size for i, size in enumerate(
    [24, 64, 100, 1000, 4096] * 60 + [16_384, 65_536, 300_000] * 8 + [8 << 20] * 2)}
LARGE = [key for key, size in FROZEN.items() if size > 1 << 20]
SMALL = [key for key in FROZEN if key not in LARGE]


def frozen(key):
    return payload(key, 7, FROZEN[key])


class Reader(Actor):
    """Reads groups and pairs that others write, in one batch each, and what nobody writes."""

    def __init__(self, process, number):
        super().__init__(process, number)
        self.wholes = Wholes(process)

    def turn(self):
        self.dice.choice([self.group, self.group, self.pair, self.unchanged])()

    def group(self):
        number, kills = self.dice.randrange(GROUPS), self.process.kills
        keys = group_keys(number)
        self.dice.shuffle(keys)
        if self.dice.random() < 0.5:
            messages, done = self.stream(self.reader.BatchReadStream, r.BatchReadStreamRequest(keys=keys), 0.05)
        else:
            messages, done = self.stream(self.reader.BatchReadHashedKeys, r.BatchReadHashedKeysRequest(
                keys=keys, key_hashes=[xxh3(key) for key in keys]), 0.05)
        if done:
            self.wholes.stamps(number, kills, dict(zip(keys, collect(messages, len(keys)))))
            self.checks += 1

    def pair(self):
        pair, kills = self.dice.randrange(PAIRS), self.process.kills
        answer, done = self.ask(self.reader.BatchRead, r.BatchReadRequest(keys=pair_keys(pair)), 0.05)
        if done:
            self.wholes.places(pair, kills, answer)
            self.checks += 1

    def unchanged(self):
        keys = self.dice.choices(SMALL, k=20) + [b"never written"]
        messages, done = self.stream(self.reader.BatchReadStream, r.BatchReadStreamRequest(keys=keys), 0.05)
        if done:
            found = collect(messages, len(keys))
            must(found.pop() is None, "a value that nobody wrote")
            must(found == [frozen(key) for key in keys[:-1]], "what nobody writes has changed", keys)
            self.checks += len(keys)


class Slow(Actor):
    """Takes a large value bit by bit, while the store is compacted under it; sometimes gives up."""

    def turn(self):
        key = self.dice.choice(LARGE)
        parts = []

        def take(message):
            parts.append(message.fragment.data)
            self.wait(self.dice.uniform(0, 0.6))

        _, done = self.stream(self.reader.ReadStream, r.ReadStreamRequest(key=key), take=take)
        if done:
            must(b"".join(parts) == frozen(key), "a slow reader got something else of", key)
            self.checks += 1


class Quitter(Actor):
    """Begins streams and goes away."""

    def turn(self):
        kind = self.dice.randrange(3)
        if kind == 0:
            self.stream(self.reader.ReadStream, r.ReadStreamRequest(key=self.dice.choice(LARGE)), 0.9)
        elif kind == 1:
            self.stream(self.reader.BatchReadStream, r.BatchReadStreamRequest(keys=SMALL * 4), 0.9)
        else:
            self.ask(self.reader.BatchRead, r.BatchReadRequest(keys=SMALL[:250]), 1.0)


class Upstart(Actor):
    """Connects, calls, and drops the connection under its calls; or says nothing at all, or nonsense."""

    NONSENSE = (b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0" + b"\0\0\4\1\4\0\0\0\1\x82\x86\x84\x41")

    def turn(self):
        if self.dice.random() < 0.3:
            host, port = self.process.address.rsplit(":", 1)
            try:
                with socket.create_connection((host, int(port)), timeout=HANGS_S) as peer:
                    peer.sendall(self.dice.choice(self.NONSENSE))
                    peer.recv(1)
            except OSError:
                pass  # there is no daemon just now, or it has had enough
            return
        self.channel.close()
        self.connect()
        if self.ask(self.reader.Read, r.ReadRequest(key=SMALL[0]))[1]:
            self.checks += 1
        began = self.began()
        calls = [self.reader.Read.future(r.ReadRequest(key=key), timeout=HANGS_S, wait_for_ready=True)
                 for key in self.dice.choices(SMALL, k=20)]
        stream = self.reader.ReadStream(r.ReadStreamRequest(key=LARGE[0]), timeout=HANGS_S, wait_for_ready=True)
        uploads = [self.writer.WriteStream.future(itertools.repeat(w.WriteStreamRequest(key=b"nobody's"), 1),
                                                  timeout=HANGS_S, wait_for_ready=True)]
        calls[0].exception()
        self.channel.close()
        for call in (*calls, stream, *uploads):
            self.ended(call.code(), call, True, [Code.INVALID_ARGUMENT], began)  # the upload is empty


class Holder(Actor):
    """Holds an upload open and sends little, while others write; then goes away, or ends it and deletes what it is."""

    def turn(self):
        go_on = threading.Event()
        key = b"held-%04d" % self.number

        def messages():
            yield w.WriteStreamRequest(key=key, data=b"x")
            for _ in range(self.dice.randint(1, 20)):
                self.wait(0.1)
                yield w.WriteStreamRequest(data=bytes(1000))
            go_on.wait()

        began = self.began()
        call = self.writer.WriteStream.future(messages(), timeout=HANGS_S, wait_for_ready=True)
        call.add_done_callback(lambda _: go_on.set())
        self.wait(2)
        if self.dice.random() < 0.5:
            call.cancel()
        go_on.set()
        self.ended(call.code(), call, impatient=True, began=began)
        self.verify()

    def verify(self):
        self.ask(self.writer.Delete, w.DeleteRequest(key=b"held-%04d" % self.number))
        return 0


class Compactor(Actor):
    """Compacts every few seconds; sometimes it doesn't stay to the end."""

    def turn(self):
        self.wait(self.dice.uniform(0.5, 3))
        messages = []
        impatient, began = self.dice.random() < 0.2, self.began()
        call = self.writer.Compact(w.CompactRequest(), timeout=HANGS_S, wait_for_ready=True)
        try:
            for message in call:
                messages.append(message)
                if impatient:
                    call.cancel()
        except grpc.RpcError as error:
            self.ended(error.code(), error, impatient, [Code.FAILED_PRECONDITION], began)  # one may still be on its way
            return
        self.ended(Code.OK)
        must(messages and messages[-1].done and not any(each.done for each in messages[:-1]), "compaction", messages)
        self.checks += 1


class Watcher(Actor):
    """Health, reflection, and what is known of the whole store."""

    def turn(self):
        health = health_pb2_grpc.HealthStub(self.channel)
        request = health_pb2.HealthCheckRequest(service="rdrive.v1.DataStoreWriterService")
        began = self.began()
        watch = health.Watch(request, timeout=HANGS_S, wait_for_ready=True)
        try:
            must(next(watch).status in (Health.SERVING, Health.NOT_SERVING), "a watch's status")
            while watch.is_active() and not self.process.stopping.is_set() and not self.process.to_rest:
                self.look(health, request)
        except grpc.RpcError as error:
            must(error.code() != Code.CANCELLED, "a watch that nobody cancelled ended so")
        watch.cancel()
        self.ended(watch.code(), watch, impatient=True, began=began)

    def look(self, health, request):
        self.wait(0.2)
        answer, done = self.ask(health.Check, request)
        must(not done or not self.settled or answer.status == Health.SERVING, "Check says", answer)
        info, done = self.ask(self.reader.GetStoreInfo, r.GetStoreInfoRequest())
        must(not done or info.damaged_entries == 0 and info.writable and info.atomic_batches, "info", info)
        self.ask(self.reader.Len, r.LenRequest())
        self.ask(self.reader.ReadLastEntry, r.ReadLastEntryRequest())
        reflection = reflection_pb2_grpc.ServerReflectionStub(self.channel)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        answers, done = self.stream(reflection.ServerReflectionInfo, iter([ask]))
        must(not done or len(answers) == 1 and answers[0].list_services_response.service, "reflection", answers)
        self.checks += 3
