"""
A daemon that is asked for everything at once, for as long as is wanted, by clients that check each answer; it is killed
and restarted in the first part, and is to stay as it is in the rest: memory, descriptors, file.

usage: soak.py [SECONDS]    (600) with the environment of the end-to-end tests, which tests/soak/run.sh sets
"""

import collections
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import grpc

import session  # noqa: F401  before what it finds: the modules of the end-to-end tests
from onlookers import FROZEN, frozen
from owners import Mover, pair_keys, pair_payload
from support import KEEP_NOTHING, MIB, SANITIZE, SLOWDOWN, Daemon, eventually, make_store, reader_pb2, tell, tool

WORKERS = (["owner:1", "owner:2", "owner:3", "owner:4", "mover:1"],
           ["groupwriter:0", "groupwriter:1", "compactor:1", "holder:1", "holder:2", "watcher:1"],
           ["reader:1", "reader:2", "reader:3", "slow:1", "slow:2", "quitter:1", "upstart:1"])
ABSENT_AFTER_S = 120  # of a worker that says nothing when it should
RESTART_PART = 0.3    # of the time
RESTART_EVERY_S = 8
SAMPLE_S = 0.25
# What is flat, from the first third of the steady part to the last: memory and descriptors in moments of rest at their
# ends, and the file's median. In a run of ten minutes these moments are almost five apart: 1 MiB a minute is found.
RISES = (("memory at rest", MIB, 3 * MIB * SLOWDOWN), ("descriptors at rest", 1, 2), ("file", MIB, 64 * MIB))
REST_S = 4  # for memory to be given back, and to look at what is left
# Without a client, against a fresh daemon; what the sanitizers keep, they keep.
IDLE_RISE, IDLE_MEMORY_RISE = 2, 1 << 40 if SANITIZE else 16 * MIB
FLAT_FROM_S = 60  # a shorter run has no thirds to speak of


class Failed(Exception):
    pass


