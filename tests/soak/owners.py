"""Actors that alone write to keys of their own, and so know what these hold."""

import threading
import time
import zlib

import grpc

from oracle import LARGEST, SETTLE_S, SMALLEST, Slot, must, payload, stamp_of
from session import HANGS_S, Actor, Code
from support import reader_pb2 as r
from support import writer_pb2 as w
from support import xxh3

MIB = 1 << 20


class Owner(Actor):
    """Does with its keys, one at a time or many, whatever the contract offers."""

    KEYS = 150

    def __init__(self, process, number):
        super().__init__(process, number)
        self.keys = [b"own-%02d-%05d" % (number, i) for i in range(self.KEYS)]
        self.hashes = {key: xxh3(key) for key in self.keys}
        self.slots = {key: Slot() for key in self.keys}
        self.moving = {}  # keys of a rename that may still come, and would take whatever is there by then
        self.stamp = 0
        self.turns = (8 * [self.write] + 4 * [self.write_batch] + 2 * [self.upload, self.break_off, self.rename] +
                      3 * [self.delete] + [self.delete_batch] + 6 * [self.read] + 3 * [self.look] +
                      4 * [self.read_batch] + 3 * [self.read_range])

    def turn(self):
        self.dice.choice(self.turns)()

    # -- values: what is written is (key it was made for, stamp, size), a rename takes it elsewhere

    def size(self):
        kind = self.dice.random()
        if kind < 0.7:
            return self.dice.randint(SMALLEST, 300)
        return self.dice.randint(300, 65536) if kind < 0.95 else self.dice.randint(65536, MIB)

    def some(self, count):
        """Keys to write to, at most so many."""
        now = time.monotonic()
        self.moving = {key: until for key, until in self.moving.items() if until > now}
        free = [key for key in self.keys if key not in self.moving]
        return self.dice.sample(free, min(count, len(free)))

    def fresh(self, key, size=None):
        self.stamp += 1
        return key, self.stamp, size or self.size()

    def settle(self, done, changes):
        """`changes` are the keys' new values, and whether they came about is `done`."""
        for key, value in changes.items():
            if done:
                self.slots[key].written(value)
            elif done is None:
                self.slots[key].perhaps(value)

    def check(self, key, data, began=0, size=None):
        """`data` is what was read of the key, None: nothing; from `began` on, and `size` bytes at most."""
        self.checks += 1

        def matches(value):
            if value is None or data is None:
                return value is data
            return payload(*value)[began:None if size is None else began + size] == data

        return self.slots[key].look(matches, "read of", key, None if data is None else (len(data), data[:SMALLEST]))

    def check_entry(self, key, holder):
        entry = holder.entry if holder.HasField("entry") else None
        self.check(key, None if entry is None else entry.payload)
        if entry is not None and entry.HasField("metadata"):
            must(entry.metadata.checksum == zlib.crc32(entry.payload) and not entry.metadata.tombstone and
                 entry.metadata.key_hash == self.hashes[key], "metadata of", key, entry.metadata)

    # -- writing

    def write(self):
        key, = self.some(1)
        value = self.fresh(key)
        if self.dice.random() < 0.5:
            method, request = self.writer.Write, w.WriteRequest(key=key, payload=payload(*value))
        else:
            method = self.writer.WriteWithKeyHash
            request = w.WriteWithKeyHashRequest(key_hash=self.hashes[key], payload=payload(*value))
        answer, done = self.ask(method, request, impatience=0.1)
        if done:
            must(answer.commit.durable, "not durable", key)
        self.settle(done, {key: value})

    def write_batch(self):
        changes, items = {}, []
        keys = self.some(30)
        for key in self.dice.choices(keys, k=self.dice.randint(1, 30)):  # of two with one key the later wins
            changes[key] = self.fresh(key)
            items.append((key, payload(*changes[key])))
        if self.dice.random() < 0.5:
            method = self.writer.BatchWrite
            request = w.BatchWriteRequest(items=[w.WriteItem(key=key, payload=data) for key, data in items])
        else:
            method = self.writer.BatchWriteWithKeyHashes
            request = w.BatchWriteWithKeyHashesRequest(items=[
                w.HashedWriteItem(key_hash=self.hashes[key], payload=data) for key, data in items])
        self.settle(self.ask(method, request, impatience=0.1)[1], changes)

    def messages(self, key, data, until=None):
        step = self.dice.randint(20_000, 200_000)
        yield w.WriteStreamRequest(key=key, data=data[:step])
        for at in range(step, len(data) if until is None else until, step):
            yield w.WriteStreamRequest(data=data[at:at + step])

    def upload(self):
        key, = self.some(1)
        value = self.fresh(key, self.dice.randint(SMALLEST, 3 * MIB))
        data = payload(*value)
        answer, done, began = None, None, self.began()
        try:
            answer = self.writer.WriteStream(self.messages(key, data), timeout=HANGS_S, wait_for_ready=True)
            done = self.ended(Code.OK)
        except grpc.RpcError as error:
            done = self.ended(error.code(), error, began=began)
        if done:
            must(answer.payload_size == len(data) and answer.checksum == zlib.crc32(data), "upload", key, answer)
        self.settle(done, {key: value})

    def break_off(self):
        """An upload that is given up before its end: nothing of it is kept."""
        data = payload(*self.fresh(key := self.dice.choice(self.keys), MIB))
        half_sent, give_up = threading.Event(), threading.Event()

        def messages():
            yield from self.messages(key, data, MIB // 2)
            half_sent.set()
            give_up.wait()
            yield w.WriteStreamRequest()  # not sent any more; the stream isn't half closed before

        began = self.began()
        call = self.writer.WriteStream.future(messages(), timeout=HANGS_S, wait_for_ready=True)
        call.add_done_callback(lambda _: half_sent.set())
        half_sent.wait()
        call.cancel()
        code = call.code()
        give_up.set()
        must(code != Code.OK, "an upload without an end was answered")
        self.ended(code, call, impatient=True, began=began)
        self.read(key)

    def rename(self):
        old, new = self.some(2)
        before = set(self.slots[old].candidates)
        _, done = self.ask(self.writer.Rename, w.RenameRequest(old_key=old, new_key=new), impatience=0.1,
                           also=[Code.NOT_FOUND])
        values = [value for value in before if value is not None]
        if done:
            must(values, "renamed, and there was nothing:", old)
            self.slots[old].written(None)
            self.slots[new].written(*values)
        elif done is None:
            self.slots[old].perhaps(None)
            self.slots[new].perhaps(*values)
            self.moving |= dict.fromkeys((old, new), time.monotonic() + SETTLE_S)
        elif self.code == Code.NOT_FOUND:
            must(None in before, "NOT_FOUND, but", old, "held", before)

    def delete(self):
        key, = self.some(1)
        slot = self.slots[key]
        expected = int(slot.value() is not None) if slot.sure() else None
        answer, done = self.ask(self.writer.Delete, w.DeleteRequest(key=key), impatience=0.1)
        if done and expected is not None:
            must(answer.deleted_count == expected, "deleted", answer.deleted_count, "and not", expected, key)
        self.settle(done, {key: None})

    def delete_batch(self):
        keys = self.some(self.dice.randint(1, 20))
        slots = [self.slots[key] for key in keys]
        expected = sum(slot.value() is not None for slot in slots) if all(slot.sure() for slot in slots) else None
        if self.dice.random() < 0.5:
            method, request = self.writer.BatchDelete, w.BatchDeleteRequest(keys=keys)
        else:
            method = self.writer.BatchDeleteKeyHashes
            request = w.BatchDeleteKeyHashesRequest(key_hashes=[self.hashes[key] for key in keys])
        answer, done = self.ask(method, request, impatience=0.1)
        if done and expected is not None:
            must(answer.deleted_count == expected, "deleted", answer.deleted_count, "and not", expected)
        self.settle(done, dict.fromkeys(keys))

    # -- reading

    def read(self, key=None):
        key = key or self.dice.choice(self.keys)
        if self.dice.random() < 0.5:
            method, request = self.reader.Read, r.ReadRequest(key=key)
        else:
            method, request = self.reader.ReadWithKeyHash, r.ReadWithKeyHashRequest(key_hash=self.hashes[key])
        answer, done = self.ask(method, request, impatience=0.05)
        if done:
            self.check_entry(key, answer)

    def look(self):
        """What can be known of a value without reading it."""
        key = self.dice.choice(self.keys)
        slot = self.slots[key]
        if self.dice.random() < 0.5:
            answer, done = self.ask(self.reader.ReadMetadata, r.ReadMetadataRequest(key=key))
            if done:
                found = answer.metadata if answer.HasField("metadata") else None
                slot.look(lambda value: (found is None) == (value is None) and (
                    found is None or found.checksum == zlib.crc32(payload(*value))), key, found)
                self.checks += 1
            return
        answer, done = self.ask(self.reader.ExistsWithKeyHash, r.ExistsWithKeyHashRequest(key_hash=self.hashes[key]))
        if done and slot.sure():
            must(answer.exists == (slot.value() is not None), key, "exists:", answer.exists)
            self.checks += 1

    def read_batch(self):
        keys = self.dice.choices(self.keys, k=self.dice.randint(1, 60))
        if self.dice.random() < 0.5:
            messages, done = self.stream(self.reader.BatchReadStream, r.BatchReadStreamRequest(keys=keys), 0.1)
        else:
            messages, done = self.stream(self.reader.BatchReadHashedKeys, r.BatchReadHashedKeysRequest(
                key_hashes=[self.hashes[key] for key in keys]), 0.1)
        if not done:
            return
        found = collect(messages, len(keys))
        for key, data in zip(keys, found):
            self.check(key, data)

    def read_range(self):
        key = self.dice.choice(self.keys)
        sizes = [0 if value is None else value[2] for value in self.slots[key].candidates]
        began = self.dice.choice([0, 0, self.dice.randint(0, max(0, min(sizes) - 1))])
        limit = self.dice.choice([0, self.dice.randint(1, LARGEST)])
        messages, done = self.stream(self.reader.ReadStream, r.ReadStreamRequest(key=key, offset=began, limit=limit))
        if done:
            data = b"".join(message.fragment.data for message in messages)
            self.check(key, data if messages else None, began, limit or None)

    # -- the end

    def verify(self):
        for key in self.keys:
            self.slots[key].restarted()
        messages, done = self.stream(self.reader.BatchReadStream, r.BatchReadStreamRequest(keys=self.keys))
        must(done, "no answer at the end")
        found = collect(messages, len(self.keys))
        for key, data in zip(self.keys, found):
            self.check(key, data)
        return sum(data is not None for data in found)


def collect(messages, count):
    """The payloads of a batch that came as a stream, None where a key is absent."""
    found, parts, last = [], [], -1
    for item in (item for message in messages for item in message.items):
        kind = item.WhichOneof("outcome")
        if kind == "fragment" and item.index == last:
            parts.append(item.fragment.data)
            continue
        must(item.index == last + 1, "index", item.index, "after", last)
        if parts:
            found[-1] = b"".join(parts)
        last, parts = item.index, []
        must(kind in ("entry", "absent", "fragment"), "outcome", kind)
        found.append(item.entry.payload if kind == "entry" else None)
        if kind == "fragment":
            parts = [item.fragment.data]
    if parts:
        found[-1] = b"".join(parts)
    must(len(found) == count, len(found), "items, not", count)
    return found


class GroupWriter(Actor):
    """Gives all keys of a group one stamp at a time, in one batch; others see one stamp or none."""

    def __init__(self, process, number):
        super().__init__(process, number)
        self.groups = [(number * 4 + i, Slot()) for i in range(4)]
        self.wholes = Wholes(process)
        self.stamp = 0

    def turn(self):
        self.stamp += 1
        number, slot = self.dice.choice(self.groups)
        keys = group_keys(number)
        stamp = None
        if self.dice.random() < 0.1:
            method, request = self.writer.BatchDelete, w.BatchDeleteRequest(keys=keys)
        else:
            stamp = self.stamp
            method = self.writer.BatchWrite
            request = w.BatchWriteRequest(items=[
                w.WriteItem(key=key, payload=payload(key, stamp, group_size(number))) for key in keys])
        done = self.ask(method, request, impatience=0.1)[1]
        if done:
            slot.written(stamp)
        elif done is None:
            slot.perhaps(stamp)
        self.look(number, slot)

    def look(self, number, slot):
        keys = group_keys(number)
        kills = self.process.kills
        messages, done = self.stream(self.reader.BatchReadStream, r.BatchReadStreamRequest(keys=keys))
        if not done:
            return 0
        found = collect(messages, len(keys))
        stamps = self.wholes.stamps(number, kills, dict(zip(keys, found)))
        if len(stamps) == 1:
            slot.look(lambda value: value == stamps[0], "group", number, "stamp", stamps)
        must(set(stamps) <= slot.candidates, "group", number, "stamps", stamps, "allowed:", slot.candidates)
        self.checks += 1
        return sum(data is not None for data in found)

    def verify(self):
        for _, slot in self.groups:
            slot.restarted()
        return sum(self.look(number, slot) for number, slot in self.groups)


def group_keys(number):
    return [b"group-%02d-%04d" % (number, i) for i in range(40)]


def group_size(number):
    return (100, 700, 20_000, 60_000)[number % 4]


class Wholes:
    """
    Which batches were seen whole since the daemon was last killed. One that was not answered when that happened may be
    there in part, the first of its entries: the file has no commit mark. Any other is there as a whole or not at all.
    """

    def __init__(self, process):
        self.process = process
        self.seen = {}  # batch: the number of kills before a look at it that found it whole

    def note(self, batch, kills, parts):
        """A look that began after so many kills: `parts` is what it found there of different batches."""
        most = 1 + self.process.kills - self.seen.get(batch, 0)
        must(len(parts) <= most, "a batch saw parts of batches,", batch, parts, "allowed:", most)
        if len(parts) == 1:
            self.seen[batch] = kills

    def stamps(self, number, kills, found):
        """The stamps of a group's payloads, which are given by key; each that follows another one."""
        stamps = [None if found[key] is None else stamp_of(key, found[key]) for key in group_keys(number)]
        runs = [stamp for i, stamp in enumerate(stamps) if i == 0 or stamp != stamps[i - 1]]
        self.note(f"group {number}", kills, runs)
        return runs

    def places(self, pair, kills, answer):
        """At which of its keys a renamed value is: at one of them, or at both."""
        places = [i for i, item in enumerate(answer.items) if item.HasField("entry")]
        must(places, "a renamed value is lost, pair", pair)
        self.note(f"pair {pair}", kills, places)
        must(all(answer.items[i].entry.payload == pair_payload(pair) for i in places), "another value in pair", pair)
        return places


class Mover(Actor):
    """Renames values to and fro between two keys: others see each at one of the two."""

    PAIRS = 8

    def __init__(self, process, number):
        super().__init__(process, number)
        self.places = {pair: Slot(0) for pair in range(self.PAIRS)}  # at which of its keys it is
        self.wholes = Wholes(process)

    def turn(self):
        pair, slot = self.dice.choice(list(self.places.items()))
        place = self.dice.choice(list(slot.candidates))
        keys = pair_keys(pair)
        sure = slot.sure()
        _, done = self.ask(self.writer.Rename, w.RenameRequest(old_key=keys[place], new_key=keys[1 - place]),
                           impatience=0.1, also=[Code.NOT_FOUND])
        must(self.code != Code.NOT_FOUND or not sure, "NOT_FOUND, but", keys[place], "is there")
        if done:
            slot.written(1 - place)
        elif done is None:
            slot.perhaps(1 - place)
        self.look(pair, slot)

    def look(self, pair, slot):
        kills = self.process.kills
        answer, done = self.ask(self.reader.BatchRead, r.BatchReadRequest(keys=pair_keys(pair)))
        if not done:
            return 0
        places = self.wholes.places(pair, kills, answer)
        if len(places) == 1:
            slot.look(lambda value: value == places[0], "pair", pair, "is at", places)
        must(set(places) <= slot.candidates, "pair", pair, "is at", places, "allowed:", slot.candidates)
        self.checks += 1
        return len(places)

    def verify(self):
        for slot in self.places.values():
            slot.restarted()
        return sum(self.look(pair, slot) for pair, slot in self.places.items())


def pair_keys(pair):
    return [b"pair-%02d-left" % pair, b"pair-%02d-right" % pair]


def pair_payload(pair):
    return payload(pair_keys(pair)[0], 1, 5000 + pair)
