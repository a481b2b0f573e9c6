"""What the tool does where the system fails it: one line that says what, status 2, and not a byte of a store lost."""

import fcntl
import os
import resource
import shutil
import socket
import subprocess
import time
import unittest
import zlib
from pathlib import Path

from test_tool import DEADLINE_S, FIXTURES, RDRIVE, ToolTest, run

NOBODY = 65534
VALUE = b"v" * 400_000  # what the disks and limits below have no room for a second time
ROOM = 700_000


def eventually(condition, what):
    """Wait for what no event announces."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {DEADLINE_S} s: {what}")
        time.sleep(0.005)


def file_size_limit(args):
    """What the verb can't do with; a compaction writes less than there is."""
    limit = 100_000 if args[0] == "compact" else ROOM
    return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))}


class Place:
    """A folder, and how the tool is run on it."""

    def __init__(self, folder):
        self.folder = folder  # as the tool knows it
        self.seen = folder    # as we see it
        self.prefix = []      # runs what follows it there
        self.tool = RDRIVE
        self.options = {}

    def path(self, name):
        return str(self.folder / name)

    def bytes(self, name):
        return (self.seen / name).read_bytes()

    def files(self):
        """What lies there, writers' lines apart."""
        return sorted(name for name in os.listdir(self.seen) if not name.endswith(".writer"))

    def run(self, *args, stdin=b"", limits=None):
        return subprocess.run([*self.prefix, self.tool, *args], input=stdin, capture_output=True, timeout=DEADLINE_S,
                              **self.options, **(limits or {}))


class Disk(Place):
    """A small file system in a mount namespace of its own, which a shell keeps."""

    def __init__(self, folder):
        super().__init__(folder)
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        self.shell = subprocess.Popen(["unshare", "--mount", *user, "sh"], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.made = self.does(f"mount -t tmpfs -o size={ROOM} none '{folder}'")
        self.seen = Path(f"/proc/{self.shell.pid}/root{folder}")
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        self.prefix = ["nsenter", "--target", str(self.shell.pid), "--mount", *user]

    def does(self, command):
        try:
            self.shell.stdin.write(f"{command} && echo done || echo failed\n".encode())
            self.shell.stdin.flush()
        except BrokenPipeError:
            return False  # no namespace is to be had here
        return self.shell.stdout.readline() == b"done\n"

    def close(self):
        self.shell.communicate()


class FailureTest(ToolTest):
    def setUp(self):
        super().setUp()
        self.other = str(self.folder / "other.srd")

    def disk(self):
        """A disk with room for ROOM bytes, or None where none may be mounted."""
        folder = self.folder / "disk"
        folder.mkdir()
        disk = Disk(folder)
        self.addCleanup(disk.close)
        return disk if disk.made else None

    def one_line(self, done, says):
        line = done.stderr.decode()
        self.assertEqual(done.returncode, 2, line)
        self.assertRegex(line, r"\Ardrive: [^\n]+\n\Z")
        for part in says:
            self.assertIn(part, line)

    def reading(self, store):
        """Each verb that only reads STORE."""
        return [["info", store], ["get", store, "k"], ["exists", store, "k"], ["metadata", store, "k"],
                ["last", store], ["ls", store], ["export", store], ["verify", store],
                ["repair", store, "--output", str(self.folder / "repaired.srd")],
                ["copy", store, "k", self.other, "--create"]]

    def writing(self, store):
        """Each verb that writes to STORE; `other` has the key k too."""
        return [["put", store, "k2", "v"], ["put", "--create", store, "k2", "v"], ["delete", store, "k"],
                ["rename", store, "k", "k2"], ["import", store], ["compact", store],
                ["copy", self.other, "k", store], ["copy", "--create", self.other, "k", store],
                ["move", self.other, "k", store]]

    def files(self):
        return sorted(name for name in os.listdir(self.folder) if not name.endswith(".writer"))


class NoRoom(FailureTest):
    def fills(self, store, new):
        """Each verb that needs more room beside STORE than there is, and what it must name."""
        return [(["put", store, "big", "-"], (store, 'key "big"')), (["import", store, "-"], (store, "line 1 on")),
                (["rename", store, "k", "l"], (store, 'key "k"')), (["compact", store], (store, "nothing was changed")),
                (["repair", self.other, "--output", new], (self.other, new)),
                (["copy", self.other, "big", store], (self.other, store, 'key "big"')),
                (["move", self.other, "big", store], (self.other, store, 'key "big"')),
                (["copy", self.other, "twice", new, "--create"], (self.other, new, 'key "twice"'))]

    def fill(self, place):
        store = place.path("store.srd")
        for args, value in [(["--create", store, "gone"], b"superseded"), ([store, "gone"], b"newer"),
                            ([store, "k"], VALUE), (["--create", self.other, "big"], VALUE),
                            ([self.other, "twice"], VALUE * 2)]:
            self.assertEqual(place.run("put", *args, stdin=value).stderr, b"")

    def check_no_room(self, place, limits=lambda args: {}):
        self.fill(place)
        before, other_before, files = place.bytes("store.srd"), Path(self.other).read_bytes(), place.files()
        for args, says in self.fills(place.path("store.srd"), place.path("new.srd")):
            with self.subTest(args=args):
                stdin = b"big\t" + VALUE if args[0] == "import" else VALUE
                done = place.run(*args, stdin=stdin, limits=limits(args))
                self.one_line(done, says)
                self.assertRegex(done.stderr, b"no room|No space left|File too large")
                self.assertEqual(place.bytes("store.srd"), before)
                self.assertEqual(Path(self.other).read_bytes(), other_before)
                if "--create" in args:  # it was made, and stayed empty
                    self.assertEqual(place.bytes("new.srd"), b"")
                    (place.seen / "new.srd").unlink()
                self.assertEqual(place.files(), files)
        self.assertEqual(place.run("get", place.path("store.srd"), "k").stdout, VALUE)
        goes_on = place.run("put", place.path("store.srd"), "small", "v", limits=limits(["put"]))
        self.assertEqual((goes_on.returncode, goes_on.stderr), (0, b""))

    def test_a_full_disk_costs_nothing(self):
        disk = self.disk()
        if disk is None:
            self.check_no_room(Place(self.folder), file_size_limit)
        else:
            self.check_no_room(disk)

    def test_a_file_size_limit_costs_nothing(self):
        self.check_no_room(Place(self.folder), file_size_limit)

    def test_where_not_even_the_writers_line_has_room_nothing_is_written(self):
        shutil.copy(FIXTURES / "valid" / "05_deletes.srd", self.store)
        before = Path(self.store).read_bytes()
        done = run("put", self.store, "k", "v",
                   preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)))  # a line has 512 bytes
        self.one_line(done, [self.store, "no room"])
        self.assertEqual(Path(self.store).read_bytes(), before)


