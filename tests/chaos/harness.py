"""What the chaos tests share: a daemon over the chaos engine, the engine's control socket, and a store whose content is
known."""

import random
import socket
import sys
import tempfile
import zlib
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "e2e"))
import support  # noqa: E402
from support import BIN, DEADLINE_S, Daemon, DaemonTest, eventually, noise, xxh3  # noqa: E402

SIZES = [2, 7, 100, 100, 1000, 1000, 4000, 16383, 16384, 16385, 70000, 300000]
KEYS = [b"key-%06d" % i for i in range(300)]
ABSENT = [b"absent-%06d" % i for i in range(50)]
LARGE = b"large-000000"  # checked and read by the inner engine's workers: it too answers on other threads then
CHUNK = 64 << 10

# values: what the store holds
values = {LARGE: noise(LARGE, 5 << 20), **{key: noise(i, SIZES[i % len(SIZES)]) for i, key in enumerate(KEYS)}}
HASHES = {key: xxh3(key) for key in [LARGE, *KEYS, *ABSENT]}
folder = tempfile.TemporaryDirectory(prefix="rdrive-chaos-")
STORE = Path(folder.name) / "store.srd"
PROGRAMS = Path(folder.name) / "bin"  # where the chaos daemon goes by the daemon's name


def setup():
    support.make_store(STORE, values)
    PROGRAMS.mkdir()
    (PROGRAMS / "rdrived").symlink_to(BIN / "chaos_daemon")


def teardown():
    folder.cleanup()


class Control:
    """Talks to the engine: see control.c."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE_S)
        eventually(lambda: self.socket.connect_ex(str(path)) == 0, f"{path} listens")
        self.lines = self.socket.makefile("r")

    def ask(self, line):
        self.socket.sendall(line.encode() + b"\n")
        return self.lines.readline().rstrip("\n")

    def tell(self, line):
        answer = self.ask(line)
        if answer != "ok":
            raise AssertionError(f"{line}: {answer!r}")

    def wait(self, name, value):
        """Until that count of the engine's has that value."""
        try:
            self.tell(f"wait {name} {value}")
        except TimeoutError as error:
            raise AssertionError(f"{name} did not become {value}") from error

    def counts(self):
        return counts_of(self.ask("get"))

    def close(self):
        self.lines.close()
        self.socket.close()


def counts_of(line):
    return {name: int(value) for name, value in (field.split("=") for field in line.split() if "=" in field)}


class ChaosDaemon(Daemon):
    """`chaos` configures the engine: delay_us_max=500 is CHAOS_DELAY_US_MAX=500."""

    def __init__(self, *args, chaos, ready=True, store=STORE):
        self.socket_folder = tempfile.TemporaryDirectory(prefix="rdrive-chaos-")
        self.control_path = Path(self.socket_folder.name) / "control"
        env = {f"CHAOS_{name.upper()}": str(value) for name, value in chaos.items()}
        env["CHAOS_CONTROL"] = str(self.control_path)
        with mock.patch.object(support, "BIN", PROGRAMS):
            super().__init__(store, "--chunk-bytes", CHUNK, *args, env=env, ready=ready)
        self._control = None

    @property
    def control(self):
        if self._control is None:
            self._control = Control(self.control_path)
        return self._control

    def stop(self, *args, **options):
        try:
            super().stop(*args, **options)
        finally:
            if self._control is not None:
                self._control.close()
            self.socket_folder.cleanup()

    def end_counts(self):
        """What the engine had counted when it was destroyed."""
        lines = [line for line in self.log().splitlines() if line.startswith("chaos: end ")]
        if len(lines) != 1:
            raise AssertionError("the engine was not destroyed:\n" + self.log())
        return counts_of(lines[0])


class ChaosTest(DaemonTest):
    def chaos(self, *args, **options):
        daemon = ChaosDaemon(*args, **options)
        self.addCleanup(daemon.stop)
        return daemon


# ---- what is true

class Lie(AssertionError):
    """An answer that is not what the store holds."""


def must(condition, *what):
    if not condition:
        raise Lie(" ".join(map(str, what)))


def check_metadata(key, metadata):
    must(metadata.key_hash == HASHES[key] and metadata.checksum == zlib.crc32(values[key]) and not metadata.tombstone,
         key, "metadata", metadata)


def check_entry(key, entry, with_metadata=True):
    must(entry.payload == values.get(key), key, "payload of", len(entry.payload), "bytes")
    must(entry.HasField("metadata") == with_metadata, key, "metadata where there should be none, or none")
    if with_metadata:
        check_metadata(key, entry.metadata)


class Batch:
    """The items of a batch, in whatever messages they came."""

    def __init__(self, keys, omit_metadata, may_be_damaged):
        self.keys, self.with_metadata, self.may_be_damaged = keys, not omit_metadata, may_be_damaged
        self.next, self.partial = 0, b""

    def take(self, items):
        for item in items:
            must(item.index == self.next, "index", item.index, "where", self.next, "was due")
            key, kind = self.keys[item.index], item.WhichOneof("outcome")
            must(not self.partial or kind == "fragment", kind, "in the middle of fragments")
            if kind == "fragment":
                if not self.take_fragment(key, item.fragment):
                    continue
            elif kind == "entry":
                check_entry(key, item.entry, self.with_metadata)
            elif kind == "absent":
                must(key not in values, key, "is there")
            else:
                must(kind == "error" and self.may_be_damaged and item.error.code == 15 and key in values, key, item)
            self.next += 1

    def take_fragment(self, key, fragment):
        """Whether the payload is complete with it."""
        must(fragment.payload_size == len(values[key]), key, "payload_size", fragment.payload_size)
        must(fragment.payload_offset == len(self.partial) and fragment.data, key, "offset", fragment.payload_offset)
        must(fragment.HasField("metadata") == (self.with_metadata and not self.partial), key, "metadata of a fragment")
        self.partial += fragment.data
        must(values[key].startswith(self.partial), key, "fragment's bytes")
        if len(self.partial) < fragment.payload_size:
            return False
        self.partial = b""
        return True

    def end(self):
        must(self.next == len(self.keys) and not self.partial, "ended OK after", self.next, "of", len(self.keys))


def some_keys(dice, most):
    return [dice.choice(KEYS if dice.random() < 0.9 else ABSENT) for _ in range(dice.randint(0, most))]


def dice_of(*seeds):
    return random.Random(repr(seeds))
