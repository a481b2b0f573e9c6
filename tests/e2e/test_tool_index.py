"""The tool's verb `index`, and what --index means to the others."""

import json
import os
import shutil
import stat
import unittest

from test_tool import ToolTest, run

SNAPSHOT, NONE = "snapshot index", "recovered: there is no snapshot index"


class Index(ToolTest):
    def setUp(self):
        super().setUp()
        lines = "".join(f"key-{i}\tvalue {i}\n" for i in range(100))
        self.ok("import", self.store, stdin=lines.encode())

    def source(self, store=None, *options):
        """What opening went by."""
        return json.loads(self.ok("info", store or self.store, "--json", *options))["index"]

    def test_info_says_whether_the_store_was_opened_by_one(self):
        self.assertEqual(self.source(), NONE)
        figures = dict(line.split() for line in self.ok("index", self.store).decode().splitlines())
        index = self.store + ".idx"
        self.assertEqual(figures, {"keys": "100", "bytes": str(os.path.getsize(index)),
                                   "covered_bytes": str(os.path.getsize(self.store))})
        self.assertEqual(stat.S_IMODE(os.stat(index).st_mode), 0o600)
        self.assertEqual(self.source(), SNAPSHOT)
        self.assertEqual(self.source(self.store, "--index", "auto"), SNAPSHOT)
        self.assertEqual(self.source(self.store, "--index=off"), "recovered: no snapshot index was asked for")

    def test_every_verb_answers_the_same_with_and_without(self):
        self.ok("index", self.store)
        for verb, *args in [["get", "key-7"], ["exists", "key-8"], ["metadata", "key-9"], ["last"], ["ls"], ["export"]]:
            with self.subTest(verb=verb):
                self.assertEqual(self.ok(verb, self.store, *args), self.ok(verb, self.store, *args, "--index", "off"))

    def test_what_was_written_since_is_there(self):
        self.ok("index", self.store)
        self.ok("put", self.store, "key-3", "is new")
        self.ok("delete", self.store, "key-4")
        self.ok("rename", self.store, "key-5", "key-3000")
        self.assertEqual(self.source(), SNAPSHOT)
        self.assertEqual(self.ok("get", self.store, "key-3"), b"is new")
        self.fails(1, "get", self.store, "key-4")
        self.assertEqual(self.ok("get", self.store, "key-3000"), b"value 5")
        self.assertEqual(json.loads(self.ok("info", self.store, "--json"))["live_keys"], 99)

    def test_output_puts_it_elsewhere_and_index_names_it(self):
        elsewhere = str(self.folder / "elsewhere")
        for _ in range(2):  # an older one is replaced
            self.ok("index", self.store, "--output", elsewhere)
        self.assertEqual(sorted(os.listdir(self.folder)), ["elsewhere", "store.srd", "store.srd.writer"])
        self.assertEqual(self.source(), NONE)
        self.assertEqual(self.source(self.store, "--index", elsewhere), SNAPSHOT)

    def test_a_copy_of_both_files_keeps_it(self):
        self.ok("index", self.store)
        copy = str(self.folder / "copy.srd")
        shutil.copy(self.store, copy)
        shutil.copy(self.store + ".idx", copy + ".idx")
        self.assertEqual(self.source(copy), SNAPSHOT)

    def test_what_is_no_index_is_not_replaced(self):
        taken = self.file("taken", b"somebody's")
        self.fails(2, "index", self.store, "--output", taken, says=(taken, "move it away"))
        self.fails(2, "index", self.store, "--output", self.store, says="move it away")
        self.assertEqual((self.folder / "taken").read_bytes(), b"somebody's")
        self.fails(2, "index", self.store, "--output", str(self.folder / "none" / "x"), says="No such file or directory")
        self.fails(64, "index", self.store, "--output=", says="allowed")
        self.fails(64, "info", self.store, "--index=", says="allowed")

    def test_an_empty_store_needs_none(self):
        empty = self.file("empty.srd", b"")
        self.fails(1, "index", empty, says="no entry")
        self.assertFalse(os.path.exists(empty + ".idx"))

    def test_verify_and_repair_look_at_the_store_itself(self):
        self.ok("index", self.store)
        with open(self.store, "r+b") as store:
            store.seek(64 * 30)  # a payload's first byte
            store.write(b"X")
        self.assertIn("damaged_ranges", self.fails_with_output(2, "verify", self.store))
        new = str(self.folder / "new.srd")
        self.fails_with_output(2, "repair", self.store, "--output", new)
        self.assertEqual(json.loads(self.ok("info", new, "--json"))["live_keys"], 99)

    def test_damage_that_came_later_is_told_with_what_to_do(self):
        self.ok("import", self.store, stdin="".join(f"{i}\tvalue {i}\n" for i in range(5000)).encode())
        last = json.loads(self.ok("metadata", self.store, "2500", "--json"))["prev_offset"]
        self.ok("index", self.store)
        lists = self.ok("export", self.store)
        modified = os.stat(self.store).st_mtime_ns
        with open(self.store, "r+b") as store:
            store.seek((last + 63) // 64 * 64 + len("value 2500") + 9)  # the link's second byte: it leads elsewhere
            store.write(bytes([(last >> 8 & 255) ^ (last >> 8 & -(last >> 8))]))
        os.utime(self.store, ns=(modified, modified))  # a disk that goes bad tells nobody
        for verb in ["export", "ls", "bench"]:
            with self.subTest(verb=verb):
                done = run(verb, self.store, *(["--operations", "1"] if verb == "bench" else []))
                self.assertEqual(done.returncode, 2)
                self.assertIn(b"more may be missing than is named; again with --index off", done.stderr)
        self.assertEqual(self.ok("export", self.store, "--index", "off"), lists)

    def fails_with_output(self, status, *args):
        done = run(*args)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout.decode()

    def test_importing_many_makes_one(self):
        large = str(self.folder / "large.srd")
        self.ok("import", large, stdin="".join(f"{i}\t{i} is a value\n" for i in range(100000)).encode())
        self.assertEqual(self.source(large), SNAPSHOT)
        self.ok("compact", large)
        self.assertEqual(self.source(large), NONE)
        off = str(self.folder / "off.srd")
        self.ok("import", off, "--index", "off", stdin="".join(f"{i}\t{i} is a value\n" for i in range(100000)).encode())
        self.assertFalse(os.path.exists(off + ".idx"))


if __name__ == "__main__":
    unittest.main()