class NoPermission(FailureTest):
    def read_only(self):
        """A place with a store of the key k that can't be written, and what that is called."""
        disk = self.disk()
        if disk is not None:
            self.assertEqual(disk.run("put", "--create", disk.path("store.srd"), "k", "v").stderr, b"")
            self.assertTrue(disk.does(f"mount -o remount,ro '{disk.folder}'"))
            return disk, "Read-only file system"
        place = Place(self.folder / "closed")
        place.folder.mkdir()
        self.ok("put", "--create", place.path("store.srd"), "k", "v")
        os.unlink(place.path("store.srd.writer"))
        os.chmod(place.path("store.srd"), 0o444)
        place.folder.chmod(0o555)
        self.addCleanup(place.folder.chmod, 0o755)
        if os.geteuid() == 0:  # who may do all must become somebody else
            self.folder.chmod(0o777)
            place.tool = str(self.folder / "rdrive")
            shutil.copy(RDRIVE, place.tool)  # the build may lie where only its owner goes
            place.options = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        return place, "Permission denied"

    def test_a_read_only_file_system_is_read_and_not_written(self):
        place, why = self.read_only()
        store, new = place.path("store.srd"), place.path("new.srd")
        before = place.bytes("store.srd")
        for args in self.reading(store):
            with self.subTest(args=args):
                done = place.run(*args)
                self.assertEqual((done.returncode, done.stderr), (0, b""))
        makes = [["put", "--create", new, "k", "v"], ["import", new], ["copy", "--create", self.other, "k", new],
                 ["move", "--create", self.other, "k", new], ["repair", self.other, "--output", new]]
        for args in self.writing(store) + makes:
            with self.subTest(args=args):
                self.one_line(place.run(*args, stdin=b"k\tw\n"), [new if args in makes else store, why])
        self.assertEqual(place.bytes("store.srd"), before)
        self.assertEqual(place.files(), ["store.srd"])
        self.assertEqual(self.ok("get", self.other, "k"), b"v")


