"""What a key may hold, as far as those can know who alone write to it, and payloads that say what they are."""

import random
import struct
import time
import zlib

HEADER = struct.Struct("<QIII")
NOISE = random.Random(1).randbytes(12 << 20)
SMALLEST, LARGEST = HEADER.size, 8 << 20
SETTLE_S = 15  # a call that ended without an answer has been carried out by then, or never will be


class Wrong(Exception):
    """An answer that can't be."""


def must(truth, *facts):
    if not truth:
        raise Wrong(" ".join(str(fact)[:300] for fact in facts))


def payload(key, stamp, size):
    """The payload that was written under `key` as its value number `stamp`."""
    start = (stamp * 7919 + zlib.crc32(key)) % (len(NOISE) - size)
    return HEADER.pack(stamp, zlib.crc32(key), size, start) + NOISE[start:start + size - HEADER.size]


def stamp_of(key, data):
    """The number of the value; it must be one of that key's, every byte of it."""
    must(len(data) >= SMALLEST, "no payload of ours under", key, data)
    stamp, _, size, _ = HEADER.unpack_from(data)
    must(len(data) == size <= LARGEST and data == payload(key, stamp, size), "not a value of", key, data[:SMALLEST],
         len(data), "bytes")
    return stamp


class Slot:
    """
    What may be there now: one candidate, unless a call ended without an answer. Such a call may still be carried out
    until SETTLE_S have passed or the daemon has been restarted; afterwards the first look tells which candidate it is.
    A candidate is anything that can be compared; None is absence.
    """

    def __init__(self, value=None):
        self.candidates = {value}
        self.pending = {}  # candidate: until when it may come

    def _late(self):
        now = time.monotonic()
        self.pending = {value: until for value, until in self.pending.items() if until > now}
        return set(self.pending)

    def written(self, *values):
        """It holds one of these, by an answer."""
        self.candidates = set(values) | self._late()

    def perhaps(self, *values):
        """It may come to hold one of these."""
        self.candidates |= set(values)
        for value in values:
            self.pending[value] = time.monotonic() + SETTLE_S

    def restarted(self):
        """What was not carried out never will be."""
        self.pending = {}

    def look(self, matches, *facts):
        """One of the candidates must match what was read. Returns: the one."""
        for value in self.candidates:
            if matches(value):
                if not self._late():
                    self.candidates = {value}
                return value
        raise Wrong(" ".join(str(fact)[:300] for fact in (*facts, "allowed:", self.candidates)))

    def sure(self):
        """Whether there is no doubt."""
        return len(self.candidates) == 1 and not self._late()

    def value(self):
        return next(iter(self.candidates))