class Worker:
    """A process of actors, and what it has said."""

    def __init__(self, soak, address, roles):
        self.soak, self.roles = soak, roles
        self.said, self.awaited = collections.Counter(), collections.Counter()
        self.counted = None
        self.changed = threading.Condition()
        self.process = subprocess.Popen([sys.executable, "-B", str(Path(__file__).with_name("worker.py")), address,
                                         *roles], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.reader = threading.Thread(target=self.listen, daemon=True)
        self.reader.start()

    def listen(self):
        for line in self.process.stdout:
            word, _, rest = line.rstrip("\n").partition(" ")
            if word == "wrong":
                self.soak.fail(rest)
            with self.changed:
                self.said[word] += 1
                if word == "counted":
                    self.counted = json.loads(rest)
                self.changed.notify_all()
        with self.changed:
            self.said["ended"] += 1
            self.changed.notify_all()
        if self.counted is None:
            self.soak.fail(f"the worker of {' '.join(self.roles)} ended before its time")

    def tell(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def await_word(self, word):
        """Once more than before."""
        self.awaited[word] += 1
        with self.changed:
            if not self.changed.wait_for(lambda: self.said[word] >= self.awaited[word] or self.said["ended"],
                                         ABSENT_AFTER_S):
                raise Failed(f"the worker of {' '.join(self.roles)} doesn't say {word!r}")

    def count(self):
        self.process.stdin.close()
        self.await_word("counted")
        return self.counted

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()
        if not self.process.stdin.closed:
            self.process.stdin.close()


class Soak:
    def __init__(self, seconds, folder):
        self.seconds, self.path = seconds, folder / "store.srd"
        self.wrong = []
        self.failed = threading.Event()
        self.samples = []  # of each third: memory, descriptors, file's size
        self.restarts = collections.Counter()
        self.where = f"127.{1 + os.getpid() % 250}.{os.getpid() // 250 % 250}.9:0"  # an address nobody else is at
        self.daemon = None
        self.workers = []

    def fail(self, text):
        self.wrong.append(text)
        self.failed.set()

    def must(self, truth, text):
        if not truth:
            raise Failed(text)

    def wait(self, seconds):
        """Let time pass: it is what a soak is made of."""
        if self.failed.wait(max(0.0, seconds)):
            raise Failed(self.wrong[0])

    # -- the daemon

    def start(self):
        self.daemon = Daemon(self.path, "--writable", "--sync", "always", "--listen", self.where, "--drain-grace", "3",
                             env=KEEP_NOTHING)
        self.where = self.daemon.address()

    def restart(self, number, under_load=True):
        self.daemon.send(number)
        self.daemon.stop(status=0 if number == signal.SIGTERM else -number)
        if number == signal.SIGKILL and under_load:
            self.all_say("killed", "noted")
        self.start()
        self.restarts[number.name] += 1
        self.info()

    def info(self):
        with grpc.insecure_channel(self.where) as channel:
            info = self.daemon.reader_stub(channel).GetStoreInfo(reader_pb2.GetStoreInfoRequest(), timeout=60)
        self.must(info.damaged_entries == 0, f"damage: {info.damaged_ranges}")
        return info

    # -- its course

    def run(self):
        make_store(self.path, {**{key: frozen(key) for key in FROZEN},
                               **{pair_keys(pair)[0]: pair_payload(pair) for pair in range(Mover.PAIRS)}})
        self.start()
        fresh = self.daemon.descriptors(), self.daemon.memory()
        self.workers = [Worker(self, self.where, roles) for roles in WORKERS]
        self.disturb(time.monotonic() + self.seconds * RESTART_PART)
        for worker in self.workers:
            worker.tell("steady")
        thirds = 3 if self.seconds >= FLAT_FROM_S else 1
        for _ in range(thirds):
            size = self.watch(time.monotonic() + self.seconds * (1 - RESTART_PART) / thirds)
            if self.seconds >= FLAT_FROM_S:
                self.samples.append((*self.rest(), size))
        self.all_say("stop", "stopped")
        idle = self.await_idle(fresh)
        self.restart(signal.SIGKILL, under_load=False)
        self.all_say("verify", "verified")
        self.report([worker.count() for worker in self.workers], idle)

    def disturb(self, until):
        numbers = (signal.SIGKILL, signal.SIGTERM)
        pause = min(RESTART_EVERY_S, self.seconds * RESTART_PART / 2)
        while time.monotonic() < until:
            self.wait(pause)
            self.restart(numbers[self.restarts.total() % 2])

    def watch(self, until):
        """Returns: the file's usual size."""
        sizes = []
        while time.monotonic() < until:
            self.wait(SAMPLE_S)
            self.must(self.daemon.process.poll() is None, "the daemon has ended")
            sizes.append(self.path.stat().st_size)
        return statistics.median(sizes)

    def rest(self):
        """Nobody calls, though all stay connected: what the daemon has now it doesn't give back. Returns: memory and
        descriptors."""
        self.all_say("rest", "resting")
        until, seen = time.monotonic() + REST_S, []
        while time.monotonic() < until:
            self.wait(SAMPLE_S)
            seen.append((self.daemon.memory(), self.daemon.descriptors()))
        self.all_say("resume", "resumed")
        return [min(each) for each in zip(*seen)]

    def all_say(self, order, answer):
        for worker in self.workers:
            worker.tell(order)
        for worker in self.workers:
            worker.await_word(answer)
        self.wait(0)

    def await_idle(self, fresh):
        """Once nobody is connected the daemon has open what a fresh one has."""
        eventually(lambda: self.daemon.descriptors() <= fresh[0] + IDLE_RISE, f"{fresh[0]} descriptors as at first")
        eventually(lambda: self.daemon.memory() <= fresh[1] + IDLE_MEMORY_RISE, f"{fresh[1] / MIB} MiB as at first")
        return *fresh, self.daemon.descriptors(), self.daemon.memory()

    # -- its verdict

    def report(self, counted, idle):
        live, expected = self.info().live_keys, len(FROZEN) + sum(each["live"] for each in counted)
        self.must(live == expected, f"{live} keys are there, and {expected} should be")
        self.daemon.stop()
        tool("verify", self.path)
        codes = sum((collections.Counter(each["codes"]) for each in counted), collections.Counter())
        tell(f"{sum(each['calls'] for each in counted)} calls, {sum(each['checks'] for each in counted)} checks, "
             f"{sum(each['compactions'] for each in counted)} compactions, {dict(self.restarts)}, {live} keys at the "
             f"end; {dict(codes)}")
        tell(f"at first {idle[0]} descriptors and {idle[1] / MIB:.1f} MiB, idle {idle[2]} and {idle[3] / MIB:.1f} MiB")
        for (name, unit, rise), seen in zip(RISES, zip(*self.samples)):
            tell(f"{name}: {', '.join(f'{each / unit:.1f}' for each in seen)}")
            self.must(seen[-1] <= seen[0] + rise, f"{name}: it grows")


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    with tempfile.TemporaryDirectory(prefix="rdrive-soak-") as folder:
        soak = Soak(seconds, Path(folder))
        try:
            soak.run()
        except (Failed, AssertionError) as error:
            print(f"soak: FAILED: {error}", *soak.wrong[:10], sep="\n  ", file=sys.stderr)
            if soak.daemon is not None:
                print(soak.daemon.log()[-8000:], file=sys.stderr)
            return 1
        finally:
            for worker in soak.workers:
                worker.kill()
            if soak.daemon is not None and soak.daemon.process.poll() is None:
                soak.daemon.process.kill()
                soak.daemon.process.wait()
    print("soak: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