class OtherGroup(FailureTest):
    """A store of a group that the user who compacts it is not in: needs root, who alone can make one."""

    def compact(self, mode):
        os.chmod(self.store, mode)
        who = {}
        tool = RDRIVE
        if os.geteuid() == 0:
            os.chown(self.store, NOBODY, NOBODY - 1)
            tool = str(self.folder / "rdrive")
            shutil.copy(RDRIVE, tool)  # the build may lie where only its owner goes
            who = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        return subprocess.run([tool, "compact", self.store], capture_output=True, timeout=DEADLINE_S, **who)

    def test_compacting_gives_no_other_group_what_one_had(self):
        self.ok("put", "--create", self.store, "k", "v")
        self.ok("put", self.store, "k", "newer")
        os.unlink(self.store + ".writer")
        self.folder.chmod(0o777)
        before = Path(self.store).read_bytes()
        for mode in 0o640, 0o604:
            done = self.compact(mode)
            if os.geteuid() == 0:
                self.one_line(done, [self.store, f"group, {NOBODY - 1}", "nothing was changed"])
                self.assertEqual(Path(self.store).read_bytes(), before)
                self.assertEqual(os.stat(self.store).st_gid, NOBODY - 1)
            else:
                self.assertEqual((done.returncode, done.stderr), (0, b""))
        done = self.compact(0o644)  # where the group may no more than all, nothing is lost with it
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertLess(os.path.getsize(self.store), len(before))
        self.assertEqual(os.stat(self.store).st_mode & 0o7777, 0o644)


class NoStore(FailureTest):
    def setUp(self):
        super().setUp()
        self.ok("put", "--create", self.other, "k", "v")
        os.unlink(self.other + ".writer")
        self.other_bytes = Path(self.other).read_bytes()

    def refused(self, store, *says, verbs=None):
        """Every verb refuses STORE with one line and changes nothing."""
        before = self.files()
        for args in verbs or self.reading(store) + self.writing(store):
            with self.subTest(args=args):
                self.one_line(run(*args, stdin=b"k\tv\n"), [store, *says])
                self.assertEqual(self.files(), before)
                self.assertEqual(Path(self.other).read_bytes(), self.other_bytes)

    def test_a_missing_directory_is_named_and_not_made(self):
        self.refused(str(self.folder / "none" / "store.srd"), "No such file or directory")
        new = str(self.folder / "none" / "new.srd")
        self.fails(2, "repair", self.other, "--output", new, says=(new, "No such file or directory"))

    def test_a_path_through_a_file_is_named(self):
        self.refused(self.other + "/store.srd", "Not a directory")
        self.fails(2, "repair", self.other, "--output", self.other + "/new.srd", says="Not a directory")

    def test_a_directory_is_no_store(self):
        self.refused(str(self.folder), "not a regular file")

    def test_a_fifo_is_no_store_and_nobody_waits_for_it(self):
        fifo = str(self.folder / "fifo")
        os.mkfifo(fifo)
        self.refused(fifo, "not a regular file")

    def test_a_socket_is_no_store(self):
        with socket.socket(socket.AF_UNIX) as listener:
            os.chdir(self.folder)  # such a path has room for 107 bytes
            listener.bind("socket")
            self.refused(str(self.folder / "socket"), "not a regular file")

    def test_a_device_is_no_store(self):
        self.refused("/dev/null", "not a regular file")

    def test_a_link_that_leads_nowhere_is_no_store(self):
        os.symlink("nowhere", self.folder / "link")
        self.refused(str(self.folder / "link"), "")
        self.assertFalse((self.folder / "nowhere").exists())

    def test_a_file_of_an_old_alignment_is_refused_and_kept(self):
        for alignment in (1, 16):
            data, tail = b"", 0
            for number in range(3):  # F-02 to F-04, with the old alignment
                payload = b"value %d" % number
                pad = -tail % alignment
                data += bytes(pad) + payload + number.to_bytes(8, "little") + tail.to_bytes(8, "little")
                data += zlib.crc32(payload).to_bytes(4, "little")
                tail = len(data)
            store = self.file(f"old{alignment}.srd", data)
            self.refused(store, "simd-r-drive 0.14 or older", "nothing was changed")
            self.assertEqual(Path(store).read_bytes(), data)

    def test_what_is_no_store_is_refused_and_kept(self):
        for name in ["random_4k_2.bin", "all_zero_4k.bin", "a_prepend_1.bin"]:
            store = self.file(name, (FIXTURES / "damaged" / name).read_bytes())
            self.refused(store, "not a simd-r-drive store", "nothing was changed")
            self.assertEqual(Path(store).read_bytes(), (FIXTURES / "damaged" / name).read_bytes())


class SecondWriter(FailureTest):
    def test_every_verb_that_writes_is_refused_while_another_writes(self):
        for store in [self.store, self.other]:
            self.ok("put", "--create", store, "k", "v")
        before = Path(self.store).read_bytes()
        with open(self.store, "rb") as holder:
            fcntl.flock(holder, fcntl.LOCK_EX)
            for args in [*self.writing(self.store), ["move", self.store, "k", self.other]]:
                with self.subTest(args=args):
                    done = run(*args, stdin=b"k\tv\n")
                    self.one_line(done, [self.store, "another process has it open for writing", "open read-only"])
        self.assertEqual(Path(self.store).read_bytes(), before)
        self.assertEqual(self.ok("get", self.other, "k"), b"v")

    def test_every_verb_that_reads_goes_on_while_another_writes(self):
        self.ok("put", "--create", self.store, "k", "v")
        with open(self.store, "rb") as holder:
            fcntl.flock(holder, fcntl.LOCK_EX)
            for args in self.reading(self.store):
                with self.subTest(args=args):
                    self.ok(*args)

    def test_the_refusal_quotes_who_writes(self):
        lines = b"".join(b"key-%d\t%s\n" % (i, b"v" * 1000) for i in range(3000))
        with subprocess.Popen([RDRIVE, "import", self.store], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
            writer.stdin.write(lines)
            writer.stdin.flush()
            who = Path(self.store + ".writer")
            eventually(lambda: who.exists() and b"pid=%d " % writer.pid in who.read_bytes(), "the writer's line")
            for args in [["put", self.store, "k", "v"], ["compact", self.store]]:
                self.fails(2, *args, says=(f"pid {writer.pid} on {os.uname().nodename}", "stop that one"))
            self.assertEqual(writer.communicate(timeout=DEADLINE_S)[1], b"")
        self.assertEqual(writer.returncode, 0)
        self.assertEqual(len(self.ls()), 3000)


class CutWhileRead(FailureTest):
    """The tool stops in the middle, since nobody takes its output; then the file is cut under its mapping."""

    def cut_under(self, *args):
        with subprocess.Popen([RDRIVE, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tool:
            got = tool.stdout.read(1)
            os.truncate(self.store, 0)
            rest, stderr = tool.communicate(timeout=DEADLINE_S)
        self.one_line(subprocess.CompletedProcess(args, tool.returncode, stderr=stderr), [self.store])
        return got + rest, stderr.decode()

    def test_get_ends_with_a_line_and_not_by_a_signal(self):
        self.put("k", b"v" * (8 << 20))
        got, line = self.cut_under("get", self.store, "k")
        self.assertLess(len(got), 8 << 20)
        self.assertIn("the file was cut while it was open", line)

    def test_export_ends_with_a_line_and_half_a_record_that_no_import_takes(self):
        self.put("k", b"v" * (8 << 20))
        got, line = self.cut_under("export", self.store)
        self.assertIn("the file was cut while it was open", line)
        half = self.file("half.jsonl", got)
        self.fails(2, "import", self.other, half, says=("line 1", "not JSON"))

    def test_ls_ends_with_a_line(self):
        self.ok("import", self.store, stdin=b"".join(b"key-%d\tvalue\n" % i for i in range(20_000)))
        self.cut_under("ls", self.store)


if __name__ == "__main__":
    unittest.main()
